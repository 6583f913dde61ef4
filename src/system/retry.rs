//! Waiting: a deadline and the ear for an interrupt, handed down together. There are two ways to
//! wait and they differ: *retry* what failed and may not fail again, *poll* what is only not ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tracing::{debug, info};

use super::interrupt::Interrupt;
use crate::types::deadline::Deadline;
use crate::types::failure::{Fact, Failure, Kind};

/// How long somebody is willing to wait.
#[derive(Clone)]
pub struct Wait {
    deadline: Deadline,
    /// Of which this one may be a part.
    whole: Deadline,
    interrupt: Interrupt,
    attempts: Arc<AtomicU32>,
}

/// Why one try of a call did not do.
pub enum RetryError {
    /// It will not get better.
    Permanent(Failure),
    /// It may: try again, not before the span that the server named.
    Transient(Failure, Option<Duration>),
    /// It looks like somebody's mistake, which should be told soon. But a balancer says the same while its servers are being
    /// replaced: a few more tries.
    Suspicious(Failure),
}

/// Nobody waits longer than this between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The pause after the first try is at most this; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// So often in a row something doubtful is seen before it is believed. With the pauses between, that takes four seconds.
const DOUBTS: u32 = 5;
/// Who waits says so after this.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// And not more rarely than this.
const RAREST_WORD: Duration = Duration::from_secs(300);
/// With less time than this, nothing is tried again.
const LAST_TRY: Duration = Duration::from_secs(1);

impl Wait {
    /// Until the deadline, or until the interrupt is raised.
    pub fn until(deadline: Deadline, interrupt: Interrupt) -> Wait {
        Wait { deadline, whole: deadline, interrupt, attempts: Arc::default() }
    }

    /// At most `most` of it.
    pub fn slice(&self, most: Duration) -> Wait {
        Wait { deadline: self.deadline.slice(most), attempts: Arc::clone(&self.attempts), ..self.clone() }
    }

    /// The same, counting its tries from one.
    pub fn counting(&self) -> Wait {
        Wait { attempts: Arc::default(), ..self.clone() }
    }

