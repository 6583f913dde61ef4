//! heat-salt-bootstrap: turns a fresh OpenStack VM into a configured Salt minion and tells Heat
//! the truth about it. ARCHITECTURE.md is the map.

pub mod decide;
pub mod machine;
pub mod rim;
pub mod service;
pub mod story;
pub mod words;
