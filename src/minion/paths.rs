//! Where the minion's files lie, by our settings, by what others configured, by Salt's defaults.

use std::path::PathBuf;

use super::config::{DROP_IN, DropIn, Known};
use super::settings::MinionSettings;
use crate::salt::public_key::{Fingerprint, PublicKey};
use crate::system::files::{self, Root};
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::version::PROGRAM;

const MOST_BYTES: u64 = 1024 * 1024;

/// What is put into the main configuration file where there is none.
pub const MAIN_FILE: &str = "# The minion's own configuration. Files in minion.d are read after this one.\n";

/// The minion's files and ports.
#[derive(Debug, Clone)]
pub struct MinionPaths {
    /// `/etc/salt`.
    pub config_dir: PathBuf,
    /// Its own file among the minion's configuration.
    pub drop_in: PathBuf,
    /// The minion's key pair and the master's public key.
    pub pki_dir: PathBuf,
    /// Jobs, among other things.
    pub cachedir: PathBuf,
    /// The running minion's pid.
    pub pidfile: PathBuf,
    /// Its log.
    pub log_file: PathBuf,
    /// The master's port for publishing jobs.
    pub publish_port: u16,
    /// The master's port for keys and returns.
    pub master_port: u16,
    /// Keeps systemd-tmpfiles removing old jobs from the cache; `None` where there is no systemd-tmpfiles.
    pub tmpfiles: Option<PathBuf>,
    /// Somebody else gives grains, which ours hide.
    pub hides_grains: bool,
    /// The file by which this minion only tries states and applies nothing, if there is one.
    pub tests_by: Option<PathBuf>,
    /// To how many masters it is connected at once when all is well.
    pub masters: usize,
    /// The minion runs as root, as it does unless told otherwise.
    pub as_root: bool,
    /// How many bits the minion's key pair gets.
    pub key_bits: u32,
}

