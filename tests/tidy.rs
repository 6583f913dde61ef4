//! The project's own rules, as ordinary tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The rooms of the house, from the ground up, with those that stand side by side in one row; ARCHITECTURE.md says what belongs where.
const ROOMS: [&[&str]; 7] = [&["types"], &["system"], &["packages", "salt", "heat"], &["minion"], &["config"], &["bootstrap"], &["cli"]];

/// What acts outside `system`, whose purpose it is: all others only decide, which is why they can be tested by texts and values alone.
const ACTING: &[&str] = &[
    "bootstrap/accept.rs",
    "bootstrap/apply/by_hook.rs",
    "bootstrap/apply/by_service.rs",
    "bootstrap/apply/memory.rs",
    "bootstrap/chain.rs",
    "bootstrap/context.rs",
    "bootstrap/deregister.rs",
    "bootstrap/enroll.rs",
    "bootstrap/instance.rs",
    "bootstrap/journal.rs",
    "bootstrap/pipeline.rs",
    "bootstrap/progress.rs",
    "bootstrap/resume.rs",
    "bootstrap/state.rs",
    "bootstrap/systemd.rs",
    "bootstrap/sysv.rs",
    "bootstrap/unit.rs",
    "cli/check/api.rs",
    "cli/check/board.rs",
    "cli/check/here.rs",
    "cli/check/mod.rs",
    "cli/check/net.rs",
    "cli/check/service.rs",
    "cli/follow.rs",
    "cli/guardian.rs",
    "cli/logging.rs",
    "cli/notify.rs",
    "cli/plan.rs",
    "cli/run.rs",
    "cli/signal.rs",
    "cli/supervisor.rs",
    "cli/support.rs",
    "cli/terminal.rs",
    "cli/verbs.rs",
    "config/load.rs",
    "heat/client.rs",
    "minion/connection.rs",
    "minion/daemon.rs",
    "minion/first_start.rs",
    "minion/jobs.rs",
    "minion/keypair.rs",
    "minion/paths.rs",
    "minion/pidfile.rs",
    "minion/restart.rs",
    "packages/mod.rs",
    "packages/plan.rs",
    "packages/probe.rs",
    "packages/source.rs",
    "packages/transaction.rs",
    "salt/advice.rs",
    "salt/enrolment.rs",
    "salt/keys.rs",
    "salt/session.rs",
    "types/deadline.rs",
];

/// By what a file is known to act.
const EFFECTS: [&str; 12] = [
    "crate::system",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "io::stdin",
    "io::stdout",
    "io::stderr",
    "SystemTime",
    "Instant::now",
    "nix::",
];

#[test]
fn every_module_uses_only_its_own_room_and_those_below() {
    let height = |name: &str| ROOMS.iter().position(|row| row.contains(&name));
    let mut uses = 0;
    for path in files_below(&top().join("src"), ".rs") {
        let below_src = path.strip_prefix(top().join("src")).unwrap().to_string_lossy().into_owned();
        let Some((own, _)) = below_src.split_once('/') else { continue };
        for line in fs::read_to_string(&path).unwrap().lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
            for rest in line.split("crate::").skip(1) {
                let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase()).collect();
                let other = height(&name).unwrap_or_else(|| panic!("{below_src}: crate::{name} is no room"));
                assert!(name == own || other < height(own).unwrap(), "{below_src} reaches up, or to the room beside: {}", line.trim());
                uses += 1;
            }
        }
    }
    assert!(uses > 50, "only {uses} uses were found: does this test still read them?");
}

