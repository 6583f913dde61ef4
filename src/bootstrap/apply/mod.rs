//! The last step: the states are triggered, by a hook of salt-api or by the enrolment service, and their real result is waited for.

mod by_hook;
mod by_service;
mod limits;
mod memory;
mod verdict;

pub use self::by_hook::by_hook;
pub use self::by_service::by_service;
pub use self::memory::{bootstrap_id, held_before};
