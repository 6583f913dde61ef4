//! The command line. Types only; `verbs` says what is done.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::config::load::Override;

/// Turns a fresh OpenStack VM into a configured Salt minion and tells Heat the truth about it
#[derive(Debug, Parser)]
#[command(name = "heat-salt-bootstrap", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done; 10-12 configuration and usage; 20-25 this machine; 30-34 salt-api or the\nenrolment service; 40-44 key and connection; 50-54 states; 60-61 time; 70 Heat was not told; 90 bug. `explain CODE` tells more."
)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// Options of every verb
    #[command(flatten)]
    pub common: Common,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub struct Common {
    /// The configuration [default: /etc/heat-salt-bootstrap/config.json, with config.d/*.json beside it]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory that stands for /: every file read or written lies below it
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Say more: each request and each command
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How the log on standard error is written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Settings that a person retypes while debugging
    #[command(flatten)]
    pub settings: Flags,
}

/// The forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line a message
    Text,
    /// One JSON object a message
    Json,
}

/// Flags that beat the files. No secret is ever among them: secrets come from files, standard
/// input or systemd credentials.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings (they beat the files)")]
pub struct Flags {
    /// minion.id
    #[arg(long, global = true, value_name = "ID")]
    pub minion_id: Option<String>,
    /// minion.master; several times for several masters
    #[arg(long, global = true, value_name = "HOST")]
    pub master: Vec<String>,
    /// minion.master_finger, as `salt-key -F master` shows it
    #[arg(long, global = true, value_name = "FINGERPRINT")]
    pub master_finger: Option<String>,
    /// minion.program: name or path of salt-minion
    #[arg(long, global = true, value_name = "PROGRAM")]
    pub program: Option<String>,
    /// minion.start: auto, systemd, sysv or direct
    #[arg(long, global = true, value_name = "METHOD")]
    pub start: Option<String>,
    /// install.source: repository, package or preinstalled
    #[arg(long, global = true, value_name = "SOURCE")]
    pub install_source: Option<String>,
    /// api.url; several times for several
    #[arg(long, global = true, value_name = "URL")]
    pub api_url: Vec<String>,
    /// api.username
    #[arg(long, global = true, value_name = "NAME")]
    pub username: Option<String>,
    /// api.password_file: a file that holds the password, or - for standard input
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<String>,
    /// api.eauth
    #[arg(long, global = true, value_name = "EAUTH")]
    pub eauth: Option<String>,
    /// api.ca_file: the CA that signed salt-api's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<String>,
    /// Believe the first master that answers: minion.trust_on_first_use
    #[arg(long, global = true)]
    pub trust_on_first_use: bool,
    /// enroll.url of the enrolment service; several times for several
    #[arg(long, global = true, value_name = "URL")]
    pub enroll_url: Vec<String>,
    /// accept: enroll, wheel or none
    #[arg(long, global = true, value_name = "WAY")]
    pub accept: Option<String>,
    /// enroll.token_file: a file that holds the token, or - for standard input
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<String>,
    /// apply.hook
    #[arg(long, global = true, value_name = "PATH")]
    pub hook: Option<String>,
    /// apply.states; several times for several
    #[arg(long, global = true, value_name = "SLS")]
    pub state: Vec<String>,
    /// deadline of the whole run, the report included, such as 25m
    #[arg(long, global = true, value_name = "SPAN")]
    pub deadline: Option<String>,
}