impl MinionPaths {
    /// Finds them. Defaults are those of `salt/config/__init__.py`, `DEFAULT_MINION_OPTS`.
    pub fn of(root: &Root, settings: &MinionSettings) -> MinionPaths {
        let config_dir = root.at("/etc/salt");
        let drop_in = config_dir.join("minion.d").join(DROP_IN);
        let mut known = Known::default();
        let mut others: Vec<PathBuf> =
            std::fs::read_dir(config_dir.join("minion.d")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        // Salt takes no others (`default_include: minion.d/*.conf`).
        others.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
        others.sort();
        others.insert(0, config_dir.join("minion"));
        let mut tests_by = None;
        for path in others.iter().filter(|path| **path != drop_in) {
            let before = known.only_tests;
            known.note_lines(&files::read_text(path, MOST_BYTES).unwrap_or_default());
            if known.only_tests && !before {
                tests_by = Some(path.clone());
            }
        }
        let hides_grains = known.has_grains && !settings.grains.is_empty();
        known.note_options(&settings.config);
        if settings.config.contains_key("test") {
            tests_by = Some(drop_in.clone());
        }
        let tests_by = tests_by.filter(|_| known.only_tests);
        let at = |set: &Option<String>, default: &str| root.at(set.as_deref().unwrap_or(default));
        MinionPaths {
            drop_in,
            pki_dir: at(&known.pki_dir, "/etc/salt/pki/minion"),
            cachedir: at(&known.cachedir, "/var/cache/salt/minion"),
            pidfile: at(&known.pidfile, "/var/run/salt-minion.pid"),
            log_file: at(&known.log_file, "/var/log/salt/minion"),
            publish_port: known.publish_port.unwrap_or(4505),
            master_port: known.master_port.unwrap_or(4506),
            tmpfiles: root.at("/usr/lib/tmpfiles.d").is_dir().then(|| root.at(format!("/etc/tmpfiles.d/{PROGRAM}.conf"))),
            hides_grains,
            tests_by,
            // With failover it has one at a time.
            masters: if known.fails_over { 1 } else { settings.masters.len() },
            as_root: known.user.is_none_or(|user| user == "root"),
            key_bits: known.keysize.unwrap_or(2048),
            config_dir,
        }
    }

    /// Where Salt notes which process is the minion (`salt/utils/parsers.py`, claim_process_responsibility).
    pub fn responsibility(&self) -> PathBuf {
        let name = self.pidfile.file_name().unwrap_or_default().to_string_lossy();
        self.pidfile.with_file_name(format!("process_responsibility_{name}"))
    }

    /// The minion's public key, once it has made one.
    pub fn public_key(&self) -> Result<Option<PublicKey>, Failure> {
        let path = self.pki_dir.join("minion.pub");
        match files::read_if_there(&path, MOST_BYTES) {
            // Salt writes it in place: half a key is no key yet.
            Ok(bytes) => Ok(bytes.and_then(|bytes| PublicKey::parse(&String::from_utf8_lossy(&bytes)).ok())),
            Err(error) => Err(files::cannot("read", &path, &error)),
        }
    }

    /// The fingerprint of the master that this minion has met.
    pub fn known_master(&self) -> Option<Fingerprint> {
        let text = files::read_text(&self.pki_dir.join("minion_master.pub"), MOST_BYTES).ok()?;
        PublicKey::parse(&text).ok().map(|key| key.fingerprint())
    }

    /// The fingerprint that an earlier run of ours wrote into the drop-in.
    pub fn pinned_master(&self) -> Option<Fingerprint> {
        let text = files::read_text(&self.drop_in, MOST_BYTES).ok()?;
        let options: serde_json::Value = serde_json::from_str(text.split_once('\n')?.1).ok()?;
        Fingerprint::parse(options.get("master_finger")?.as_str()?).ok()
    }

    /// The main configuration file, if it is missing and that matters: without it Salt reads no grains from the drop-ins either
    /// (`salt/config/__init__.py` sets `conf_file` only for a file that exists, and `salt/loader/__init__.py`, `grains`, wants it).
    /// Salt's packages bring it; one that is there is never touched.
    pub fn missing_main_file(&self, settings: &MinionSettings) -> Option<PathBuf> {
        let path = self.config_dir.join("minion");
        (!settings.grains.is_empty() && !path.exists()).then_some(path)
    }

    /// The drop-in's content.
    pub fn drop_in_text(&self, root: &Root, settings: &MinionSettings, master: Option<&Fingerprint>) -> String {
        DropIn {
            id: &settings.id,
            masters: &settings.masters,
            master_finger: master,
            root: root.dir(),
            config: &settings.config,
            grains: &settings.grains,
        }
        .render()
    }

    /// The rule by which systemd-tmpfiles keeps the minion's job cache from growing for ever:
    /// `cache_jobs` writes a file for every job, and nothing in Salt removes it.
    pub fn tmpfiles_text(&self) -> String {
        format!(
            "# Written by {PROGRAM}: the minion caches every job, and nothing in Salt removes them.\ne {}/minion_jobs 0700 - - 7d\n",
            self.cachedir.display()
        )
    }

    /// A mismatch between the master that was met and the one that is expected, if one is.
    pub fn check_master(&self, expected: Option<&Fingerprint>) -> Result<(), Failure> {
        let Some(expected) = expected else { return Ok(()) };
        match self.known_master() {
            Some(met) if met != *expected => Err(Failure::new(
                Kind::MasterUntrusted,
                format!("the master's key has the fingerprint {}, expected is {}", met.as_str(), expected.as_str()),
            )
            .hint(format!(
                "If the master was rebuilt, correct minion.master_finger and remove {}; if not, somebody answers in its place.",
                self.pki_dir.join("minion_master.pub").display()
            ))
            .fact(Fact::Met, met.as_str())
            .fact(Fact::Expected, expected.as_str())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Map;

    use super::super::settings::{Start, Trust};
    use super::*;
    use crate::types::names::MinionId;

    pub fn paths_below(root: &Path) -> MinionPaths {
        let (id, masters) = (MinionId::parse("web-1").unwrap(), vec!["salt.example.net".to_owned()]);
        let (program, config, grains) = ("salt-minion".to_owned(), Map::new(), Map::new());
        let settings =
            MinionSettings { id, masters, trust: Trust::FirstUse, start: Start::Direct, program, keep_key: false, config, grains };
        MinionPaths::of(&Root::new(root).unwrap(), &settings)
    }

    #[test]
    fn only_files_that_salt_reads_are_believed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/salt/minion.d");
        fs::create_dir_all(&dir).unwrap();
        let options = "publish_port: 14505\ntest: True\nuser: nobody\n";
        for name in ["other.conf.rpmsave", "other.conf~", "other.yaml", "conf"] {
            fs::write(dir.join(name), options).unwrap();
        }
        let read = |paths: MinionPaths| (paths.publish_port, paths.tests_by, paths.as_root);
        assert_eq!(read(paths_below(root.path())), (4505, None, true));
        let believed = dir.join("other.conf");
        fs::write(&believed, options).unwrap();
        let believed = believed.canonicalize().unwrap();
        assert_eq!(read(paths_below(root.path())), (14505, Some(believed), false));
    }
}
