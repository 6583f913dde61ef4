//! The minion's program: is it there, and is it the right version?

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::decide::settings::{Install, Source};
use crate::machine::command;
use crate::machine::patience::Patience;
use crate::words::failure::{Failure, Kind};

/// The minion's program, found.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its path.
    pub path: PathBuf,
}

/// Makes sure that the program is there. This version installs nothing: it verifies.
pub fn ensure(install: &Install, program: &str, patience: &Patience) -> Result<Program, Failure> {
    match install.source {
        Source::Preinstalled => {}
        Source::Repository | Source::Package => {
            return Err(Failure::new(Kind::UnsupportedSystem, "this version of the program cannot install salt-minion by itself")
                .hint("Put salt-minion into the image, or install it before, and set install.source to \"preinstalled\"."));
        }
    }
    let path = command::find(program).ok_or_else(|| {
        Failure::new(Kind::PackageFailed, format!("{program:?} is not installed, although install.source says preinstalled")).hint(format!(
            "Install salt-minion into the image, or give its path in minion.program; it was looked for in {}.",
            command::PATH
        ))
    })?;
    if let Some(wanted) = &install.version {
        verify(&path, wanted, patience)?;
    }
    Ok(Program { path })
}

fn verify(path: &Path, wanted: &str, patience: &Patience) -> Result<(), Failure> {
    let finished = command::run(&[&path.to_string_lossy(), "--version"], &patience.slice(Duration::from_secs(60)))?;
    if !finished.success() {
        return Err(finished.failure(Kind::PackageFailed));
    }
    // "salt-minion 3006.27 (Sulfur)"
    let found = finished.stdout.split_whitespace().nth(1).unwrap_or("no version").to_owned();
    let matches = found == wanted || found.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'));
    if matches {
        Ok(())
    } else {
        Err(Failure::new(Kind::PackageFailed, format!("{} is version {found}, wanted is {wanted}", path.display())).fact("found", found))
    }
}