/// A bound that no deadline lengthens has a name, and its reason above it: what no longer deadline would change. (How often something is looked
/// at, in milliseconds, bounds nothing.)
#[test]
fn every_fixed_time_has_a_name_and_a_reason() {
    let (mut nameless, mut named) = (Vec::new(), 0);
    for path in files_below(&top().join("src"), ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        let mut told = false;
        for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
            let fixed = line.split("from_secs(").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            let is_named = line.trim_start_matches("pub ").starts_with("const ") && told;
            if fixed && !is_named {
                nameless.push(format!("{}: {}", path.display(), line.trim()));
            }
            named += usize::from(fixed && is_named);
            // One reason may be that of two bounds.
            told = line.starts_with("///") || is_named;
        }
    }
    assert!(nameless.is_empty(), "{}", nameless.join("\n"));
    assert!(named > 20, "only {named} were found: does this test still read them?");
}

/// docs/verdicts.md says of each of them what a longer deadline changes, and names a case; `tests/docs.rs` looks whether that exists.
#[test]
fn every_fixed_time_has_a_case() {
    let src = top().join("src");
    let mut defined = BTreeSet::new();
    for path in files_below(&src, ".rs") {
        let module = path.strip_prefix(&src).unwrap().to_string_lossy().trim_end_matches(".rs").replace('/', "::");
        let module = module.trim_end_matches("::mod");
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
        let constants = code.filter_map(|line| line.trim_start().trim_start_matches("pub ").strip_prefix("const ")?.split_once(": "));
        defined.extend(constants.filter(|(_, rest)| rest.contains("Duration")).map(|(name, _)| format!("{module}::{name}")));
    }
    assert!(defined.len() > 50, "only {} were found: does this test still read them?", defined.len());
    let page = fs::read_to_string(top().join("docs/verdicts.md")).unwrap();
    let (_, table) = page.split_once("\n## Fixed times\n").unwrap();
    let mut told = BTreeSet::new();
    for cell in table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()) {
        for name in cell.split('`').step_by(2) {
            assert!(told.insert(name.to_owned()), "docs/verdicts.md has {name} twice");
        }
    }
    assert_eq!(defined, told, "on the left the times of the source, on the right those of docs/verdicts.md");
}

#[test]
fn what_decides_has_no_effects() {
    let mut acting = Vec::new();
    for path in files_below(&top().join("src"), ".rs") {
        let below_src = path.strip_prefix(top().join("src")).unwrap().to_string_lossy().into_owned();
        if below_src.starts_with("system/") || below_src == "main.rs" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).filter(|line| !line.trim_start().starts_with("//"));
        if code.into_iter().any(|line| EFFECTS.iter().any(|effect| line.contains(effect))) {
            acting.push(below_src);
        }
    }
    assert_eq!(acting, ACTING, "on the left what acts, on the right what may");
}

/// The modules that each module uses, by the `use` lines of its code.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let src = top().join("src");
    let module = |path: &Path| {
        let name = path.strip_prefix(&src).unwrap().to_string_lossy().trim_end_matches(".rs").replace('/', "::");
        name.trim_end_matches("::mod").to_owned()
    };
    let files: BTreeMap<String, PathBuf> = files_below(&src, ".rs").into_iter().map(|path| (module(&path), path)).collect();
    let mut uses = BTreeMap::new();
    for (name, path) in &files {
        let text = fs::read_to_string(path).unwrap();
        let code: Vec<&str> = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).collect();
        let code = code.join("\n");
        let mut used = BTreeSet::new();
        let begin = if code.starts_with("use ") { 0 } else { 1 };
        for stated in code.split("\nuse ").skip(begin).filter_map(|rest| rest.split(';').next()) {
            // rustfmt makes `a::{b, c}` of what has a common beginning, and never goes deeper here.
            let (common, ends) = stated.split_once('{').map_or((stated, ""), |(common, ends)| (common, ends.trim_end_matches('}')));
            for end in ends.split(',') {
                let mut path = format!("{common}{}", end.trim());
                let mut own = name.as_str();
                while let Some(rest) = path.strip_prefix("super::") {
                    own = own.rsplit_once("::").map_or("", |(above, _)| above);
                    path = rest.to_owned();
                }
                let inside = stated.starts_with("super::").then(|| format!("{own}::{path}"));
                let Some(inside) = inside.or_else(|| path.strip_prefix("crate::").map(str::to_owned)) else { continue };
                let mut inside = inside.trim_start_matches("::");
                while !files.contains_key(inside) && inside.contains("::") {
                    inside = inside.rsplit_once("::").unwrap().0;
                }
                if files.contains_key(inside) && inside != name {
                    used.insert(inside.to_owned());
                }
            }
        }
        uses.insert(name.clone(), used);
    }
    uses
}

