//! Floor 3, services: the nouns outside this program. Configuration files, the agent's own store,
//! the minion, salt-api, Heat.

pub mod config;
pub mod heat;
pub mod instance;
pub mod minion;
pub mod packages;
pub mod progress;
pub mod salt;
pub mod store;
pub mod unit;
