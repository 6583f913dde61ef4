//! Which version of salt-minion is wanted: a whole one, or any of a line.

use std::cmp::Ordering;
use std::fmt;

use crate::types::excerpt::quoted;

/// The wish for a version: `3006.27`, or `3006` for any of that line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionReq(String);

impl VersionReq {
    /// Reads a wish; the error is a sentence.
    pub fn parse(text: &str) -> Result<VersionReq, String> {
        let parts: Vec<&str> = text.split('.').collect();
        let numeric = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        if numeric && parts.len() <= 3 {
            Ok(VersionReq(text.to_owned()))
        } else {
            Err(format!("{} is no version: write 3006.27, or 3006 for the newest of that line", quoted(text)))
        }
    }

    /// The wish as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is it one version, and not a line?
    pub fn is_whole(&self) -> bool {
        self.0.contains('.')
    }

    /// Does this version fulfil it? Takes the version of the program, or a package's with epoch and revision.
    pub fn is_met_by(&self, version: &str) -> bool {
        let version = upstream(version);
        version == self.0 || version.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('.'))
    }

    /// Does it ask for less than this version, which does not fulfil it?
    pub fn is_older_than(&self, version: &str) -> bool {
        !self.is_met_by(version) && newer(version, &self.0).is_gt()
    }

    /// The newest of these that fulfils the wish, and the nearest one if none does.
    pub fn choose<'a>(wanted_version: Option<&VersionReq>, offered: &[&'a str]) -> Result<&'a str, Option<&'a str>> {
        let newest = |fits: &dyn Fn(&str) -> bool| offered.iter().copied().filter(|one| fits(one)).max_by(|a, b| newer(a, b));
        let Some(wanted_version) = wanted_version else { return newest(&|_| true).ok_or(None) };
        let line = VersionReq(wanted_version.0.split('.').next().unwrap_or_default().to_owned());
        newest(&|one| wanted_version.is_met_by(one)).ok_or_else(|| newest(&|one| line.is_met_by(one)).or_else(|| newest(&|_| true)))
    }
}

impl fmt::Display for VersionReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The upstream part of a package's version: without epoch and revision.
pub fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    // What follows a tilde comes before the version: 3008.0~rc2 is not 3008.0 yet.
    version.split(['-', '+']).next().unwrap_or(version)
}

fn newer(a: &str, b: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u64> {
        version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).map(|part| part.parse().unwrap_or(0)).collect()
    };
    let parts = |version| {
        let (release, before) =
            upstream(version).split_once('~').map_or((upstream(version), None), |(release, before)| (release, Some(before)));
        (numbers(release), before.is_none(), numbers(before.unwrap_or_default()))
    };
    parts(a).cmp(&parts(b)).then_with(|| numbers(a).cmp(&numbers(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> VersionReq {
        VersionReq::parse(text).unwrap()
    }

    #[test]
    fn wishes() {
        for wrong in ["", "latest", "3006.", ".27", "3006.x", "3006.27-1", "3006 "] {
            assert!(VersionReq::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(wish("3006").is_met_by("3006.27") && wish("3006.27").is_met_by("3006.27"));
        assert!(wish("3006.2").is_met_by("3006.2-1") && wish("3006.2").is_met_by("0:3006.2.1-1~deb12"));
        assert!(!wish("3006.2").is_met_by("3006.27") && !wish("3006").is_met_by("30060.1"));
    }

    #[test]
    fn what_is_newer_than_the_wish() {
        assert!(
            wish("3006").is_older_than("3008.5-0")
                && wish("3006.26").is_older_than("0:3006.27-1")
                && wish("3006").is_older_than("3007.0~rc1")
        );
        assert!(
            !wish("3006").is_older_than("3006.27") && !wish("3008").is_older_than("3006.27") && !wish("3008.0").is_older_than("3008.0~rc2")
        );
    }

    #[test]
    fn the_newest_that_fits_or_the_nearest_that_does_not() {
        let offered = ["3008.5-0", "3006.9-0", "3006.27-0", "3008.10-0"];
        assert_eq!(VersionReq::choose(Some(&wish("3006")), &offered), Ok("3006.27-0"));
        assert_eq!(VersionReq::choose(Some(&wish("3006.9")), &offered), Ok("3006.9-0"));
        assert_eq!(VersionReq::choose(None, &offered), Ok("3008.10-0"));
        assert_eq!(VersionReq::choose(Some(&wish("3006.99")), &offered), Err(Some("3006.27-0")));
        assert_eq!(VersionReq::choose(Some(&wish("3007")), &offered), Err(Some("3008.10-0")));
        assert_eq!(VersionReq::choose(None, &[]), Err(None));
        let offered = ["3008.0~rc2-1", "3008.0~rc1-1", "3008.0-1", "3007.9-1"];
        assert_eq!(VersionReq::choose(Some(&wish("3008")), &offered), Ok("3008.0-1"));
        assert_eq!(VersionReq::choose(Some(&wish("3008")), &offered[..2]), Ok("3008.0~rc2-1"));
        assert_eq!(VersionReq::choose(Some(&wish("3008.0")), &offered[..2]), Err(Some("3008.0~rc2-1")));
    }
}
