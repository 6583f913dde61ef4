//! What a benchmark has measured, as a table and as a drawing: both are made of the file that the measuring wrote, so that a test can hold
//! pages to it.

use std::fmt::Write as _;

use serde_json::Value;

/// Where a page has the table: between these two lines.
const BEGINS: &str = "<!-- of docs/bench.json, by `make bench` -->\n";
const ENDS: &str = "<!-- end of docs/bench.json -->\n";

const WIDTH: f64 = 860.0;
const LEFT: f64 = 370.0;
const ROW: f64 = 30.0;
const TOP: f64 = 50.0;

/// The page with the table of what was measured in its place; without such a place there is none.
pub fn placed(page: &str, measured: &Value) -> Option<String> {
    let (before, rest) = page.split_once(BEGINS)?;
    let (_, after) = rest.split_once(ENDS)?;
    Some(format!("{before}{BEGINS}{}{ENDS}{after}", table(measured)))
}

fn table(measured: &Value) -> String {
    let mut text = String::from("| from its start to the known result of the states | seconds (least to most) |\n|---|---|\n");
    for way in ways(measured) {
        let [median, least, most] = ["median", "least", "most"].map(|name| way[name].as_f64().unwrap_or_default());
        let _ = writeln!(text, "| {} | {median:.1} ({least:.1} to {most:.1}) |", way["name"].as_str().unwrap_or_default());
    }
    let number = |name: &str| measured[name].as_f64().unwrap_or_default();
    let _ = writeln!(
        text,
        "\nBy token it takes {:.2} times the floor with a key placed beforehand, and {:.2} times if its key pair is there beforehand too, for making\none takes 0.1 to 0.4 s, by chance; by the classic chain it takes {:.2} times the floor of that. Of this machine's time it takes {:.0} ms,\nand {:.1} MB of its memory. ({}.)",
        number("enroll_by_floor"),
        number("keyed_by_floor"),
        number("classic_by_floor"),
        number("cpu_ms"),
        number("memory_mb"),
        measured["how"].as_str().unwrap_or_default(),
    );
    text
}

/// A bar for each way, as long as its median, and a line from its least to its most.
pub fn drawing(measured: &Value) -> String {
    let ways = ways(measured);
    let longest = ways.iter().filter_map(|way| way["most"].as_f64()).fold(1.0, f64::max);
    let height = TOP + ROW * ways.len() as f64 + 30.0;
    let at = |seconds: f64| LEFT + (WIDTH - LEFT - 70.0) * seconds / longest;
    let title = format!("Seconds from start to known result. {}", measured["how"].as_str().unwrap_or_default());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n<text x=\"12\" y=\"26\" font-size=\"14\">{title}</text>\n"
    );
    for (row, way) in ways.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let [median, least, most] = ["median", "least", "most"].map(|name| way[name].as_f64().unwrap_or_default());
        let colour = match way["kind"].as_str() {
            Some("agent") => "#0072b2",
            Some("floor") => "#999999",
            _ => "#d55e00",
        };
        let middle = y + ROW / 2.0 - 3.0;
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"18\" fill=\"{colour}\"/>\n\
             <path d=\"M{:.1} {middle:.1}H{:.1}\" stroke=\"#000000\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{median:.1}</text>\n",
            LEFT - 8.0,
            y + 16.0,
            way["name"].as_str().unwrap_or_default().replace('`', ""),
            y + 3.0,
            at(median) - LEFT,
            at(least),
            at(most),
            at(most) + 6.0,
            y + 16.0,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn ways(measured: &Value) -> Vec<Value> {
    measured["ways"].as_array().cloned().unwrap_or_default()
}
