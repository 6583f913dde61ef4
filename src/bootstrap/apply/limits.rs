//! How long a job is waited for, and how often it is triggered, in either way.

use std::time::Duration;

/// How long a job may still come of a hook of which nobody knows whether salt-api has taken it: the run that fired it is no more. One
/// that comes later meets the one that is fired then, and the states run twice: no more than that.
pub const ON_ITS_WAY: Duration = Duration::from_secs(4);
/// Between two firings that Salt refuses, since another state run is in the way.
pub const REFUSED_AGAIN: Duration = Duration::from_secs(2);
/// So often salt-api takes the hook before nobody is thought to listen.
pub const FIRINGS: u32 = 2;
