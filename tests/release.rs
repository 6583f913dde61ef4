//! `make release`: what it refuses, what it makes, and what the bill of materials says. The tree that is released here is a small one
//! whose Makefile makes the goals in no time; packages and program have tests of their own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

const MAKEFILE: &str = "\
check-static:
\tmkdir -p target/$(TARGET)/release && echo program for $(TARGET) >target/$(TARGET)/release/heat-salt-bootstrap
sbom:
\techo {} >target/heat-salt-bootstrap.cdx.json
rpm deb: MACHINE = .$(firstword $(subst -, ,$(TARGET)))
rpm srpm deb wheel:
	mkdir -p $(PACKAGES) && echo $$SOURCE_DATE_EPOCH | tee $(PACKAGES)/x-9.8.7$(MACHINE).$@ >$(PACKAGES)/x-master-9.8.7.$@
";
const CHANGELOG: &str =
    "# Changelog\n\n## Unreleased\n\n## 9.8.7 - 2030-01-02\n\n- This is new.\n\n## 9.8.6 - 2029-01-02\n\n- This is old.\n";

/// What says the version for itself, besides Cargo.toml.
const VERSIONED: [&str; 4] = [
    "packaging/heat-salt-bootstrap.spec",
    "salt-extension/pyproject.toml",
    "salt-extension/src/saltext/heat_bootstrap/__init__.py",
    "salt-extension/heat-bootstrap.8",
];

struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// One that can be released.
    fn new() -> Tree {
        let tree = Tree { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(tree.path("packaging")).unwrap();
        fs::copy(top().join("packaging/release.sh"), tree.path("packaging/release.sh")).unwrap();
        fs::create_dir(tree.path("cloud-init")).unwrap();
        for name in ["server.yaml", "autoscaling.yaml", "multipart.yaml", "image.yaml", "fetch.sh"] {
            fs::copy(top().join("cloud-init").join(name), tree.path("cloud-init").join(name)).unwrap();
        }
        let manifest = "[package]\nname = \"x\"\nversion = \"9.8.7\"\n\n[dependencies.y]\nversion = \"1\"\n";
        for (name, text) in [("Cargo.toml", manifest), ("Makefile", MAKEFILE), ("CHANGELOG.md", CHANGELOG), (".gitignore", "target\n")] {
            fs::write(tree.path(name), text).unwrap();
        }
        for name in VERSIONED {
            let (path, text) = (tree.path(name), fs::read_to_string(top().join(name)).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text.replace(env!("CARGO_PKG_VERSION"), "9.8.7")).unwrap();
        }
        tree.git(&["init", "--quiet"]);
        tree.commit();
        tree
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=test", "-c", "user.email=test@example.org"]).args(arguments).current_dir(self.dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "x"]);
    }

    fn release(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(self.path("packaging/release.sh"));
        let (dry, settings): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|one| one.starts_with("--"));
        command.args(dry).current_dir("/").env_remove("BUILT").env_remove("MAKEFLAGS");
        command.envs(["VERSION", "SIGN_WITH", "URL"].map(|name| (name, "")));
        command.envs(settings.iter().map(|setting| setting.split_once('=').unwrap()));
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
    }

    #[track_caller]
    fn is_refused(&self, why: &[&str]) {
        self.is_refused_with(&[], why);
    }

    #[track_caller]
    fn is_refused_with(&self, settings: &[&str], why: &[&str]) {
        let (code, said) = self.release(settings);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said.lines().count(), why.len(), "{said}");
        assert!(why.iter().all(|word| said.contains(word)), "{said}");
        assert!(!self.path("target").exists(), "nothing is built");
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_tree_that_is_not_ready_is_refused_and_all_reasons_are_told() {
    let tree = Tree::new();
    fs::write(tree.path("forgotten"), "").unwrap();
    tree.is_refused(&["not committed"]);
    fs::remove_file(tree.path("forgotten")).unwrap();

    fs::write(tree.path("CHANGELOG.md"), CHANGELOG.replace("- This is new.\n", "")).unwrap();
    tree.commit();
    tree.is_refused(&["nothing below '## 9.8.7'"]);

    tree.git(&["tag", "v9.8.7"]);
    fs::write(tree.path("CHANGELOG.md"), CHANGELOG.replace("## 9.8.7 ", "## 9.8.70 ")).unwrap();
    fs::write(tree.path("Makefile"), MAKEFILE.replace("rpm srpm deb wheel:", "rpm deb wheel:")).unwrap();
    tree.is_refused(&["not committed", "tag v9.8.7", "nothing below '## 9.8.7'", "no 'make srpm'"]);
}

