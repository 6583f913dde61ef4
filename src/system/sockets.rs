//! Which TCP connections are established, asked of the kernel by netlink (sock_diag(7)). Reading `/proc/net/tcp` says the same in 8 ms
//! on a machine of 24 GiB, netlink in 0.8 ms: either walks a hash table that grows with the memory. How many sockets there are is known
//! without.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::files;

// From linux/netlink.h, linux/inet_diag.h and net/tcp_states.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
/// The older of two questions: in one walk of that table it is asked of IPv4 and IPv6, and not in one for each.
const TCPDIAG_GETSOCK: u16 = 18;
const ESTABLISHED: u32 = 1 << 1;

/// struct nlmsghdr.
const HEADER: usize = 16;
/// struct inet_diag_req: four bytes and an address, which a dump does without, the states that are wanted, and more that it does without.
const REQUEST: usize = 60;
const STATES_AT: usize = HEADER + 52;
/// In struct inet_diag_msg: the remote port, in network order, and the inode.
const PORT_AT: usize = HEADER + 6;
const INODE_AT: usize = HEADER + 68;

/// Says to whoever waits for a connection when it is worth to look.
#[derive(Default)]
pub struct Lookout {
    sockets: Option<u32>,
    /// How often it was asked since their number has changed.
    asked: u32,
}

impl Lookout {
    /// Could there be a new connection? While there are as many sockets as before, one in five looks is enough: one may have gone as one
    /// came. The next two after a change are for connections that take their time.
    pub fn is_due(&mut self) -> bool {
        let stat = files::read_text("/proc/net/sockstat".as_ref(), 4096).unwrap_or_default();
        self.is_due_with(allocated(&stat))
    }

    fn is_due_with(&mut self, sockets: Option<u32>) -> bool {
        if sockets.is_none() || sockets != self.sockets {
            (self.sockets, self.asked) = (sockets, 0);
        }
        self.asked += 1;
        self.asked <= 3 || self.asked.is_multiple_of(5)
    }
}

/// `TCP: inuse 12 orphan 0 tw 3 alloc 14 mem 1`: of IPv4 and IPv6, and of all namespaces (`net/ipv4/proc.c`, `sockstat_seq_show`).
fn allocated(stat: &str) -> Option<u32> {
    let mut words = stat.lines().find_map(|line| line.strip_prefix("TCP: "))?.split(' ').skip_while(|word| *word != "alloc");
    words.nth(1)?.parse().ok()
}

/// The inodes of all established connections to these remote ports in our network namespace.
pub fn established_to(ports: &[u16]) -> HashSet<u32> {
    by_netlink(ports).unwrap_or_else(|_| by_proc(ports))
}

fn by_netlink(ports: &[u16]) -> Result<HashSet<u32>, Errno> {
    let mut inodes = HashSet::new();
    let netlink = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    send(netlink.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if read(&buffer[..length], ports, &mut inodes)? {
            return Ok(inodes);
        }
    }
}

/// A dump of all established TCP sockets.
fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes.extend(TCPDIAG_GETSOCK.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // With a sequence number and a port id, which one question at a time does without.
    bytes.resize(STATES_AT, 0);
    bytes.extend(ESTABLISHED.to_ne_bytes());
    bytes.resize(HEADER + REQUEST, 0);
    bytes
}

