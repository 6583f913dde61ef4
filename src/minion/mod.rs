//! The minion on this machine: where its files lie, how it is configured and run, whether it is
//! connected, and what its jobs brought.

pub mod config;
pub mod connection;
pub mod daemon;
pub mod first_start;
pub mod job;
pub mod jobs;
pub mod keypair;
pub mod msgpack;
pub mod paths;
pub mod pidfile;
pub mod restart;
pub mod settings;