#[test]
fn what_is_asked_for_and_cannot_be_is_refused() {
    let tree = Tree::new();
    tree.is_refused_with(&["VERSION=9.8.8"], &["version 9.8.7, and not 9.8.8"]);
    // None of this machine's own keys is looked at.
    let nobody = format!("GNUPGHOME={}", tree.path(".git").display());
    tree.is_refused_with(&["SIGN_WITH=nobody", "URL=http://mirror.example.net", &nobody], &["nobody does not sign", "no https URL"]);
}

/// A package of another version would be left out of the directory without a word.
#[test]
fn a_part_of_another_version_is_refused() {
    for name in VERSIONED {
        let tree = Tree::new();
        let text = fs::read_to_string(tree.path(name)).unwrap();
        fs::write(tree.path(name), text.replace("9.8.7", "9.8.6")).unwrap();
        tree.commit();
        tree.is_refused(&[&format!("{name} has another version than Cargo.toml, 9.8.7")]);
    }
}

/// Before minutes are spent on programs that then cannot be packed.
#[test]
fn what_a_machine_lacks_for_a_release_is_said_first() {
    let tools = tempfile::tempdir().unwrap();
    for tool in ["bash", "dirname", "id", "sort", "sed", "uname"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).map(|dir| dir.join(tool)).find(|path| path.exists());
        std::os::unix::fs::symlink(found.unwrap(), tools.path().join(tool)).unwrap();
    }
    let script = top().join("tests/preflight.sh");
    let mut command = Command::new(script);
    command.args(["release", "signing"]).envs([("PATH", tools.path().as_os_str()), ("TARGET", "x86_64-unknown-linux-musl".as_ref())]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for tool in ["cargo", "git", "python3", "rpmbuild", "dpkg-deb", "readelf", "xz", "gpg", "rpmsign"] {
        assert!(said.lines().any(|line| line.starts_with(&format!("  {tool}, "))), "{tool}: {said}");
    }
}

#[test]
fn everything_that_is_published_lies_in_one_directory() {
    let tree = Tree::new();
    // What earlier builds have left is no part of it.
    fs::create_dir_all(tree.path("target/packages")).unwrap();
    for left in ["x-9.8.6.rpm", "x-9.8.7-2.rpm"] {
        fs::write(tree.path("target/packages").join(left), "").unwrap();
    }
    let (code, said) = tree.release(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("git tag --annotate v9.8.7") && said.contains("NOTHING IS SIGNED"), "{said}");
    let out = tree.path("target/release-9.8.7");
    let machines = ["x86_64", "aarch64"];
    let programs = machines.map(|machine| format!("heat-salt-bootstrap-9.8.7-{machine}-linux"));
    let sums = programs.each_ref().map(|program| format!("{program}.sha256"));
    let of_all = ["CHANGELOG-9.8.7.md", "SHA256SUMS", "heat-salt-bootstrap-9.8.7.cdx.json", "x-9.8.7.srpm", "x-9.8.7.wheel"];
    let mut expected = of_all.map(str::to_owned).to_vec();
    expected.push("heat-salt-bootstrap-9.8.7-templates.tar.gz".into());
    expected.extend(programs.iter().chain(&sums).cloned());
    expected.extend(machines.iter().flat_map(|machine| ["deb", "rpm"].map(|format| format!("x-9.8.7.{machine}.{format}"))));
    expected.extend(["deb", "rpm", "srpm", "wheel"].map(|goal| format!("x-master-9.8.7.{goal}")));
    expected.sort_unstable();
    assert_eq!(files(&out), expected);
    for (program, machine) in programs.iter().zip(machines) {
        let target = format!("program for {machine}-unknown-linux-musl\n");
        assert_eq!(fs::read_to_string(out.join(program)).unwrap(), target, "each is what was built for it");
    }
    assert_eq!(fs::read_to_string(out.join("CHANGELOG-9.8.7.md")).unwrap(), "- This is new.\n");
    let dated = fs::read_to_string(out.join("x-9.8.7.aarch64.rpm")).unwrap();
    assert!(dated.trim().parse::<u64>().is_ok_and(|epoch| epoch > 1_700_000_000), "dated by the commit: {dated}");
    for list in sums.iter().map(String::as_str).chain(["SHA256SUMS"]) {
        let check = || Command::new("sha256sum").args(["--check", "--strict", "--quiet", list]).current_dir(&out).output().unwrap();
        assert!(check().status.success(), "{list}");
    }
    assert_eq!(fs::read_to_string(out.join("SHA256SUMS")).unwrap().lines().count(), expected.len() - 3);
}

