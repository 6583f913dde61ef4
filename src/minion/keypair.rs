//! The minion's key pair: made before the minion starts, so that its key can be accepted before it first calls; mended, found, and
//! waited for where the minion makes it itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::paths::MinionPaths;
use super::pidfile;
use crate::salt::private_key::{KeyPair, read_private};
use crate::salt::public_key::PublicKey;
use crate::system::command::{self, Running};
use crate::system::files;
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};
use crate::types::secret::Secret;

const MOST_BYTES: u64 = 64 * 1024;
/// 2,048 bits take 0.05 to 0.5 s, 4,096 some seconds on a slow machine. What takes longer hangs, and the minion has another way: nothing
/// comes of a longer deadline.
const MAKING: Duration = Duration::from_secs(60);

/// A pair that is being made.
pub struct Making {
    openssl: String,
    running: Running,
}

/// Begins to make the pair by openssl(1) where the minion has none, and does not wait for it. `None` where there is one, and where that
/// cannot be done (no openssl, a minion of another user): then the minion makes its own at its first start, as always.
///
/// Of the ways there are, openssl is the one whose random numbers and primes the machine trusts already: 0.1 s and no bytes here,
/// against 1.5 s of `salt-key --gen-keys` and some 200 kB of a crate.
pub fn begin(paths: &MinionPaths) -> Result<Option<Making>, Failure> {
    // The minion writes them itself if it runs, and one writer is enough. A public half alone counts for nothing, with Salt too.
    if private_of(paths).exists() || pidfile::running(paths).is_some() || !paths.as_root {
        return Ok(None);
    }
    let Some(openssl) = command::find("openssl").map(|path| path.display().to_string()) else {
        debug!("there is no openssl: the minion makes its own key pair");
        return Ok(None);
    };
    let running = command::start(&[&openssl, "genrsa", &paths.key_bits.to_string()])?;
    Ok(Some(Making { openssl, running }))
}

impl Making {
    /// Waits for the pair and puts it in place. If that does not work it says why not; then the minion makes its own.
    pub fn finish(self, paths: &MinionPaths, wait: &Wait) -> Result<Option<String>, Failure> {
        let not = |why: String| {
            warn!("{why}: the minion makes its own key pair");
            Ok(Some(why))
        };
        let wait = in_time(wait);
        let made = match self.running.finish(&wait) {
            Ok(made) if made.success() => made,
            Ok(made) => return not(format!("openssl made no key pair ({})", made.status)),
            // One that waits for random numbers, say. The minion has another way to get them.
            Err(failure) if failure.kind == Kind::LocalSystem => return not(failure.message),
            Err(failure) => return Err(failure),
        };
        files::ensure_dir(&paths.pki_dir, 0o700)?;
        let made = Secret::new(made.stdout);
        // The private half gets its name last: whoever finds it finds both.
        let unnamed = paths.pki_dir.join("minion.pem.new");
        files::write(&unnamed, made.expose().as_bytes(), 0o400)?;
        let named = public_half(&self.openssl, &unnamed, &wait)?.filter(|half| is_half_of(half, &made));
        // A package that starts the minion, or a person, may have been faster.
        let other = private_of(paths).exists() || pidfile::running(paths).is_some();
        let Some(half) = named.filter(|_| !other) else {
            files::remove(&unnamed)?;
            if !other {
                return not("openssl gave no public key that fits".into());
            }
            let meanwhile = "the minion has made its key pair meanwhile: that one counts";
            info!("{meanwhile}");
            return Ok(Some(meanwhile.into()));
        };
        files::write(&paths.pki_dir.join("minion.pub"), half.as_bytes(), 0o644)?;
        files::rename(&unnamed, &private_of(paths))?;
        Ok(None)
    }
}

/// Of a short time one half: the other is left for the other way.
fn in_time(wait: &Wait) -> Wait {
    wait.slice(MAKING.min(wait.remaining() / 2))
}

