//! What package managers print, and what their last words mean.

use super::commands::PACKAGE;
use super::os::Format;
use super::version;
use crate::types::excerpt::one_line;
use crate::types::failure::Kind;

/// Of what a manager says no more is repeated.
const MOST_SAID: usize = 2_000;

/// `apt-get update` succeeds although a repository did not answer, and goes on with what it knew: what it says of ours counts.
pub fn refresh_fault(url: &str, stdout: &str, stderr: &str) -> Option<String> {
    let is_fault = |line: &&str| ["W:", "E:", "Err:"].iter().any(|mark| line.starts_with(mark)) && line.contains(url);
    let faults: Vec<&str> = stderr.lines().chain(stdout.lines()).filter(is_fault).collect();
    (!faults.is_empty()).then(|| one_line(&faults.join("; "), MOST_SAID))
}

/// The versions in what `commands::list` printed.
pub fn versions(printed: &str) -> Vec<&str> {
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let ours = printed.lines().filter(|line| line.contains(PACKAGE));
    ours.filter_map(|line| line.split([' ', '|', '\t']).map(str::trim).find(is_version)).collect()
}

/// The version in what `commands::installed` printed, without its revision; a package that is only half installed is not there.
pub fn installed_version(format: Format, printed: &str) -> Option<&str> {
    let line = printed.lines().last()?.trim();
    let version = match format {
        Format::Rpm => line,
        Format::Deb => line.strip_prefix("installed ")?,
    };
    Some(version::upstream(version)).filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

/// Why a package manager failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A signature or a checksum is wrong.
    Untrusted,
    /// What came is not what the source itself says that it is: a mirror that is being changed, a page where a file belongs, or
    /// somebody who changes it on the way.
    Garbled,
    /// Another package manager works.
    Locked,
    /// An earlier run of dpkg was cut off.
    CutOff,
    /// The file system is full.
    NoSpace,
    /// There is no such package or version.
    NoSuchVersion,
    /// The source did not answer, or not all of it came.
    Unreachable,
    /// Something else.
    Other,
}

/// What package managers say, in the C locale, in the order in which it is looked for: a broken signature is told before the
/// download that it spoilt, and a full disk before the transaction that it ended.
const ERROR_PATTERNS: [(Reason, &[&str]); 7] = [
    (
        Reason::CutOff,
        // dpkg
        &["dpkg was interrupted", "dpkg --configure -a"],
    ),
    (
        Reason::Locked,
        &[
            // apt, dpkg
            "could not get lock",
            "unable to lock",
            "unable to acquire the dpkg",
            "is locked by another process",
            "is another process using it",
            // rpm, dnf5
            "can't create transaction lock",
            "cannot create transaction lock",
            "failed to obtain the transaction lock",
            "waiting for process with pid",
            // yum, zypper
            "another app is currently holding the yum lock",
            "system management is locked",
        ],
    ),
    (
        Reason::NoSpace,
        &[
            "no space left on device",
            "you don't have enough free space",
            "more space needed on",
            "needed on the",
            "not enough free disk space",
        ],
    ),
    (
        Reason::Garbled,
        &[
            // apt
            "got 'nosplit'",
            "into data and signature failed",
            "hash sum mismatch",
            "unexpected size",
            // dnf, yum, zypper
            "checksum doesn't match",
            "checksum mismatch",
            "does not match expected checksum",
        ],
    ),
    (
        Reason::Untrusted,
        &[
            // apt
            "no_pubkey",
            "is not signed",
            "badsig",
            "expkeysig",
            "the following signatures",
            "at least one invalid signature",
            "could not be authenticated",
            "unauthenticated packages",
            // dnf, yum, rpm, zypper
            "gpg check failed",
            "gpg signature verification error",
            "bad gpg signature",
            "gpg keys listed for the",
            "public key for",
            "signature verification failed",
            "signature verification for",
            "nokey",
        ],
    ),
    (
        Reason::Unreachable,
        &[
            "failed to fetch",
            "unable to fetch",
            "could not resolve",
            "temporary failure resolving",
            "couldn't connect",
            "could not connect",
            "cannot initiate the connection",
            "connection refused",
            "connection failed",
            "connection timed out",
            "timed out",
            "timeout exceeded",
            "curl error",
            "failed to download metadata",
            "cannot download",
            "no more mirrors",
            "all mirrors were tried",
            "status code: ",
            "requested url returned error",
            "download (curl) error",
            "error 404",
            "valid metadata not found",
            "does not have a release file",
        ],
    ),
    (
        Reason::NoSuchVersion,
        &[
            "unable to find a match",
            "no match for argument",
            "no package ",
            "not found in package names",
            "unable to locate package",
            "has no installation candidate",
            "was not found",
            "no provider of",
        ],
    ),
];

impl Reason {
    /// Reads the reason from what the manager printed last.
    pub fn read(words: &str) -> Reason {
        let words = words.to_lowercase();
        let fits = |sayings: &[&str]| sayings.iter().any(|saying| words.contains(saying));
        ERROR_PATTERNS.iter().find(|(_, sayings)| fits(sayings)).map_or(Reason::Other, |(reason, _)| *reason)
    }

    /// How it is reported.
    pub const fn kind(self) -> Kind {
        match self {
            Reason::Untrusted | Reason::Garbled => Kind::PackageUntrusted,
            Reason::Locked => Kind::PackageLocked,
            Reason::Unreachable => Kind::RepositoryUnreachable,
            Reason::CutOff | Reason::NoSpace | Reason::NoSuchVersion | Reason::Other => Kind::PackageFailed,
        }
    }