#[test]
fn no_two_modules_use_each_other_by_any_way_round() {
    let mut left = uses();
    assert!(left.values().map(BTreeSet::len).sum::<usize>() > 300, "few uses were found: does this test still read them?");
    // Whoever uses nobody that is left is in no circle.
    loop {
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let done: Vec<String> = left.iter().filter(|(_, used)| used.is_disjoint(&names)).map(|(name, _)| name.clone()).collect();
        if done.is_empty() {
            break;
        }
        left.retain(|name, _| !done.contains(name));
    }
    assert!(left.is_empty(), "these use each other, or somebody who does: {:?}", left.keys());
}

/// What is built goes into every source package if git knows of it.
#[test]
fn nothing_that_is_built_is_kept() {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output();
    // A source package is no checkout, and holds what one of them was made of.
    let Some(listed) = listed.ok().filter(|listed| listed.status.success()) else { return };
    let names = String::from_utf8(listed.stdout).unwrap();
    let names: Vec<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    assert!(names.contains(&"Cargo.toml"), "{names:?}");
    for name in names {
        let large = fs::metadata(top().join(name)).is_ok_and(|meta| meta.len() > 512 * 1024);
        assert!(!large && !name.split('/').any(|part| part == "target"), "{name} is built, or too large to be kept");
    }
}

/// One purpose a module. A longer one says at its head why it is one all the same.
#[test]
fn modules_stay_small() {
    let mut long = Vec::new();
    for path in files_below(&top().join("src"), ".rs") {
        let text = fs::read_to_string(&path).unwrap();
        let before_tests = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).map(str::trim);
        let code = before_tests.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        let says_why = text.lines().any(|line| line.starts_with("//! Long, since "));
        assert_eq!(code > 300, says_why, "{}: {code} lines of code, and `//! Long, since` says why", path.display());
        long.extend(says_why.then_some(code));
    }
    assert!(long.len() < 5 && long.iter().all(|code| *code <= 350), "{long:?}");
}

/// Whoever follows ARCHITECTURE.md to a file finds it there, and in it, or in another of the row's, what the row names.
#[test]
fn where_a_line_goes_is_there() {
    let page = fs::read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    let (_, table) = page.split_once("## Where does a line go").unwrap();
    let rows: Vec<&str> = table.lines().take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(rows.len(), 10, "{rows:?}");
    for row in rows {
        let named: Vec<&str> = row.rsplit(" | ").next().unwrap().split('`').skip(1).step_by(2).collect();
        let (paths, names): (Vec<&str>, Vec<&str>) = named.iter().partition(|name| name.contains(['/', '.']));
        let mut room = "";
        let mut texts = String::new();
        for path in paths.iter().filter(|path| path.ends_with(".rs")) {
            // Without a directory it is beside the one before it.
            let whole = if path.contains('/') { (*path).to_owned() } else { format!("{room}/{path}") };
            room = if path.contains('/') { path.split('/').next().unwrap() } else { room };
            let found = files_below(&top().join("src"), ".rs").into_iter().filter(|file| file.ends_with(whole.trim_start_matches('/')));
            let found: Vec<PathBuf> = found.collect();
            assert!(!found.is_empty(), "{row}: there is no {whole}");
            found.iter().for_each(|file| texts.push_str(&fs::read_to_string(file).unwrap()));
        }
        for name in names.iter().filter(|name| name.starts_with(char::is_uppercase)) {
            let defined = ["enum", "const", "struct"]
                .iter()
                .any(|word| [' ', ':', '<', '('].iter().any(|end| texts.contains(&format!("{word} {name}{end}"))));
            assert!(defined, "{row}: {name} is not defined there");
        }
    }
}

