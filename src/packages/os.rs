//! Which kind of system this is: from its os-release and from the package managers that are there.

use std::fmt;

use crate::types::excerpt::one_line;

/// No value that matters here is longer, in bytes.
const MOST_VALUE: usize = 200;

/// What os-release(5) says, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`: `rocky`, `debian`.
    pub id: String,
    /// `ID_LIKE`, split: the distributions that this one is made after, nearest first.
    pub like: Vec<String>,
    /// `VERSION_ID`: `9.5`.
    pub version: String,
    /// `PRETTY_NAME`, for people.
    pub name: String,
}

/// A package manager that this program can drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "program() below is the documentation")]
pub enum Manager {
    Dnf5,
    Dnf,
    Yum,
    Zypper,
    AptGet,
    Rpm,
    Dpkg,
}

/// The two package formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.rpm`
    Rpm,
    /// `.deb`
    Deb,
}

/// A system on which salt-minion can be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// What it calls itself.
    pub release: OsRelease,
    /// What installs packages on it.
    pub manager: Manager,
}

impl OsRelease {
    /// Reads the file's text; what is not there is empty. Unknown keys are for others.
    pub fn parse(text: &str) -> OsRelease {
        let mut release = OsRelease::default();
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let value = unquoted(value);
            match key {
                "ID" => release.id = value.to_lowercase(),
                "ID_LIKE" => release.like = value.split_whitespace().map(str::to_lowercase).collect(),
                "VERSION_ID" => release.version = value,
                "PRETTY_NAME" => release.name = value,
                _ => {}
            }
        }
        release
    }

    /// The format of its packages, if it or one that it is made after is known. An unknown one is not guessed at.
    pub fn format(&self) -> Option<Format> {
        [&self.id].into_iter().chain(&self.like).find_map(|id| match id.as_str() {
            "rhel" | "rocky" | "almalinux" | "centos" | "ol" | "fedora" | "amzn" => Some(Format::Rpm),
            "suse" | "sles" | "sle-micro" | "opensuse" | "opensuse-leap" | "opensuse-tumbleweed" => Some(Format::Rpm),
            "debian" | "ubuntu" => Some(Format::Deb),
            _ => None,
        })
    }

    fn is_suse(&self) -> bool {
        [&self.id].into_iter().chain(&self.like).any(|id| id.starts_with("suse") || id.starts_with("opensuse") || id.starts_with("sle"))
    }

    /// The managers that a system of this kind may have, the better ones first.
    fn candidates(&self) -> &'static [Manager] {
        match self.format() {
            Some(Format::Rpm) if self.is_suse() => &[Manager::Zypper, Manager::Dnf5, Manager::Dnf, Manager::Rpm],
            Some(Format::Rpm) => &[Manager::Dnf5, Manager::Dnf, Manager::Yum, Manager::Zypper, Manager::Rpm],
            Some(Format::Deb) => &[Manager::AptGet, Manager::Dpkg],
            None => &[],
        }
    }

    /// The manager that such a system comes with, for a plan that is made elsewhere.
    fn usual_manager(&self) -> Option<Manager> {
        let major: u32 = self.version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(u32::MAX);
        match (self.format()?, self.id.as_str()) {
            (Format::Deb, _) => Some(Manager::AptGet),
            (Format::Rpm, _) if self.is_suse() => Some(Manager::Zypper),
            // Fedora 41 made dnf5 its own; Amazon Linux counted by years after 2.
            (Format::Rpm, "fedora") if major >= 41 => Some(Manager::Dnf5),
            (Format::Rpm, "amzn") if major <= 2 => Some(Manager::Yum),
            (Format::Rpm, "fedora" | "amzn") => Some(Manager::Dnf),
            (Format::Rpm, _) if major <= 7 => Some(Manager::Yum),
            (Format::Rpm, _) => Some(Manager::Dnf),
        }
    }
}

fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    one_line(&inner.unwrap_or(value).replace('\\', ""), MOST_VALUE)
}

impl System {
    /// The system that has this os-release and these programs; the error says what was seen.
    pub fn of(release: OsRelease, has: impl Fn(&str) -> bool) -> Result<System, String> {
        let manager = release.candidates().iter().copied().find(|manager| has(manager.program()));
        let there: Vec<&str> = Manager::ALL.iter().map(|manager| manager.program()).filter(|program| has(program)).collect();
        manager.map(|manager| System { release: release.clone(), manager }).ok_or_else(|| {
            let there = if there.is_empty() { "no package manager that this program knows".to_owned() } else { there.join(", ") };
            format!("os-release says {release}, and there is {there}")
        })
    }

    /// The system that such an os-release usually belongs to.
    pub fn usual(release: OsRelease) -> Result<System, String> {
        let manager = release.usual_manager().ok_or_else(|| format!("os-release says {release}"))?;
        Ok(System { release, manager })
    }
}

