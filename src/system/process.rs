//! Processes and their connections, as `/proc` shows them.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fmt;
use std::fs;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{self, WaitPidFlag};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{self, Pid};

use super::sockets;

/// Does a process of this pid run (zombies do not)?
pub fn runs(pid: i32) -> bool {
    // The state follows the command's name, which stands in parentheses and may hold anything.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The command line of a process, its words joined by spaces; empty if there is none.
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// The processes whose command line has these words in it, one after the other.
pub fn with_words(words: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let wanted = format!(" {words} ");
    pids.filter(|pid| format!(" {} ", command_line(*pid)).contains(&wanted)).filter(|pid| runs(*pid)).collect()
}

/// A moment on this machine's own clock since it was booted, which nobody sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Which boot.
    boot: String,
    /// Milliseconds since then, of sleep too.
    milliseconds: u64,
}

/// The kernel tells the start of a process in ticks of so many milliseconds (proc(5), `sysconf(_SC_CLK_TCK)`; 100 a second on every Linux).
const TICK: u64 = 10;

/// The kernel's id of this boot (random(4)); empty if it has none.
fn kernels_boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// What is another one after each boot: the kernel's id, and when process 1 began, since containers may share the former.
pub fn boot_id() -> String {
    format!("{}:{}", kernels_boot(), start_ticks(1).unwrap_or_default())
}

impl Moment {
    /// This one.
    pub fn now() -> Moment {
        Moment::at(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| Duration::from(time).as_millis() as u64))
    }

    fn at(milliseconds: u64) -> Moment {
        Moment { boot: kernels_boot(), milliseconds }
    }

    /// Reads what [`Moment`]'s Display has written.
    pub fn parse(text: &str) -> Option<Moment> {
        let (boot, milliseconds) = text.trim().split_once(' ')?;
        Some(Moment { boot: boot.to_owned(), milliseconds: milliseconds.parse().ok()? })
    }

    /// Is it the other one, or later? What is of another boot than the present one is earlier than all of this one.
    pub fn is_since(&self, other: &Moment) -> bool {
        self.boot != other.boot || self.milliseconds >= other.milliseconds
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.boot, self.milliseconds)
    }
}

/// When a process began, to the end of that tick; `None` if there is no such process.
pub fn began(pid: i32) -> Option<Moment> {
    Some(Moment::at((start_ticks(pid)? + 1) * TICK))
}

fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // starttime is the 22nd field; the second one stands in parentheses and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
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

/// Keeps the kernel from writing this process into a core file, in which secrets would lie. What it starts is not concerned: exec(2)
/// takes it back.
pub fn never_dump_core() {
    // It fails on no kernel that runs this.
    let _ = prctl::set_dumpable(false);
}

/// Makes this process die with the one that started it, if that is still `parent`; says whether it is.
pub fn dies_with(parent: i32) -> bool {
    let is_ours = || unistd::getppid().as_raw() == parent;
    // In between the parent may die: so it is asked afterwards.
    is_ours() && prctl::set_pdeathsig(Signal::SIGKILL).is_ok() && is_ours()
}

/// What `ps` and `top` call this process.
pub fn call_myself(name: &CStr) {
    // It fails on no kernel that runs this.
    let _ = prctl::set_name(name);
}

/// Tells the kernel to end others first when memory runs out: whoever watches is small, and the last one to be missed. Only root may.
pub fn outlive_others() {
    // Elsewhere it is one of many.
    let _ = fs::write("/proc/self/oom_score_adj", "-500");
}

/// How many processes the kernel has ended for want of memory, in all and in any control group; proc_vmstat(5).
pub fn out_of_memory_kills() -> Option<u64> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

/// Waits for the end of a child, and leaves it a zombie: so its pid is nobody else's yet.
pub fn await_end(child: i32) {
    let how = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while wait::waitid(wait::Id::Pid(Pid::from_raw(child)), how) == Err(Errno::EINTR) {}
}

/// Sends a signal; a process that is gone already is fine.
pub fn send(pid: i32, signal: Signal) -> Result<(), Errno> {
    match kill(Pid::from_raw(pid), signal) {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}

/// Does one of these processes hold an established TCP connection to one of these remote ports?
pub fn connected(pids: &[i32], ports: &[u16]) -> bool {
    connections(pids, ports) > 0
}

/// How many established TCP connections to these remote ports these processes hold. One that a child has inherited counts once.
pub fn connections(pids: &[i32], ports: &[u16]) -> usize {
    if pids.is_empty() {
        return 0;
    }
    let sockets = sockets::established_to(ports);
    if sockets.is_empty() {
        return 0;
    }
    pids.iter().flat_map(|pid| held_by(*pid)).filter(|inode| sockets.contains(inode)).collect::<HashSet<u32>>().len()
}

fn held_by(pid: i32) -> impl Iterator<Item = u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).filter_map(|target| {
        let name = target.to_string_lossy();
        name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).and_then(|inode| inode.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_begins_after_what_was_before_it() {
        let before = Moment::now();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let began = began(child.id() as i32).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(began.is_since(&before), "{began:?} {before:?}");
        std::thread::sleep(Duration::from_millis(20));
        assert!(!began.is_since(&Moment::now()));
        assert!(super::began(i32::MAX).is_none());
        assert_eq!(Moment::parse(&before.to_string()), Some(before));
        // Whatever was noted before this boot is older.
        assert!(began.is_since(&Moment { boot: "another".into(), milliseconds: u64::MAX }));
    }
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn our_own_connection_is_seen_while_it_lasts() {
        let pid = std::process::id() as i32;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!connected(&[pid], &[port]), "listening is not connected");
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept().unwrap();
        assert!(connected(&[pid], &[port, 1]));
        assert_eq!(connections(&[pid, pid], &[port]), 1);
        assert!(!connected(&[1], &[port]), "it is ours, not init's");
        drop((stream, accepted));
        assert!(!connected(&[pid], &[port]));
    }

    #[test]
    fn no_core_is_written_of_us() {
        never_dump_core();
        assert!(!prctl::get_dumpable().unwrap());
        prctl::set_dumpable(true).unwrap();
    }

    #[test]
    fn a_child_belongs_to_the_tree_until_it_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(tree(std::process::id() as i32).contains(&pid));
        // Between exec and the new image the command line is empty for a moment.
        while command_line(pid).is_empty() {}
        assert!(command_line(pid).starts_with("sleep 60") && runs(pid));
        assert!(with_words("sleep 60").contains(&pid) && !with_words("sleep 6").contains(&pid));
        send(pid, Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(!runs(pid));
    }
}
