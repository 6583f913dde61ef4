//! The pages say what is so: their blocks are run, parsed and compared, their links followed. CONTRIBUTING.md, "Pages", tells what
//! the words after a fence mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lab::chart;
use lab::sandbox::Sandbox;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_heat-salt-bootstrap");

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the source tree.
fn pages(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            found.extend(pages(&path));
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

struct Block {
    line: usize,
    kind: String,
    text: String,
}

/// The blocks between fences, and what is left without them, line by line.
fn taken_apart(page: &str) -> Result<(Vec<Block>, Vec<&str>), String> {
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(kind) = line.trim_start().strip_prefix("```") else {
            prose.push(line);
            continue;
        };
        let mut block = Block { line: number + 1, kind: kind.trim().to_owned(), text: String::new() };
        loop {
            let (_, line) = lines.next().ok_or_else(|| format!("line {}: the block has no end", number + 1))?;
            if line.trim() == "```" {
                break;
            }
            block.text.push_str(line.get(indent..).unwrap_or_default());
            block.text.push('\n');
        }
        blocks.push(block);
    }
    Ok((blocks, prose))
}

/// Does the text fit, where `...` stands for any text, and on a line of its own for any lines?
fn fits(expected: &[&str], printed: &[&str]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((&"...", rest)) => (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..])),
        Some((line, rest)) => printed.split_first().is_some_and(|(first, others)| line_fits(line, first) && fits(rest, others)),
    }
}

