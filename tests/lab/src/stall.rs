//! How much this machine holds everybody up: a limit on time means nothing on one that is busy with something else.

use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A thread naps so long, again and again.
const NAP: Duration = Duration::from_millis(20);

static NAPS: Mutex<Naps> = Mutex::new(Naps { overslept: Duration::ZERO, under_way: None });
static WATCHED: Once = Once::new();

/// What the thread knows of its naps.
struct Naps {
    /// By how much it has overslept in those that are over.
    overslept: Duration,
    /// When it lay down. Whoever asks while everybody is held up must not hear of it only when that is over.
    under_way: Option<Instant>,
}

impl Naps {
    fn overslept(&self) -> Duration {
        self.overslept + self.under_way.map_or(Duration::ZERO, |begun| begun.elapsed().saturating_sub(NAP))
    }
}

fn naps<T>(of: impl FnOnce(&mut Naps) -> T) -> T {
    of(&mut NAPS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// By how much that thread has overslept since some moment.
#[derive(Clone, Copy, Debug)]
pub struct Stalls {
    before: Duration,
}

impl Stalls {
    /// Counts from now on.
    pub fn begin() -> Stalls {
        WATCHED.call_once(|| drop(thread::spawn(watch)));
        Stalls { before: naps(|naps| naps.overslept()) }
    }

    /// All of it, up to now.
    pub fn so_far(&self) -> Duration {
        naps(|naps| naps.overslept()).saturating_sub(self.before)
    }
}

fn watch() -> ! {
    loop {
        naps(|naps| naps.under_way = Some(Instant::now()));
        thread::sleep(NAP);
        naps(|naps| {
            naps.overslept = naps.overslept();
            naps.under_way = None;
        });
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

    #[test]
    fn a_nap_that_is_under_way_counts() {
        let lay_down = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
        let naps = Naps { overslept: Duration::from_secs(1), under_way: Some(lay_down) };
        assert!(naps.overslept() >= Duration::from_secs(4) - NAP, "{:?}", naps.overslept());
        // One that has just begun is no stall.
        let naps = Naps { under_way: Some(Instant::now() + NAP), ..naps };
        assert_eq!(naps.overslept(), Duration::from_secs(1));
    }
}
