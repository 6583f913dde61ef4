//! Is this machine going down, and for how long? Asked of systemd, or of what an init(8) without it has written.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::command;
use super::interrupt::Interrupt;
use super::process;
use super::retry::Wait;
use crate::types::deadline::Deadline;

/// systemctl answers at once, or its systemd does not: then the machine counts as one that goes on.
const ASKING: Duration = Duration::from_secs(10);

/// Does it go down, in whatever way? `systemctl is-system-running` says "starting" as long as the boot has not come to its end, and a
/// bootstrap is a part of that.
pub fn under_way(wait: &Wait) -> bool {
    is_queued(&["shutdown.target"], wait)
}

/// Is it being switched off, and not only started anew?
pub fn for_good(wait: &Wait) -> bool {
    is_queued(&["poweroff.target", "halt.target"], wait)
}

/// Is it being started anew, and comes back?
pub fn is_reboot() -> bool {
    // At the very end process 1 is another program, which ends what is left over and says for what (systemd-shutdown(8)).
    if let Some(verb) = last_verb(&process::command_line(1)) {
        return matches!(verb, "reboot" | "kexec" | "soft-reboot");
    }
    let wait = Wait::until(Deadline::after(ASKING), Interrupt::default());
    (under_way(&wait) && !for_good(&wait)) || printed(&["runlevel"], &wait).is_some_and(|levels| is_six(&levels))
}

/// The run level before and now, 6 being the one in which a machine is started anew (runlevel(8)).
fn is_six(levels: &str) -> bool {
    levels.split_whitespace().nth(1) == Some("6")
}

/// Is systemd to start one of these? Of all that is queued when a machine goes down only the end would be kept.
fn is_queued(units: &[&str], wait: &Wait) -> bool {
    printed(&[&["systemctl", "list-jobs", "--no-legend", "--plain"], units].concat(), wait).is_some_and(|jobs| names_start(&jobs, units))
}

/// What a command says, if it comes to its end. A systemd that stops a unit sends SIGTERM to what is in it until it finds nothing new there
/// (`src/basic/cgroup-util.c`, `cg_kill`), and may find who was started to ask it: then it is asked once more.
fn printed(words: &[&str], wait: &Wait) -> Option<String> {
    let wait = soon(wait);
    loop {
        let finished = command::run(words, &wait).ok()?;
        if finished.status.signal() != Some(Signal::SIGTERM as i32) {
            return Some(finished.stdout);
        }
        wait.pause(Duration::from_millis(20)).ok()?;
    }
}

fn soon(wait: &Wait) -> Wait {
    wait.slice(ASKING)
}

/// For what systemd-shutdown was started, if this is its command line.
fn last_verb(command_line: &str) -> Option<&str> {
    let mut words = command_line.split(' ');
    words.next()?.ends_with("/systemd-shutdown").then(|| words.find(|word| !word.starts_with('-')).unwrap_or_default())
}

/// Reads the jobs that systemd has queued: number, unit, kind, state.
fn names_start(jobs: &str, units: &[&str]) -> bool {
    let mut words = jobs.lines().map(|line| line.split_whitespace().skip(1));
    words.any(|mut of| of.next().is_some_and(|unit| units.contains(&unit)) && of.next() == Some("start"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::retry::tests::hour;

    #[test]
    fn who_does_not_answer_says_nothing_of_an_end() {
        let hour = hour();
        assert!(soon(&hour).remaining() <= ASKING);
        let silent = ["sh", "-c", "echo stopping; exec sleep 4714"];
        assert_eq!(printed(&silent, &hour.slice(Duration::from_millis(100))), None);
        assert_eq!(printed(&["echo", "running"], &hour).as_deref(), Some("running\n"));
    }

    /// As `systemctl` is by the systemd that stops our own unit.
    #[test]
    fn who_is_ended_with_us_is_asked_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let script = format!("cd {}; [ -e asked ] || {{ : >asked; kill -TERM $$; }}; echo stopping", dir.path().display());
        assert_eq!(printed(&["sh", "-c", &script], &hour()).as_deref(), Some("stopping\n"));
    }

    #[test]
    fn a_reboot_is_not_the_end() {
        // systemctl list-jobs --no-legend --plain, systemd 252, while a unit was being stopped
        let off = "183 poweroff.target start waiting\n188 leave.service stop running\n190 systemd-poweroff.service start waiting\n";
        let end = |jobs: &str| names_start(jobs, &["poweroff.target", "halt.target"]);
        assert!(end(off));
        assert!(!end(&off.replace("poweroff", "reboot")));
        assert!(!end("1 poweroff.target stop waiting\n"));
        assert!(!end(""));
        assert!(is_six("2 6\n") && !is_six("N 2\n") && !is_six("6 0") && !is_six("unknown\n"));
        assert_eq!(last_verb("/usr/lib/systemd/systemd-shutdown reboot --log-level 6 --log-target kmsg"), Some("reboot"));
        assert_eq!(last_verb("/lib/systemd/systemd --switched-root --system"), None);
    }
}
