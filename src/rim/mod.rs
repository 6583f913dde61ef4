//! Floor 5, the rim: the command line, the log, and the verbs.

pub mod agent;
pub mod check;
pub mod cli;
pub mod guardian;
pub mod logging;
pub mod plan;
pub mod show;
pub mod supervisor;
pub mod telling;
pub mod templates;