fn line_fits(pattern: &str, line: &str) -> bool {
    let pieces: Vec<&str> = pattern.split("...").collect();
    let Some(mut rest) = line.strip_prefix(pieces[0]) else { return false };
    let [between @ .., last] = &pieces[1..] else { return rest.is_empty() };
    for piece in between {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

fn lines(text: &str) -> Vec<&str> {
    text.trim_end().lines().map(str::trim_end).collect()
}

/// Runs a shell with this as its standard input; its success, and what it printed or, if it failed, complained of.
fn shell(options: &str, script: &str, dir: &Path) -> (bool, String) {
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", Path::new(PROGRAM).parent().unwrap().display());
    let mut command = Command::new("sh");
    command.arg(options).current_dir(dir).env_clear().env("PATH", path).env("HOME", dir).env("LC_ALL", "C");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { (true, out.into_owned()) } else { (false, format!("{out}{err}")) }
}

/// Does the program take this as its configuration?
fn accepted(config: &Value, fragment: Option<&Value>) -> Result<(), String> {
    let machine = Sandbox::configured(PROGRAM, config);
    if let Some(fragment) = fragment {
        machine.write("etc/heat-salt-bootstrap/config.d/10.json", &fragment.to_string());
    }
    let plan = machine.run(&["plan"]);
    if plan.code == 0 { Ok(()) } else { Err(plan.stderr) }
}

/// As GitHub makes a heading's anchor.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

fn anchors(page: &str) -> BTreeSet<String> {
    let (_, prose) = taken_apart(page).unwrap_or_default();
    prose.iter().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// What was looked at, so that nobody takes nothing for no fault.
#[derive(Default)]
struct Seen {
    run: usize,
    compared: usize,
    configurations: usize,
    links: usize,
}

/// All that is wrong with a page.
fn problems(page: &Path, text: &str, seen: &mut Seen) -> Vec<String> {
    let (blocks, prose) = match taken_apart(text) {
        Ok(parts) => parts,
        Err(why) => return vec![why],
    };
    let mut found = Vec::new();
    let scratch = tempfile::tempdir().unwrap();
    let mut printed: Option<String> = None;
    for Block { line, kind, text } in &blocks {
        let last = printed.take();
        match kind.as_str() {
            "" | "text" | "yaml" | "ini" => {}
            "sh" => {
                let (fine, said) = shell("-n", text, scratch.path());
                if !fine {
                    found.push(format!("line {line}: is no shell: {said}"));
                }
            }
            "sh runnable" | "sh runnable tree" => {
                let (fine, said) =
                    shell("-eu", text, if kind.ends_with("tree") { Path::new(env!("CARGO_MANIFEST_DIR")) } else { scratch.path() });
                if !fine {
                    found.push(format!("line {line}: fails: {said}"));
                }
                seen.run += 1;
                printed = Some(said);
            }
            "text output" => match last {
                None => found.push(format!("line {line}: nothing has printed this")),
                Some(printed) => {
                    seen.compared += 1;
                    if !fits(&lines(text), &lines(&printed)) {
                        found.push(format!("line {line}: is not what is printed, which is:\n{printed}"));
                    }
                }
            },
            "json" | "json fragment" => {
                let whole = if kind == "json" { text.clone() } else { format!("{{{text}}}") };
                let base = json!({"minion": {"id": "web-1", "master": "salt", "trust_on_first_use": true}, "accept": "none"});
                let judged = serde_json::from_str::<Value>(&whole)
                    .map_err(|error| error.to_string())
                    .and_then(|value| if kind == "json" { accepted(&value, None) } else { accepted(&base, Some(&value)) });
                seen.configurations += 1;
                if let Err(why) = judged {
                    found.push(format!("line {line}: is no configuration: {why}"));
                }
            }
            other => found.push(format!("line {line}: {other:?} is no kind of block")),
        }
    }
    for line in prose {
        for rest in line.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if target.contains("://") {
                continue;
            }
            seen.links += 1;
            if let Err(why) = followed(page, text, target) {
                found.push(format!("the link to {target}: {why}"));
            }
        }
    }
    found
}

fn followed(page: &Path, text: &str, target: &str) -> Result<(), String> {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = page.parent().unwrap().join(file);
    if !file.is_empty() && !path.exists() {
        return Err("there is no such file".into());
    }
    let there = if file.is_empty() { text.to_owned() } else { fs::read_to_string(&path).unwrap_or_default() };
    if heading.is_empty() || anchors(&there).contains(heading) { Ok(()) } else { Err("there is no such heading".into()) }
}

#[test]
fn every_page_is_right() {
    let (mut all, mut seen) = (Vec::new(), Seen::default());
    for page in pages(&top()) {
        let found = problems(&page, &fs::read_to_string(&page).unwrap(), &mut seen);
        all.extend(found.into_iter().map(|problem| format!("{}: {problem}", page.strip_prefix(top()).unwrap().display())));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
    let Seen { run, compared, configurations, links } = seen;
    assert!(run >= 6 && compared >= 6 && configurations >= 5 && links >= 30, "{run} {compared} {configurations} {links}: are they read?");
}

#[test]
fn what_is_wrong_with_a_page_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.md");
    fs::write(dir.path().join("other.md"), "# Other\n\n## A `b` c-d!\n").unwrap();
    let of = |text: &str| problems(&page, text, &mut Seen::default());
    for right in [
        "```sh runnable\necho one two >x\n```\n\n```sh runnable\ncat x\nheat-salt-bootstrap --version\n```\n\n```text output\none ...\n...\n```\n",
        "# Here\n[a](#here) [b](other.md) [c](other.md#a-b-c-d) [d](https://example.net/nobody-looks)\n",
        "```json fragment\n\"deadline\": \"90s\"\n```\n",
        "   ```sh\n   exec true\n   ```\n",
    ] {
        assert_eq!(of(right), Vec::<String>::new(), "{right}");
    }
    for (wrong, said) in [
        ("```sh runnable\nfalse\n```\n", "line 1: fails"),
        ("```sh runnable\necho one\n```\n```text output\ntwo\n```\n", "is not what is printed"),
        ("```sh runnable\necho one; echo two\n```\n```text output\none\n```\n", "is not what is printed"),
        ("```sh runnable\necho $nothing\n```\n", "fails"),
        ("```text output\none\n```\n", "nothing has printed"),
        ("```sh\nif\n```\n", "is no shell"),
        ("```sh runable\ntrue\n```\n", "no kind of block"),
        ("```sh\ntrue\n", "has no end"),
        ("```json\n{,}\n```\n", "is no configuration"),
        ("```json\n{\"minion\": {}}\n```\n", "minion.master"),
        ("```json fragment\n\"nobody\": 1\n```\n", "unknown key"),
        ("[a](nothing.md)\n", "no such file"),
        ("[a](other.md#nothing)\n", "no such heading"),
        ("```text\n# Here\n```\n[a](#here)\n", "no such heading"),
    ] {
        let found = of(wrong);
        assert!(found.len() == 1 && found[0].contains(said), "{wrong}: {found:?}");
    }
}

/// The keys that the program reads, by its own complaints about one that it does not know.
fn keys_of_the_program() -> BTreeSet<String> {
    let odd = json!({"zzz": 0, "accept": "enroll", "minion": {"zzz": 0}, "install": {"zzz": 0, "repository": {"zzz": 0}}, "api": {"zzz": 0},
        "enroll": {"zzz": 0}, "apply": {"zzz": 0}});
    let said = accepted(&odd, None).unwrap_err();
    let mut keys = BTreeSet::new();
    let mut before = "";
    for part in said.split("zzz: unknown key; known here are ") {
        if !before.is_empty() {
            let section = before.rsplit(' ').next().unwrap_or_default();
            let list = part.split([';', '\n']).next().unwrap_or_default().split(" (code").next().unwrap_or_default();
            keys.extend(list.split(", ").map(|key| format!("{section}{}", key.trim())));
        }
        before = part;
    }
    // A section is its keys.
    let sections: BTreeSet<String> = keys.iter().filter_map(|key| Some(key.rsplit_once('.')?.0.to_owned())).collect();
    &keys - &sections
}

#[test]
fn the_table_of_the_configuration_has_the_keys_of_the_program() {
    let page = fs::read_to_string(top().join("docs/configuration.md")).unwrap();
    let rows = page.split("\n## ").next().unwrap().lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let documented: BTreeSet<String> = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect();
    let known = keys_of_the_program();
    assert!(known.len() > 25 && known.contains("install.repository.url") && known.contains("deadline"), "{known:?}");
    let (missing, invented) = (&known - &documented, &documented - &known);
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:?}; not of the program: {invented:?}");
}

/// Is there a case of this name? A suite with a directory lists its cases as texts, the others are functions.
fn exists(suite: &str, name: &str) -> bool {
    let tests = top().join("tests");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let (before, last) = name.rsplit_once("::").unwrap_or(("", name));
    match suite {
        "lib" => read(top().join(format!("src/{}.rs", before.replace("::", "/")))).contains(&format!("    #[test]\n    fn {last}()")),
        "salt" => {
            let text = read(tests.join(format!("salt/{before}.rs")));
            // A row of faults is named by its step.
            let is_named = [format!("(\"{last}\", "), format!(" => \"{last}\",")].iter().any(|form| text.contains(form));
            // The lanes of the soak have numbers.
            is_named || (before == "soak" && read(tests.join("salt/kills.rs")).contains(&format!("soak::{last}_{{number}}")))
        }
        "extension" => read(top().join(format!("salt-extension/tests/{before}.py"))).contains(&format!("\ndef {last}(")),
        "install" | "heat" | "services" => {
            let theme = read(tests.join(format!("{suite}/{before}.rs")));
            let mut files = fs::read_dir(tests.join(suite)).unwrap().flatten();
            // Of a row of them each is named by its tool.
            let one_of = name.rsplit_once('_').map(|(row, _)| format!("\"{row}_{{"));
            theme.contains(&format!("(\"{last}\", "))
                || one_of.is_some_and(|form| theme.contains(&form))
                || files.any(|file| read(file.path()).contains(&format!("(\"{name}\", ")))
        }
        _ => read(tests.join(format!("{suite}.rs"))).contains(&format!("fn {name}(")),
    }
}

/// Looks up the cases in the last column of a page's tables, and says how many there are.
fn cases_exist(page: &str) -> usize {
    let page = fs::read_to_string(top().join(page)).unwrap();
    let mut seen = 0;
    let is_head = |line: &str| ["| situation", "| bound", "| event", "| what happens"].iter().any(|head| line.starts_with(head));
    let (mut columns, mut of_ways) = (0, false);
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        if is_head(row) {
            columns = cells.len();
            of_ways = row.starts_with("| what happens");
            continue;
        }
        assert_eq!(cells.len(), columns, "{row}");
        let named = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        // Each cell of such a table was tried, or says why not.
        if of_ways {
            for cell in &cells[1..] {
                assert!(!named(cell).is_empty() || *cell == "as by hand" || cell.starts_with("not tried: "), "{cell:?}: {row}");
            }
        }
        let cases = if of_ways { cells[1..].iter().flat_map(|cell| named(cell)).collect() } else { named(cells[columns - 1]) };
        assert!(!cases.is_empty() || of_ways && cells[columns - 1].starts_with("not tried: "), "no case: {row}");
        for case in &cases {
            let (suite, name) = case.split_once(' ').unwrap_or_else(|| panic!("{case}: a suite, and a name there"));
            assert!(exists(suite, name), "there is no case {case}");
            seen += 1;
        }
    }
    seen
}

