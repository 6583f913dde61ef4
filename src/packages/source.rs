//! The two sources that a package can come from: a repository and a single file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest;
use tracing::{info, warn};

use super::commands::{self, Existing};
use super::os::{Format, Manager, System};
use super::output::{self, Reason};
use super::repository::{self, Repository};
use super::transaction::Transaction;
use super::version::VersionReq;
use crate::packages::settings::SigningKey;
use crate::system::files::{self, Root};
use crate::system::http::{Client, HttpError, TlsError};
use crate::system::retry::{RetryError, Wait};
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::hexadecimal::hexadecimal;
use crate::types::secret::Secret;
use crate::types::url::Url;

/// A key is some kilobytes; Salt's packages are 50 MB.
const MOST_KEY: u64 = 256 * 1024;
const MOST_PACKAGE: u64 = 1024 * 1024 * 1024;
/// What the first try may take; a mirror that is slower than that gets twice as much with each further one.
const KEY_TIMEOUT: Duration = Duration::from_secs(30);
const PACKAGE_TIMEOUT: Duration = Duration::from_secs(600);
/// For a question whose answer is not needed.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a package file lies while it is installed.
const CACHE: &str = "/var/cache/heat-salt-bootstrap";

/// Installs from a repository, after writing its file.
pub fn from_repository(
    transaction: &Transaction,
    mut repository: Repository,
    system: &System,
    key: &SigningKey,
    existing: Existing,
    prepare: impl FnOnce(Existing) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Transaction { manager, wait, .. } = *transaction;
    if matches!(manager, Manager::Rpm | Manager::Dpkg) {
        return Err(no_repositories(system));
    }
    let key = match key {
        SigningKey::Given(armoured) => armoured.clone(),
        SigningKey::At(url) => fetched_key(url, repository.authorization(url), wait)?,
    };
    repository.signed_metadata = has_signed_metadata(&repository, manager)?;
    if !repository.signed_metadata {
        info!("{} signs its packages only, not its metadata", repository.url);
    }
    prepare(existing)?;
    for file in repository.files(manager, &key) {
        let path = Path::new(&file.path);
        files::ensure_dir(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        files::ensure(path, file.text.expose().as_bytes(), file.mode)?;
    }
    if let (None, Some(path)) = (&repository.login, repository::login_file(manager)) {
        files::remove(Path::new(path))?;
    }
    if manager == Manager::Zypper {
        // Without this it asks whether the key is to be trusted, and answers no by itself.
        let import = ["rpm", "--import", repository::key_file(manager)].map(str::to_owned).to_vec();
        transaction.run(&import, |_| None)?;
    }
    if let Some(refresh) = commands::refresh(manager) {
        transaction.run(&refresh, |finished| output::refresh_fault(repository.url.expose(), &finished.stdout, &finished.stderr))?;
    }
    let wanted_version = repository.wanted_version.as_ref();
    let version = if commands::wants_whole_version(manager) { Some(chosen(transaction, wanted_version, &repository.url)?) } else { None };
    let Some(command) = commands::install(manager, wanted_version, version.as_deref(), existing) else {
        return Err(Failure::new(Kind::Bug, format!("{} was asked for a repository", manager.program())));
    };
    match transaction.run(&command, |_| None) {
        Ok(_) => Ok(()),
        Err(failure) if Reason::read(&failure.message) == Reason::NoSuchVersion => {
            Err(chosen(transaction, wanted_version, &repository.url).err().unwrap_or(failure))
        }
        Err(failure) => Err(failure),
    }
}

/// The failure of a system whose manager knows no repositories.
pub fn no_repositories(system: &System) -> Failure {
    let why = format!("there is only {} here ({}), which knows no repositories", system.manager.program(), system.release);
    Failure::new(Kind::UnsupportedSystem, why).hint("Give one package file: install.source \"package\", with package_url and sha256.")
}

/// The failure of a package that is none for this system.
pub fn wrong_format(url: &Url, system: &System) -> Failure {
    Failure::new(Kind::UnsupportedSystem, format!("{url} is no package for {}", system.release))
}

/// Looks whether a source gives what is at this URL, and takes no more of it than is needed to know. `holds` is a text that has to be
/// in what comes.
pub fn answers(url: &Url, authorization: Option<Secret>, timeout: Duration, holds: Option<&str>) -> Result<(), Failure> {
    let failed = |why: String| Failure::new(Kind::RepositoryUnreachable, format!("{url}: {why}"));
    let (mut begun, mut taken) = (false, Vec::new());
    let answer = Client::for_downloads().download(url, authorization.as_ref(), timeout, MOST_KEY, &mut |piece| {
        begun = true;
        taken.extend_from_slice(piece);
        if holds.is_some() { Ok(()) } else { Err(std::io::Error::other("that is enough")) }
    });
    match (answer, holds) {
        (_, None) if begun => Ok(()),
        (Ok((200, _)), None) => Ok(()),
        (Ok((200, _)), Some(text)) if String::from_utf8_lossy(&taken).contains(text) => Ok(()),
        (Ok((200, _)), Some(_)) => Err(no_key(url)),
        (Ok((status, _)), _) => Err(failed(format!("HTTP {status}"))),
        (Err(HttpError::Tls(tls_error)), _) => Err(untrusted(failed(tls_error.to_string()))),
        (Err(error), _) => Err(failed(error.to_string())),
    }
}

fn no_key(url: &Url) -> Failure {
    Failure::new(Kind::PackageUntrusted, format!("{url} holds no armoured public key"))
        .hint("Correct install.repository.gpg_key_url, or give the key itself in gpg_key.")
}

fn untrusted(failure: Failure) -> Failure {
    failure.hint("Its certificate has to be signed by a CA that this machine knows; see ca-certificates.")
}

/// The version that is going to be installed, of those that the repository has.
fn chosen(transaction: &Transaction, wanted_version: Option<&VersionReq>, url: &Url) -> Result<String, Failure> {
    let printed = match commands::list(transaction.manager) {
        Some(list) => transaction.query(&list)?.unwrap_or_default(),
        None => String::new(),
    };
    let offered = output::versions(&printed);
    VersionReq::choose(wanted_version, &offered).map(str::to_owned).map_err(|nearest| {
        let wanted = wanted_version.map_or_else(|| "salt-minion".to_owned(), |wanted_version| format!("salt-minion {wanted_version}"));
        let nearest = nearest.map_or_else(|| "it has none at all".to_owned(), |nearest| format!("the nearest that it has is {nearest}"));
        let failure = Failure::new(Kind::PackageFailed, format!("there is no {wanted} in {url}: {nearest}"));
        failure
            .hint("Give a version that the repository has in install.version, or another repository.")
            .fact(Fact::Offered, offered.join(" "))
    })
}

fn fetched_key(url: &Url, authorization: Option<Secret>, wait: &Wait) -> Result<String, Failure> {
    let mut key = Vec::new();
    fetch(url, authorization, KEY_TIMEOUT, MOST_KEY, wait, |piece| {
        // A try that broke off has left its beginning here.
        match piece {
            Some(piece) => key.extend_from_slice(piece),
            None => key.clear(),
        }
        Ok(())
    })?;
    let text = String::from_utf8_lossy(&key).into_owned();
    if text.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        return Ok(text);
    }
    Err(no_key(url))
}

