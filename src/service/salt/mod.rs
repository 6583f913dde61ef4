//! The master: a session with salt-api and what is done in it, and the enrolment service.

pub mod enrolment;
pub mod keys;
pub mod session;
