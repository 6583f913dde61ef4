//! Which process is the minion.

use super::paths::MinionPaths;
use crate::system::files;
use crate::system::process;

/// The pid of the minion that runs, by its pid file; a file left behind by a dead one counts for
/// nothing, even if another process has the number now.
pub fn running(paths: &MinionPaths) -> Option<i32> {
    let pid: i32 = files::read_text(&paths.pidfile, 32).ok()?.trim().parse().ok()?;
    (process::runs(pid) && process::command_line(pid).contains("salt-minion")).then_some(pid)
}
