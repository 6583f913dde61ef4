//! heat-salt-bootstrap: turns a fresh OpenStack VM into a configured Salt minion and tells Heat
//! the truth about it. ARCHITECTURE.md is the map.

mod bootstrap;
mod cli;
mod config;
mod heat;
mod minion;
mod packages;
mod salt;
mod system;
mod types;

pub use cli::verbs::main;

/// What tests, fuzzing and the maker of the manual pages reach: nobody else relies on it. All other modules are private, so that the
/// compiler tells what nothing uses.
#[doc(hidden)]
pub mod parts {
    pub use crate::types::failure::{Fact, Failure, Kind};

    /// For the pages.
    pub mod cli {
        pub use crate::cli::args::Cli;
        pub use crate::cli::supervisor;
    }

    /// For a test of panics.
    pub mod bootstrap {
        pub use crate::bootstrap::journal::Journal;
    }

    /// What is read of others, or of people, and is fuzzed.
    pub mod config {
        pub use crate::config::fragments;
        pub use crate::config::settings::Settings;
    }

    /// The same of Heat.
    pub mod heat {
        pub use crate::heat::{curl_cli, handle, keystone, signal};
    }

    /// The same of the minion.
    pub mod minion {
        pub use crate::minion::{job, msgpack};
    }

    /// The same of package managers.
    pub mod packages {
        pub use crate::packages::{os, output, version};
    }

    /// The same of the master.
    pub mod salt {
        pub use crate::salt::{api, claim, error_page, key_state, permissions, public_key};
    }

    /// What all of these speak in.
    pub mod types {
        pub use crate::types::{address, deadline, duration, excerpt, names, pin, references, report, secret, time, url};
    }
}
