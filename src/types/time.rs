//! Points in time as others write them, and how a person reads them. UTC, and seconds since 1970.

/// Reads the date of an HTTP header, `Mon, 23 Nov 2026 22:46:39 GMT` (RFC 9110, IMF-fixdate, the one form that is sent today).
pub fn http_date(text: &str) -> Option<i64> {
    let [_, day, month, year, time, "GMT"] = text.split_whitespace().collect::<Vec<_>>()[..] else { return None };
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = MONTHS.find(month).filter(|at| month.len() == 3 && at % 3 == 0)? / 3 + 1;
    moment(year.parse().ok()?, month as i64, day.parse().ok()?, time)
}

/// Reads `2026-11-23T22:46:39Z`, as signed URLs bear it.
pub fn timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else { return None };
    moment(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?, time.split('.').next()?)
}

fn moment(year: i64, month: i64, day: i64, time: &str) -> Option<i64> {
    let [hour, minute, second] = time.split(':').map(|part| part.parse::<i64>().ok()).collect::<Option<Vec<_>>>()?[..] else { return None };
    let fine = (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let fine = fine && (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    fine.then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days since 1970. Years are counted from March, so that the day that a leap year adds is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

/// `2026-11-23 22:46:39 UTC`.
pub fn written(unix: i64) -> String {
    let (mut day, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let mut year = 1970;
    while day >= days(year + 1, 1, 1) - days(year, 1, 1) {
        day -= days(year + 1, 1, 1) - days(year, 1, 1);
        year += 1;
    }
    let first = days(year, 1, 1);
    let month = (1..=12).rev().find(|&month| days(year, month, 1) - first <= day).unwrap_or(1);
    let day = day - (days(year, month, 1) - first) + 1;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60)
}

/// How long a span is, as exactly as it matters: `45 s`, `12 min`, `7 h`, `3 days`.
pub fn length(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_the_same_moment() {
        // date -u -d @1795474799
        for (unix, http, stamp) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00Z"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT", "2000-02-29T00:00:00Z"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT", "2024-02-29T23:59:59.123Z"),
            (1_795_473_999, "Mon, 23 Nov 2026 22:46:39 GMT", "2026-11-23T22:46:39Z"),
        ] {
            assert_eq!((http_date(http), timestamp(stamp)), (Some(unix), Some(unix)), "{stamp}");
            assert_eq!(written(unix), format!("{} {} UTC", &stamp[..10], &stamp[11..19]));
        }
    }

    #[test]
    fn every_day_of_a_long_time_is_written_as_it_is_read() {
        for day in 0..40_000 {
            let text = written(day * 86_400 + 1);
            assert_eq!(timestamp(&text.replace(" UTC", "Z").replace(' ', "T")), Some(day * 86_400 + 1), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "now", "Mon, 23 Nov 2026 22:46:39 CET", "Mon, 23 anF 2026 22:46:39 GMT", "Mon, 23 Nov 2026 22:46 GMT"] {
            assert_eq!(http_date(text), None, "{text}");
        }
        for text in ["", "x", "2026-11-23", "2026-13-23T22:46:39Z", "2026-11-23T25:46:39Z", "2026-11-23T22:46:39"] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn spans() {
        let all = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(length);
        assert_eq!(all, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
