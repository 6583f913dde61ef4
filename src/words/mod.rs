//! Floor 0, words: the types everything else speaks in. They know neither files nor sockets.

pub mod deadline;
pub mod excerpt;
pub mod failure;
pub mod finding;
pub mod names;
pub mod report;
pub mod secret;
pub mod version;
