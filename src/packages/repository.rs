//! The files that make a package manager know the repository with Salt's packages: one file of one release line, with its own
//! key, and nothing of it is left to be found elsewhere.

use std::fmt::Write;

use super::os::{Format, Manager, System};
use super::version::VersionReq;
use crate::types::version::PROGRAM;

/// The Salt project's repositories (doc.saltproject.io, install guide: salt.repo and salt.sources).
const PROJECT_RPM: &str = "https://packages.broadcom.com/artifactory/saltproject-rpm";
const PROJECT_DEB: &str = "https://packages.broadcom.com/artifactory/saltproject-deb";
/// The key that signs both.
pub const PROJECT_KEY: &str = "https://packages.broadcom.com/artifactory/api/security/keypair/SaltProjectKey/public";
/// The line that is installed from the project's own repository if nobody asks for another: its newest with long support.
const PROJECT_LINE: &str = "3008";

/// A repository as it is going to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its URL, without a slash at the end.
    pub url: String,
    /// Which versions it may give; `None` for all.
    pub wanted_version: Option<VersionReq>,
    /// Are its metadata signed too, and not only its packages? For apt they always are.
    pub signed_metadata: bool,
}

/// A file to be written; everybody may read all of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub path: String,
    /// What.
    pub text: String,
}

impl Repository {
    /// The repository at this URL, or the Salt project's own, for this system.
    pub fn at(url: Option<&str>, wanted_version: Option<&VersionReq>, system: &System) -> Repository {
        let own = match system.manager.format() {
            Format::Rpm => PROJECT_RPM,
            Format::Deb => PROJECT_DEB,
        };
        // A mirror may hold one line only, so there the newest of all is taken.
        let line = || url.is_none().then(|| VersionReq::parse(PROJECT_LINE).ok()).flatten();
        Repository {
            url: url.unwrap_or(own).trim_end_matches('/').to_owned(),
            wanted_version: wanted_version.cloned().or_else(line),
            signed_metadata: true,
        }
    }

    /// What has to answer there if it is a repository of this kind.
    pub fn probe_url(&self, manager: Manager) -> String {
        match manager.format() {
            Format::Rpm => format!("{}/repodata/repomd.xml", self.url),
            Format::Deb => format!("{}/dists/stable/Release", self.url),
        }
    }

    /// The signature of the metadata, where it is a file that may be missing.
    pub fn signature_url(&self, manager: Manager) -> Option<String> {
        (manager.format() == Format::Rpm).then(|| format!("{}.asc", self.probe_url(manager)))
    }

    /// Everything that has to be written for it. `key` is the armoured public key.
    pub fn files(&self, manager: Manager, key: &str) -> Vec<Written> {
        let key_file = key_file(manager);
        let mut files = vec![Written { path: key_file.to_owned(), text: format!("{}\n", key.trim()) }];
        match manager {
            Manager::AptGet | Manager::Dpkg => {
                files.push(Written { path: format!("/etc/apt/sources.list.d/{PROGRAM}.sources"), text: self.sources(key_file) });
                if let Some(pins) = self.pins() {
                    files.push(Written { path: format!("/etc/apt/preferences.d/{PROGRAM}"), text: pins });
                }
            }
            Manager::Zypper => files.push(Written { path: format!("/etc/zypp/repos.d/{PROGRAM}.repo"), text: self.repo(key_file, true) }),
            Manager::Dnf5 | Manager::Dnf | Manager::Yum | Manager::Rpm => {
                files.push(Written { path: format!("/etc/yum.repos.d/{PROGRAM}.repo"), text: self.repo(key_file, false) });
            }
        }
        files
    }

    /// dnf.conf(5), zypper's repos.d. The priority makes it win over EPEL, which has an old salt of its own.
    fn repo(&self, key_file: &str, zypper: bool) -> String {
        let mut text = format!(
            "{}[{PROGRAM}]\nname=Salt, for {PROGRAM}\nbaseurl={}\nenabled=1\ngpgcheck=1\nrepo_gpgcheck={}\ngpgkey=file://{key_file}\npriority=10\n",
            written_by(),
            self.url,
            u8::from(self.signed_metadata)
        );
        if zypper {
            text.push_str("autorefresh=1\ntype=rpm-md\npkg_gpgcheck=1\n");
            return text;
        }
        text.push_str("skip_if_unavailable=0\n");
        if let Some(wanted_version) = &self.wanted_version {
            // name-version-release: all of Salt's packages are of one version.
            let end = if wanted_version.is_whole() { "-*" } else { ".*" };
            let _ = writeln!(text, "includepkgs=salt-{wanted_version}{end} salt-*-{wanted_version}{end}");
        }
        text
    }

