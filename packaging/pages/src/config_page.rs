//! heat-salt-bootstrap-config(5): docs/configuration.md, which a test compares with the program, in another form.

use anyhow::bail;

use crate::Day;
use crate::roff::Page;

const NAME: &str = "heat-salt-bootstrap-config";
const SOURCE: &str = include_str!("../../../docs/configuration.md");

/// The page.
pub fn page(day: &Day) -> anyhow::Result<String> {
    let mut page = Page::new(NAME, 5, "the configuration of heat-salt-bootstrap", day);
    page.heading("Description");
    let mut lines = SOURCE.lines().skip_while(|line| !line.starts_with("# ")).skip(1).peekable();
    while let Some(line) = lines.next() {
        // The text of a paragraph or of a point goes on in the lines below it.
        let mut whole = || {
            let mut text = line.to_owned();
            while let Some(more) = lines.next_if(|next| !next.is_empty() && !begins(next)) {
                text = format!("{text} {}", more.trim());
            }
            text
        };
        if line.is_empty() {
            continue;
        } else if let Some(title) = line.strip_prefix("## ") {
            page.heading(title);
        } else if let Some(title) = line.strip_prefix("### ") {
            page.subheading(title);
        } else if line.starts_with("| ") {
            // The head of a table, and the line below it.
            let head = lines.next();
            if !head.is_some_and(|line| line.starts_with("|---")) {
                bail!("docs/configuration.md has a table without a head: {line}");
            }
            while let Some(row) = lines.next_if(|next| next.starts_with("| ")) {
                let [term, others @ ..] = &cells(row)[..] else { bail!("docs/configuration.md has an empty row") };
                page.item(term, &others.join(". "));
            }
        } else if line.starts_with("```") {
            let mut block = String::new();
            for line in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                block.push_str(line);
                block.push('\n');
            }
            page.verbatim(&block);
        } else if line.starts_with("- ") {
            page.point(&whole()[2..]);
        } else {
            page.paragraph(&whole());
        }
    }
    page.heading("See also");
    page.paragraph("`heat-salt-bootstrap`(1)");
    Ok(page.done())
}

fn begins(line: &str) -> bool {
    ["#", "| ", "```", "- "].iter().any(|start| line.starts_with(start))
}

fn cells(row: &str) -> Vec<String> {
    row.trim_matches(['|', ' ']).split(" | ").map(|cell| cell.trim().to_owned()).collect()
}
