//! salt-api: a session with it, and what is done in a session.

pub mod enrolment;
pub mod keys;
pub mod session;
