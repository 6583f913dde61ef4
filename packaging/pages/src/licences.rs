//! The licences of what is linked into the program, with their full texts, as they lie in the crates. A crate that brings none is an
//! error: what is shipped without its licence must not be shipped. And two lists of these crates in the form in which Fedora's tools
//! read and write them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// What every build of the package is for, as far as dependencies go: those of musl and of the GNU libc are the same.
const TARGET: &str = "x86_64-unknown-linux-musl";
const PROGRAM: &str = "heat-salt-bootstrap";
/// What the tool chain links besides the crates.
const TOOL_CHAIN: &str = include_str!("../../licences/tool-chain.txt");

/// The files: all texts, each crate's licence, and what crates there are.
pub fn files() -> anyhow::Result<[(&'static str, String); 3]> {
    let (own, others): (Vec<_>, Vec<_>) = linked()?.into_iter().partition(|package| package["name"] == PROGRAM);
    let breakdown = breakdown(own.iter().chain(&others))?;
    Ok([("THIRD-PARTY-LICENSES", texts(&others)?), ("LICENSE.dependencies", breakdown), ("cargo-vendor.txt", manifest(&others)?)])
}

/// As `cargo2rpm license-breakdown` prints it (the macro %cargo_license): an expression, and whose it is; our own is among them.
fn breakdown<'a>(linked: impl Iterator<Item = &'a Value>) -> anyhow::Result<String> {
    let mut lines = BTreeSet::new();
    for package in linked {
        // Crates of old write MIT/Apache-2.0, which is no SPDX expression.
        let licence = field(package, "license")?.replace(" / ", "/").replace('/', " OR ");
        lines.insert(format!("{licence}: {}", named(package)?));
    }
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

/// As `cargo2rpm write-vendor-manifest` does (the macro %cargo_vendor_manifest); RPM makes of each line that a crate is bundled.
fn manifest(linked: &[Value]) -> anyhow::Result<String> {
    let lines: BTreeSet<String> = linked.iter().map(named).collect::<anyhow::Result<_>>()?;
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

/// As cargo names a package of a registry.
fn named(package: &Value) -> anyhow::Result<String> {
    Ok(format!("{} v{}", field(package, "name")?, field(package, "version")?))
}

fn field<'a>(package: &'a Value, key: &str) -> anyhow::Result<&'a str> {
    package[key].as_str().with_context(|| format!("{key} of {package}"))
}

fn texts(linked: &[Value]) -> anyhow::Result<String> {
    let mut packages = String::new();
    // A text that many crates share stands there once.
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in linked {
        let name = format!("{} {}", field(package, "name")?, field(package, "version")?);
        packages.push_str(&format!("{name}: {}\n", field(package, "license")?));
        let dir = Path::new(field(package, "manifest_path")?).parent().unwrap_or(Path::new("/"));
        let found = licence_files(dir)?;
        ensure!(!found.is_empty(), "{name} brings no text of its licence ({})", dir.display());
        for text in found {
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    let mut all = format!("heat-salt-bootstrap is linked with these Rust crates, and with what its tool chain brings:\n\n{packages}");
    let rule = "=".repeat(100);
    for (text, users) in &texts {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        all.push_str(&format!("\n{rule}\nOf {}:\n\n{}\n", users.join(", "), text.trim_end()));
    }
    all.push_str(&format!("\n{rule}\n{TOOL_CHAIN}"));
    Ok(all)
}

/// What is linked, the program itself among it, and where it lies. `cargo metadata` alone would not do: it knows only the features that all crates of the workspace,
/// the tests' own among them, want together.
fn linked() -> anyhow::Result<Vec<Value>> {
    let words =
        ["tree", "--package", PROGRAM, "--target", TARGET, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(&words)?;
    let names: BTreeSet<(&str, &str)> =
        tree.lines().filter_map(|line| line.split_once(" v")).map(|(name, rest)| (name, first(rest))).collect();
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])?)?;
    let mut found = Vec::new();
    for (name, version) in names {
        let mut packages = metadata["packages"].as_array().into_iter().flatten();
        let package = packages.find(|package| package["name"] == name && package["version"] == version);
        found.push(package.with_context(|| format!("cargo does not say where {name} {version} lies"))?.clone());
    }
    ensure!(found.len() > 20, "cargo tree names {} crates only: is it read?", found.len());
    Ok(found)
}

fn first(words: &str) -> &str {
    words.split(' ').next().unwrap_or_default()
}

fn cargo(words: &[&str]) -> anyhow::Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).arg("--locked").current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let output = command.output().with_context(|| format!("cargo {}", words[0]))?;
    if !output.status.success() {
        bail!("cargo {}: {}", words[0], String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn licence_files(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir).with_context(|| format!("{}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_uppercase();
        if ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "UNLICENSE", "NOTICE"].iter().any(|word| name.starts_with(word))
            && entry.path().is_file()
        {
            names.insert(entry.path());
        }
    }
    names.into_iter().map(|path| fs::read_to_string(&path).with_context(|| format!("{}", path.display()))).collect()
}
