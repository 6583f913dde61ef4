//! Spans of time as people write them: `25m`, `90s`, `1h30m`, or a number of seconds.

use std::time::Duration;

use super::excerpt::quoted;

/// Reads a span; the error is a sentence.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{} is no span of time: write it as 25m, 90s, 1h30m or a number of seconds", quoted(text));
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut smallest = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = match tail.chars().next() {
            Some('h') => 3600,
            Some('m') => 60,
            Some('s') => 1,
            _ => return Err(wrong()),
        };
        if unit >= smallest {
            return Err(wrong());
        }
        smallest = unit;
        let seconds = number.checked_mul(unit).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_secs(seconds)).ok_or_else(wrong)?;
        rest = &tail[1..];
    }
    if smallest == u64::MAX { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_people_write() {
        for (text, seconds) in [("25m", 1500), ("90s", 90), ("1h30m", 5400), ("1h0m5s", 3605), ("45", 45), (" 2h ", 7200)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text:?}");
        }
    }

    #[test]
    fn and_what_is_none() {
        for text in ["", "m", "-5s", "5x", "5m3h", "5m5m", "1.5h", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse(text).is_err(), "{text:?} passed");
        }
    }
}
