//! Floor 2, the machine: files, processes, commands, HTTP, time that passes. It knows nothing of
//! Salt or Heat.

pub mod clock;
pub mod command;
pub mod files;
pub mod http;
pub mod interrupt;
pub mod locks;
pub mod log_file;
pub mod patience;
pub mod pinned;
pub mod process;
pub mod reach;
pub mod shutdown;
pub mod sockets;
pub mod tls;
