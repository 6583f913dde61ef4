//! A local user with a password, for logins through PAM.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Guard, run, until};

/// Tries again, because userdel does not wait for another one that holds the lock of the password file.
const DELETE: &str = r#"for _ in 1 2 3 4 5 6 7 8 9 10; do userdel "$SUBJECT" && break; sleep 0.5; done"#;

/// A system user that is there as long as this value, or the process, lives. Making one needs root.
pub struct SystemUser {
    name: String,
    password: String,
    _guard: Guard,
}

impl SystemUser {
    /// Makes one.
    pub fn create() -> Result<SystemUser> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hsb{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let password = format!("Pam-{name}-Secret");
        let guard = Guard::new(DELETE, &name)?;
        // useradd does not wait for another one that holds the lock of the password file.
        until(Duration::from_secs(10), || {
            let mut useradd = Command::new("useradd");
            useradd.args(["--no-create-home", "--shell", "/usr/sbin/nologin", &name]);
            let made = run(&mut useradd, Duration::from_secs(20)).ok()?;
            (made.code == 0).then_some(())
        })
        .with_context(|| format!("useradd {name} failed, which needs root"))?;
        let mut chpasswd = Command::new("chpasswd").stdin(Stdio::piped()).spawn().context("cannot run chpasswd")?;
        chpasswd.stdin.take().context("chpasswd has no input")?.write_all(format!("{name}:{password}\n").as_bytes())?;
        let status = chpasswd.wait()?;
        if !status.success() {
            bail!("chpasswd for {name} failed: {status}");
        }
        Ok(SystemUser { name, password, _guard: guard })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its password.
    pub fn password(&self) -> &str {
        &self.password
    }
}