#[test]
fn the_cases_that_pages_name_exist() {
    for (page, least) in [("docs/verdicts.md", 90), ("docs/life.md", 40)] {
        let seen = cases_exist(page);
        assert!(seen >= least, "{page}: only {seen} were found: are they read?");
    }
    for nobody in [
        "lib minion::job::nobody",
        "salt states::nobody",
        "salt soak::nobody",
        "install nobody",
        "heat nobody",
        "services nobody",
        "extension test_gone::nobody",
        "notify nobody",
        "nobody nobody",
    ] {
        let (suite, name) = nobody.split_once(' ').unwrap();
        assert!(!exists(suite, name), "{nobody}");
    }
}

/// The parameters of a template that it cannot do without (true), and the others. Read line by line, as they are written here.
fn parameters(template: &str) -> BTreeMap<&str, bool> {
    let lines = template.lines().skip_while(|line| *line != "parameters:").skip(1);
    let mut found = BTreeMap::new();
    let mut last = "";
    for line in lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
        match line.strip_prefix("  ") {
            Some(name) if !name.starts_with([' ', '#']) => {
                last = name.split(':').next().unwrap();
                found.insert(last, !name.contains("default:"));
            }
            Some(key) if key.starts_with("  default:") => drop(found.insert(last, false)),
            _ => (),
        }
    }
    found
}

