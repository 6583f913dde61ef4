//! By how much this machine's clock is wrong, as far as a server knows better.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::files;
use super::http;
use crate::types::time;
use crate::types::url::Url;

/// Asking is a courtesy to whoever reads the log: without an answer the failure stands as it is, whatever time there is.
const ASKING: Duration = Duration::from_secs(5);
/// Clocks that differ by less are as good as the same: no certificate is wrong for it.
const SAME: u64 = 60;

/// How far this machine's clock is from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// This machine's time, in seconds since 1970.
    here: i64,
    /// The other's.
    there: i64,
}

impl Skew {
    /// Asks a server whose certificate cannot be trusted because of its dates. What it says is worth a sentence and a little time,
    /// and nothing more: nobody vouches for it.
    pub fn asked_of(url: &Url) -> Option<Skew> {
        Skew::asked_within(url, ASKING)
    }

    fn asked_within(url: &Url, span: Duration) -> Option<Skew> {
        let there = time::http_date(&http::date_unverified(url, span)?)?;
        Some(Skew { here: now(), there }).filter(|skew| skew.here.abs_diff(skew.there) >= SAME)
    }

    /// Is this machine's clock the later one?
    pub fn is_ahead(self) -> bool {
        self.here > self.there
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.is_ahead() { "ahead of" } else { "behind" };
        let length = time::length(self.here.abs_diff(self.there));
        write!(f, "this machine's clock says {}, which is {length} {side} the server's", time::written(self.here))
    }
}

/// Seconds since 1970, before it too.
pub fn now() -> i64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_secs() as i64,
        Err(before) => -(before.duration().as_secs() as i64),
    }
}

/// How long ago this machine was booted, in whole seconds, time asleep included (proc(5), /proc/uptime): a clock that nobody sets.
pub fn since_boot() -> Option<Duration> {
    let text = files::read_text(Path::new("/proc/uptime"), 64).ok()?;
    text.split('.').next()?.parse().ok().map(Duration::from_secs)
}

/// The same for what cannot be before it.
pub fn seconds() -> u64 {
    u64::try_from(now()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_say_the_time_is_not_waited_for() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("https://{}/", silent.local_addr().unwrap())).unwrap();
        assert_eq!(Skew::asked_within(&url, ASKING / 50), None);
    }

    #[test]
    fn a_skew_is_said_in_words() {
        let skew = Skew { here: 0, there: 1_795_473_999 };
        assert_eq!(skew.to_string(), "this machine's clock says 1970-01-01 00:00:00 UTC, which is 20780 days behind the server's");
        let skew = Skew { here: 7_200, there: 0 };
        assert!(skew.is_ahead() && skew.to_string().ends_with("is 2 h ahead of the server's"));
    }
}
