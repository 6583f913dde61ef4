//! The drop-in for `/etc/salt/minion.d/`, and the little that has to be known of what others wrote.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value, json};

use crate::salt::public_key::Fingerprint;
use crate::types::names::MinionId;
use crate::types::version::PROGRAM;

/// The drop-in's file name. Salt reads `minion.d/*.conf` in alphabetical order and the last one
/// wins (`salt/config/__init__.py`, `include_config`), so it has to come late.
pub const DROP_IN: &str = "zz-heat-salt-bootstrap.conf";

/// Options that this program sets itself; in `minion.config` they would only be contradicted.
pub const RESERVED: [&str; 6] = ["id", "master", "master_finger", "root_dir", "cache_jobs", "grains"];

/// What goes into the drop-in.
#[derive(Debug, Clone, PartialEq)]
pub struct DropIn<'a> {
    /// The minion's id.
    pub id: &'a MinionId,
    /// The masters' addresses.
    pub masters: &'a [String],
    /// The fingerprint that the master must have.
    pub master_finger: Option<&'a Fingerprint>,
    /// The directory that stands for `/`, if it is another.
    pub root: &'a Path,
    /// Further options, written as they are.
    pub config: &'a Map<String, Value>,
    /// Grains, written as they are.
    pub grains: &'a Map<String, Value>,
}

impl DropIn<'_> {
    /// The file's content. JSON is YAML, so no value can break out of it, whatever it holds.
    pub fn render(&self) -> String {
        let mut options = Map::new();
        options.insert("id".into(), json!(self.id.as_str()));
        options.insert("master".into(), if let [only] = self.masters { json!(only) } else { json!(self.masters) });
        if let Some(finger) = self.master_finger {
            options.insert("master_finger".into(), json!(finger.as_str()));
        }
        if self.root != Path::new("/") {
            options.insert("root_dir".into(), json!(self.root));
        }
        // The result of the states is read from the minion's own cache.
        options.insert("cache_jobs".into(), json!(true));
        // How long the minion sleeps before it asks again whether its key has been accepted: 1, 2, 4, 8 and then 16 s. By default it is
        // 10 s from the first time on; with 1 s for good a fleet would ask each second for as long as a rebuilt master does not know it.
        options.insert("acceptance_wait_time".into(), json!(1));
        options.insert("acceptance_wait_time_max".into(), json!(10));
        options.extend(self.config.clone());
        if !self.grains.is_empty() {
            options.insert("grains".into(), Value::Object(self.grains.clone()));
        }
        let mut text = format!("# Written by {PROGRAM}, which writes it anew at every run. Put your own options into another file.\n");
        text.push_str(&yaml(&options));
        text
    }
}