/// What a page tells Heat has a template to go with it that takes it, and lacks nothing.
#[test]
fn stacks_of_the_pages_are_those_of_the_templates() {
    let mut stacks = 0;
    for path in pages(&top()) {
        let page = fs::read_to_string(&path).unwrap();
        for block in taken_apart(&page).unwrap().0 {
            let text = block.text.replace("\\\n", " ");
            for line in text.lines().filter(|line| line.starts_with("openstack stack create ")) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let after = |flag: &str| -> Vec<&str> { words.windows(2).filter(|two| two[0] == flag).map(|two| two[1]).collect() };
                let template = fs::read_to_string(top().join("cloud-init").join(after("--template")[0])).unwrap();
                let known = parameters(&template);
                let given: Vec<&str> = after("--parameter").iter().map(|word| word.split_once('=').expect(word).0).collect();
                assert!(!given.is_empty() && given.iter().all(|name| known.contains_key(name)), "{given:?} of {known:?}: {line}");
                let missing: Vec<_> = known.iter().filter(|(name, needed)| **needed && !given.contains(*name)).collect();
                assert!(missing.is_empty(), "{missing:?} has no default: {line}");
                stacks += 1;
            }
        }
    }
    assert!(stacks > 0, "is the command read?");
}

#[test]
fn the_oldest_heat_is_that_of_the_templates() {
    let page = fs::read_to_string(top().join("docs/heat.md")).unwrap();
    let (_, rest) = page.split_once("They are of `heat_template_version` ").expect("docs/heat.md says which");
    let named = rest.split(':').next().unwrap();
    let mut templates = 0;
    for entry in fs::read_dir(top().join("cloud-init")).unwrap().map(Result::unwrap) {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        if let Some(version) = text.lines().find_map(|line| line.strip_prefix("heat_template_version: ")) {
            assert_eq!(version, named, "{}", entry.path().display());
            templates += 1;
        }
    }
    assert_eq!(templates, 5);
}

