//! The command line: the verbs, what they print, the log, and the telling of how it went.

pub mod args;
pub mod check;
pub mod conclude;
pub mod follow;
pub mod guardian;
pub mod logging;
pub mod mask;
pub mod moment;
pub mod notify;
pub mod output;
pub mod plan;
pub mod run;
pub mod signal;
pub mod supervisor;
pub mod support;
pub mod templates;
pub mod terminal;
pub mod verbs;
