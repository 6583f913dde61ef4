//! The master: a session with salt-api and what is done in it, and the enrolment service.

pub mod advice;
pub mod api;
pub mod claim;
pub mod enrolment;
pub mod error_page;
pub mod key_state;
pub mod keys;
pub mod permissions;
pub mod private_key;
pub mod public_key;
pub mod session;
pub mod settings;