/// What the page of figures says of itself, in a tree with the page, its drawing, the files of what was measured, and the script.
fn figures_are_right(tree: &Path) -> bool {
    let mut check = Command::new("python3");
    check.arg(tree.join("salt-extension/tests/scaling.py")).arg("check").env("PYTHONDONTWRITEBYTECODE", "1");
    check.output().unwrap().status.success()
}

#[test]
fn figures_are_those_of_the_files_that_measuring_wrote() {
    assert!(figures_are_right(&top()), "docs/scaling.md or a drawing of it is another: python3 salt-extension/tests/scaling.py write");

    let copy = tempfile::tempdir().unwrap();
    let files =
        ["docs", "salt-extension/tests/measured"].map(|dir| fs::read_dir(top().join(dir)).unwrap().map(|entry| entry.unwrap().path()));
    let sources = ["tests/scaling.py", "tests/chart.py", "tests/simulate.py", "src/saltext/heat_bootstrap/waiting.py"];
    let sources = sources.map(|name| top().join("salt-extension").join(name));
    for file in files.into_iter().flatten().filter(|path| path.is_file()).chain(sources) {
        let to = copy.path().join(file.strip_prefix(top()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&file, &to).unwrap();
    }
    assert!(figures_are_right(copy.path()));
    let page = copy.path().join("docs/scaling.md");
    let text = fs::read_to_string(&page).unwrap();
    // One figure of each table, one of the prose, one of the drawing, and one of the files.
    for (file, figure) in [
        ("docs/scaling.md", "| 3082 |"),
        ("docs/scaling.md", "| enroll | 9.1 |"),
        ("docs/scaling.md", "| 44,690 |"),
        ("docs/scaling.md", "takes 149 ms of"),
        ("docs/herd.svg", ">1000<"),
        ("salt-extension/tests/measured/herd-master.json", "\"count\": 1000"),
        ("docs/scaling.md", "| 100,000 | 2.4 |"),
        ("docs/herd-beside.svg", ">100<"),
        ("salt-extension/tests/simulate.py", "= 1"),
    ] {
        let path = copy.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(figure), "{file} has no {figure}");
        fs::write(&path, text.replacen(figure, &figure.replace(|digit: char| digit.is_ascii_digit(), "7"), 1)).unwrap();
        assert!(!figures_are_right(copy.path()), "{figure} may be any other in {file}");
        fs::write(&path, text).unwrap();
    }
    fs::write(&page, text).unwrap();
    assert!(figures_are_right(copy.path()));
}

#[test]
fn times_are_those_that_the_benchmark_wrote() {
    let read = |name: &str| fs::read_to_string(top().join(name)).unwrap();
    let mut measured: Value = serde_json::from_str(&read("docs/bench.json")).unwrap();
    let of = |measured: &Value| (chart::placed(&read("README.md"), measured), chart::drawing(measured));
    if std::env::var_os("HSB_WRITE").is_some() {
        let (page, drawing) = of(&measured);
        fs::write(top().join("README.md"), page.unwrap()).unwrap();
        fs::write(top().join("docs/bench.svg"), drawing).unwrap();
    }
    let shown = (Some(read("README.md")), read("docs/bench.svg"));
    let how = "HSB_WRITE=1 cargo test --test docs times writes them anew, make bench measures anew";
    assert!(of(&measured) == shown, "README.md or docs/bench.svg shows something else than docs/bench.json: {how}");
    let ways = measured["ways"].as_array_mut().unwrap();
    assert!(ways.len() > 4);
    ways[0]["median"] = 77.7.into();
    let (page, drawing) = of(&measured);
    assert!(page != shown.0 && drawing != shown.1);
}

#[test]
fn sizes_are_those_that_are_enforced() {
    let makefile = fs::read_to_string(top().join("Makefile")).unwrap();
    let page = fs::read_to_string(top().join("CONTRIBUTING.md")).unwrap().replace('\n', " ");
    let mut most = Vec::new();
    for machine in ["x86_64", "aarch64"] {
        let line = makefile.lines().find_map(|line| line.strip_prefix(&format!("MOST_{machine}_small := "))).unwrap();
        for bytes in line.split(' ') {
            let (millions, rest) = bytes.split_at(bytes.len() - 6.min(bytes.len()));
            let (thousands, units) = rest.split_at(rest.len() - 3);
            most.push([millions, thousands, units].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(","));
        }
    }
    let [program, packed, other, other_packed] = &most[..] else { panic!("{most:?}") };
    for said in [format!("({program} bytes at most, {packed} as xz)"), format!("(that for aarch64 {other} and {other_packed})")] {
        assert!(page.contains(&said), "CONTRIBUTING.md does not say {said}");
    }
}