/// One option a line, each value as JSON that a YAML 1.1 reader takes as the same value.
fn yaml(options: &Map<String, Value>) -> String {
    let lines: Vec<String> = options.iter().map(|(key, value)| format!("  {}: {}", inline(&json!(key)), inline(value))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn inline(value: &Value) -> String {
    let mut bytes = Vec::new();
    // A Value always serialises, since its keys are texts, and a Vec takes everything.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, Yaml));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where YAML 1.1 (PyYAML) and JSON differ: YAML reads a number with an exponent as a number only if it has a point and a sign, and
/// knows characters that it does not print, which JSON leaves as they are.
struct Yaml;

impl Formatter for Yaml {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let text = json!(value).to_string();
        let Some((mantissa, exponent)) = text.split_once('e') else { return writer.write_all(text.as_bytes()) };
        let point = if mantissa.contains('.') { "" } else { ".0" };
        let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
        write!(writer, "{mantissa}{point}e{sign}{exponent}")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        fragment.chars().try_for_each(|c| match c as u32 {
            0x20..=0x7e => write!(writer, "{c}"),
            code @ 0..=0xffff => write!(writer, "\\u{code:04x}"),
            code => write!(writer, "\\U{code:08x}"),
        })
    }
}

/// Options of the minion that this program has to know, as far as somebody set them as plain
/// top-level lines (`pki_dir: /x`) in a file that is not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The directory of the minion's keys.
    pub pki_dir: Option<String>,
    /// The directory of its cache.
    pub cachedir: Option<String>,
    /// Its pid file.
    pub pidfile: Option<String>,
    /// The port at which the master publishes.
    pub publish_port: Option<u16>,
    /// The port at which the master takes returns and keys.
    pub master_port: Option<u16>,
    /// Its log.
    pub log_file: Option<String>,
    /// Of several masters it talks to one at a time.
    pub fails_over: bool,
    /// The user that it runs as.
    pub user: Option<String>,
    /// How many bits its key pair gets.
    pub keysize: Option<u32>,
    /// Somebody gave grains, which ours in a later file would hide.
    pub has_grains: bool,
    /// States are only tried, and nothing is applied.
    pub only_tests: bool,
}

impl Known {
    /// Reads the top-level lines of a configuration file. This is no YAML reader on purpose: what
    /// is written in another way is not seen, and the defaults count.
    pub fn note_lines(&mut self, text: &str) {
        for line in text.lines() {
            if let Some((key, value)) = line.split_once(':') {
                let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
                self.note(key, value);
            }
        }
    }

    /// Takes over what `minion.config` sets; it is written to the last file and wins.
    pub fn note_options(&mut self, options: &Map<String, Value>) {
        for (key, value) in options {
            match value {
                Value::String(text) => self.note(key, text),
                other => self.note(key, &other.to_string()),
            }
        }
    }

    fn note(&mut self, key: &str, value: &str) {
        let text = || (!value.is_empty()).then(|| value.to_owned());
        match key {
            "pki_dir" => self.pki_dir = text(),
            "cachedir" => self.cachedir = text(),
            "pidfile" => self.pidfile = text(),
            "log_file" => self.log_file = text(),
            "master_type" => self.fails_over = value == "failover",
            "user" => self.user = text(),
            "keysize" => self.keysize = value.parse().ok(),
            "publish_port" => self.publish_port = value.parse().ok(),
            "master_port" => self.master_port = value.parse().ok(),
            "grains" => self.has_grains = true,
            // As YAML 1.1 reads it.
            "test" => self.only_tests = ["true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(config: Value, grains: Value, root: &str) -> String {
        let id = MinionId::parse("web-1").unwrap();
        let masters = ["salt.example.net".to_owned()];
        let (config, grains) = (config.as_object().unwrap().clone(), grains.as_object().unwrap().clone());
        DropIn { id: &id, masters: &masters, master_finger: None, root: Path::new(root), config: &config, grains: &grains }.render()
    }

    #[test]
    fn it_is_json_below_one_comment() {
        let text = rendered(json!({"log_level": "info"}), json!({"role": "web"}), "/");
        let (comment, json) = text.split_once('\n').unwrap();
        assert!(comment.starts_with("# Written by heat-salt-bootstrap"));
        let options: Value = serde_json::from_str(json).unwrap();
        assert_eq!(
            options,
            json!({"id": "web-1", "master": "salt.example.net", "cache_jobs": true, "acceptance_wait_time": 1, "acceptance_wait_time_max": 10, "log_level": "info", "grains": {"role": "web"}})
        );
    }

    #[test]
    fn another_root_is_told_to_the_minion() {
        assert!(rendered(json!({}), json!({}), "/srv/image").contains("\"root_dir\": \"/srv/image\""));
        assert!(!rendered(json!({}), json!({}), "/").contains("root_dir"));
    }

    #[test]
    fn characters_that_yaml_does_not_print_are_escaped() {
        let text = rendered(json!({"x": "a\u{7f}\u{85}\u{fffe}\u{1f600}: - #\n'\""}), json!({}), "/");
        assert!(text.is_ascii());
        assert!(text.contains(r#""a\u007f\u0085\ufffe\U0001f600: - #\n'\"""#), "{text}");
    }

    #[test]
    fn numbers_with_an_exponent_stay_numbers() {
        let text = rendered(json!({"x": [1e21, -0.000001, 1.5e300, 0.5, 7, -3]}), json!({}), "/");
        assert!(text.contains("[1.0e+21,-1.0e-6,1.5e+300,0.5,7,-3]"), "{text}");
    }

    #[test]
    fn plain_lines_of_others_are_known() {
        let mut known = Known::default();
        known.note_lines(
            "# pki_dir: /no\npki_dir: \"/srv/pki\" # ours\n  cachedir: /nested\npublish_port: 14505\ngrains:\n  a: b\ntest: True\n",
        );
        known.note_options(json!({"cachedir": "/var/c", "master_port": 14506}).as_object().unwrap());
        let expected = Known {
            pki_dir: Some("/srv/pki".into()),
            cachedir: Some("/var/c".into()),
            publish_port: Some(14505),
            master_port: Some(14506),
            has_grains: true,
            only_tests: true,
            ..Known::default()
        };
        assert_eq!(known, expected);
    }
}