/// Is it `X.Y.Z - YYYY-MM-DD`, and if so, which version?
fn released(heading: &str) -> Option<&str> {
    let (version, date) = heading.split_once(" - ")?;
    let numbers =
        |text: &str, by: char| text.split(by).map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>().map(|all| all.len());
    (numbers(version, '.') == Some(3) && date.len() == 10 && numbers(date, '-') == Some(3)).then_some(version)
}

#[test]
fn the_changelog_knows_this_version() {
    assert_eq!(released("1.2.3 - 2026-01-31"), Some("1.2.3"));
    assert!(["Unreleased", "1.2 - 2026-01-31", "1.2.3", "1.2.3 - soon"].iter().all(|heading| released(heading).is_none()));
    let text = fs::read_to_string(top().join("CHANGELOG.md")).unwrap();
    let mut sections = text.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap_or((section, "")));
    let (first, unreleased) = sections.next().unwrap();
    assert_eq!(first, "Unreleased");
    let versions: Vec<&str> =
        sections.map(|(heading, _)| released(heading).unwrap_or_else(|| panic!("{heading:?} is no version with its day"))).collect();
    // Before the first release there is none.
    let newest = versions.first().copied().unwrap_or(env!("CARGO_PKG_VERSION"));
    assert_eq!(newest, env!("CARGO_PKG_VERSION"), "the newest section is that of the version in Cargo.toml");
    assert!(!versions.is_empty() || unreleased.lines().any(|line| line.starts_with("- ")), "nothing is said of this version");
}

#[test]
fn the_map_names_every_module_and_no_other() {
    let map = fs::read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    for room in ROOMS.concat() {
        let dir = top().join("src").join(room);
        let row = map.lines().find(|line| line.contains(&format!("| `src/{room}/` |"))).unwrap_or_else(|| panic!("no row for {room}"));
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        // Others are directories, or no names at all.
        named.retain(|word| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'));
        let mut modules: Vec<String> =
            files_below(&dir, ".rs").iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        modules.retain(|name| name != "mod");
        named.sort_unstable();
        modules.sort_unstable();
        assert!(modules.len() > 3, "{modules:?}");
        assert_eq!(named, modules, "on the left what ARCHITECTURE.md names of src/{room}, on the right what is there");
    }
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_heat-salt-bootstrap")).args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_fits_a_terminal_and_names_no_secret() {
    let all = help(&[]);
    let listed = all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What goes on a line of its own begins further in.
    let verbs: Vec<&str> =
        listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|verb| !verb.is_empty() && *verb != "help").collect();
    assert!(verbs.len() > 9 && verbs.contains(&"run") && verbs.contains(&"template"), "{verbs:?}");
    for arguments in verbs.iter().map(|verb| vec![*verb]).chain([vec![]]) {
        let text = help(&arguments);
        let wide = text.lines().find(|line| line.chars().count() > 110);
        assert_eq!(wide, None, "{arguments:?}");
        for flag in ["--password ", "--token ", "--secret"] {
            assert!(!text.contains(flag), "{arguments:?} offers {flag}");
        }
    }
}

#[test]
fn exit_codes_of_the_command_line_itself() {
    let code = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_heat-salt-bootstrap")).args(arguments).output().unwrap().status.code();
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["explain", "42"]), Some(0));
    assert_eq!(code(&["explain", "13"]), Some(11));
    assert_eq!(code(&["fly"]), Some(11));
    assert_eq!(code(&[]), Some(11));
    assert_eq!(code(&["run", "--password", "x"]), Some(11));
    assert_eq!(code(&["plan", "--root", "/no/such/directory"]), Some(11));
}

