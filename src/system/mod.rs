//! The machine: files, processes, commands, HTTP, time that passes. Nothing here knows of Salt or
//! Heat.

pub mod clock;
pub mod command;
pub mod files;
pub mod http;
pub mod interrupt;
pub mod locks;
pub mod log_file;
mod lookup;
pub mod pinned;
pub mod process;
pub mod reach;
pub mod retry;
pub mod shutdown;
pub mod sockets;
pub mod tls;