/// Are the metadata signed as well as the packages? It is not known before, and dnf wants it said. If nobody answers, it is
/// demanded: the package manager, which may know a way of its own, will see. Over `http://` anybody on the way could change what is not signed.
pub fn has_signed_metadata(repository: &Repository, manager: Manager) -> Result<bool, Failure> {
    let Some(url) = repository.signature_url(manager) else { return Ok(true) };
    let (of, plain) = (&repository.url, !repository.url.is_encrypted());
    // What its variables stand for only the package manager knows.
    if (plain && of.expose().contains('$')) || !is_missing(&url, repository.authorization(&url), PROBE_TIMEOUT) {
        return Ok(true);
    }
    if plain {
        // Where there are none at all, the package manager says so.
        let metadata = repository.probe_url(manager);
        if is_missing(&metadata, repository.authorization(&metadata), PROBE_TIMEOUT) {
            return Ok(true);
        }
        let why = format!("{of} signs its packages only, not its metadata, and over http:// nothing else protects these");
        return Err(Failure::new(Kind::PackageUntrusted, why)
            .hint("Give an https:// URL, or sign the metadata: `gpg --detach-sign --armor repodata/repomd.xml`."));
    }
    Ok(false)
}

/// Does the source say within this time that there is no such file?
fn is_missing(url: &Url, authorization: Option<Secret>, within: Duration) -> bool {
    let asked = Client::for_downloads().download(url, authorization.as_ref(), within, MOST_KEY, &mut |_| Ok(()));
    matches!(asked, Ok((404 | 410, _)))
}

