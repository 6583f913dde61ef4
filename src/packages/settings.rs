//! The `install` section of the configuration.

use super::os::Format;
use super::repository::{self, Login};
use super::version::VersionReq;
use crate::types::references::{References, secret};
use crate::types::section::Section;
use crate::types::url::Url;

/// The `install` section.
#[derive(Debug)]
pub struct Install {
    /// Where the program comes from.
    pub source: Source,
    /// The version that has to be there.
    pub version: Option<VersionReq>,
}

/// Where the minion's program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From a package repository.
    Repository {
        /// Its URL; the Salt project's own if absent.
        url: Option<Url>,
        /// The key that signs it.
        key: SigningKey,
        /// Who reads it, where it wants to know.
        login: Option<Login>,
    },
    /// From one package file.
    Package {
        /// Where it is, by https.
        url: Url,
        /// What it is: .rpm or .deb.
        format: Format,
        /// The SHA-256 of its content, in lower-case hexadecimal.
        sha256: String,
    },
    /// It is there already.
    Preinstalled,
}

/// The public key of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningKey {
    /// Armoured, in the configuration or in a file that it names.
    Given(String),
    /// To be fetched over verified TLS.
    At(Url),
}

/// Reads the section; every problem is listed. `wiped`: its secret may be gone after use.
pub fn install(top: &Section, refs: &dyn References, wiped: bool) -> Option<Install> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Repository,
        Package,
        Preinstalled,
    }
    let section = top.section("install");
    let choices = [("repository", Kind::Repository), ("package", Kind::Package), ("preinstalled", Kind::Preinstalled)];
    let kind = section.choice("source", &choices).unwrap_or(Kind::Repository);
    let version = section.parsed("version", VersionReq::parse);
    let repository = repository(section.section("repository"), refs, wiped);
    let package = package(&section, kind == Kind::Package);
    section.finish();
    let source = match kind {
        Kind::Repository => repository?,
        Kind::Package => package?,
        Kind::Preinstalled => Source::Preinstalled,
    };
    Some(Install { source, version })
}

fn repository(section: Section, refs: &dyn References, wiped: bool) -> Option<Source> {
    let url = section.parsed("url", Url::parse);
    let inline = section.text("gpg_key").map(str::to_owned);
    let from_file = section.parsed("gpg_key_file", |path| {
        refs.file(path).map(|text| text.expose().to_owned()).map_err(|why| format!("{path} cannot be read: {why}"))
    });
    let at = section.parsed("gpg_key_url", Url::encrypted);
    if [inline.is_some(), from_file.is_some(), at.is_some()].iter().filter(|given| **given).count() > 1 {
        section.complain("gpg_key", "is given more than once: gpg_key, gpg_key_file and gpg_key_url mean the same, give one");
    }
    for (name, key) in [("gpg_key", &inline), ("gpg_key_file", &from_file)] {
        if key.as_ref().is_some_and(|key| !key.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----")) {
            section.complain(name, "is no armoured public key: it has to begin with -----BEGIN PGP PUBLIC KEY BLOCK-----");
        }
    }
    let key = match (inline.or(from_file), at) {
        (Some(armoured), _) => SigningKey::Given(armoured),
        (None, url) => SigningKey::At(url.unwrap_or_else(repository::project_key)),
    };
    let login = login(&section, refs, url.as_ref(), wiped);
    section.finish();
    Some(Source::Repository { url, key, login })
}

fn login(section: &Section, refs: &dyn References, url: Option<&Url>, wiped: bool) -> Option<Login> {
    // They go into files in which a blank or the end of a line ends a word.
    let word = |text: &str| !text.chars().any(|c| c.is_whitespace() || c.is_control());
    let username = section.text("username");
    let password = secret(section, "password", "password_file", refs);
    if username.is_some_and(|name| !word(name) || name.contains(':')) {
        section.complain("username", "may hold no white space and no colon");
    }
    if password.as_ref().is_some_and(|password| !word(password.expose())) {
        section.complain("password", "may hold no white space");
    }
    match (username, password) {
        (Some(username), Some(password)) => {
            if !url.is_some_and(Url::is_encrypted) {
                section.complain("password", "is for a mirror of yours: give its https:// url too");
            }
            Some(Login { username: username.to_owned(), password })
        }
        (Some(_), None) if !wiped => {
            section.complain("password", "is missing: username needs it");
            None
        }
        (None, Some(_)) => {
            section.complain("username", "is missing: password needs it");
            None
        }
        _ => None,
    }
}

fn package(section: &Section, wanted: bool) -> Option<Source> {
    let url = section.parsed("package_url", Url::encrypted);
    let sha256 = section.parsed("sha256", |text| {
        let hexadecimal = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hexadecimal { Ok(text.to_lowercase()) } else { Err(format!("{text:?} is no SHA-256: that has 64 hexadecimal digits")) }
    });
    if wanted && section.value("package_url").is_none() {
        section.complain("package_url", "is missing: install.source \"package\" needs the URL of an .rpm or .deb");
    }
    if wanted && section.value("sha256").is_none() {
        section.complain("sha256", "is missing: without it nobody knows whether the package is the right one; see `sha256sum FILE`");
    }
    let url = url?;
    let format = match url.path().rsplit('.').next() {
        Some("rpm") => Format::Rpm,
        Some("deb") => Format::Deb,
        _ => {
            section.complain("package_url", format!("\"{url}\" is neither an .rpm nor a .deb"));
            return None;
        }
    };
    Some(Source::Package { url, format, sha256: sha256? })
}
