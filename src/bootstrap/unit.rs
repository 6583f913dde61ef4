//! The unit that removes the minion's key when the machine is switched off, for those who ask for it.

use std::path::Path;

use tracing::warn;

use super::systemd::{self, PACKAGED, UNITS, WANTS, config_words, quoted};
use crate::system::command;
use crate::system::files::{self, Root};
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};

const NAME: &str = "heat-salt-bootstrap-deregister.service";
const TEXT: &str = include_str!("../../packaging/systemd/heat-salt-bootstrap-deregister.service");
/// A package brings it here.
const OF_PACKAGES: &str = "/usr/lib/systemd/system";

/// Is it there and enabled, or is there nothing that could be?
pub fn in_place(root: &Root) -> bool {
    !root.is_machine() || !systemd::runs() || Path::new(WANTS).join(NAME).exists()
}

/// Writes, enables and starts it. Says whether anything had to change.
pub fn ensure(root: &Root, config: Option<&Path>, wait: &Wait) -> Result<bool, Failure> {
    if in_place(root) {
        if !root.is_machine() || !systemd::runs() {
            warn!("deregister \"at-shutdown\" needs systemd, which is not running here: nothing will remove the key");
        }
        return Ok(false);
    }
    if !Path::new(OF_PACKAGES).join(NAME).exists() {
        let program = systemd::own_program()?;
        files::ensure(&Path::new(UNITS).join(NAME), text(&program, config).as_bytes(), 0o644)?;
    }
    for words in [&["systemctl", "daemon-reload"][..], &["systemctl", "enable", NAME], &["systemctl", "--no-block", "start", NAME]] {
        let finished = command::run(words, &wait.slice(command::PROMPT))?;
        if !finished.success() {
            return Err(finished.failure(Kind::LocalSystem));
        }
    }
    Ok(true)
}

fn text(program: &Path, config: Option<&Path>) -> String {
    TEXT.replace(PACKAGED, &(quoted(program.as_os_str()) + &config_words(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_calls_the_program_that_wrote_it() {
        let text = text(Path::new("/opt/my agent"), Some(Path::new("/etc/x.json")));
        assert!(text.contains("ExecStop=\"/opt/my agent\" --config /etc/x.json deregister --at-shutdown\n"), "{text}");
        assert_eq!(TEXT.matches(PACKAGED).count(), 1);
    }
}