/// The value that a line gives, without the quotes without which a checksum may be a number.
fn quoted<'text>(text: &'text str, before: &str) -> Option<&'text str> {
    text.split_once(before)?.1.split_once('\n')?.0.strip_prefix('\'')?.strip_suffix('\'')
}

#[test]
fn the_templates_of_a_release_know_its_programs() {
    let tree = Tree::new();
    let bundle = "heat-salt-bootstrap-9.8.7-templates";
    let packed = || fs::read(tree.path("target/release-9.8.7").join(format!("{bundle}.tar.gz"))).unwrap();
    let at = "https://mirror.example.net/a|b&c";
    for url in [None, Some(at)] {
        let setting = format!("URL={}", url.map(|url| format!("{url}/")).unwrap_or_default());
        let (code, said) = tree.release(&[&setting]);
        assert_eq!((code, said.contains("whoever uses them gives agent_url")), (Some(0), url.is_none()), "{said}");
        let first = packed();
        let file = tree.path("cloud-init/server.yaml");
        fs::File::options().append(true).open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        tree.release(&[&setting]);
        assert!(first == packed(), "the same source gives the same bytes");

        let out = tree.path("target/release-9.8.7");
        assert!(Command::new("tar").arg("-xzf").arg(format!("{bundle}.tar.gz")).current_dir(&out).status().unwrap().success());
        let unpacked = out.join(bundle);
        let names = ["aarch64.yaml", "autoscaling.yaml", "fetch.sh", "image.yaml", "multipart.yaml", "server.yaml", "x86_64.yaml"];
        assert_eq!(files(&unpacked), names);
        let program = |machine| format!("heat-salt-bootstrap-9.8.7-{machine}-linux");
        let sum = |machine| {
            let output = Command::new("sha256sum").arg(out.join(program(machine))).output().unwrap();
            String::from_utf8(output.stdout).unwrap()[..64].to_owned()
        };
        let place = |machine| url.map(|url| format!("{url}/{}", program(machine)));
        for name in names {
            let text = fs::read_to_string(unpacked.join(name)).unwrap();
            let original = fs::read_to_string(tree.path("cloud-init").join(name));
            let (machine, of_url, of_sum) = match name.strip_suffix(".yaml") {
                Some(machine @ ("x86_64" | "aarch64")) => (machine, "  agent_url: ", "  agent_sha256: "),
                // What stands between two @ is filled in by the templates, and so it is as in the tree; the last has no program to fetch.
                _ if ["fetch.sh", "image.yaml"].contains(&name) => {
                    assert_eq!(text, original.unwrap());
                    continue;
                }
                _ => ("x86_64", "  agent_url:\n    type: string\n    default: ", "  agent_sha256:\n    type: string\n    default: "),
            };
            assert_eq!(quoted(&text, of_sum), Some(sum(machine).as_str()), "{name}");
            assert_eq!(quoted(&text, of_url), place(machine).as_deref(), "{name}");
            if let Ok(original) = original {
                let added = |line: &&str| line.contains(&sum(machine)) || place(machine).is_some_and(|place| line.contains(&place));
                let without: String = text.split_inclusive('\n').filter(|line| !added(line)).collect();
                assert_eq!(without, original, "nothing else is another");
            }
        }
        fs::remove_dir_all(unpacked).unwrap();
    }
}

