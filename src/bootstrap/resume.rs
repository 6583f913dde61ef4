//! A run that a reboot cuts off continues at the next boot, and Heat is told what it has not taken: by the units of the packages where an
//! image has them enabled, else by the same units, which a run writes at its beginning and removes at its end. Of a run that nobody else
//! watches, systemd watches that it ends in order.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::systemd::{self, PACKAGED, UNITS, WANTS, config_words, escaped, quoted};
use super::sysv;
use crate::system::command;
use crate::system::files::{self, Root};
use crate::system::retry::Wait;
use crate::types::failure::Failure;

const RUN: &str = "heat-salt-bootstrap.service";
const SIGNAL: &str = "heat-salt-bootstrap-signal.service";
const RUN_TEXT: &str = include_str!("../../packaging/systemd/heat-salt-bootstrap.service");
const SIGNAL_TEXT: &str = include_str!("../../packaging/systemd/heat-salt-bootstrap-signal.service");
/// What Heat has not taken (`state`).
const KEPT: &str = "/var/lib/heat-salt-bootstrap/signal.json";
/// Waits, in a control group of its own, for the end of a run, and tells Heat if that was no end in order.
const WATCH: &str = "heat-salt-bootstrap-watch.service";
/// For a person.
const BOOTS: &str = "are written for the time of the run: after a reboot they continue it, and tell Heat";
const WATCHES: &str = "heat-salt-bootstrap-watch.service is started for the time of the run: it tells Heat if the run is killed";
/// Units that are gone with this boot.
const UNITS_OF_THIS_BOOT: &str = "/run/systemd/system";
/// What a unit that is ours to remove begins with.
const MARK: &str = "# Written by heat-salt-bootstrap for the run that is under way, and removed at its end.\n";
/// The proxies that the run was started with: their passwords have no place in a unit, which everybody may read.
const ENVIRONMENT: &str = "/var/lib/heat-salt-bootstrap/environment";

/// What the next boot has to do for a run that was cut off.
pub enum AtBoot {
    /// Continue it, with these arguments.
    Continue(Vec<OsString>),
    /// Tell Heat that it was cut off: what it was given on its standard input is gone, or it was only a part of the work.
    Tell(Option<PathBuf>),
}

impl AtBoot {
    /// The configuration's path, if one was given.
    fn config(&self) -> Option<PathBuf> {
        match self {
            AtBoot::Continue(arguments) => config_of(arguments),
            AtBoot::Tell(config) => config.clone(),
        }
    }
}

/// Puts the units in place, unless those of the packages are enabled, or have started this run (`by_unit`).
pub fn arrange(root: &Root, at_boot: &AtBoot, by_unit: bool, wait: &Wait) -> Result<(), Failure> {
    let others = (is_arranged(root) || by_unit) && !is_ours(root, RUN);
    if !root.is_machine() || others || !(systemd::runs() || sysv::runs(root)) {
        return Ok(());
    }
    let program = systemd::own_program()?;
    let directory = directory();
    let proxies: String = command::proxies().iter().filter_map(|(name, value)| Some(format!("{name}={}\n", value.to_str()?))).collect();
    if !proxies.is_empty() {
        files::write(&root.at(ENVIRONMENT), proxies.as_bytes(), 0o600)?;
    }
    if !systemd::runs() {
        return scripts(&program, &directory, at_boot).iter().try_for_each(|(name, text)| sysv::ensure(root, name, text, wait));
    }
    for (name, text) in [(RUN, run_text(&program, &directory, at_boot)), (SIGNAL, signal_text(&program, &directory, at_boot))] {
        files::ensure(&root.at(UNITS).join(name), text.as_bytes(), 0o644)?;
        enable(root, name)?;
    }
    Ok(())
}

/// Has systemd watch this run, which it has not started: whoever kills both processes of it, or all of the service that it is a part of, as
/// cloud-init's scripts are, leaves somebody who tells Heat.
pub fn watch(root: &Root, config: Option<&Path>, wait: &Wait) -> Result<(), Failure> {
    if !root.is_machine() || !systemd::runs() {
        return Ok(());
    }
    let text = watch_text(&systemd::own_program()?, &directory(), config);
    files::ensure(&root.at(UNITS_OF_THIS_BOOT).join(WATCH), text.as_bytes(), 0o644)?;
    // One of the run before may be about to end.
    let start = ["systemctl", "--no-block", "restart", WATCH];
    systemd::manage(&start, wait).or_else(|_| {
        // Before 246 systemd finds a new unit only when it is told to look.
        systemd::manage(&["systemctl", "daemon-reload"], wait)?;
        systemd::manage(&start, wait)
    })
}

/// What [`arrange`] and [`watch`] would do, for a person.
pub fn planned(root: &Root) -> Option<String> {
    let said = match (systemd::runs(), is_arranged(root) && !is_ours(root, RUN)) {
        _ if !root.is_machine() => return None,
        (true, true) => WATCHES.to_owned(),
        (true, false) => format!("{RUN} and {SIGNAL} {BOOTS}; {WATCHES}"),
        (false, false) if sysv::runs(root) => format!("the init scripts {} and {} {BOOTS}", script_name(RUN), script_name(SIGNAL)),
        (false, _) => return None,
    };
    Some(said)
}

