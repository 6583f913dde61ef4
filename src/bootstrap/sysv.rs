//! What is started at boot where no systemd runs: init scripts, as the distributions' own tools enable them.

use std::ffi::OsStr;
use std::path::Path;

use super::systemd;
use crate::system::command;
use crate::system::files::{self, Root};
use crate::system::retry::Wait;
use crate::types::failure::Failure;

const SCRIPTS: &str = "/etc/init.d";
/// What a script that is ours to remove begins with.
const BEGINS: &str = "#!/bin/sh\n# Written by heat-salt-bootstrap for the run that is under way, and removed at its end.\n";

/// What enables a script, where there is such a tool.
fn enabling(name: &str) -> Option<[&str; 3]> {
    let tools = [["chkconfig", "--add", name], ["update-rc.d", name, "defaults"]];
    tools.into_iter().find(|words| command::find(words[0]).is_some())
}

/// Would a script be started at the next boot? Asked where no systemd runs.
pub fn runs(root: &Root) -> bool {
    root.at(SCRIPTS).is_dir() && enabling("").is_some()
}

/// Is there such a script, and has this program written it?
pub fn is_ours(root: &Root, name: &str) -> bool {
    files::read_text(&root.at(SCRIPTS).join(name), 64 * 1024).is_ok_and(|text| text.starts_with(BEGINS))
}

/// Writes a script and has it started at each boot.
pub fn ensure(root: &Root, name: &str, text: &str, wait: &Wait) -> Result<(), Failure> {
    files::ensure(&root.at(SCRIPTS).join(name), text.as_bytes(), 0o755)?;
    let Some(words) = enabling(name) else { return Ok(()) };
    systemd::manage(&words, wait)
}

/// Removes a script that is ours and what starts it, also where the tools of the distribution are slow, or hang.
pub fn remove(root: &Root, name: &str) -> Result<(), Failure> {
    if !is_ours(root, name) {
        return Ok(());
    }
    for level in 0..=6 {
        for dir in [format!("/etc/rc{level}.d"), format!("/etc/rc.d/rc{level}.d")].map(|dir| root.at(dir)) {
            // S or K, and two digits.
            for link in files::names(&dir).iter().filter(|link| link.get(3..) == Some(name)) {
                files::remove(&dir.join(link))?;
            }
        }
    }
    files::remove(&root.at(SCRIPTS).join(name))
}

/// A script that runs this piece of shell at boot, in that directory, with the variables of a file of lines (NAME=value).
pub fn script(name: &str, commands: &str, directory: &Path, environment: &str) -> String {
    let directory = quoted(directory.as_os_str());
    format!(
        r#"{BEGINS}# chkconfig: 2345 99 01
# description: The bootstrap that a reboot has cut off.
### BEGIN INIT INFO
# Provides:          {name}
# Required-Start:    $remote_fs $network
# Required-Stop:
# Should-Start:      $syslog $named $time cloud-init cloud-config salt-minion
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: The bootstrap that a reboot has cut off
### END INIT INFO
[ "$1" = start ] || exit 0
cd {directory} || cd /
if [ -r {environment} ]; then
    while read -r line; do export "$line"; done <{environment}
fi
# No boot waits for it.
{{
    {commands}
}} </dev/null >/dev/null 2>&1 &
"#
    )
}

/// A word of the shell's.
pub fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn a_shell_understands_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("it's $here")).unwrap();
        fs::write(path("environment"), "http_proxy=http://a:b'c$d \\@p:1\n").unwrap();
        let words = ["/bin/sh", "-c", "printf '%s|' \"$PWD\" \"$http_proxy\" \"$@\" >../said", "x", "a b", "it's", "$HOME", ""];
        let commands = words.map(|word| quoted(OsStr::new(word))).join(" ");
        let environment = path("environment").display().to_string();
        let text = script("x", &commands, &path("it's $here"), &environment) + "wait\n";
        fs::write(path("script"), &text).unwrap();
        for (verb, said) in [("stop", None), ("start", Some("http://a:b'c$d \\@p:1|a b|it's|$HOME||"))] {
            assert!(Command::new("sh").arg(path("script")).arg(verb).status().unwrap().success(), "{text}");
            let said = said.map(|said| format!("{}|{said}", path("it's $here").display()));
            assert_eq!(fs::read_to_string(path("said")).ok(), said, "{text}");
        }
    }

    #[test]
    fn what_is_removed_is_ours_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path()).unwrap();
        for place in [SCRIPTS, "/etc/rc2.d", "/etc/rc.d/rc3.d"] {
            fs::create_dir_all(root.at(place)).unwrap();
        }
        for (name, text) in [("x", script("x", "true", Path::new("/"), "/none")), ("y", "#!/bin/sh\n".to_owned())] {
            fs::write(root.at(SCRIPTS).join(name), text).unwrap();
            for link in [format!("/etc/rc2.d/S01{name}"), format!("/etc/rc.d/rc3.d/S99{name}")] {
                symlink(format!("../init.d/{name}"), root.at(link)).unwrap();
            }
            remove(&root, name).unwrap();
        }
        assert_eq!([SCRIPTS, "/etc/rc2.d", "/etc/rc.d/rc3.d"].map(|dir| files::names(&root.at(dir))), [["y"], ["S01y"], ["S99y"]]);
    }
}