#[test]
fn a_dry_release_says_what_a_real_one_would_be_refused_for() {
    let tree = Tree::new();
    fs::write(tree.path("CHANGELOG.md"), "## Unreleased\n\n- Not yet.\n").unwrap();
    let (code, said) = tree.release(&["--dry"]);
    assert!(code == Some(0) && said.contains("not committed") && said.contains("nothing below") && !said.contains("git tag"), "{said}");
    let out = tree.path("target/release-9.8.7-dry");
    assert_eq!(fs::read_to_string(out.join("CHANGELOG-9.8.7.md")).unwrap(), "- Not yet.\n");
    assert!(!tree.path("target/release-9.8.7").exists());
    assert_eq!(tree.release(&["--now"]).0, Some(2));
}

/// Of both machines, as a release has it.
fn bill(epoch: Option<&str>) -> String {
    let mut command = Command::new("python3");
    command
        .arg(top().join("packaging/sbom.py"))
        .args(["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"])
        .env_remove("SOURCE_DATE_EPOCH")
        .current_dir("/");
    command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_bill_of_materials_names_what_is_linked_and_nothing_else() {
    let text = bill(None);
    assert_eq!(text, bill(None), "the same source gives the same bytes");
    let bom: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&bom["bomFormat"], &bom["specVersion"], &bom["version"]), (&"CycloneDX".into(), &"1.5".into(), &1.into()));
    let serial = bom["serialNumber"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
    assert!(serial.len() == 36 && serial.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{serial}");
    let program = &bom["metadata"]["component"];
    assert_eq!((program["type"].as_str(), program["version"].as_str()), (Some("application"), Some(env!("CARGO_PKG_VERSION"))));

    let targets = bom["metadata"]["properties"].as_array().unwrap().iter().map(|property| property["value"].as_str().unwrap());
    assert_eq!(targets.collect::<Vec<_>>(), ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"]);

    let mut refs = BTreeSet::from([program["bom-ref"].as_str().unwrap()]);
    let mut names = BTreeSet::new();
    // What cargo does not know of: whose it is, by whom it is needed, and a version if it has one of its own here.
    let all = bom["components"].as_array().unwrap();
    let (others, crates): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|one| !one["bom-ref"].as_str().unwrap().starts_with("pkg:"));
    assert_eq!(others.iter().map(|one| one["name"].as_str().unwrap()).collect::<Vec<_>>(), ["musl", "ring-c", "rust-std"]);
    for one in &others {
        assert!(!one["licenses"][0]["expression"].as_str().unwrap().is_empty() && one["type"] == "library", "{one}");
        assert!(refs.insert(one["bom-ref"].as_str().unwrap()), "{one} is there twice");
    }
    assert!(
        others[1..].iter().all(|one| one["version"].as_str().unwrap().starts_with(|letter: char| letter.is_ascii_digit())),
        "{others:?}"
    );
    for component in crates {
        let text = |key: &str| component[key].as_str().unwrap_or_else(|| panic!("{key} of {component}"));
        assert_eq!(text("type"), "library");
        assert_eq!(text("purl"), format!("pkg:cargo/{}@{}", text("name"), text("version")));
        let licence = component["licenses"][0]["expression"].as_str().unwrap_or_else(|| panic!("licence of {component}"));
        assert!(!licence.is_empty() && !licence.contains('/'), "{licence}");
        assert_eq!(component["hashes"][0]["alg"], "SHA-256");
        assert_eq!(component["hashes"][0]["content"].as_str().unwrap().len(), 64);
        assert!(refs.insert(text("bom-ref")), "{component} is there twice");
        names.insert(text("name"));
    }
    for linked in ["rustls", "ring", "clap", "serde_json", "ureq", "nix"] {
        assert!(names.contains(linked), "{linked} is missing");
    }
    for other in ["serde_derive", "clap_derive", "tempfile", "lab", "libtest-mimic", "cc"] {
        assert!(!names.contains(other), "{other} is not linked");
    }
    let mut reached = BTreeSet::new();
    for entry in bom["dependencies"].as_array().unwrap() {
        assert!(refs.contains(entry["ref"].as_str().unwrap()));
        reached.extend(entry["dependsOn"].as_array().unwrap().iter().map(|needed| needed.as_str().unwrap()));
    }
    assert!(reached.is_subset(&refs) && reached.len() == refs.len() - 1, "each is needed by another, but for the program");

    let dated: Value = serde_json::from_str(&bill(Some("1700000000"))).unwrap();
    assert_eq!(dated["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
}