impl fmt::Display for OsRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.id.is_empty(), self.name.is_empty()) {
            (true, _) => f.write_str("nothing (no ID)"),
            (false, true) => write!(f, "ID={} VERSION_ID={}", self.id, self.version),
            (false, false) => write!(f, "{} (ID={} ID_LIKE={} VERSION_ID={})", self.name, self.id, self.like.join(" "), self.version),
        }
    }
}

impl Manager {
    /// All of them.
    pub const ALL: [Manager; 7] =
        [Manager::Dnf5, Manager::Dnf, Manager::Yum, Manager::Zypper, Manager::AptGet, Manager::Rpm, Manager::Dpkg];

    /// The programs whose locks are files with a pid, and what hides behind them.
    pub const BY_PID: [&str; 4] = ["dnf", "yum", "zyp", "packagekit"];

    /// The name of its program.
    pub const fn program(self) -> &'static str {
        match self {
            Manager::Dnf5 => "dnf5",
            Manager::Dnf => "dnf",
            Manager::Yum => "yum",
            Manager::Zypper => "zypper",
            Manager::AptGet => "apt-get",
            Manager::Rpm => "rpm",
            Manager::Dpkg => "dpkg",
        }
    }

    /// What it installs.
    pub const fn format(self) -> Format {
        match self {
            Manager::Dnf5 | Manager::Dnf | Manager::Yum | Manager::Zypper | Manager::Rpm => Format::Rpm,
            Manager::AptGet | Manager::Dpkg => Format::Deb,
        }
    }

    /// Files that it holds while it works, and those of the libraries below it: whoever holds one is waited for.
    pub const fn locks(self) -> &'static [&'static str] {
        match self.format() {
            Format::Deb => {
                &["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock"]
            }
            Format::Rpm => &[
                "/var/lib/rpm/.rpm.lock",
                "/usr/lib/sysimage/rpm/.rpm.lock",
                "/var/cache/dnf/metadata_lock.pid",
                "/var/cache/dnf/download_lock.pid",
                "/var/lib/dnf/rpmdb_lock.pid",
                "/run/yum.pid",
                "/run/zypp.pid",
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROCKY: &str = "NAME=\"Rocky Linux\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.5\"\nPRETTY_NAME=\"Rocky Linux 9.5 (Blue Onyx)\"\n";

    fn usual(text: &str) -> Option<Manager> {
        System::usual(OsRelease::parse(text)).ok().map(|system| system.manager)
    }

    #[test]
    fn what_distributions_say_of_themselves() {
        let rocky = OsRelease::parse(ROCKY);
        assert_eq!((rocky.id.as_str(), rocky.version.as_str()), ("rocky", "9.5"));
        assert_eq!(usual(ROCKY), Some(Manager::Dnf));
        assert_eq!(usual("ID=debian\nVERSION_ID=\"12\""), Some(Manager::AptGet));
        assert_eq!(usual("ID=linuxmint\nID_LIKE='ubuntu debian'"), Some(Manager::AptGet));
        assert_eq!(usual("ID=fedora\nVERSION_ID=43"), Some(Manager::Dnf5));
        assert_eq!(usual("ID=amzn\nID_LIKE=\"centos rhel fedora\"\nVERSION_ID=\"2\""), Some(Manager::Yum));
        assert_eq!(usual("ID=amzn\nID_LIKE=fedora\nVERSION_ID=2023"), Some(Manager::Dnf));
        assert_eq!(usual("ID=centos\nVERSION_ID=7"), Some(Manager::Yum));
        assert_eq!(usual("ID=ol\nID_LIKE=fedora\nVERSION_ID=8.10"), Some(Manager::Dnf));
        assert_eq!(usual("ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\nVERSION_ID=15.6"), Some(Manager::Zypper));
        assert_eq!(usual("ID=sles\nVERSION_ID=15.6"), Some(Manager::Zypper));
    }

    #[test]
    fn what_is_there_decides_among_what_fits() {
        let rocky = || OsRelease::parse(ROCKY);
        let with = |programs: &'static [&'static str]| move |program: &str| programs.contains(&program);
        assert_eq!(System::of(rocky(), with(&["rpm", "yum", "dnf"])).unwrap().manager, Manager::Dnf);
        assert_eq!(System::of(rocky(), with(&["rpm"])).unwrap().manager, Manager::Rpm);
        let wrong = System::of(rocky(), with(&["apt-get", "dpkg"])).unwrap_err();
        assert!(wrong.contains("Rocky Linux 9.5") && wrong.contains("apt-get, dpkg"), "{wrong}");
    }

    #[test]
    fn unknown_systems_are_not_guessed_at() {
        let plan9 = OsRelease::parse("ID=plan9\nVERSION_ID=4");
        let seen = System::of(plan9.clone(), |program| program == "dnf").unwrap_err();
        assert!(seen.contains("ID=plan9") && seen.contains("dnf"), "{seen}");
        assert!(System::usual(plan9).is_err());
        assert!(System::of(OsRelease::parse("no os-release\n=\n"), |_| true).unwrap_err().contains("no ID"));
    }
}