/// What commands are called in.
fn directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| "/".into())
}

/// Has this run, or the packages, arranged for the next boot?
pub fn is_arranged(root: &Root) -> bool {
    root.at(WANTS).join(RUN).symlink_metadata().is_ok() || sysv::is_ours(root, script_name(RUN))
}

/// Removes what [`arrange`] and [`watch`] have written: the run has ended, as who watches sees by itself. As long as Heat has not taken a
/// signal, what sends it at boot stays.
pub fn run_ended(root: &Root, signal_pending: bool) -> Result<(), Failure> {
    files::remove(&root.at(UNITS_OF_THIS_BOOT).join(WATCH))?;
    remove(root, RUN)?;
    if signal_pending { Ok(()) } else { signal_taken(root) }
}

/// The same of what sends a signal at boot: Heat has taken it.
pub fn signal_taken(root: &Root) -> Result<(), Failure> {
    remove(root, SIGNAL)?;
    if is_ours(root, RUN) { Ok(()) } else { files::remove(&root.at(ENVIRONMENT)) }
}

fn remove(root: &Root, name: &str) -> Result<(), Failure> {
    sysv::remove(root, script_name(name))?;
    if !is_our_unit(root, name) {
        return Ok(());
    }
    files::remove(&root.at(WANTS).join(name))?;
    files::remove(&root.at(UNITS).join(name))
}

fn is_ours(root: &Root, name: &str) -> bool {
    is_our_unit(root, name) || sysv::is_ours(root, script_name(name))
}

/// What an init script is called that does what this unit does.
fn script_name(unit: &str) -> &str {
    unit.trim_end_matches(".service")
}

fn is_our_unit(root: &Root, name: &str) -> bool {
    files::read_text(&root.at(UNITS).join(name), 64 * 1024).is_ok_and(|text| text.starts_with(MARK))
}

fn enable(root: &Root, name: &str) -> Result<(), Failure> {
    let wants = root.at(WANTS);
    files::ensure_dir(&wants, 0o755)?;
    let link = wants.join(name);
    match symlink(Path::new(UNITS).join(name), &link) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(files::cannot("make", &link, &error)),
        _ => Ok(()),
    }
}

/// The package's unit, without its conditions and the mark of an instance that is done: that it is there is the condition.
fn run_text(program: &Path, directory: &Path, at_boot: &AtBoot) -> String {
    let start = match at_boot {
        AtBoot::Continue(arguments) => {
            let words: Vec<String> = with_at_boot(arguments).iter().map(|word| quoted(word)).collect();
            format!("{} {}", quoted(program.as_os_str()), words.join(" "))
        }
        AtBoot::Tell(config) => format!("{} signal --killed{}", quoted(program.as_os_str()), config_words(config.as_deref())),
    };
    let kept = |line: &&str| !line.starts_with("Condition") && !line.starts_with("ExecStopPost=/bin/sh");
    let lines = RUN_TEXT.lines().filter(kept).map(|line| match line.split_once('=') {
        Some(("ExecStart", _)) => format!("ExecStart={start}"),
        _ => line.replace(PACKAGED, &quoted(program.as_os_str())),
    });
    with_surroundings(lines, directory)
}

/// The package's unit. It removes itself once Heat knows, for which it has to write where it lies.
fn signal_text(program: &Path, directory: &Path, at_boot: &AtBoot) -> String {
    let config = at_boot.config();
    let command = format!("{} signal --kept{}", quoted(program.as_os_str()), config_words(config.as_deref()));
    let lines = SIGNAL_TEXT.lines().map(|line| match line.split_once('=') {
        Some(("ExecStart", _)) => format!("ExecStart={command}\nReadWritePaths={UNITS}"),
        _ => line.to_owned(),
    });
    with_surroundings(lines, directory)
}

