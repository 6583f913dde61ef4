//! heat-salt-bootstrap; see the library for everything.

use std::process::ExitCode;

use clap::Parser;
use heat_salt_bootstrap::cli::{args::Cli, terminal, verbs};
use heat_salt_bootstrap::types::failure::Kind;
use heat_salt_bootstrap::types::version::{PROGRAM, VERSION};

fn main() -> ExitCode {
    // What scripts ask only to see whether it is there is not worth putting the whole command line together.
    if std::env::args_os().skip(1).eq(["--version"]) {
        terminal::print(&format!("{PROGRAM} {VERSION}\n"));
        return ExitCode::SUCCESS;
    }
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(verbs::main(&cli)),
        Err(error) => {
            // Nobody is left to tell if the terminal is gone.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { Kind::Usage.code() } else { 0 })
        }
    }
}