/// Installs one package file, after looking at its checksum.
#[expect(clippy::too_many_arguments, reason = "what a package file is, and what is done around it")]
pub fn from_file(
    transaction: &Transaction,
    system: &System,
    url: &Url,
    format: Format,
    sha256: &str,
    root: &Root,
    existing: Existing,
    prepare: impl FnOnce(Existing) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if format != system.manager.format() {
        return Err(wrong_format(url, system));
    }
    let file = Downloaded::new(root, url, format)?;
    file.fill(url, sha256, transaction.wait)?;
    prepare(existing)?;
    let _announced = Announced::new(transaction.manager, root, &file)?;
    let command = commands::install_file(transaction.manager, &file.0.to_string_lossy());
    transaction.run(&command, |_| None).map(|_| ())
}

/// The package as a repository of its own, for a manager that wants it so, until it is installed.
struct Announced(Vec<PathBuf>);

impl Announced {
    fn new(manager: Manager, root: &Root, file: &Downloaded) -> Result<Announced, Failure> {
        let dir = root.at(CACHE).join("repository");
        let Some((path, text)) = commands::file_repository(manager, &dir.to_string_lossy()) else {
            return Ok(Announced(Vec::new()));
        };
        // Nothing may lie there but what has just been verified.
        Announced::clear(&dir);
        files::ensure_dir(&dir, 0o755)?;
        let named = dir.join(file.0.file_name().unwrap_or_default());
        let announced = Announced(vec![root.at(&path), dir]);
        fs::copy(&file.0, &named).map_err(|error| files::cannot("write", &named, &error))?;
        files::ensure_dir(announced.0[0].parent().unwrap_or(Path::new("/")), 0o755)?;
        files::write(&announced.0[0], text.as_bytes(), 0o644)?;
        Ok(announced)
    }

    fn clear(path: &Path) {
        let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        if let Err(error) = gone
            && error.kind() != std::io::ErrorKind::NotFound
        {
            warn!("{} cannot be removed: {error}", path.display());
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| Announced::clear(path));
    }
}

/// A package file, removed when nobody needs it any more.
struct Downloaded(PathBuf);

impl Downloaded {
    fn new(root: &Root, url: &Url, format: Format) -> Result<Downloaded, Failure> {
        let dir = root.at(CACHE);
        files::ensure_dir(&dir, 0o755)?;
        let name = url.path().rsplit('/').next().unwrap_or_default();
        let plain = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
            && !name.starts_with(['.', '-']);
        let usual = match format {
            Format::Rpm => "salt-minion.rpm",
            Format::Deb => "salt-minion.deb",
        };
        Ok(Downloaded(dir.join(if plain { name } else { usual })))
    }

    fn fill(&self, url: &Url, sha256: &str, wait: &Wait) -> Result<(), Failure> {
        let failed = |error: &std::io::Error| files::cannot("write", &self.0, error);
        let mut file = File::create(&self.0).map_err(|error| failed(&error))?;
        let mut digest = digest::Context::new(&digest::SHA256);
        let mut disk = None;
        let fetched = fetch(url, None, PACKAGE_TIMEOUT, MOST_PACKAGE, wait, |piece| {
            let written = match piece {
                Some(piece) => {
                    digest.update(piece);
                    file.write_all(piece)
                }
                None => {
                    digest = digest::Context::new(&digest::SHA256);
                    File::create(&self.0).map(|empty| file = empty)
                }
            };
            written.inspect_err(|error| disk = Some(failed(error)))
        });
        if let Some(failure) = disk {
            return Err(failure);
        }
        fetched?;
        let found = hexadecimal(digest.finish().as_ref());
        if found == sha256 {
            return Ok(());
        }
        Err(Failure::new(Kind::PackageUntrusted, format!("{url} has the SHA-256 {found}, expected is {sha256}")).fact(Fact::Found, found))
    }
}

