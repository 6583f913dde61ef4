//! One absolute point in time, handed down and sliced. Nothing in this program waits without one.

use std::time::{Duration, Instant};

/// The moment by which something has to be over. Measured on the monotonic clock, so that a time
/// sync during the first boot neither shortens nor stretches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that lies `span` from now.
    pub fn after(span: Duration) -> Deadline {
        Deadline(Instant::now() + span)
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Has it passed?
    pub fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// A part of what is left: at most `most` from now, never later than this deadline.
    pub fn slice(self, most: Duration) -> Deadline {
        Deadline(self.0.min(Instant::now() + most))
    }

    /// This deadline moved forward, to leave time for what has to follow.
    pub fn earlier_by(self, reserve: Duration) -> Deadline {
        Deadline(self.0.checked_sub(reserve).unwrap_or(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_never_outlasts_the_whole() {
        let whole = Deadline::after(Duration::from_secs(2));
        assert_eq!(whole.slice(Duration::from_secs(60)), whole);
        assert!(whole.slice(Duration::from_secs(1)) < whole);
    }

    #[test]
    fn a_passed_deadline_leaves_nothing() {
        let passed = Deadline::after(Duration::ZERO);
        assert!(passed.passed());
        assert_eq!(passed.remaining(), Duration::ZERO);
    }

    #[test]
    fn a_reserve_is_taken_from_the_end() {
        let whole = Deadline::after(Duration::from_secs(60));
        let work = whole.earlier_by(Duration::from_secs(10));
        assert!(work.remaining() <= Duration::from_secs(50));
        assert!(work.remaining() > Duration::from_secs(49));
    }
}
