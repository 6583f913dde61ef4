//! The package managers' command lines.

use super::os::{Format, Manager};
use super::version::VersionReq;
use crate::types::version::PROGRAM;

/// The package.
pub const PACKAGE: &str = "salt-minion";

/// A command: the program and its arguments.
pub type Words = Vec<String>;

fn words(line: &[&str]) -> Words {
    line.iter().map(|&word| word.to_owned()).collect()
}

/// Is something there already that is not what is wanted? A manager does not go back to an older version by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is there.
    Nothing,
    /// Something else is there.
    Other,
}

/// What has to come before [`install`]: the manager learns what the repositories hold. dnf and zypper do that by themselves.
pub fn refresh(manager: Manager) -> Option<Words> {
    match manager {
        Manager::AptGet => Some(words(&["apt-get", "--quiet", "update"])),
        Manager::Zypper => Some(words(&["zypper", "--non-interactive", "--quiet", "refresh", PROGRAM])),
        Manager::Dnf5 | Manager::Dnf | Manager::Yum | Manager::Rpm | Manager::Dpkg => None,
    }
}

/// Lists the versions that the repository has, one a line or in a table: `output::versions` reads both.
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

/// Installs from the repositories. `version` is the package's own, whole, where [`wants_whole_version`] asks for it.
pub fn install(manager: Manager, wanted_version: Option<&VersionReq>, version: Option<&str>, existing: Existing) -> Option<Words> {
    let named = |between: &str, version: &str| format!("{PACKAGE}{between}{version}");
    match manager {
        Manager::Dnf5 | Manager::Dnf | Manager::Yum => {
            let spec = match wanted_version {
                Some(wanted_version) if wanted_version.is_whole() => named("-", wanted_version.as_str()),
                Some(wanted_version) => named("-", &format!("{wanted_version}.*")),
                None => PACKAGE.to_owned(),
            };
            // Of our own repository nothing old may be believed; how others age is for the machine's owner to say.
            let fresh = format!("--setopt={PROGRAM}.metadata_expire=0");
            let mut command = words(&[manager.program(), "--assumeyes", "install", &fresh, &spec]);
            if manager == Manager::Dnf5 && existing == Existing::Other {
                command.push("--allow-downgrade".into());
            }
            Some(command)
        }
        Manager::Zypper => {
            let spec = version.map_or_else(|| PACKAGE.to_owned(), |version| named("=", version));
            let mut command = words(&["zypper", "--non-interactive", "install", "--oldpackage", "--auto-agree-with-licenses", &spec]);
            if let (Existing::Other, Some(version)) = (existing, version) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: Option<Words>) -> String {
        command.unwrap().join(" ")
    }

    #[test]
    fn commands() {
        let (line3006, whole) = (VersionReq::parse("3006").unwrap(), VersionReq::parse("3006.27").unwrap());
        let dnf = line(install(Manager::Dnf, Some(&line3006), None, Existing::Nothing));
        assert_eq!(dnf, "dnf --assumeyes install --setopt=heat-salt-bootstrap.metadata_expire=0 salt-minion-3006.*");
        assert!(line(install(Manager::Dnf5, Some(&whole), None, Existing::Other)).ends_with("salt-minion-3006.27 --allow-downgrade"));
        assert!(
            line(install(Manager::AptGet, Some(&whole), Some("3006.27-1"), Existing::Nothing)).ends_with("install salt-minion=3006.27-1")
        );
        assert!(install(Manager::Rpm, None, None, Existing::Nothing).is_none());
        assert_eq!(line(Some(install_file(Manager::Dpkg, "/x.deb"))), "dpkg --force-confdef --force-confold --install /x.deb");
    }
}
