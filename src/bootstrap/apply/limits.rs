//! How long a job is waited for, and how often it is triggered, in either way.

use std::time::Duration;

use tracing::warn;

/// How long a job may still come of a hook of which nobody knows whether salt-api has taken it: the run that fired it is no more. One
/// that comes later meets the one that is fired then, and the states run twice: no more than that.
const ON_ITS_WAY: Duration = Duration::from_secs(4);
/// Between two firings that Salt refuses, since another state run is in the way.
pub const REFUSED_AGAIN: Duration = Duration::from_secs(2);
/// So often salt-api takes the hook before nobody is thought to listen.
pub const FIRINGS: u32 = 2;

/// Says that Salt fell over its job files, so often by now; is the job asked for again? A file that is just being written is whole by
/// then, and any other stays as it is.
pub fn fallen_again(fallen: u32, line: &str) -> bool {
    warn!("Salt could not read its own job files, and ran no state: {line}");
    fallen <= FIRINGS
}

/// The same where there is little time: the rest is for what may still have to be done.
pub fn on_its_way(left: Duration) -> Duration {
    ON_ITS_WAY.min(left / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_on_its_way_gets_no_more_of_a_long_time() {
        assert_eq!(on_its_way(Duration::from_secs(3600)), ON_ITS_WAY);
        assert_eq!(on_its_way(ON_ITS_WAY), ON_ITS_WAY / 4);
    }
}
