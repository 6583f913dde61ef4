//! The tree of dependencies is what deny.toml allows: licences, sources, no crate twice, no version that is known to be faulty.
//! cargo-deny reads the same file; this needs neither it nor a network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use semver::{Version, VersionReq};
use serde_json::Value;
use toml::Table;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn policy() -> Table {
    std::fs::read_to_string(top().join("deny.toml")).unwrap().parse().unwrap()
}

fn metadata(manifest: &str) -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version=1", "--locked"]);
    for target in policy()["graph"]["targets"].as_array().unwrap() {
        command.args(["--filter-platform", target.as_str().unwrap()]);
    }
    let output = command.arg("--manifest-path").arg(top().join(manifest)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Is one of the alternatives allowed as a whole? SPDX expressions as crates write them: AND binds more than OR, `/` is an old OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    // Without parentheses around the whole or an alternative there is nothing that this could misread.
    let alternatives = expression.replace('/', " OR ");
    alternatives.split(" OR ").any(|all| all.split(" AND ").all(|one| allowed.contains(one.trim().trim_matches(['(', ')']))))
}

#[test]
fn licences_and_sources_are_allowed() {
    let policy = policy();
    let allowed: BTreeSet<&str> = policy["licenses"]["allow"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    let mut seen = 0;
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        for package in metadata(manifest)["packages"].as_array().unwrap() {
            let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or("none"));
            assert!(is_allowed(licence, &allowed), "{name}: {licence}");
            // The workspace's own have no source; crates.io is the only one that others may have.
            let source = package["source"].as_str();
            assert!(
                source.is_none_or(|source| source.starts_with("registry+") && source.contains("crates.io-index")),
                "{name}: {source:?}"
            );
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} packages");
    for (expression, so) in [("MIT OR GPL-3.0", true), ("GPL-3.0 AND MIT", false), ("Apache-2.0/MIT", true), ("none", false)] {
        assert_eq!(is_allowed(expression, &allowed), so, "{expression}");
    }
}

/// In what ships: tests may link what they like as often as they like.
#[test]
fn nothing_is_linked_twice() {
    let metadata = metadata("Cargo.toml");
    let policy = policy();
    let skipped: Vec<&str> = policy["bans"]["skip"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    let packages: BTreeMap<&str, &Value> =
        metadata["packages"].as_array().unwrap().iter().map(|package| (package["id"].as_str().unwrap(), package)).collect();
    let nodes: BTreeMap<&str, &Value> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let ours = packages.iter().find(|(_, package)| package["name"] == "heat-salt-bootstrap").unwrap().0;
    let (mut reached, mut next) = (BTreeSet::new(), vec![*ours]);
    while let Some(id) = next.pop() {
        if !reached.insert(id) {
            continue;
        }
        // A kind of null is a plain dependency; macros are for the compiler.
        let plain = |dependency: &&Value| dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
        let is_macro = |id: &str| packages[id]["targets"].as_array().unwrap().iter().any(|target| target["kind"][0] == "proc-macro");
        let found = nodes[id]["deps"].as_array().unwrap().iter().filter(plain).map(|dependency| dependency["pkg"].as_str().unwrap());
        next.extend(found.filter(|id| !is_macro(id)));
    }
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for id in reached {
        versions.entry(packages[id]["name"].as_str().unwrap()).or_default().insert(packages[id]["version"].as_str().unwrap());
    }
    assert!(versions.len() > 30, "only {} crates are linked", versions.len());
    versions.retain(|name, versions| versions.len() > 1 && !skipped.contains(name));
    assert!(versions.is_empty(), "linked twice: {versions:?}");
}

/// Is a version one of those that an advisory is about? It names those that are not.
fn is_affected(version: &str, advisory: &Value) -> bool {
    let version = Version::parse(version).unwrap();
    let listed = |key: &str| {
        let ranges = advisory[key].as_array().unwrap().iter().map(|range| VersionReq::parse(range.as_str().unwrap()).unwrap());
        ranges.into_iter().any(|range| range.matches(&version))
    };
    !listed("patched") && !listed("unaffected")
}

/// By what was known when `tests/advisories.py` last asked the database; `make advisories` asks it now.
#[test]
fn nothing_is_known_to_be_faulty() {
    let known: Value = serde_json::from_slice(&std::fs::read(top().join("tests/data/advisories.json")).unwrap()).unwrap();
    let policy = policy();
    let ignored: Vec<&str> = policy["advisories"]["ignore"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    let mut asked = 0;
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let lock: Table = std::fs::read_to_string(top().join(lock)).unwrap().parse().unwrap();
        for package in lock["package"].as_array().unwrap().iter().filter(|package| package.get("source").is_some()) {
            let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
            let advisories = known["crates"][name].as_array();
            let advisories = advisories.unwrap_or_else(|| panic!("nobody has asked about {name} yet: run tests/advisories.py"));
            for advisory in advisories.iter().filter(|advisory| !ignored.contains(&advisory["id"].as_str().unwrap())) {
                assert!(!is_affected(version, advisory), "{name} {version}: {}", advisory["id"]);
                asked += 1;
            }
        }
    }
    assert!(asked > 10, "only {asked} advisories were looked at");
    // Two that have been true of crates which are linked here.
    let of = |name: &str, id: &str| known["crates"][name].as_array().unwrap().iter().find(|one| one["id"] == id).unwrap();
    let (webpki, time) = (of("rustls-webpki", "RUSTSEC-2026-0104"), of("time", "RUSTSEC-2026-0009"));
    for (version, advisory, so) in
        [("0.103.12", webpki, true), ("0.103.13", webpki, false), ("0.3.46", time, true), ("0.3.5", time, false), ("0.3.47", time, false)]
    {
        assert_eq!(is_affected(version, advisory), so, "{version}: {advisory}");
    }
}
