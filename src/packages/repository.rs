//! The files that make a package manager know the repository with Salt's packages: one file of one release line, with its own
//! key, and nothing of it is left to be found elsewhere.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::os::{Format, Manager, System};
use super::version::VersionReq;
use crate::types::secret::Secret;
use crate::types::url::Url;
use crate::types::version::PROGRAM;

/// The Salt project's repositories (doc.saltproject.io, install guide: salt.repo and salt.sources).
const PROJECT: &str = "packages.broadcom.com";
const PROJECT_RPM: &str = "/artifactory/saltproject-rpm";
const PROJECT_DEB: &str = "/artifactory/saltproject-deb";
/// The key that signs both.
const PROJECT_KEY: &str = "/artifactory/api/security/keypair/SaltProjectKey/public";
/// The line that is installed from the project's own repository if nobody asks for another: its newest with long support.
const PROJECT_LINE: &str = "3008";

/// Who reads a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A repository as it is going to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its URL, without a slash at the end.
    pub url: Url,
    /// Which versions it may give; `None` for all.
    pub wanted_version: Option<VersionReq>,
    /// Are its metadata signed too, and not only its packages? For apt they always are.
    pub signed_metadata: bool,
    /// Who reads it, where it wants to know.
    pub login: Option<Login>,
}

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub path: String,
    /// What: with a password in it, where it is root's alone.
    pub text: Secret,
    /// 0644, or 0600.
    pub mode: u32,
}

impl Written {
    fn public(path: impl Into<String>, text: String) -> Written {
        Written { path: path.into(), text: Secret::new(text), mode: 0o644 }
    }
}

/// Where apt and zypper look for who reads a repository.
const APT_AUTH: &str = "/etc/apt/auth.conf.d/heat-salt-bootstrap.conf";
const ZYPPER_AUTH: &str = "/etc/zypp/credentials.d/heat-salt-bootstrap";

impl Repository {
    /// The repository at this URL, or the Salt project's own, for this system.
    pub fn at(url: Option<&Url>, login: Option<&Login>, wanted_version: Option<&VersionReq>, system: &System) -> Repository {
        let own = match system.manager.format() {
            Format::Rpm => PROJECT_RPM,
            Format::Deb => PROJECT_DEB,
        };
        // A mirror may hold one line only, so there the newest of all is taken.
        let line = || url.is_none().then(|| VersionReq::parse(PROJECT_LINE).ok()).flatten();
        Repository {
            url: url.map_or_else(|| Url::known(PROJECT, own), Url::base),
            wanted_version: wanted_version.cloned().or_else(line),
            signed_metadata: true,
            login: login.cloned(),
        }
    }

    /// What has to answer there if it is a repository of this kind.
    pub fn probe_url(&self, manager: Manager) -> Url {
        match manager.format() {
            Format::Rpm => self.url.below("repodata/repomd.xml"),
            Format::Deb => self.url.below("dists/stable/Release"),
        }
    }

    /// The signature of the metadata, where it is a file that may be missing.
    pub fn signature_url(&self, manager: Manager) -> Option<Url> {
        (manager.format() == Format::Rpm).then(|| self.probe_url(manager).with(".asc"))
    }

    /// Everything that has to be written for it. `key` is the armoured public key.
    pub fn files(&self, manager: Manager, key: &str) -> Vec<Written> {
        let key_file = key_file(manager);
        let mut files = vec![Written::public(key_file, format!("{}\n", key.trim()))];
        match manager {
            Manager::AptGet | Manager::Dpkg => {
                files.push(Written::public(format!("/etc/apt/sources.list.d/{PROGRAM}.sources"), self.sources(key_file)));
                if let Some(pins) = self.pins() {
                    files.push(Written::public(format!("/etc/apt/preferences.d/{PROGRAM}"), pins));
                }
                // apt_auth.conf(5): the longest URL that fits counts.
                files.extend(self.secret(APT_AUTH, |Login { username, password }| {
                    format!("{}machine {} login {username} password {}\n", written_by(), self.url.expose(), password.expose())
                }));
            }
            Manager::Zypper => {
                files.push(Written::public(format!("/etc/zypp/repos.d/{PROGRAM}.repo"), self.repo(key_file, true)));
                files.extend(
                    self.secret(ZYPPER_AUTH, |Login { username, password }| {
                        format!("username={username}\npassword={}\n", password.expose())
                    }),
                );
            }
            Manager::Dnf5 | Manager::Dnf | Manager::Yum | Manager::Rpm => {
                let path = format!("/etc/yum.repos.d/{PROGRAM}.repo");
                let with_login = self.secret(&path, |Login { username, password }| {
                    format!("{}username={username}\npassword={}\n", self.repo(key_file, false), password.expose())
                });
                files.push(with_login.unwrap_or_else(|| Written::public(path, self.repo(key_file, false))));
            }
        }
        files
    }

    /// A file that says who reads the repository; none where nobody has to be named.
    fn secret(&self, path: &str, text: impl FnOnce(&Login) -> String) -> Option<Written> {
        self.login.as_ref().map(|login| Written { path: path.to_owned(), text: Secret::new(text(login)), mode: 0o600 })
    }