#[test]
fn the_table_of_exit_codes_is_the_programs_own() {
    use heat_salt_bootstrap::parts::Kind;
    let page = fs::read_to_string(top().join("docs/exit-codes.md")).unwrap();
    for kind in Kind::ALL {
        let row = format!("| {} | {} | {} |", kind.code(), kind.reason(), kind.meaning());
        assert!(page.contains(&row), "docs/exit-codes.md lacks: {row}");
    }
    let codes: Vec<u8> = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    let expected: Vec<u8> = Kind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(codes, expected, "docs/exit-codes.md has a row for each code, in their order, and no other");
}

/// Whoever reads a code in a stack's status finds one page that begins with what it means, and all of them alike.
#[test]
fn each_failure_has_its_page() {
    use heat_salt_bootstrap::parts::Kind;
    let text = |file: &str| fs::read_to_string(top().join(file)).unwrap();
    let named = |kind: Kind| format!("{}-{}.md", kind.code(), kind.reason());
    let failures: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Done).collect();
    let mut there: Vec<String> =
        fs::read_dir(top().join("docs/debugging")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    let expected: Vec<String> = failures.iter().map(|kind| named(*kind)).collect();
    assert_eq!(there, expected, "on the left the pages of docs/debugging, on the right those of all failures and of no other");
    let lists = ["docs/exit-codes.md", "docs/debugging.md"].map(|list| (list, text(list)));
    for kind in failures {
        let name = named(kind);
        let page = text(&format!("docs/debugging/{name}"));
        let (code, reason, meaning) = (kind.code(), kind.reason(), kind.meaning());
        assert!(page.starts_with(&format!("# {code} {reason}\n\n{meaning}")), "{name} begins with something else");
        let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(headings, ["What you see", "Usual causes", "What to do", "Is it tried again?"], "{name}");
        // Each of the three places is looked at once, and each of the three that might try again is spoken of.
        let starts = ["**Heat.** ", "**On the VM.** ", "**On the master.** ", "- The agent: ", "- Another run: ", "- Heat: "];
        let found: Vec<&str> = page.lines().filter_map(|line| starts.into_iter().find(|start| line.starts_with(start))).collect();
        assert_eq!(found, starts, "{name}");
        assert!(page.contains(&format!("{reason}: ")), "{name} shows no message");
        // Of these two there is no report.
        let reported = !matches!(kind, Kind::Usage | Kind::NotRoot);
        assert_eq!(page.contains(&format!("  web-1 ({reason}, exit code {code})\n")), reported, "{name}: as `status` shows it");
        for (list, text) in &lists {
            assert!(text.contains(&format!("](debugging/{name})")), "{list} has no link to {name}");
        }
    }
}

/// What a release has to have corrected; CONTRIBUTING.md, "Release", lists it.
#[test]
fn all_parts_have_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let text = |file: &str| fs::read_to_string(top().join(file)).unwrap();
    for (file, says) in [
        ("Cargo.lock", format!("name = \"heat-salt-bootstrap\"\nversion = \"{version}\"\n")),
        ("fuzz/Cargo.lock", format!("name = \"heat-salt-bootstrap\"\nversion = \"{version}\"\n")),
        ("packaging/heat-salt-bootstrap.spec", format!("\nVersion:        {version}\n")),
        ("salt-extension/pyproject.toml", format!("\nversion = \"{version}\"\n")),
        ("salt-extension/src/saltext/heat_bootstrap/__init__.py", format!("\n__version__ = \"{version}\"\n")),
        ("salt-extension/heat-bootstrap.8", format!("\"saltext-heat-bootstrap {version}\"\n")),
    ] {
        assert!(text(file).contains(&says), "{file} has another version than Cargo.toml, {version}");
    }
    let spec = text("packaging/heat-salt-bootstrap.spec");
    let newest = spec.split_once("\n%changelog\n").unwrap().1.lines().next().unwrap();
    assert!(newest.ends_with(&format!(" - {version}-1")), "%changelog begins with another version than {version}: {newest}");
}

