//! Scripts that follow one another share one deadline: the first of them, fetch.sh, notes when it began. Heat's clock does not wait for the
//! download either, nor between `install`, `accept` and `apply`.

use std::time::Duration;

use crate::system::clock;
use crate::system::files::{self, Root};
use crate::types::failure::Failure;

/// What fetch.sh writes: whole seconds from the boot to its beginning. It is gone with the boot; what a reboot cuts off has its end in the
/// progress.
const BEGAN: &str = "/run/heat-salt-bootstrap/began";

/// How long ago the chain began whose next part this is, if there is one.
pub fn spent(root: &Root) -> Option<Duration> {
    let text = files::read_text(&root.at(BEGAN), 64).ok()?;
    since(&text, clock::since_boot()?)
}

/// The chain has ended: what comes next, by hand perhaps, has all its time.
pub fn ended(root: &Root) -> Result<(), Failure> {
    files::remove(&root.at(BEGAN))
}

fn since(began: &str, now: Duration) -> Option<Duration> {
    now.checked_sub(Duration::from_secs(began.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_from_the_boot() {
        let now = Duration::from_millis(100_500);
        assert_eq!(since("40\n", now), Some(Duration::from_millis(60_500)));
        // Of another boot, or nonsense
        assert_eq!([since("101", now), since("", now), since("-1", now), since("4.2", now)], [None; 4]);
    }
}
