//! The types that all other rooms speak in.

pub mod address;
pub mod deadline;
pub mod duration;
pub mod excerpt;
pub mod failure;
pub mod finding;
pub mod hexadecimal;
pub mod names;
pub mod pin;
pub mod references;
pub mod report;
pub mod secret;
pub mod section;
pub mod step;
pub mod time;
pub mod url;
pub mod version;
