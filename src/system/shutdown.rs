//! Is this machine going down, and for how long? Asked of systemd, or of what an init(8) without it has written.

use std::time::Duration;

use super::command;
use super::interrupt::Interrupt;
use super::process;
use super::retry::Wait;
use crate::types::deadline::Deadline;

/// systemctl answers at once, or its systemd does not: then the machine counts as one that goes on.
const ASKING: Duration = Duration::from_secs(10);

/// Does it go down, in whatever way? systemctl(1), "is-system-running".
pub fn under_way(wait: &Wait) -> bool {
    printed(&["systemctl", "is-system-running"], wait).is_some_and(|printed| printed.trim() == "stopping")
}

/// Is it being switched off, and not only started anew?
pub fn for_good(wait: &Wait) -> bool {
    printed(&["systemctl", "list-jobs", "--no-legend", "--plain"], wait).is_some_and(|jobs| names_the_end(&jobs))
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

/// What a command says, if it comes to its end.
fn printed(words: &[&str], wait: &Wait) -> Option<String> {
    command::run(words, &soon(wait)).ok().map(|finished| finished.stdout)
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
fn names_the_end(jobs: &str) -> bool {
    let starts = |unit: &str| jobs.lines().any(|line| line.split_whitespace().skip(1).take(2).eq([unit, "start"]));
    starts("poweroff.target") || starts("halt.target")
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

    #[test]
    fn a_reboot_is_not_the_end() {
        // systemctl list-jobs --no-legend --plain, systemd 252, while a unit was being stopped
        let off = "183 poweroff.target start waiting\n188 leave.service stop running\n190 systemd-poweroff.service start waiting\n";
        assert!(names_the_end(off));
        assert!(!names_the_end(&off.replace("poweroff", "reboot")));
        assert!(!names_the_end("1 poweroff.target stop waiting\n"));
        assert!(!names_the_end(""));
        assert!(is_six("2 6\n") && !is_six("N 2\n") && !is_six("6 0") && !is_six("unknown\n"));
        assert_eq!(last_verb("/usr/lib/systemd/systemd-shutdown reboot --log-level 6 --log-target kmsg"), Some("reboot"));
        assert_eq!(last_verb("/lib/systemd/systemd --switched-root --system"), None);
    }
}