/// The same as init scripts. They are started at once, where units wait for each other: the lock sees to that.
fn scripts(program: &Path, directory: &Path, at_boot: &AtBoot) -> [(&'static str, String); 2] {
    let program = sysv::quoted(program.as_os_str());
    let config = at_boot.config().map_or_else(String::new, |config| format!(" --config {}", sysv::quoted(config.as_os_str())));
    let killed = format!("{program} signal --killed{config}");
    let first = match at_boot {
        AtBoot::Continue(arguments) => {
            let words: Vec<String> = with_at_boot(arguments).iter().map(|word| sysv::quoted(word)).collect();
            // A code above 128: it was killed, and its guardian too.
            format!("{program} {} || [ $? -le 128 ] || {killed}", words.join(" "))
        }
        AtBoot::Tell(_) => killed,
    };
    let kept = format!("[ ! -e {KEPT} ] || {program} signal --kept{config}");
    let script = |unit, commands: &str| (script_name(unit), sysv::script(script_name(unit), commands, directory, ENVIRONMENT));
    [script(RUN, &first), script(SIGNAL, &kept)]
}

/// A run's arguments, as the next boot gives them.
fn with_at_boot(arguments: &[OsString]) -> Vec<OsString> {
    let mut words = arguments.to_vec();
    if !words.iter().any(|word| word == "--at-boot") {
        words.push("--at-boot".into());
    }
    words
}

/// The same unit in place of a boot's: it waits, and is there again whoever kills it. The configuration may lie in /tmp.
fn watch_text(program: &Path, directory: &Path, config: Option<&Path>) -> String {
    let command = format!("{} signal --killed --wait{}", quoted(program.as_os_str()), config_words(config));
    let elsewhere = ["#", "Condition", "Timeout", "PrivateTmp=", "[Install]", "WantedBy="];
    let lines = SIGNAL_TEXT.lines().filter(|line| !elsewhere.iter().any(|begin| line.starts_with(begin)));
    let lines = lines.map(|line| match line.split_once('=') {
        Some(("Description", _)) => "Description=Tell Heat if the bootstrap that is under way is killed".to_owned(),
        Some(("Type", _)) => "Type=simple\nRestart=on-abnormal\nRestartForceExitStatus=SIGTERM".to_owned(),
        Some(("ExecStart", _)) => format!("ExecStart={command}\nReadWritePaths={UNITS}"),
        _ => line.to_owned(),
    });
    with_surroundings(lines, directory)
}

/// Paths among the arguments may be relative, and names may have to be asked of a proxy.
fn with_surroundings(lines: impl Iterator<Item = String>, directory: &Path) -> String {
    let mut text = MARK.to_owned();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
        if line == "[Service]" {
            text.push_str(&format!("WorkingDirectory=-{}\nEnvironmentFile=-{ENVIRONMENT}\n", escaped(&directory.display().to_string())));
        }
    }
    text
}

/// The value of --config among a run's arguments.
fn config_of(arguments: &[OsString]) -> Option<PathBuf> {
    let at = arguments.iter().position(|word| word == "--config");
    let joined = arguments.iter().find_map(|word| word.as_bytes().strip_prefix(b"--config="));
    at.and_then(|at| arguments.get(at + 1)).map(PathBuf::from).or_else(|| joined.map(|path| PathBuf::from(OsStr::from_bytes(path))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<OsString> {
        line.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_units_are_those_of_the_packages_with_this_runs_own_command() {
        let arguments = words(&["run", "--config", "my conf.json", "--state", "100%", "-v"]);
        let text = run_text(Path::new("/opt/x/agent"), Path::new("/root"), &AtBoot::Continue(arguments.clone()));
        assert!(text.starts_with(MARK));
        for line in [
            "ExecStart=/opt/x/agent run --config \"my conf.json\" --state \"100%%\" -v --at-boot",
            "ExecStopPost=-/opt/x/agent signal --killed",
            "WorkingDirectory=-/root",
            "KillMode=process",
        ] {
            assert_eq!(text.lines().filter(|one| *one == line).count(), 1, "{line} in {text}");
        }
        assert!(!text.lines().any(|line| line.starts_with("Condition")) && !text.contains("/usr/bin/heat") && !text.contains(".done\""));
        let text = signal_text(Path::new("/opt/x/agent"), Path::new("/root"), &AtBoot::Continue(arguments));
        assert!(text.contains("\nExecStart=/opt/x/agent signal --kept --config \"my conf.json\"\n"), "{text}");
        assert!(text.contains("ConditionPathExists=/var/lib/heat-salt-bootstrap/signal.json"));
    }

    #[test]
    fn who_watches_runs_as_what_tells_at_boot_but_for_the_whole_run() {
        let text = watch_text(Path::new("/opt/x/agent"), Path::new("/root"), Some(Path::new("/tmp/c.json")));
        for line in [
            "ExecStart=/opt/x/agent signal --killed --wait --config /tmp/c.json",
            "Type=simple",
            "Restart=on-abnormal",
            "NoNewPrivileges=yes",
            "WorkingDirectory=-/root",
        ] {
            assert_eq!(text.lines().filter(|one| *one == line).count(), 1, "{line} in {text}");
        }
        assert!(text.starts_with(MARK));
        for other in ["Condition", "Timeout", "PrivateTmp", "Install", "--kept"] {
            assert!(!text.contains(other), "{other} in {text}");
        }
    }

    #[test]
    fn what_cannot_continue_is_told() {
        let text = run_text(Path::new("/a"), Path::new("/"), &AtBoot::Tell(Some("/c.json".into())));
        assert!(text.contains("\nExecStart=/a signal --killed --config /c.json\n"), "{text}");
        assert_eq!(config_of(&words(&["run", "--config=/x"])), Some("/x".into()));
        assert_eq!(config_of(&words(&["run"])), None);
    }
}