/// The public half of a private key in a file, as openssl writes it; `None` if it does not.
fn public_half(openssl: &str, private: &Path, wait: &Wait) -> Result<Option<String>, Failure> {
    match command::run(&[openssl, "rsa", "-in", &private.display().to_string(), "-pubout"], wait) {
        Ok(half) => Ok(Some(half.stdout).filter(|text| half.status.success() && PublicKey::parse(text).is_ok())),
        Err(failure) if failure.kind == Kind::LocalSystem => {
            warn!("{}", failure.message);
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// Do the two halves belong together?
fn is_half_of(public: &str, private: &Secret) -> bool {
    let Some(Ok(private)) = read_private(private.expose()) else { return false };
    PublicKey::parse(public).is_ok_and(|public| public.holds(private.public().as_ref()))
}

/// Can they belong together, as far as it can be told? A private key of a size that is not read here may be that of any public one.
fn may_be_half_of(public: &str, private: &Secret) -> bool {
    match read_private(private.expose()) {
        Some(Err(_)) => PublicKey::parse(public).is_ok(),
        _ => is_half_of(public, private),
    }
}

fn private_of(paths: &MinionPaths) -> PathBuf {
    paths.pki_dir.join("minion.pem")
}

/// Salt ends at half a pair, every time (`salt/crypt.py`, InvalidKeyError), and a machine that loses its power in the minion's first
/// seconds has one. Half a private key is of no use to anybody: it is set aside, and the minion makes another. A public half that is
/// missing, or another's, is made from the private one, if openssl is there: the minion shows the one and signs with the other.
pub fn repair(paths: &MinionPaths, wait: &Wait) -> Result<(), Failure> {
    let (private, public) = (private_of(paths), paths.pki_dir.join("minion.pub"));
    let Ok(Some(bytes)) = files::read_if_there(&private, MOST_BYTES) else { return Ok(()) };
    let text = Secret::new(String::from_utf8_lossy(&bytes).into_owned());
    if read_private(text.expose()).is_none() {
        let aside = paths.pki_dir.join("minion.pem.half");
        warn!(
            "{} is half a key, as a loss of power leaves it: it is {} now, and the minion makes another",
            private.display(),
            aside.display()
        );
        files::rename(&private, &aside)?;
        return files::remove(&public);
    }
    let there = files::read_text(&public, MOST_BYTES).unwrap_or_default();
    if may_be_half_of(&there, &text) {
        return Ok(());
    }
    let Some(openssl) = command::find("openssl") else {
        warn!("{} is not the public half of {}, and there is no openssl to mend it", public.display(), private.display());
        return Ok(());
    };
    if let Some(half) = public_half(&openssl.display().to_string(), &private, &in_time(wait))? {
        warn!("{} was not the public half of {}: it is made anew", public.display(), private.display());
        files::write(&public, half.as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Removes the pair: it is another machine's. The minion, which must not run, makes another.
pub fn discard(paths: &MinionPaths) -> Result<(), Failure> {
    files::remove(&private_of(paths))?;
    files::remove(&paths.pki_dir.join("minion.pub"))
}

/// The pair that lies there; `None` while there is none, or half of one.
pub fn load(paths: &MinionPaths) -> Result<Option<KeyPair>, Failure> {
    let Some(public) = paths.public_key()? else { return Ok(None) };
    let path = private_of(paths);
    let text = match files::read_if_there(&path, MOST_BYTES) {
        Ok(Some(bytes)) => Secret::new(String::from_utf8_lossy(&bytes).into_owned()),
        Ok(None) => return Ok(None),
        Err(error) => return Err(files::cannot("read", &path, &error)),
    };
    let Some(private) = read_private(text.expose()) else { return Ok(None) };
    let private = private.map_err(|why| {
        Failure::new(Kind::LocalSystem, format!("{} cannot be used: {why}", path.display()))
            .hint("It has to be an RSA key of 2,048 to 4,096 bits without a passphrase. Remove minion.pem and minion.pub while the minion is stopped, and run again.")
    })?;
    let pair = KeyPair::of(public, private).ok_or_else(|| {
        Failure::new(Kind::LocalSystem, format!("minion.pub is not the public half of {}", path.display()))
            .hint("Remove minion.pub while the minion is stopped, and run again: it is made from the private half.")
    })?;
    Ok(Some(pair))
}

/// The pair that this minion signs with, once it is there.
pub fn own(paths: &MinionPaths) -> Result<KeyPair, Failure> {
    load(paths)?.ok_or_else(|| Failure::new(Kind::KeyNotSeen, format!("there is no key pair of the minion in {}", paths.pki_dir.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::paths::tests::paths_below;
    use super::*;
    use crate::system::retry::tests::{hour, patience};

    /// A pair of this size, as openssl makes it.
    fn pair(bits: &str) -> (String, Secret) {
        let wait = hour();
        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join("minion.pem");
        let made = command::run(&["openssl", "genrsa", bits], &wait).unwrap();
        std::fs::write(&private, &made.stdout).unwrap();
        (public_half("openssl", &private, &wait).unwrap().unwrap(), Secret::new(made.stdout))
    }

    #[test]
    fn openssl_gets_no_more_of_a_long_time_and_half_of_a_short_one() {
        let of = |span| in_time(&patience(span)).remaining();
        assert!(of(MAKING * 60) <= MAKING);
        assert!(of(MAKING) <= MAKING / 2);
    }

    #[test]
    fn what_openssl_made_is_looked_at_before_it_is_in_place() {
        let ((public, private), (other, _)) = (pair("2048"), pair("2048"));
        let root = tempfile::tempdir().unwrap();
        let paths = paths_below(root.path());
        std::fs::write(root.path().join("private"), private.expose()).unwrap();
        let openssl = root.path().join("openssl");
        let script = "#!/bin/sh\nif [ $1 = genrsa ]; then cat ${0%/*}/private; else cat ${0%/*}/public; fi\n";
        std::fs::write(&openssl, script).unwrap();
        std::fs::set_permissions(&openssl, std::fs::Permissions::from_mode(0o755)).unwrap();
        let openssl = openssl.to_str().unwrap().to_owned();
        let wait = hour();
        let made = |half: &str| {
            std::fs::write(root.path().join("public"), half).unwrap();
            let running = command::start(&[&openssl, "genrsa", "2048"]).unwrap();
            Making { openssl: openssl.clone(), running }.finish(&paths, &wait).unwrap()
        };
        assert_eq!(made(&other).as_deref(), Some("openssl gave no public key that fits"));
        assert_eq!(std::fs::read_dir(&paths.pki_dir).unwrap().count(), 0, "nothing is left behind");
        assert_eq!(made(&public), None);
        // The minion has a pair by the time that this one is ready: that one counts.
        assert!(made(&public).unwrap().contains("meanwhile"));
        assert_eq!(std::fs::read_to_string(paths.pki_dir.join("minion.pub")).unwrap(), public);
    }

    #[test]
    fn halves_that_belong_together() {
        let ((public, private), (other, _)) = (pair("2048"), pair("2048"));
        assert!(may_be_half_of(&public, &private) && !may_be_half_of(&other, &private) && !may_be_half_of("", &private));
        // Smaller than what is read here: any public half may be its own, but there has to be one.
        let (public, private) = pair("1024");
        assert!(may_be_half_of(&public, &private) && may_be_half_of(&other, &private));
        assert!(!may_be_half_of("", &private) && !may_be_half_of("half a te", &private));
    }
}