    /// What a request to this URL has to show: nothing, if it leads to another server.
    pub fn authorization(&self, url: &Url) -> Option<Secret> {
        let Login { username, password } = self.login.as_ref().filter(|_| self.url.same_server(url))?;
        let both = Secret::new(format!("{username}:{}", password.expose()));
        Some(Secret::new(format!("Basic {}", STANDARD.encode(both.expose()))))
    }

    /// dnf.conf(5), zypper's repos.d. The priority makes it win over EPEL, which has an old salt of its own.
    fn repo(&self, key_file: &str, zypper: bool) -> String {
        let mut text = format!(
            "{}[{PROGRAM}]\nname=Salt, for {PROGRAM}\nbaseurl={}\nenabled=1\ngpgcheck=1\nrepo_gpgcheck={}\ngpgkey=file://{key_file}\npriority=10\n",
            written_by(),
            if zypper && self.login.is_some() {
                format!("{}?credentials={PROGRAM}", self.url.expose())
            } else {
                self.url.expose().to_owned()
            },
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
        format!("{}Types: deb\nURIs: {}\nSuites: stable\nComponents: main\nSigned-By: {key_file}\n", written_by(), self.url.expose())
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

/// The file of [`Repository::files`] that says who reads the repository, where it is one of its own.
pub fn login_file(manager: Manager) -> Option<&'static str> {
    match manager {
        Manager::AptGet | Manager::Dpkg => Some(APT_AUTH),
        Manager::Zypper => Some(ZYPPER_AUTH),
        Manager::Dnf5 | Manager::Dnf | Manager::Yum | Manager::Rpm => None,
    }
}

/// The key that signs the Salt project's own repositories.
pub fn project_key() -> Url {
    Url::known(PROJECT, PROJECT_KEY)
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
        let url = url.map(|url| Url::parse(url).unwrap());
        Repository::at(url.as_ref(), None, wanted_version.as_ref(), &system(manager)).files(manager, "KEY\n\n")
    }

    #[test]
    fn an_rpm_repository_of_one_line() {
        let files = files(Manager::Dnf, Some("http://mirror.example/salt/"), Some("3006"));
        assert_eq!(files[0], Written::public("/etc/pki/rpm-gpg/RPM-GPG-KEY-heat-salt-bootstrap", "KEY\n".into()));
        assert_eq!(files[1].path, "/etc/yum.repos.d/heat-salt-bootstrap.repo");
        for line in ["baseurl=http://mirror.example/salt\n", "gpgcheck=1\n", "repo_gpgcheck=1\n", "skip_if_unavailable=0\n"] {
            assert!(files[1].text.expose().contains(line), "{line} in {}", files[1].text.expose());
        }
        assert!(files[1].text.expose().contains("includepkgs=salt-3006.* salt-*-3006.*\n"));
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn a_whole_version_is_no_prefix() {
        let files_of = |manager| files(manager, None, Some("3006.2"));
        let (repo, pins) = (&files_of(Manager::Dnf)[1], &files_of(Manager::AptGet)[2]);
        let (repo, pins) = (repo.text.expose(), pins.text.expose());
        assert!(repo.contains("includepkgs=salt-3006.2-* salt-*-3006.2-*\n"), "{repo}");
        assert!(pins.contains("Pin: version 3006.2\n") && pins.contains("Pin: version 3006.2-*\n"), "{pins}");
    }

    #[test]
    fn the_projects_own_gives_its_line_and_a_mirror_all_it_has() {
        assert!(files(Manager::Dnf, None, None)[1].text.expose().contains("includepkgs=salt-3008.*"));
        assert!(!files(Manager::Dnf, Some("http://mirror.example"), None)[1].text.expose().contains("includepkgs"));
        let sources = &files(Manager::AptGet, None, None)[1];
        assert_eq!(sources.path, "/etc/apt/sources.list.d/heat-salt-bootstrap.sources");
        assert!(sources.text.expose().contains("URIs: https://packages.broadcom.com/artifactory/saltproject-deb\nSuites: stable\n"));
        assert_eq!(files(Manager::AptGet, Some("http://mirror.example"), None).len(), 2);
    }

    #[test]
    fn zypper_has_its_own_directory() {
        let repo = &files(Manager::Zypper, None, Some("3006"))[1];
        assert_eq!(repo.path, "/etc/zypp/repos.d/heat-salt-bootstrap.repo");
        assert!(repo.text.expose().contains("autorefresh=1\n") && !repo.text.expose().contains("includepkgs"));
    }

    #[test]
    fn a_login_stands_where_only_root_reads() {
        let url = Url::parse("https://mirror.example/salt").unwrap();
        let login = Login { username: "boot".into(), password: Secret::new("s3cret") };
        for manager in [Manager::Dnf, Manager::Zypper, Manager::AptGet] {
            let repository = Repository::at(Some(&url), Some(&login), None, &system(manager));
            let files = repository.files(manager, "KEY");
            let holding: Vec<u32> = files.iter().filter(|file| file.text.expose().contains("s3cret")).map(|file| file.mode).collect();
            assert_eq!(holding, [0o600], "{files:?}");
            let shown = |url| repository.authorization(&Url::parse(url).unwrap()).map(|secret| secret.expose().to_owned());
            assert_eq!(shown("https://mirror.example/key.asc").as_deref(), Some("Basic Ym9vdDpzM2NyZXQ="));
            assert_eq!(shown("https://mirror.example.net/key.asc").or(shown("http://mirror.example/x")), None);
        }
    }
}