#[test]
fn each_test_program_is_run() {
    let makefile = fs::read_to_string(top().join("Makefile")).unwrap();
    let words: BTreeSet<&str> = makefile.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    for directory in ["tests", "tests/lab/tests", "packaging/pages/tests"] {
        for entry in fs::read_dir(top().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_some_and(|extension| extension == "rs") {
                assert!(words.contains(&*name), "no goal of the Makefile runs {}", path.display());
            }
        }
    }
}

#[test]
fn goals_are_what_pages_say() {
    let output = Command::new("make").args(["--no-print-directory", "help"]).current_dir(top()).env_remove("MAKEFLAGS").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<&str> = help.lines().flat_map(|line| line.split_once("  ").unwrap().0.split(' ')).collect();
    let mut pages: Vec<PathBuf> = fs::read_dir(top().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.extend(["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "tests/README.md"].map(|page| top().join(page)));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        // In a sentence, or as a line of a block.
        for goal in text.split("`make ").skip(1).chain(text.split("\nmake ").skip(1)) {
            let goal = goal.split(['`', ' ', '\n']).next().unwrap();
            assert!(listed.contains(&goal), "{} names `make {goal}`, which `make help` does not list", page.display());
        }
    }
    // The table has every goal of tests, but the one that it is about.
    let page = fs::read_to_string(top().join("CONTRIBUTING.md")).unwrap();
    for goal in listed.iter().filter(|goal| goal.starts_with("test-")) {
        assert!(page.contains(&format!("\n| `make {goal}` |")), "CONTRIBUTING.md has no row for `make {goal}`");
    }
    let makefile = fs::read_to_string(top().join("Makefile")).unwrap();
    assert!(listed.contains(&"test-all") && makefile.contains("\ntest-all: export HSB_ALL := 1\n"));
}

/// Whoever lacks a tool shall learn of it before minutes are spent on a build.
#[test]
fn what_a_machine_lacks_is_said_before_anything_is_built() {
    let makefile = fs::read_to_string(top().join("Makefile")).unwrap();
    let mut prerequisites = "";
    let mut asked = 0;
    for line in makefile.lines().filter(|line| !line.starts_with('#')) {
        if !line.starts_with('\t') {
            // Of a rule with a pattern, what follows the pattern.
            prerequisites =
                line.split(" ## ").next().unwrap().rsplit_once(':').map_or("", |(_, after)| after.trim_start_matches('#').trim());
        } else if line.contains("$(PREFLIGHT)") {
            asked += 1;
            assert_eq!(prerequisites, "", "is built before this is asked: {line}");
        }
    }
    assert!(asked > 20, "{asked}");
}

/// What a script is, is read here by other means than there.
#[test]
fn no_script_escapes_its_check() {
    fn scripts_below(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                if ![".git", "target", "__pycache__"].contains(&name.as_str()) {
                    scripts_below(&path, found);
                }
                continue;
            }
            let begin: Vec<u8> = fs::read(&path).unwrap().into_iter().take(80).collect();
            let first = String::from_utf8_lossy(&begin).lines().next().unwrap_or_default().to_owned();
            let run = first
                .strip_prefix("#!")
                .is_some_and(|by| by.split(['/', ' ']).any(|word| word.ends_with("sh") || word.starts_with("python")));
            if run || name.ends_with(".sh") || name.ends_with(".py") {
                found.push(path.strip_prefix(top()).unwrap().display().to_string());
            }
        }
    }
    let mut scripts = Vec::new();
    scripts_below(&top(), &mut scripts);
    let output = Command::new(top().join("tests/scripts.sh")).arg("--list").output().unwrap();
    let mut listed: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    scripts.sort();
    listed.sort();
    assert!(scripts.len() > 15 && scripts.iter().any(|name| name == ".ci/run"), "{scripts:?}");
    assert_eq!(listed, scripts);
    assert!(fs::read_to_string(top().join("Makefile")).unwrap().contains("\n\t@tests/scripts.sh\n"));
}