/// Reads the messages of one datagram; says whether the dump is over.
fn read(mut datagram: &[u8], ports: &[u16], inodes: &mut HashSet<u32>) -> Result<bool, Errno> {
    while let (Some(length), Some(kind)) = (number(datagram, 0).map(u32::from_ne_bytes), number(datagram, 4).map(u16::from_ne_bytes)) {
        let length = length as usize;
        if kind == NLMSG_DONE {
            return Ok(true);
        }
        if kind == NLMSG_ERROR || length < HEADER || length > datagram.len() {
            return Err(Errno::EPROTO);
        }
        let message = &datagram[..length];
        if let (Some(port), Some(inode)) =
            (number(message, PORT_AT).map(u16::from_be_bytes), number(message, INODE_AT).map(u32::from_ne_bytes))
            && ports.contains(&port)
        {
            inodes.insert(inode);
        }
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    Ok(false)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// For kernels and sandboxes without sock_diag.
fn by_proc(ports: &[u16]) -> HashSet<u32> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    tables.iter().flat_map(|table| table_inodes(&fs::read_to_string(table).unwrap_or_default(), ports)).collect()
}

/// Reads the kernel's table (`Documentation/networking/proc_net_tcp.rst`): the third field is the remote address, the fourth the
/// state (01 is established), the tenth the socket's inode.
fn table_inodes(table: &str, ports: &[u16]) -> Vec<u32> {
    let inode = |line: &str| {
        let mut fields = line.split_whitespace();
        let port = fields.nth(2)?.rsplit_once(':')?.1;
        let established = fields.next()? == "01";
        let port = u16::from_str_radix(port, 16).ok()?;
        if established && ports.contains(&port) { fields.nth(5)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::fstat;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn both_ways_see_the_same_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = match TcpListener::bind(address) {
                Err(error) if address.starts_with('[') => {
                    eprintln!("not tested with IPv6: this machine has none ({error})");
                    continue;
                }
                bound => bound.unwrap(),
            };
            let port = listener.local_addr().unwrap().port();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // Somebody else's connection may have the same port at its other end, by the other IP.
            let own = fstat(&stream).unwrap().st_ino as u32;
            let seen = |ports: &[u16]| (by_netlink(ports).unwrap().contains(&own), by_proc(ports).contains(&own));
            assert_eq!(seen(&[1, port]), (true, true), "{address}");
            assert_eq!(seen(&[1]), (false, false), "{address}");
            drop(stream);
            assert_eq!(seen(&[1, port]), (false, false), "{address}");
        }
    }

    #[test]
    fn it_is_looked_when_there_is_another_number_of_sockets_and_now_and_then() {
        let stat = "sockets: used 205\nTCP: inuse 12 orphan 0 tw 3 alloc 14 mem 1\nUDP: inuse 2 mem 0\n";
        assert_eq!((allocated(stat), allocated(""), allocated("TCP: inuse 12")), (Some(14), None, None));
        let mut lookout = Lookout::default();
        let mut due = |sockets, times| (0..times).filter(|_| lookout.is_due_with(sockets)).count();
        assert_eq!([due(Some(14), 4), due(Some(14), 20)], [3, 4]);
        assert_eq!([due(Some(15), 1), due(Some(14), 3)], [1, 3]);
        // Where it cannot be known
        assert_eq!(due(None, 9), 9);
    }

    /// The kernel's own number changes with a connection. It is the whole machine's: others come and go, too.
    #[test]
    fn a_new_connection_is_worth_a_look() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rises = || {
            let mut lookout = Lookout::default();
            while lookout.is_due() {}
            let before = lookout.sockets;
            let _streams: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
            lookout.is_due() && lookout.sockets > before
        };
        assert!((0..10).any(|_| rises()));
    }

    #[test]
    fn a_table_of_the_kernel_is_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:8F3A 0100007F:1199 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
             1: 0100007F:8F3B 0100007F:1199 06 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
             2: 0100007F:1199 0100007F:8F3A 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n";
        assert_eq!(table_inodes(table, &[4505]), [4711]);
    }

    #[test]
    fn nonsense_is_no_connection() {
        let mut inodes = HashSet::new();
        assert_eq!(read(b"", &[4505], &mut inodes), Ok(false));
        assert_eq!(read(&[0xff; 40], &[4505], &mut inodes), Err(Errno::EPROTO));
        assert_eq!(read(&[0; 40], &[4505], &mut inodes), Err(Errno::EPROTO));
        assert!(inodes.is_empty());
    }
}