    /// How many tries were made so far, by this one and its slices; 1 if none had to be repeated.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed) + 1
    }

    /// What is left.
    pub fn remaining(&self) -> Duration {
        self.deadline.remaining()
    }

    /// Is it over?
    pub fn over(&self) -> bool {
        self.deadline.passed()
    }

    /// Is all of the time over, and not only the part of it that was given to this?
    pub fn all_over(&self) -> bool {
        self.whole.passed()
    }

    /// Sleeps for `span` or to the end, whichever comes first; an interrupt is a failure.
    pub fn pause(&self, span: Duration) -> Result<(), Failure> {
        match self.interrupt.sleep(span.min(self.remaining())) {
            Some(signal) => Err(Failure::new(Kind::Interrupted, format!("told to stop by {signal}"))),
            None => Ok(()),
        }
    }

    /// Sleeps for a random part of `most`, so that those who were started together do not all come at once.
    pub fn splay(&self, most: Duration) -> Result<Duration, Failure> {
        let span = random_part(most, random());
        self.pause(span).map(|()| span)
    }

    /// Looks again and again, `every` so often, until there is something to see; `None` if there
    /// never was. It always looks once more after the last pause.
    pub fn poll<T>(&self, every: Duration, mut probe: impl FnMut() -> Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
        loop {
            let over = self.over();
            if let Some(found) = probe()? {
                return Ok(Some(found));
            }
            if over {
                return Ok(None);
            }
            self.pause(every)?;
        }
    }

    /// The same for what may take as long as there is time: whoever reads the log learns meanwhile what is missing, after ten seconds,
    /// after twenty, and so on, and at least every five minutes.
    pub fn poll_aloud<T>(
        &self,
        every: Duration,
        missing: &str,
        mut probe: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let begun = Instant::now();
        let mut next = FIRST_WORD;
        self.poll(every, || {
            let waited = begun.elapsed();
            if waited > 3 * FIRST_WORD {
                // Whoever is asked for so long is asked less often.
                self.pause((waited / 40).min(FIRST_WORD))?;
            }
            let found = probe()?;
            if found.is_none() && waited >= next {
                next = next_word(waited);
                self.say_missing(missing, waited);
            }
            Ok(found)
        })
    }

    fn say_missing(&self, missing: &str, waited: Duration) {
        info!("still waiting: {missing} ({:.0} s so far, {:.0} s left)", waited.as_secs_f64(), self.remaining().as_secs_f64());
    }

    /// Tries until it succeeds, fails for good, or the time is up; then the last failure stands,
    /// since it says more than the clock. `attempt` is told which try it is, from zero.
    ///
    /// A span that the server named is waited for if there is so much time. If not, half of what is left is waited each time:
    /// what a server guesses about itself is no reason to give up on a whole machine, and something has to follow the success.
    pub fn retry<T>(&self, what: &str, mut attempt: impl FnMut(u32) -> Result<T, RetryError>) -> Result<T, Failure> {
        let mut tries = Tries { begun: Instant::now(), count: 0, doubts: 0 };
        loop {
            match attempt(tries.count) {
                Ok(done) => return Ok(done),
                Err(miss) => self.before_the_next(what, &mut tries, miss)?,
            }
        }
    }

    /// After a try that failed: waits, if there is to be another one. Apart from `retry`, of which there is one for each kind of attempt.
    fn before_the_next(&self, what: &str, tries: &mut Tries, miss: RetryError) -> Result<(), Failure> {
        let (mut failure, not_before) = match miss {
            RetryError::Permanent(failure) => return Err(failure),
            RetryError::Transient(failure, not_before) => {
                tries.doubts = 0;
                (failure, not_before)
            }
            RetryError::Suspicious(failure) => {
                tries.doubts += 1;
                (failure, None)
            }
        };
        tries.count += 1;
        let count = tries.count;
        let pause = pause(count, not_before, self.remaining(), random()).filter(|_| tries.doubts < DOUBTS);
        let Some(pause) = pause else {
            debug!("{what}: giving up after {count} tries");
            if count > 1 {
                // The last try may have had a second of all that time.
                failure.message = format!("{} (tried {count} times in {:.0} s)", failure.message, tries.begun.elapsed().as_secs_f64());
            }
            return Err(failure.fact(Fact::Attempts, count.to_string()));
        };
        self.attempts.fetch_add(1, Ordering::Relaxed);
        info!("{what}: {}; trying again in {:.1} s (try {})", failure.message, pause.as_secs_f64(), count + 1);
        self.pause(pause)
    }
}

/// After how long in all it is said once more that something is missing.
fn next_word(waited: Duration) -> Duration {
    waited + waited.clamp(FIRST_WORD, RAREST_WORD)
}

/// What was tried so far.
struct Tries {
    begun: Instant,
    count: u32,
    /// In a row, of those that may have been somebody else's answer.
    doubts: u32,
}

/// How long to wait after so many tries, not less than the server wants; `None` if there is no time for another try.
fn pause(tries: u32, not_before: Option<Duration>, remaining: Duration, random: u32) -> Option<Duration> {
    let jitter = backoff(tries, random);
    // The jitter comes on top, since a server names the same span to everybody. It may name any number.
    let wanted = not_before.map_or(jitter, |span| span.max(FIRST_PAUSE).saturating_add(jitter));
    let most = remaining.checked_sub(LAST_TRY).filter(|most| !most.is_zero())?;
    Some(if wanted <= most { wanted } else { remaining / 2 })
}

/// Full jitter: anywhere between nothing and the doubled pause, so that a herd of VMs that failed
/// together does not come back together.
fn backoff(tries: u32, random: u32) -> Duration {
    let most = FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(LONGEST_PAUSE);
    random_part(most, random)
}

