//! The package managers' command lines, and what their last words mean.

use super::os::{Format, Manager};
use super::version::{self, Wish};
use crate::types::excerpt::one_line;
use crate::types::failure::Kind;
use crate::types::version::PROGRAM;

/// Of what a manager says no more is repeated.
const MOST_SAID: usize = 2_000;

/// The package.
pub const PACKAGE: &str = "salt-minion";

/// A command: the program and its arguments.
pub type Words = Vec<String>;

fn words(line: &[&str]) -> Words {
    line.iter().map(|&word| word.to_owned()).collect()
}

/// Is something there already that is not what is wanted? A manager does not go back to an older version by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing is there.
    New,
    /// Something else is there.
    Replace,
}

/// What has to come before [`install`]: the manager learns what the repositories hold. dnf and zypper do that by themselves.
pub fn refresh(manager: Manager) -> Option<Words> {
    match manager {
        Manager::AptGet => Some(words(&["apt-get", "--quiet", "update"])),
        Manager::Zypper => Some(words(&["zypper", "--non-interactive", "--quiet", "refresh", PROGRAM])),
        Manager::Dnf5 | Manager::Dnf | Manager::Yum | Manager::Rpm | Manager::Dpkg => None,
    }
}

/// `apt-get update` succeeds although a repository did not answer, and goes on with what it knew: what it says of ours counts.
pub fn refresh_fault(url: &str, stdout: &str, stderr: &str) -> Option<String> {
    let is_fault = |line: &&str| ["W:", "E:", "Err:"].iter().any(|mark| line.starts_with(mark)) && line.contains(url);
    let faults: Vec<&str> = stderr.lines().chain(stdout.lines()).filter(is_fault).collect();
    (!faults.is_empty()).then(|| one_line(&faults.join("; "), MOST_SAID))
}

/// Lists the versions that the repository has, one a line or in a table: [`versions`] reads both.
pub fn list(manager: Manager) -> Option<Words> {
    let of_ours = format!("--repo={PROGRAM}");
    match manager {
        Manager::AptGet => Some(words(&["apt-cache", "madison", PACKAGE])),
        Manager::Dnf5 | Manager::Dnf => {
            let all = format!("--setopt={PROGRAM}.includepkgs=");
            Some(words(&[
                manager.program(),
                "--quiet",
                "repoquery",
                &of_ours,
                &all,
                "--queryformat=%{name} %{version}-%{release}\\n",
                PACKAGE,
            ]))
        }
        Manager::Yum => Some(words(&["yum", "--quiet", "--showduplicates", "list", "available", PACKAGE])),
        Manager::Zypper => {
            Some(words(&["zypper", "--non-interactive", "--quiet", "search", "--details", "--match-exact", &of_ours, PACKAGE]))
        }
        Manager::Rpm | Manager::Dpkg => None,
    }
}

/// The versions in what [`list`] printed.
pub fn versions(printed: &str) -> Vec<&str> {
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let ours = printed.lines().filter(|line| line.contains(PACKAGE));
    ours.filter_map(|line| line.split([' ', '|', '\t']).map(str::trim).find(is_version)).collect()
}

/// Installs from the repositories. `version` is the package's own, whole, where [`wants_whole_version`] asks for it.
pub fn install(manager: Manager, wish: Option<&Wish>, version: Option<&str>, step: Step) -> Option<Words> {
    let named = |between: &str, version: &str| format!("{PACKAGE}{between}{version}");
    match manager {
        Manager::Dnf5 | Manager::Dnf | Manager::Yum => {
            let spec = match wish {
                Some(wish) if wish.is_whole() => named("-", wish.as_str()),
                Some(wish) => named("-", &format!("{wish}.*")),
                None => PACKAGE.to_owned(),
            };
            // Of our own repository nothing old may be believed; how others age is for the machine's owner to say.
            let fresh = format!("--setopt={PROGRAM}.metadata_expire=0");
            let mut command = words(&[manager.program(), "--assumeyes", "install", &fresh, &spec]);
            if manager == Manager::Dnf5 && step == Step::Replace {
                command.push("--allow-downgrade".into());
            }
            Some(command)
        }
        Manager::Zypper => {
            let spec = version.map_or_else(|| PACKAGE.to_owned(), |version| named("=", version));
            let mut command = words(&["zypper", "--non-interactive", "install", "--oldpackage", "--auto-agree-with-licenses", &spec]);
            if let (Step::Replace, Some(version)) = (step, version) {
                // It asks before it takes another version of what this one depends on, unless that is named too.
                command.push(format!("salt={version}"));
            }
            Some(command)
        }
        Manager::AptGet => {
            let spec = version.map_or_else(|| PACKAGE.to_owned(), |version| named("=", version));
            Some(apt_get(&spec))
        }
        Manager::Rpm | Manager::Dpkg => None,
    }
}

/// Does it take a whole version only, so that one has to be chosen of [`list`]'s?
pub fn wants_whole_version(manager: Manager) -> bool {
    matches!(manager, Manager::AptGet | Manager::Zypper)
}

/// The repository that has one package and is there while it is installed.
const FILE_REPOSITORY: &str = "heat-salt-bootstrap-file";

