//! SIGTERM, SIGINT and SIGHUP, turned into something that a waiting thread can hear at once.

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Heard by everybody who holds a copy.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Shared>);

/// What the signals of this process are heard by, once they are.
static OF_THIS_PROCESS: OnceLock<Interrupt> = OnceLock::new();

#[derive(Default)]
struct Shared {
    signal: Mutex<Option<&'static str>>,
    heard: Condvar,
}

impl Interrupt {
    /// From now on the signals that end a program no longer do: they are heard here. `told` is
    /// called with the signal's name, in a thread of its own.
    pub fn on_signals(told: impl Fn(&'static str) + Send + 'static) -> std::io::Result<Interrupt> {
        let interrupt = OF_THIS_PROCESS.get_or_init(Interrupt::default).clone();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let ours = interrupt.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                let name = match signal {
                    SIGTERM => "SIGTERM",
                    SIGINT => "SIGINT",
                    _ => "SIGHUP",
                };
                ours.raise(name);
                told(name);
            }
        })?;
        Ok(interrupt)
    }

    /// The one that hears the signals of this process; before [`Interrupt::on_signals`] none does.
    pub fn of_this_process() -> Interrupt {
        OF_THIS_PROCESS.get().cloned().unwrap_or_default()
    }

    /// The signal that came, if one did.
    pub fn raised(&self) -> Option<&'static str> {
        // The lock guards one word that is always whole.
        *self.0.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps for `span`, or until a signal comes; says which.
    pub fn sleep(&self, span: Duration) -> Option<&'static str> {
        let until = Instant::now() + span;
        let mut signal = self.0.signal.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if signal.is_some() || left.is_zero() {
                return *signal;
            }
            signal = self.0.heard.wait_timeout(signal, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// As if this signal had come: those that come later are no news.
    pub fn raise(&self, name: &'static str) {
        *self.0.signal.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
        self.0.heard.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_wakes_at_the_signal() {
        let interrupt = Interrupt::default();
        let other = interrupt.clone();
        let sleeper = thread::spawn(move || other.sleep(Duration::from_secs(60)));
        interrupt.raise("SIGTERM");
        assert_eq!(sleeper.join().unwrap(), Some("SIGTERM"));
        assert_eq!(interrupt.sleep(Duration::from_secs(60)), Some("SIGTERM"));
    }
}
