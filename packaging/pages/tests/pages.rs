//! The pages, as those who read them see them: manual page formatters, shells, and people who look for a verb or a code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use clap::CommandFactory as _;
use heat_salt_bootstrap::parts::Kind;
use heat_salt_bootstrap::parts::cli::Cli;

const FILES: [&str; 8] = [
    "LICENSE.dependencies",
    "THIRD-PARTY-LICENSES",
    "_heat-salt-bootstrap",
    "cargo-vendor.txt",
    "heat-salt-bootstrap-config.5",
    "heat-salt-bootstrap.1",
    "heat-salt-bootstrap.bash",
    "heat-salt-bootstrap.fish",
];

fn pages_of_verbs() -> Vec<String> {
    Cli::command().get_subcommands().map(|verb| format!("heat-salt-bootstrap-{}.1", verb.get_name())).collect()
}

fn made(dir: &Path, epoch: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pages"));
    command.arg(dir).env_remove("SOURCE_DATE_EPOCH").envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
    command.output().unwrap()
}

struct Pages {
    dir: tempfile::TempDir,
}

impl Pages {
    fn make() -> Pages {
        let pages = Pages { dir: tempfile::tempdir().unwrap() };
        let output = made(pages.dir.path(), Some("1700000000"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        pages
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    /// What a program says, run beside them; it has to succeed.
    #[track_caller]
    fn said(&self, words: &[&str]) -> String {
        let output = Command::new(words[0]).args(&words[1..]).current_dir(self.dir.path()).env("HOME", self.dir.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {said}");
        said
    }

    /// A manual page as a person reads it, in one line.
    fn read(&self, name: &str) -> String {
        self.said(&["mandoc", "-T", "ascii", "-O", "width=1000", name])
            .replace("_\u{8}", "")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Overstruck letters are bold.
fn plain(text: &str) -> String {
    let mut made = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letters.next_if_eq(&'\u{8}').is_none() {
            made.push(letter);
        }
    }
    made
}

#[test]
fn the_same_source_gives_the_same_bytes_and_no_time_of_its_own() {
    let (one, other) = (Pages::make(), Pages::make());
    let names: BTreeSet<String> =
        fs::read_dir(one.dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, FILES.map(str::to_owned).into_iter().chain(pages_of_verbs()).collect());
    for name in &names {
        assert_eq!(one.text(name), other.text(name), "{name}");
    }
    assert!(one.text("heat-salt-bootstrap.1").starts_with(".TH HEAT-SALT-BOOTSTRAP 1 2023-11-14 "));
    let dir = tempfile::tempdir().unwrap();
    let output = made(dir.path(), None);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("SOURCE_DATE_EPOCH"), "{output:?}");
}

#[test]
fn formatters_find_nothing_wrong() {
    let pages = Pages::make();
    for page in ["heat-salt-bootstrap.1", "heat-salt-bootstrap-config.5"].map(str::to_owned).into_iter().chain(pages_of_verbs()) {
        assert_eq!(pages.said(&["mandoc", "-T", "lint", "-W", "warning", &page]), "", "{page}");
        assert_eq!(pages.said(&["groff", "-man", "-Tutf8", "-ww", "-z", &page]), "", "{page}");
    }
    fs::write(pages.dir.path().join("wrong.1"), ".TH X 1 2023-11-14\n.SH NAME\nx \\- y\n.XX\n").unwrap();
    let found = Command::new("mandoc").args(["-T", "lint", "-W", "warning", "wrong.1"]).current_dir(pages.dir.path()).output().unwrap();
    assert!(!found.status.success(), "a request that does not exist is found");
}

#[test]
fn the_page_of_the_program_has_every_verb_option_and_code() {
    let page = plain(&Pages::make().read("heat-salt-bootstrap.1"));
    let command = Cli::command();
    for verb in command.get_subcommands() {
        assert!(page.contains(&format!(" {} ", verb.get_name())), "{}: {page}", verb.get_name());
        assert!(page.contains(&verb.get_about().unwrap().to_string()), "{}: {page}", verb.get_name());
    }
    let all = command.get_arguments().chain(command.get_subcommands().flat_map(clap::Command::get_arguments));
    let longs: Vec<&str> = all.filter_map(clap::Arg::get_long).collect();
    assert!(longs.len() > 20, "{longs:?}");
    longs.into_iter().for_each(|long| assert!(page.contains(&format!("--{long}")), "--{long}: {page}"));
    let status = page.split("EXIT STATUS").nth(1).unwrap().split("FILES").next().unwrap();
    for kind in Kind::ALL {
        let row = format!("{} {} {}", kind.code(), kind.reason(), kind.meaning());
        assert!(status.contains(&row), "{row}: {status}");
    }
}

#[test]
fn each_verb_has_a_page_with_its_options_and_no_other() {
    let pages = Pages::make();
    let command = Cli::command();
    for verb in command.get_subcommands() {
        let page = plain(&pages.read(&format!("heat-salt-bootstrap-{}.1", verb.get_name())));
        assert!(page.contains(&format!("heat-salt-bootstrap [OPTION]... {}", verb.get_name())), "{page}");
        assert!(page.contains(&verb.get_about().unwrap().to_string()), "{page}");
        let own: BTreeSet<&str> = verb.get_arguments().filter(|arg| !arg.is_global_set()).filter_map(clap::Arg::get_long).collect();
        for other in command.get_subcommands().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long) {
            let there = page.split([' ', ',', ']', '.']).any(|word| word == format!("--{other}"));
            assert_eq!(there, own.contains(other), "--{other}: {page}");
        }
    }
}

#[test]
fn the_page_of_the_configuration_has_every_key_and_section() {
    let page = plain(&Pages::make().read("heat-salt-bootstrap-config.5"));
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md")).unwrap();
    let rows = source.split("\n## ").next().unwrap().lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let keys: Vec<String> = rows.flat_map(|cell| cell.split('`').step_by(2)).map(str::to_owned).collect();
    assert!(keys.len() > 20, "{keys:?}");
    keys.iter().for_each(|key| assert!(page.contains(key), "{key}: {page}"));
    let headings: Vec<&str> = source.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(headings.len() > 3);
    headings.iter().for_each(|heading| assert!(page.contains(&heading.to_uppercase()), "{heading}"));
    assert!(!page.contains("](") && !page.contains("| "), "{page}");
}

#[test]
fn each_shell_completes_verbs_and_options() {
    let pages = Pages::make();
    let bash = |words: &str, last: usize| {
        let story = format!(
            "source ./heat-salt-bootstrap.bash\nCOMP_WORDS=({words}) COMP_CWORD={last}\n$(complete -p heat-salt-bootstrap | \
             sed 's/.*-F \\([^ ]*\\).*/\\1/') heat-salt-bootstrap \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{last}-1]}}\"\necho \"${{COMPREPLY[@]}}\""
        );
        pages.said(&["bash", "--norc", "-c", &story])
    };
    assert_eq!(bash("heat-salt-bootstrap ch", 1), "check\n");
    assert!(bash("heat-salt-bootstrap run --at", 2).contains("--at-boot"));
    let fish = |line: &str| pages.said(&["fish", "--no-config", "-c", &format!("source heat-salt-bootstrap.fish; complete -C '{line}'")]);
    assert!(fish("heat-salt-bootstrap ch").starts_with("check\t"), "{}", fish("heat-salt-bootstrap ch"));
    assert!(fish("heat-salt-bootstrap run --at").starts_with("--at-boot"));
    // zsh shows its candidates on a terminal only; that it takes the file as the completion of this program can be asked.
    let zsh = "fpath=($PWD $fpath); autoload -U compinit; compinit -D -u; print -r -- $_comps[heat-salt-bootstrap]; \
               autoload +X _heat-salt-bootstrap; zsh -n ./_heat-salt-bootstrap; (( $+functions[_heat-salt-bootstrap] ))";
    assert_eq!(pages.said(&["zsh", "-f", "-c", zsh]), "_heat-salt-bootstrap\n");
    assert!(pages.text("_heat-salt-bootstrap").contains("--at-boot"));
}

#[test]
fn the_licences_are_those_of_what_is_linked() {
    let text = Pages::make().text("THIRD-PARTY-LICENSES");
    let list = text.split("=====").next().unwrap();
    for linked in ["rustls ", "ring ", "ureq ", "subtle "] {
        assert!(list.contains(&format!("\n{linked}")), "{linked}: {list}");
    }
    // Build tools, what only other crates of the workspace want, macros, tests and the pages themselves.
    for other in ["cc ", "anstream ", "serde_derive ", "clap_complete ", "lab ", "rcgen ", "heat-salt-bootstrap "] {
        assert!(!list.contains(&format!("\n{other}")), "{other}: {list}");
    }
    for words in ["TERMS AND CONDITIONS FOR USE, REPRODUCTION", "Permission is hereby granted, free of charge", "musl libc", "Rich Felker"]
    {
        assert!(text.contains(words), "{words}");
    }
}

/// What the spec says has to cover each crate's licence, as Fedora wants it: an expression stays as it is, alternatives included, and one
/// that only has its alternatives in another order need not stand there again.
#[test]
fn the_spec_names_every_licence_and_no_other() {
    let spec = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../heat-salt-bootstrap.spec")).unwrap();
    let tag = spec.lines().find_map(|line| line.strip_prefix("License:")).unwrap().trim();
    let sorted = |expression: &str| {
        let mut alternatives: Vec<&str> = expression.split(" OR ").collect();
        alternatives.sort_unstable();
        alternatives.join(" OR ")
    };
    // Parentheses hold what has operators of its own.
    let said: BTreeSet<String> = tag
        .split(['(', ')'])
        .enumerate()
        .flat_map(|(place, text)| if place % 2 == 1 { vec![text] } else { text.split(" AND ").collect() })
        .map(|part| sorted(part.trim()))
        .filter(|part| !part.is_empty())
        .collect();
    let pages = Pages::make();
    let mut needed: BTreeSet<String> =
        pages.text("LICENSE.dependencies").lines().map(|line| sorted(line.rsplit_once(": ").unwrap().0)).collect();
    // Of musl libc, in the static program.
    needed.extend(["BSD-2-Clause", "MIT"].map(str::to_owned));
    assert_eq!(said, needed, "{tag}");
}

#[test]
fn the_lists_of_crates_are_those_of_what_is_linked() {
    let pages = Pages::make();
    let listed = pages.text("THIRD-PARTY-LICENSES");
    let listed: BTreeSet<String> = listed.split("\n\n").nth(1).unwrap().lines().map(str::to_owned).collect();
    let (breakdown, manifest) = (pages.text("LICENSE.dependencies"), pages.text("cargo-vendor.txt"));
    let of_manifest: BTreeSet<String> = manifest.lines().map(|line| line.replace(" v", " ")).collect();
    assert_eq!(of_manifest, listed.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect());
    // The same, and the program itself.
    let (own, others): (Vec<&str>, Vec<&str>) = breakdown.lines().partition(|line| line.contains(": heat-salt-bootstrap v"));
    assert_eq!(own, [format!("Apache-2.0: heat-salt-bootstrap v{}", Cli::command().get_version().unwrap())]);
    let of_breakdown = others.iter().map(|line| line.rsplit_once(": ").unwrap().1.replace(" v", " "));
    assert_eq!(of_breakdown.collect::<BTreeSet<String>>(), of_manifest);
    assert!(!breakdown.contains('/'), "{breakdown}");
}