fn random_part(most: Duration, random: u32) -> Duration {
    most.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness the pauses lose their jitter and nothing else.
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Somebody who waits so long, and whom nobody interrupts.
    pub fn patience(span: Duration) -> Wait {
        Wait::until(Deadline::after(span), Interrupt::default())
    }

    /// The same, of whom no test sees the end.
    pub fn hour() -> Wait {
        patience(Duration::from_secs(3600))
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        assert_eq!(backoff(1, u32::MAX), FIRST_PAUSE);
        assert_eq!(backoff(3, u32::MAX), FIRST_PAUSE * 4);
        assert_eq!(backoff(40, u32::MAX), LONGEST_PAUSE);
        assert_eq!(backoff(40, 0), Duration::ZERO);
    }

    #[test]
    fn the_server_is_left_alone_as_long_as_it_wants() {
        let (much, ten) = (Duration::from_secs(600), Duration::from_secs(10));
        assert_eq!(pause(1, Some(ten), much, 0), Some(ten));
        assert_eq!(pause(1, Some(ten), much, u32::MAX), Some(ten + FIRST_PAUSE));
        assert_eq!(pause(40, Some(ten), much, u32::MAX), Some(ten + LONGEST_PAUSE));
        assert_eq!(pause(1, Some(Duration::ZERO), much, 0), Some(FIRST_PAUSE));
    }

    #[test]
    fn what_does_not_fit_is_tried_again_half_way() {
        let (hour, ten) = (Duration::from_secs(3600), Duration::from_secs(10));
        assert_eq!(pause(1, Some(hour), ten, 0), Some(ten / 2));
        assert_eq!(pause(1, Some(Duration::MAX), ten, u32::MAX), Some(ten / 2));
        assert_eq!(pause(40, None, ten, u32::MAX), Some(ten / 2));
        assert_eq!(pause(1, Some(ten - LAST_TRY), ten, 0), Some(ten - LAST_TRY));
        assert_eq!(pause(1, None, LAST_TRY, 0), None);
        assert_eq!(pause(1, Some(hour), Duration::ZERO, 0), None);
    }

    #[test]
    fn a_splay_is_random_and_bounded() {
        let most = Duration::from_millis(8);
        let spans: Vec<Duration> = (0..8).map(|_| hour().splay(most).unwrap()).collect();
        assert!(spans.iter().all(|span| *span <= most) && spans.iter().any(|span| *span != spans[0]), "{spans:?}");
    }

    #[test]
    fn what_is_doubtful_is_believed_in_the_end() {
        let (mut tries, wait) = (0, hour());
        let failed = wait.retry::<()>("test", |_| {
            tries += 1;
            Err(RetryError::Suspicious(Failure::new(Kind::ApiProtocol, "no")))
        });
        assert_eq!((failed.unwrap_err().kind, tries), (Kind::ApiProtocol, DOUBTS));
        assert_eq!(wait.attempts(), DOUBTS);
    }

    #[test]
    fn what_passes_is_tried_again_and_counted() {
        let wait = hour();
        let done = wait.retry("test", |tries| {
            if tries < 2 { Err(RetryError::Transient(Failure::new(Kind::ApiUnreachable, "x"), None)) } else { Ok(tries) }
        });
        assert_eq!(done, Ok(2));
        assert_eq!(wait.attempts(), 3);
    }

    #[test]
    fn what_is_final_is_not_tried_again() {
        let mut tries = 0;
        let failed = hour().retry::<()>("test", |_| {
            tries += 1;
            Err(RetryError::Permanent(Failure::new(Kind::LoginRefused, "no")))
        });
        assert_eq!((failed.unwrap_err().kind, tries), (Kind::LoginRefused, 1));
    }

    #[test]
    fn at_the_end_the_last_failure_stands() {
        let failed = patience(Duration::from_millis(50)).retry::<()>("test", |_| {
            Err(RetryError::Transient(Failure::new(Kind::ApiUnreachable, "closed"), Some(Duration::from_secs(30))))
        });
        assert_eq!(failed.unwrap_err().kind, Kind::ApiUnreachable);
    }

    #[test]
    fn who_waits_says_so_more_and_more_rarely() {
        assert_eq!([10, 20, 40, 3000].map(|waited| next_word(Duration::from_secs(waited)).as_secs()), [20, 40, 80, 3300]);
        assert_eq!(next_word(FIRST_WORD / 2), FIRST_WORD / 2 + FIRST_WORD);
    }

    #[test]
    fn polling_looks_once_more_at_the_end() {
        let wait = patience(Duration::from_millis(30));
        let found = wait.poll(Duration::from_secs(60), || Ok(wait.over().then_some(())));
        assert_eq!(found, Ok(Some(())));
    }
}