/// What has to be there for [`install_file`]: a file, and its text if the package alone lies in this directory. The checksum stands for
/// the package's own signature, and for nobody else's. zypper's --no-gpg-checks would also let in what the package depends on, its
/// --allow-unsigned-rpm refuses a signature of somebody unknown; only a repository can be said to want none.
pub fn file_repository(manager: Manager, dir: &str) -> Option<(String, String)> {
    let text = format!(
        "# Written by {PROGRAM}, which removes it again.\n[{FILE_REPOSITORY}]\nname=One package, for {PROGRAM}\nbaseurl=dir:{dir}\nenabled=1\nautorefresh=1\ntype=plaindir\ngpgcheck=0\nrepo_gpgcheck=0\npkg_gpgcheck=0\n"
    );
    match manager {
        Manager::Zypper => Some((format!("/etc/zypp/repos.d/{FILE_REPOSITORY}.repo"), text)),
        Manager::Dnf5 | Manager::Dnf | Manager::Yum | Manager::AptGet | Manager::Rpm | Manager::Dpkg => None,
    }
}

/// Installs a package file, whose checksum has been looked at; see [`file_repository`].
pub fn install_file(manager: Manager, file: &str) -> Words {
    match manager {
        Manager::Dnf5 => words(&["dnf5", "--assumeyes", "install", "--allow-downgrade", "--setopt=localpkg_gpgcheck=0", file]),
        Manager::Dnf | Manager::Yum => words(&[manager.program(), "--assumeyes", "install", "--setopt=localpkg_gpgcheck=0", file]),
        Manager::Zypper => {
            let ours = format!("{FILE_REPOSITORY}:{PACKAGE}");
            words(&["zypper", "--non-interactive", "install", "--oldpackage", "--auto-agree-with-licenses", &ours])
        }
        Manager::AptGet => apt_get(file),
        Manager::Rpm => words(&["rpm", "--upgrade", "--oldpackage", "--replacepkgs", "--verbose", file]),
        Manager::Dpkg => words(&["dpkg", "--force-confdef", "--force-confold", "--install", file]),
    }
}

/// dpkg asks about configuration files unless it is told to keep what is there, and only the files' own packages know better.
fn apt_get(what: &str) -> Words {
    words(&[
        "apt-get",
        "--quiet",
        "--assume-yes",
        "--no-install-recommends",
        "--allow-downgrades",
        "--option=Acquire::Retries=3",
        "--option=DPkg::Lock::Timeout=60",
        "--option=Dpkg::Options::=--force-confdef",
        "--option=Dpkg::Options::=--force-confold",
        "install",
        what,
    ])
}

/// Finishes what a dpkg that was killed has begun.
pub fn repair() -> Words {
    words(&["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"])
}

/// Asks the package database for the version that is installed.
pub fn installed(format: Format) -> Words {
    match format {
        Format::Rpm => words(&["rpm", "--query", "--queryformat", "%{VERSION}-%{RELEASE}\\n", PACKAGE]),
        Format::Deb => words(&["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Version}\\n", PACKAGE]),
    }
}

/// The version in what [`installed`] printed, without its revision; a package that is only half installed is not there.
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
const SAYINGS: [(Reason, &[&str]); 7] = [
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
    pub fn read(said: &str) -> Reason {
        let said = said.to_lowercase();
        let fits = |sayings: &[&str]| sayings.iter().any(|saying| said.contains(saying));
        SAYINGS.iter().find(|(_, sayings)| fits(sayings)).map_or(Reason::Other, |(reason, _)| *reason)
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
pub fn trouble_with_source(said: &str) -> Option<String> {
    let lines: Vec<&str> = said.lines().collect();
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

    fn line(command: Option<Words>) -> String {
        command.unwrap().join(" ")
    }

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
        for (said, reason) in cases {
            assert_eq!(Reason::read(said), reason, "{said}");
        }
    }

    #[test]
    fn what_a_slow_manager_says_of_its_source() {
        let apt = "Get:1 http://h stable InRelease\nIgn:2 http://h/x InRelease\n  503  Not now [IP: 127.0.0.1 80]\n";
        assert_eq!(trouble_with_source(apt).unwrap(), "Ign:2 http://h/x InRelease: 503 Not now [IP: 127.0.0.1 80]");
        assert_eq!(
            trouble_with_source("x\n  Curl error (7): Couldn't connect to server\ny").unwrap(),
            "Curl error (7): Couldn't connect to server"
        );
        assert_eq!(trouble_with_source("Setting up salt-minion (3006.27) ...\n"), None);
    }

    #[test]
    fn commands() {
        let (line3006, whole) = (Wish::parse("3006").unwrap(), Wish::parse("3006.27").unwrap());
        let dnf = line(install(Manager::Dnf, Some(&line3006), None, Step::New));
        assert_eq!(dnf, "dnf --assumeyes install --setopt=heat-salt-bootstrap.metadata_expire=0 salt-minion-3006.*");
        assert!(line(install(Manager::Dnf5, Some(&whole), None, Step::Replace)).ends_with("salt-minion-3006.27 --allow-downgrade"));
        assert!(line(install(Manager::AptGet, Some(&whole), Some("3006.27-1"), Step::New)).ends_with("install salt-minion=3006.27-1"));
        assert!(install(Manager::Rpm, None, None, Step::New).is_none());
        assert_eq!(line(Some(install_file(Manager::Dpkg, "/x.deb"))), "dpkg --force-confdef --force-confold --install /x.deb");
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
