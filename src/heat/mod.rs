//! Heat, and what else takes a signal: what a handle says, what is sent there, and what it answers.

pub mod client;
pub mod curl_cli;
pub mod handle;
pub mod handle_age;
pub mod keystone;
pub mod settings;
pub mod signal;
