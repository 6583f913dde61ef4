//! Floor 1, decisions: pure functions from text and values to text and values. No file, no
//! socket, no clock.

pub mod address;
pub mod calendar;
pub mod curl_cli;
pub mod enroll_reader;
pub mod enrolment;
pub mod fingerprint;
pub mod fragments;
pub mod handle;
pub mod handle_age;
pub mod html;
pub mod install_reader;
pub mod job;
pub mod key_state;
pub mod keystone;
pub mod minion_config;
pub mod msgpack;
pub mod package_command;
pub mod permissions;
pub mod repository;
pub mod salt_api;
pub mod section;
pub mod settings;
pub mod settings_reader;
pub mod signal;
pub mod span;
pub mod system;
pub mod wish;
