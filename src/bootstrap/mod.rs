//! A bootstrap: its steps, one after the other, and what is remembered between runs.

pub mod accept;
pub mod apply;
pub mod chain;
pub mod context;
pub mod deregister;
pub mod enroll;
pub mod instance;
pub mod journal;
pub mod lease;
pub mod pipeline;
pub mod progress;
pub mod resume;
pub mod state;
pub mod systemd;
pub mod sysv;
pub mod unit;
