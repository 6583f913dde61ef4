//! What the steps of a bootstrap are given.

use std::path::Path;

use super::journal::Journal;
use super::state::Store;
use crate::config::settings::Settings;
use crate::system::files::Root;
use crate::system::retry::Wait;

/// Which parts of a bootstrap are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Program, configuration, service.
    pub install: bool,
    /// Login, key, connection.
    pub accept: bool,
    /// Trigger and result.
    pub apply: bool,
}

/// What the steps of a bootstrap are given.
pub struct Context<'a> {
    /// What is wanted.
    pub settings: &'a Settings,
    /// The directory that stands for `/`.
    pub root: &'a Root,
    /// What is remembered between runs.
    pub store: &'a Store,
    /// Where the steps are recorded.
    pub journal: &'a Journal,
    /// How long all of it may take.
    pub wait: &'a Wait,
    /// Where the configuration lies, if not where it does by default.
    pub config: Option<&'a Path>,
    /// Trigger the states even if they hold.
    pub again: bool,
}