impl Flags {
    /// The flags as fragments of the configuration.
    pub fn overrides(&self) -> Vec<Override> {
        let one = |flag, path, value: &Option<String>| value.as_ref().map(|value| Override { flag, path, value: json!(value) });
        let many = |flag, path, values: &[String]| (!values.is_empty()).then(|| Override { flag, path, value: json!(values) });
        [
            one("--minion-id", "minion.id", &self.minion_id),
            many("--master", "minion.master", &self.master),
            one("--master-finger", "minion.master_finger", &self.master_finger),
            self.trust_on_first_use.then(|| Override {
                flag: "--trust-on-first-use",
                path: "minion.trust_on_first_use",
                value: json!(true),
            }),
            one("--program", "minion.program", &self.program),
            one("--start", "minion.start", &self.start),
            one("--install-source", "install.source", &self.install_source),
            many("--api-url", "api.url", &self.api_url),
            one("--username", "api.username", &self.username),
            one("--password-file", "api.password_file", &self.password_file),
            // A password in a file would contradict the one that the flag names.
            self.password_file.as_ref().map(|_| Override { flag: "--password-file", path: "api.password", value: Value::Null }),
            one("--eauth", "api.eauth", &self.eauth),
            one("--ca-file", "api.ca_file", &self.ca_file),
            self.ca_file.as_ref().map(|_| Override { flag: "--ca-file", path: "api.ca", value: Value::Null }),
            // A token in a file would contradict the one that the flag names.
            one("--token-file", "enroll.token_file", &self.token_file),
            self.token_file.as_ref().map(|_| Override { flag: "--token-file", path: "enroll.token", value: Value::Null }),
            many("--enroll-url", "enroll.url", &self.enroll_url),
            one("--accept", "accept", &self.accept),
            one("--hook", "apply.hook", &self.hook),
            many("--state", "apply.states", &self.state),
            one("--deadline", "deadline", &self.deadline),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Do everything: install, accept, apply, and tell Heat
    Run {
        /// As every verb that does something
        #[command(flatten)]
        work: Work,
        /// Started at each boot: stopped by a reboot it says nothing to Heat, and goes on at the next boot
        #[arg(long)]
        at_boot: bool,
    },
    /// One link: program, configuration and service of the minion
    Install(Work),
    /// One link: get this minion's own key accepted, see it connected
    Accept(Work),
    /// One link: trigger the states and wait for their real result
    Apply(Work),
    /// Say that this machine lives, so that its key stays on the master, or is accepted again if it was removed
    Renew,
    /// Remove this minion's own key from the master, on a machine that goes for good
    Deregister {
        /// Only if this machine is being switched off, and not at a reboot
        #[arg(long)]
        at_shutdown: bool,
        /// Print the report on standard output
        #[arg(long)]
        json: bool,
    },
    /// Send what Heat has not taken yet, else the last report, or a status of your own
    Signal(SignalArgs),
    /// Show what run would do, with secrets masked; change nothing
    Plan {
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Plan the installation for the machine that has this os-release
        #[arg(long, value_name = "FILE")]
        os_release: Option<PathBuf>,
    },
    /// Look at everything run depends on and say what is wrong; change nothing
    Check {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the last report for a person
    Status {
        /// As it is
        #[arg(long)]
        json: bool,
        /// Show what the run that is under way does, until it has ended
        #[arg(long, conflicts_with = "previous")]
        follow: bool,
        /// The report of the run that came so many runs before the last one; five are kept
        #[arg(long, value_name = "NUMBER")]
        previous: Option<usize>,
    },
    /// Collect what somebody needs who is to help into one archive, with secrets masked
    Support {
        /// Where it is written; a new file [default: /var/lib/heat-salt-bootstrap/support.tar.gz]
        file: Option<PathBuf>,
    },
    /// Tell what an exit code or a reason means, and what to do
    Explain {
        /// Such as 42 or key-conflict; all of them if left out
        code: Option<String>,
    },
    /// Print a template for Heat or cloud-init, or a file for the Salt master, of this version
    Template {
        /// Such as server.yaml; a list of them if left out
        name: Option<String>,
    },
}

/// What `signal` is to send.
#[derive(Debug, Args)]
pub struct SignalArgs {
    /// Send this instead of the last report
    #[arg(long, value_enum)]
    pub status: Option<SignalStatus>,
    /// Why, for Heat to show
    #[arg(long, value_name = "TEXT", requires = "status")]
    pub reason: Option<String>,
    /// Only what could not be delivered before, if there is something
    #[arg(long, conflicts_with = "status")]
    pub kept: bool,
    /// Only that a run was killed before it could tell, if one was
    #[arg(long, conflicts_with_all = ["status", "kept"])]
    pub killed: bool,
    /// With --killed: wait for the end of the run that is under way, if one is
    #[arg(long, requires = "killed")]
    pub wait: bool,
}

/// Options of the verbs that do something.
#[derive(Debug, Args)]
pub struct Work {
    /// Apply the states even if they were applied before
    #[arg(long)]
    pub again: bool,
    /// Print the report on standard output
    #[arg(long)]
    pub json: bool,
}

/// The two words of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SignalStatus {
    /// The wait condition is met
    Success,
    /// The stack fails
    Failure,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        let command = Cli::command();
        let all = command.get_arguments().chain(command.get_subcommands().flat_map(clap::Command::get_arguments));
        for name in all.filter_map(clap::Arg::get_long) {
            let word = ["password", "token", "secret"].iter().find(|word| name.contains(**word));
            assert!(word.is_none() || name.ends_with("-file"), "--{name} takes a secret");
        }
    }
}