/// All that the program, fetch.sh and the service may say, on one line.
fn sayings() -> String {
    fn below(dir: &Path, text: &mut String) {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                below(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "py") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = fs::read_to_string(top().join("cloud-init/fetch.sh")).unwrap();
    below(&top().join("src"), &mut text);
    below(&top().join("salt-extension/src"), &mut text);
    // In Python one text may stand on two lines.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("\\\"", "\"").replace("\" f\"", "").replace("\" \"", "")
}

/// The parts of a message that are the same for everybody: runs of at least four words, without what is of the example.
fn fixed_parts(message: &str) -> Vec<String> {
    let is_of_the_example = |word: &str| {
        let marks = ["/", "`", "\"", "'", "...", "web-1", "memcached", ".example.", "salt-minion", "HTTP", "SIG", "key.", "#"];
        // The verbs of the service, steps, the state of a key, seconds.
        let names = ["enroll", "enroll:", "install:", "install", "accepted", "s", "s,", "s:"];
        word.contains(|letter: char| letter.is_ascii_digit())
            || (marks.iter().any(|mark| word.contains(mark)) && !["master's", "minion's", "machine's", "CA's"].contains(&word))
            || names.contains(&word)
    };
    let message = [" (tried ", " (code "].iter().fold(message, |message, end| message.split(end).next().unwrap());
    let mut parts = vec![Vec::new()];
    for word in message.split_whitespace() {
        if is_of_the_example(word) {
            parts.push(Vec::new());
            continue;
        }
        parts.last_mut().unwrap().push(word);
        if word.ends_with(':') || word == "error" {
            parts.push(Vec::new());
        }
    }
    let long = parts.into_iter().filter(|words| words.len() >= 4);
    long.map(|words| words.join(" ").trim_end_matches([':', ',', '.', ')']).to_owned()).collect()
}

/// What a page of a failure quotes: in its blocks, and within its sentences where it is no command with options.
fn quoted(page: &str) -> Vec<String> {
    let (blocks, prose) = taken_apart(page).unwrap();
    let mut found = Vec::new();
    for Block { text, .. } in blocks.iter().filter(|block| block.kind == "text") {
        if text.starts_with("WaitCondition") {
            let line = lines(text).join(" ");
            found.push(line.split(" (step ").next().unwrap().to_owned());
        } else if !text.starts_with("TIME ") {
            found.extend(lines(text).into_iter().map(|line| line.trim().trim_start_matches("what to do: ").to_owned()));
        }
    }
    let spans = prose.join("\n");
    let spans = spans.split('`').skip(1).step_by(2).map(|span| span.split(" (step ").next().unwrap().to_owned());
    found.extend(spans.filter(|span| !span.split_whitespace().any(|word| word.starts_with('-') || word.starts_with("\\|"))));
    found
}

#[test]
fn what_the_pages_of_failures_quote_is_said() {
    // What the system and Salt say, and what is put together of two.
    const OTHERS: [&str; 5] = [
        "Connection refused (os error",
        "No space left on device",
        "No matching sls found",
        "One or more requisite",
        "on the master, so this minion's key is denied",
    ];
    let (sayings, mut seen, mut invented) = (sayings(), 0, Vec::new());
    for page in pages(&top().join("docs/debugging")) {
        for part in quoted(&fs::read_to_string(&page).unwrap()).iter().flat_map(|message| fixed_parts(message)) {
            seen += 1;
            if !sayings.contains(&part) && !OTHERS.iter().any(|other| part.starts_with(other)) {
                invented.push(format!("{}: {part}", page.file_name().unwrap().display()));
            }
        }
    }
    assert!(invented.is_empty(), "nobody says:\n{}", invented.join("\n"));
    assert!(seen > 80, "{seen}: are they read?");
}
