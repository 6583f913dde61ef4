//! The unit that removes the minion's key when the machine is switched off, for those who ask for it.

use std::path::Path;
use std::time::Duration;

use tracing::warn;

use crate::system::command;
use crate::system::files::{self, Root};
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};

const NAME: &str = "heat-salt-bootstrap-deregister.service";
const TEXT: &str = include_str!("../../packaging/systemd/heat-salt-bootstrap-deregister.service");
/// The program's path in that text, which is the package's.
const PACKAGED: &str = "/usr/bin/heat-salt-bootstrap";
/// A package brings it here.
const OF_PACKAGES: &str = "/usr/lib/systemd/system";

/// Is it there and enabled, or is there nothing that could be?
pub fn in_place(root: &Root) -> bool {
    !root.is_machine() || !has_systemd() || Path::new("/etc/systemd/system/multi-user.target.wants").join(NAME).exists()
}

/// Writes, enables and starts it. Says whether anything had to change.
pub fn ensure(root: &Root, config: Option<&Path>, wait: &Wait) -> Result<bool, Failure> {
    if in_place(root) {
        if !root.is_machine() || !has_systemd() {
            warn!("deregister \"at-shutdown\" needs systemd, which is not running here: nothing will remove the key");
        }
        return Ok(false);
    }
    if !Path::new(OF_PACKAGES).join(NAME).exists() {
        let program = std::env::current_exe()
            .map_err(|error| Failure::new(Kind::LocalSystem, format!("this program cannot find its own path: {error}")))?;
        files::ensure(&Path::new("/etc/systemd/system").join(NAME), text(&program, config).as_bytes(), 0o644)?;
    }
    for words in [&["systemctl", "daemon-reload"][..], &["systemctl", "enable", NAME], &["systemctl", "--no-block", "start", NAME]] {
        let finished = command::run(words, &wait.slice(Duration::from_secs(60)))?;
        if !finished.success() {
            return Err(finished.failure(Kind::LocalSystem));
        }
    }
    Ok(true)
}

fn text(program: &Path, config: Option<&Path>) -> String {
    let mut command = quoted(program);
    if let Some(config) = config {
        command.push_str(&format!(" --config {}", quoted(config)));
    }
    TEXT.replace(PACKAGED, &command)
}

/// systemd.syntax(7): in quotes a backslash and a quote want a backslash; systemd.unit(5): `%` begins a specifier.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if plain { path } else { format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")) }
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
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
