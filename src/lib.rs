//! heat-salt-bootstrap: turns a fresh OpenStack VM into a configured Salt minion and tells Heat
//! the truth about it. ARCHITECTURE.md is the map.

pub mod bootstrap;
pub mod cli;
pub mod config;
pub mod heat;
pub mod minion;
pub mod packages;
pub mod salt;
pub mod system;
pub mod types;