impl Drop for Downloaded {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Fetches, and tries again as the answer deserves. `take` gets `None` before each try, then what comes.
fn fetch(
    url: &Url,
    authorization: Option<Secret>,
    first: Duration,
    most: u64,
    wait: &Wait,
    mut take: impl FnMut(Option<&[u8]>) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let client = Client::for_downloads();
    let failed = |why: String| Failure::new(Kind::RepositoryUnreachable, format!("{url}: {why}"));
    wait.retry(&url.to_string(), |tries| {
        let disk = |error: std::io::Error| RetryError::Permanent(failed(error.to_string()));
        take(None).map_err(disk)?;
        let timeout = time_for(tries, first, wait);
        let mut refused = false;
        let answer =
            client.download(url, authorization.as_ref(), timeout, most, &mut |piece| take(Some(piece)).inspect_err(|_| refused = true));
        match answer {
            Ok((200, _)) => Ok(()),
            Ok((status @ (408 | 429 | 500..=599), retry_after)) => {
                Err(RetryError::Transient(failed(format!("HTTP {status}")), retry_after))
            }
            Ok((status, _)) => Err(RetryError::Permanent(failed(format!("HTTP {status}")))),
            Err(error) if refused => Err(RetryError::Permanent(failed(error.to_string()))),
            Err(HttpError::Tls(tls_error)) if tls_error != TlsError::NotYetValid => {
                Err(RetryError::Permanent(untrusted(failed(tls_error.to_string()))))
            }
            Err(error) => Err(RetryError::Transient(failed(error.to_string()), None)),
        }
    })
}

/// How long a try may take, after so many others.
fn time_for(tries: u32, first: Duration, wait: &Wait) -> Duration {
    first.saturating_mul(1 << tries.min(8)).min(wait.remaining()).max(Duration::from_millis(100))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::system::retry::tests::patience;

    #[test]
    fn only_who_says_so_has_no_such_file() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/repomd.xml.asc", silent.local_addr().unwrap())).unwrap();
        assert!(!is_missing(&url, None, PROBE_TIMEOUT / 100));
        thread::spawn(move || {
            for taken in silent.incoming() {
                let mut taken = taken.unwrap();
                let _ = taken.read(&mut [0; 4096]);
                let _ = taken.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        assert!(is_missing(&url, None, Duration::from_secs(60)));
    }

    #[test]
    fn a_longer_deadline_gives_a_slow_mirror_longer() {
        let day = patience(Duration::from_secs(24 * 3600));
        assert_eq!([0, 1, 4].map(|tries| time_for(tries, KEY_TIMEOUT, &day)), [KEY_TIMEOUT, KEY_TIMEOUT * 2, KEY_TIMEOUT * 16]);
        assert_eq!([0, 1].map(|tries| time_for(tries, PACKAGE_TIMEOUT, &day)), [PACKAGE_TIMEOUT, PACKAGE_TIMEOUT * 2]);
        assert!(time_for(1, PACKAGE_TIMEOUT, &patience(PACKAGE_TIMEOUT)) <= PACKAGE_TIMEOUT);
    }

    #[test]
    fn what_takes_longer_than_the_first_try_comes_in_a_later_one() {
        let slow = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/key", slow.local_addr().unwrap())).unwrap();
        thread::spawn(move || {
            for taken in slow.incoming() {
                let mut taken = taken.unwrap();
                let _ = taken.read(&mut [0; 4096]);
                thread::sleep(Duration::from_millis(300));
                let _ = taken.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nkey");
            }
        });
        let fetched = |wait: &Wait| {
            let mut came = Vec::new();
            let take = |piece: Option<&[u8]>| {
                came = piece.map_or_else(Vec::new, |piece| [came.as_slice(), piece].concat());
                Ok(())
            };
            fetch(&url, None, Duration::from_millis(100), MOST_KEY, wait, take).map(|()| came)
        };
        assert_eq!(fetched(&patience(Duration::from_secs(60))), Ok(b"key".to_vec()));
        assert_eq!(fetched(&patience(Duration::from_millis(100))).unwrap_err().kind, Kind::RepositoryUnreachable);
    }
}
