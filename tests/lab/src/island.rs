//! A network of its own, with names of its own, for a process that is to think that it is alone in the world: nothing is reached
//! from there but what is let through.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::process::{run, until};

/// Network, mounts and host name of their own, as long as this value lives.
pub struct Island {
    keeper: Child,
    sunk: Arc<AtomicBool>,
}

impl Island {
    /// A new one, with loopback up.
    pub fn new() -> Result<Island> {
        let keeper = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "sh", "-c", "ip link set lo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run unshare")?;
        let island = Island { keeper, sunk: Arc::default() };
        // cat(1) is the sign that everything before it is done.
        let name = format!("/proc/{}/comm", island.keeper.id());
        until(Duration::from_secs(10), || std::fs::read_to_string(&name).is_ok_and(|name| name == "cat\n").then_some(()))
            .context("no network of its own")?;
        Ok(island)
    }

    /// The words before a command that is to run there. Its process id stays that of the first word.
    pub fn prefix(&self) -> Vec<String> {
        let target = self.keeper.id().to_string();
        ["nsenter", "--target", &target, "--net", "--mount", "--uts"].map(str::to_owned).to_vec()
    }

    /// Runs a piece of shell there, which has to succeed.
    pub fn sh(&self, script: &str) -> Result<()> {
        let prefix = self.prefix();
        let ended = run(Command::new(&prefix[0]).args(&prefix[1..]).args(["sh", "-ec", script]), Duration::from_secs(20))?;
        if ended.code != 0 {
            bail!("{script}: {}{}", ended.stdout, ended.stderr);
        }
        Ok(())
    }

    /// What is done with a socket that is opened there; sockets stay where they were opened, whoever uses them.
    fn open<T: Send + 'static>(&self, opened: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
        let network = std::fs::File::open(format!("/proc/{}/ns/net", self.keeper.id()))?;
        // Threads are in networks of their own, if they like.
        let there = thread::spawn(move || -> Result<T> {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            Ok(opened()?)
        });
        there.join().expect("it does not panic")
    }

    /// Lets connections to this address there through to that one here.
    pub fn let_through(&self, at: SocketAddr, to: SocketAddr) -> Result<()> {
        let listener = self.open(move || TcpListener::bind(at)).with_context(|| format!("cannot listen on {at}"))?;
        listener.set_nonblocking(true)?;
        let sunk = Arc::clone(&self.sunk);
        thread::spawn(move || {
            while !sunk.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((here, _)) => drop(thread::spawn(move || join(here, to))),
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Ok(())
    }

    /// A server of names there, on port 53 of the loopback address of the same family, which knows this address for every name, and no other.
    /// It is no real one: what it does with a question the function says.
    pub fn name_server(&self, address: impl Into<IpAddr>, says: impl Fn(Question) -> Says + Send + 'static) -> Result<()> {
        let address = address.into();
        let at = if address.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
        let socket = self.open(move || UdpSocket::bind((at, 53)))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let sunk = Arc::clone(&self.sunk);
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !sunk.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                if let Some(answer) = answered(&buffer[..length], address, &says) {
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(())
    }
}

/// What a server of names is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The IPv4 addresses (A).
    Ipv4,
    /// Something else: as a rule the IPv6 addresses (AAAA).
    Other,
}

/// What it says (RFC 1035, 4.1.1: RCODE).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// What it knows.
    Known = 0,
    /// That it could not find out (SERVFAIL).
    Failed = 2,
    /// That it does not want to.
    Refused = 5,
    /// Not a word.
    Nothing = 255,
}

/// The answer to a question (RFC 1035, 4.1; RFC 3596): the address for an A or an AAAA, whichever it is, and nothing for everything else, if
/// it says what it knows.
fn answered(question: &[u8], address: IpAddr, says: impl Fn(Question) -> Says) -> Option<Vec<u8>> {
    let mut end = 12;
    while *question.get(end)? != 0 {
        end += usize::from(question[end]) + 1;
    }
    // The root label, the type and the class.
    let asked = question.get(12..end + 5)?;
    let wanted = &asked[asked.len() - 4..asked.len() - 2];
    let says = says(if wanted == [0, 1] { Question::Ipv4 } else { Question::Other });
    if says == Says::Nothing {
        return None;
    }
    let (kind, address) = match address {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (28, address.octets().to_vec()),
    };
    let found = says == Says::Known && wanted == [0, kind];
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | says as u8, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    answer.extend(asked);
    if found {
        // A pointer to the name, its type, IN, a lifetime of a second, the length.
        answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 1, 0, address.len() as u8]);
        answer.extend(address);
    }
    Some(answer)
}

/// Passes bytes on in both directions until both ends are done.
fn join(here: TcpStream, to: SocketAddr) {
    let Ok(there) = TcpStream::connect(to) else { return };
    let _ = here.set_nonblocking(false);
    let (Ok(mut from_here), Ok(mut to_there)) = (here.try_clone(), there.try_clone()) else { return };
    let back = thread::spawn(move || {
        let (mut from_there, mut to_here) = (there, here);
        // Either end may break off.
        let _ = io::copy(&mut from_there, &mut to_here);
        let _ = to_here.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut from_here, &mut to_there);
    let _ = to_there.shutdown(Shutdown::Write);
    let _ = back.join();
}

impl Drop for Island {
    fn drop(&mut self) {
        self.sunk.store(true, Ordering::Relaxed);
        drop(self.keeper.stdin.take());
        // It ends when there is nothing more to read.
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_or_not() {
        let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04salt\x04test\x00\x00\x01\x00\x01";
        let answer = answered(question, Ipv4Addr::LOCALHOST.into(), |_| Says::Known).unwrap();
        assert_eq!((&answer[..4], answer[7]), (&b"\x12\x34\x81\x80"[..], 1));
        assert!(answer.ends_with(&[127, 0, 0, 1]));
        assert_eq!(answered(question, Ipv4Addr::LOCALHOST.into(), |_| Says::Failed).unwrap()[3], 0x82);
        // Nobody asked for an IPv6 address.
        assert_eq!(answered(question, Ipv6Addr::LOCALHOST.into(), |_| Says::Known).unwrap()[7], 0);
        assert_eq!(answered(b"\x12\x34", Ipv4Addr::LOCALHOST.into(), |_| Says::Known), None);
    }
}
