//! The command line: the verbs, what they print, the log, and the telling of how it went.

pub mod args;
pub mod check;
pub mod guardian;
pub mod logging;
pub mod notify;
pub mod output;
pub mod plan;
pub mod run;
pub mod supervisor;
pub mod templates;