    /// sources.list(5), the deb822 format.
    fn sources(&self, key_file: &str) -> String {
        format!("{}Types: deb\nURIs: {}\nSuites: stable\nComponents: main\nSigned-By: {key_file}\n", written_by(), self.url)
    }

    /// apt_preferences(5): with more than 1000 a version is taken even if it means going back.
    fn pins(&self) -> Option<String> {
        let wanted_version = self.wanted_version.as_ref()?;
        let patterns = if wanted_version.is_whole() {
            vec![wanted_version.to_string(), format!("{wanted_version}-*")]
        } else {
            vec![format!("{wanted_version}.*")]
        };
        let pin = |pattern: &String| format!("Package: salt-*\nPin: version {pattern}\nPin-Priority: 1001\n");
        Some(format!("{}{}", written_by(), patterns.iter().map(pin).collect::<Vec<_>>().join("\n")))
    }
}

/// Where the key lies for this manager.
pub fn key_file(manager: Manager) -> &'static str {
    match manager.format() {
        Format::Rpm => "/etc/pki/rpm-gpg/RPM-GPG-KEY-heat-salt-bootstrap",
        Format::Deb => "/etc/apt/keyrings/heat-salt-bootstrap.asc",
    }
}

fn written_by() -> String {
    format!("# Written by {PROGRAM}, which writes it anew when its configuration changes.\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::os::OsRelease;

    fn system(manager: Manager) -> System {
        System { release: OsRelease::default(), manager }
    }

    fn files(manager: Manager, url: Option<&str>, wanted_version: Option<&str>) -> Vec<Written> {
        let wanted_version = wanted_version.map(|wanted_version| VersionReq::parse(wanted_version).unwrap());
        Repository::at(url, wanted_version.as_ref(), &system(manager)).files(manager, "KEY\n\n")
    }

    #[test]
    fn an_rpm_repository_of_one_line() {
        let files = files(Manager::Dnf, Some("http://mirror.example/salt/"), Some("3006"));
        assert_eq!(files[0], Written { path: "/etc/pki/rpm-gpg/RPM-GPG-KEY-heat-salt-bootstrap".into(), text: "KEY\n".into() });
        assert_eq!(files[1].path, "/etc/yum.repos.d/heat-salt-bootstrap.repo");
        for line in ["baseurl=http://mirror.example/salt\n", "gpgcheck=1\n", "repo_gpgcheck=1\n", "skip_if_unavailable=0\n"] {
            assert!(files[1].text.contains(line), "{line} in {}", files[1].text);
        }
        assert!(files[1].text.contains("includepkgs=salt-3006.* salt-*-3006.*\n"));
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn a_whole_version_is_no_prefix() {
        let repo = &files(Manager::Dnf, None, Some("3006.2"))[1].text;
        assert!(repo.contains("includepkgs=salt-3006.2-* salt-*-3006.2-*\n"), "{repo}");
        let pins = &files(Manager::AptGet, None, Some("3006.2"))[2].text;
        assert!(pins.contains("Pin: version 3006.2\n") && pins.contains("Pin: version 3006.2-*\n"), "{pins}");
    }

    #[test]
    fn the_projects_own_gives_its_line_and_a_mirror_all_it_has() {
        assert!(files(Manager::Dnf, None, None)[1].text.contains("includepkgs=salt-3008.*"));
        assert!(!files(Manager::Dnf, Some("http://mirror.example"), None)[1].text.contains("includepkgs"));
        let sources = &files(Manager::AptGet, None, None)[1];
        assert_eq!(sources.path, "/etc/apt/sources.list.d/heat-salt-bootstrap.sources");
        assert!(sources.text.contains("URIs: https://packages.broadcom.com/artifactory/saltproject-deb\nSuites: stable\n"));
        assert_eq!(files(Manager::AptGet, Some("http://mirror.example"), None).len(), 2);
    }

    #[test]
    fn zypper_has_its_own_directory() {
        let repo = &files(Manager::Zypper, None, Some("3006"))[1];
        assert_eq!(repo.path, "/etc/zypp/repos.d/heat-salt-bootstrap.repo");
        assert!(repo.text.contains("autorefresh=1\n") && !repo.text.contains("includepkgs"));
    }
}
