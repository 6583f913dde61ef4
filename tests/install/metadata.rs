//! The metadata service, closed by fetch.sh to everybody but root: with real rules, in networks of their own. The service is a stand-in.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::harness::Case;
use lab::process::run;

use crate::case_of;

const OPEN: &str = "root yes, another user yes, a container yes";
const CLOSED: &str = "root yes, another user no (7), a container no (7)";

pub fn all() -> Vec<Case> {
    let cases: [(&str, fn()); 4] = [
        ("metadata::closed_by_nft", || closed(&[], "0")),
        ("metadata::closed_by_iptables", || closed(&["nft"], "2")),
        ("metadata::cannot_be_closed", cannot_be_closed),
        ("metadata::open_unless_asked", open_unless_asked),
    ];
    cases.map(|(name, case)| case_of(name, case)).into()
}

/// What the story says, where fetch.sh was given this, and these programs fail.
fn told(asked: &str, hidden: &[&str]) -> Vec<String> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("fetch.sh");
    let text = fs::read_to_string(tree.join("cloud-init/fetch.sh")).unwrap();
    fs::write(&script, text.replace("@CLOSE_METADATA@", asked).replace("@VERB@", "none")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount"]).arg(tree.join("tests/install/metadata.sh")).arg(&script).args(hidden);
    let ended = run(&mut command, Duration::from_secs(120)).unwrap();
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    ended.stdout.lines().chain(ended.stderr.lines()).map(str::to_owned).collect()
}

#[track_caller]
fn has(told: &[String], line: &str) {
    assert!(told.iter().any(|said| said == line), "no {line:?} in {told:#?}");
}

fn closed(hidden: &[&str], rules: &str) {
    let told = told("true", hidden);
    has(&told, &format!("before: {OPEN}"));
    has(&told, "fetch.sh: 0");
    has(&told, &format!("after: {CLOSED}"));
    has(&told, "/etc/systemd/system/sysinit.target.wants/heat-salt-bootstrap-metadata.service");
    has(&told, &format!("iptables: {rules}"));
    has(&told, &format!("ip6tables: {rules}"));
    has(&told, &format!("without rules: {OPEN}"));
    has(&told, &format!("after a boot: {CLOSED}"));
}

/// Who asked for it does not get less.
fn cannot_be_closed() {
    let told = told("true", &["nft", "iptables"]);
    has(&told, "fetch.sh: 24");
    has(&told, &format!("after: {OPEN}"));
    let said = told.iter().find(|line| line.starts_with("fetch.sh: local-system: ")).expect("a reason");
    assert!(said.contains("the metadata service cannot be closed to others: iptables:"), "{said}");
}

fn open_unless_asked() {
    let told = told("false", &[]);
    has(&told, "fetch.sh: 0");
    has(&told, &format!("after: {OPEN}"));
}
