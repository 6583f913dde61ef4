//! Real Salt, one Python environment for each line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// The Salt lines under long-term support, which are the ones tested against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// 3006 LTS.
    Lts3006,
    /// 3008 LTS.
    Lts3008,
}

impl Line {
    /// Both of them, for tests that must hold on each.
    pub const ALL: [Line; 2] = [Line::Lts3006, Line::Lts3008];
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Line::Lts3006 => "3006",
            Line::Lts3008 => "3008",
        })
    }
}

impl FromStr for Line {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Line> {
        match text {
            "3006" => Ok(Line::Lts3006),
            "3008" => Ok(Line::Lts3008),
            other => bail!("no such Salt line: {other} (there are 3006 and 3008)"),
        }
    }
}

/// A Python environment with Salt in it.
#[derive(Clone, Debug)]
pub struct Venv {
    dir: PathBuf,
}

/// The environment of one line, built now if this machine has none yet (some minutes; progress goes to stderr).
pub fn salt(line: Line) -> Result<Venv> {
    Ok(Venv { dir: built("venv.sh", line)? })
}

/// The directory in which the Salt extension of this tree is installed for that line, installed now if need be: for PYTHONPATH.
pub fn extension(line: Line) -> Result<PathBuf> {
    built("extension.sh", line)
}

fn built(script: &str, line: Line) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(&script)
        .arg(line.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        bail!("{} {line} failed: {}", script.display(), output.status);
    }
    Ok(String::from_utf8(output.stdout).context("the path that was printed is not UTF-8")?.trim_end().into())
}

impl Venv {
    /// Where the environment lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One of its programs: `salt-master`, `salt-api`, `salt-minion`, `salt-call`, `salt-key`, `python` ...
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }
}
