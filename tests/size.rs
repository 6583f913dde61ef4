//! `make size` tells what a program is made of; here it is asked about this one, as it is linked for tests.

use std::process::Command;

fn by_crate(program: &str) -> std::process::Output {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/by_crate.sh")).arg(program).output().unwrap()
}

#[test]
fn the_crates_make_up_the_code() {
    let output = by_crate(env!("CARGO_BIN_EXE_heat-salt-bootstrap"));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}{}", String::from_utf8_lossy(&output.stderr));
    let mut rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let total = rows.pop().unwrap();
    let code = |row: &Vec<&str>| row[0].parse::<f64>().unwrap();
    let sum: f64 = rows.iter().map(code).sum();
    assert_eq!(sum, code(&total), "{table}");
    // What has no name is between functions, or the linker's.
    let text: f64 = total[5].parse().unwrap();
    assert!((0.95..=1.0).contains(&(sum / text)), "{sum} of {text} bytes have names:\n{table}");
    // The largest first, and the ones that everybody expects.
    assert!(rows.windows(2).all(|two| code(&two[0]) >= code(&two[1])), "{table}");
    for named in ["heat_salt_bootstrap", "core", "std", "rustls", "serde_json", "clap_builder", "ureq"] {
        assert!(rows.iter().any(|row| row[2] == named && code(row) > 10_000.0), "{named}:\n{table}");
    }
}

#[test]
fn a_program_without_names_is_no_table_of_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let stripped = dir.path().join("stripped");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(env!("CARGO_BIN_EXE_heat-salt-bootstrap")).status().unwrap();
    assert!(strip.success());
    let output = by_crate(stripped.to_str().unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("no names"), "{said}");
}