    /// Better advice than the kind's own.
    pub const fn advice(self) -> Option<&'static str> {
        match self {
            Reason::NoSpace => Some("Make room on this machine's file systems, /var above all, and run again."),
            Reason::CutOff => Some("Run `dpkg --configure -a` by hand and read what it says."),
            Reason::NoSuchVersion => Some("Give a version that the repository has in install.version, or another repository."),
            Reason::Untrusted | Reason::Garbled | Reason::Locked | Reason::Unreachable | Reason::Other => None,
        }
    }

    /// May it be better a little later?
    pub const fn may_pass(self) -> bool {
        matches!(self, Reason::Locked | Reason::Unreachable)
    }
}

/// What a manager that did not end in time said of its source. apt tries again by itself, and says why, in the line below, each time
/// (`Ign:`) and at the last time (`Err:`).
pub fn source_error(words: &str) -> Option<String> {
    let lines: Vec<&str> = words.lines().collect();
    let marked = |line: &&str| line.starts_with("Ign:") || line.starts_with("Err:");
    if let Some(at) = lines.iter().rposition(marked) {
        let why = lines.get(at + 1).filter(|line| line.starts_with(' ')).map_or(String::new(), |line| format!(": {}", line.trim()));
        return Some(one_line(&format!("{}{why}", lines[at]), MOST_SAID));
    }
    let fits = |line: &&&str| Reason::read(line) == Reason::Unreachable;
    lines.iter().rfind(fits).map(|line| one_line(line, MOST_SAID))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_managers_say() {
        let cases = [
            ("Error: GPG check FAILED", Reason::Untrusted),
            ("Package salt-3006.27-0.noarch.rpm is not signed", Reason::Untrusted),
            (
                "Error: Failed to download metadata for repo 'x': repomd.xml GPG signature verification error: Bad GPG signature",
                Reason::Untrusted,
            ),
            ("E: The repository 'http://127.0.0.1 stable InRelease' is not signed.", Reason::Untrusted),
            (
                "Error: Failed to download metadata for repo 'x': Cannot download repomd.xml: Cannot download repodata/repomd.xml: All mirrors were tried",
                Reason::Unreachable,
            ),
            ("Login failed. (https://m/repodata/repomd.xml): The requested URL returned error: 401", Reason::Unreachable),
            ("Curl error (7): Couldn't connect to server for http://127.0.0.1:1/", Reason::Unreachable),
            ("E: Failed to fetch http://127.0.0.1/x.deb  404  Not Found [IP: 127.0.0.1 80]", Reason::Unreachable),
            ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1234 (apt-get)", Reason::Locked),
            ("error: can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)", Reason::Locked),
            ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.", Reason::CutOff),
            ("Error: Unable to find a match: salt-minion-3006.99", Reason::NoSuchVersion),
            ("E: Version '3006.99' for 'salt-minion' was not found", Reason::NoSuchVersion),
            ("dpkg: error: failed to write status database: No space left on device", Reason::NoSpace),
            ("At least 5MB more space needed on the / filesystem.", Reason::NoSpace),
            ("E: Failed to fetch http://127.0.0.1/x.deb  File has unexpected size (9 != 8). Mirror sync in progress?", Reason::Garbled),
            (
                "E: Failed to fetch https://h/InRelease  Clearsigned file isn't valid, got 'NOSPLIT' (does the network require authentication?); E: The repository 'https://h stable InRelease' is not signed.",
                Reason::Garbled,
            ),
            ("something else went wrong", Reason::Other),
        ];
        for (words, reason) in cases {
            assert_eq!(Reason::read(words), reason, "{words}");
        }
    }

    #[test]
    fn what_a_slow_manager_says_of_its_source() {
        let apt = "Get:1 http://h stable InRelease\nIgn:2 http://h/x InRelease\n  503  Not now [IP: 127.0.0.1 80]\n";
        assert_eq!(source_error(apt).unwrap(), "Ign:2 http://h/x InRelease: 503 Not now [IP: 127.0.0.1 80]");
        assert_eq!(
            source_error("x\n  Curl error (7): Couldn't connect to server\ny").unwrap(),
            "Curl error (7): Couldn't connect to server"
        );
        assert_eq!(source_error("Setting up salt-minion (3006.27) ...\n"), None);
    }

    #[test]
    fn versions_of_lists_and_databases() {
        let madison = "salt-minion | 3008.5 | http://127.0.0.1 stable/main amd64 Packages\nsalt-minion | 3006.27 | http://127.0.0.1 stable/main amd64 Packages\n";
        assert_eq!(versions(madison), ["3008.5", "3006.27"]);
        assert_eq!(versions("salt-minion 3006.26-0\nsalt-minion 3006.27-0\n"), ["3006.26-0", "3006.27-0"]);
        let zypper = "S | Name        | Type    | Version   | Arch   | Repository\n--+-----\n  | salt-minion | package | 3006.27-0 | noarch | heat\n";
        assert_eq!(versions(zypper), ["3006.27-0"]);
        assert_eq!(installed_version(Format::Deb, "installed 3006.27-1\n"), Some("3006.27"));
        assert_eq!(installed_version(Format::Deb, "half-installed 3006.27-1\n"), None);
        assert_eq!(installed_version(Format::Rpm, "3006.27-0\n"), Some("3006.27"));
        assert_eq!(installed_version(Format::Rpm, "package salt-minion is not installed\n"), None);
    }
}
