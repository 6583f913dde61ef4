//! What the units that this program writes have in common: they are those of its packages, with its own command.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::system::command;
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};

/// The program's path in the packages' units.
pub const PACKAGED: &str = "/usr/bin/heat-salt-bootstrap";
/// Where units are written, so that they come before those of packages.
pub const UNITS: &str = "/etc/systemd/system";
/// What is linked here is started at boot.
pub const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// Is it systemd that runs this machine? sd_booted(3).
pub fn runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Calls a tool that changes what is started, and has to succeed.
pub fn manage(words: &[&str], wait: &Wait) -> Result<(), Failure> {
    let finished = command::prompt(words, wait)?;
    if finished.success() { Ok(()) } else { Err(finished.failure(Kind::LocalSystem)) }
}

/// The path of this program.
pub fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::new(Kind::LocalSystem, format!("this program cannot find its own path: {error}")))
}

/// A word of a command. systemd.syntax(7): in quotes a backslash and a quote want a backslash; systemd.unit(5): `%` begins a specifier;
/// systemd.service(5): `$` a variable.
pub fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+=:,".contains(c));
    if plain { word.into_owned() } else { format!("\"{}\"", escaped(&word.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$"))) }
}

/// A text in which `%` is to mean itself.
pub fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

/// What names a configuration to the program, after its verb.
pub fn config_words(config: Option<&Path>) -> String {
    config.map_or_else(String::new, |config| format!(" --config {}", quoted(config.as_os_str())))
}
