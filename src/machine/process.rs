//! Processes and their connections, as `/proc` shows them.

use std::collections::HashSet;
use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Does a process of this pid run (zombies do not)?
pub fn runs(pid: i32) -> bool {
    // The state follows the command's name, which stands in parentheses and may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The command line of a process, its words joined by spaces; empty if there is none.
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The process that started this one.
pub fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A process and all that came of it.
pub fn tree(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        next += 1;
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    all
}

/// Sends a signal; a process that is gone already is fine.
pub fn send(pid: i32, signal: Signal) -> Result<(), Errno> {
    match kill(Pid::from_raw(pid), signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}

/// Does one of these processes hold an established TCP connection to this remote port?
pub fn connected(pids: &[i32], port: u16) -> bool {
    let Some(&first) = pids.first() else { return false };
    // The cheap look first: in most polls there is no such connection at all.
    let sockets = sockets_to(first, port);
    !sockets.is_empty() && pids.iter().any(|pid| holds_one_of(*pid, &sockets))
}

/// The inodes of the established connections to a remote port in the network namespace of `pid`.
fn sockets_to(pid: i32, port: u16) -> HashSet<u64> {
    let mut inodes = HashSet::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        inodes.extend(established(&text, port));
    }
    inodes
}

/// Reads the kernel's table (`Documentation/networking/proc_net_tcp.rst`): the third field is the
/// remote address, the fourth the state (01 is established), the tenth the socket's inode.
fn established(table: &str, port: u16) -> impl Iterator<Item = u64> + '_ {
    let end = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let remote = fields.nth(2)?;
        let state = fields.next()?;
        let inode = fields.nth(5)?;
        if remote.ends_with(&end) && state == "01" { inode.parse().ok() } else { None }
    })
}

fn holds_one_of(pid: i32, inodes: &HashSet<u64>) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| {
        let name = target.to_string_lossy();
        name.strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'))
            .and_then(|inode| inode.parse().ok())
            .is_some_and(|inode: u64| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn our_own_connection_is_seen_while_it_lasts() {
        let pid = std::process::id() as i32;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!connected(&[pid], port), "listening is not connected");
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap();
        assert!(connected(&[pid], port));
        assert!(!connected(&[1], port), "it is ours, not init's");
        drop((stream, accepted));
        assert!(!connected(&[pid], port));
    }

    #[test]
    fn a_table_of_the_kernel_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:8F3A 0100007F:1199 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
             1: 0100007F:8F3B 0100007F:1199 06 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
             2: 0100007F:1199 0100007F:8F3A 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n";
        assert_eq!(established(table, 4505).collect::<Vec<_>>(), [4711]);
    }

    #[test]
    fn a_child_belongs_to_the_tree_until_it_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(tree(std::process::id() as i32).contains(&pid));
        // Between exec and the new image the command line is empty for a moment.
        while command_line(pid).is_empty() {}
        assert!(command_line(pid).starts_with("sleep 60") && runs(pid));
        assert_eq!(parent(pid), Some(std::process::id() as i32));
        send(pid, Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(!runs(pid));
    }
}
