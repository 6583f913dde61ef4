//! How much this machine holds everybody up: a limit on time means nothing on one that is busy with something else.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A thread naps so long, again and again.
const NAP: Duration = Duration::from_millis(20);

static MICROSECONDS: AtomicU64 = AtomicU64::new(0);
static WATCHED: Once = Once::new();

/// By how much that thread has overslept since some moment.
#[derive(Clone, Copy, Debug)]
pub struct Stalls {
    before: u64,
}

impl Stalls {
    /// Counts from now on.
    pub fn begin() -> Stalls {
        WATCHED.call_once(|| drop(thread::spawn(watch)));
        Stalls { before: MICROSECONDS.load(Ordering::Relaxed) }
    }

    /// All of it, up to now.
    pub fn so_far(&self) -> Duration {
        Duration::from_micros(MICROSECONDS.load(Ordering::Relaxed).saturating_sub(self.before))
    }
}

fn watch() -> ! {
    loop {
        let begun = Instant::now();
        thread::sleep(NAP);
        let overslept = begun.elapsed().saturating_sub(NAP);
        MICROSECONDS.fetch_add(u64::try_from(overslept.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slept_too_long_adds_up() {
        let stalls = Stalls::begin();
        thread::sleep(Duration::from_millis(300));
        let first = stalls.so_far();
        thread::sleep(Duration::from_millis(300));
        // No sleep ends early, and none ends on the microsecond.
        assert!(first > Duration::ZERO && stalls.so_far() > first);
    }
}
