//! What this program calls itself.

/// The version in `--version`, in the report and in the User-Agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The program's name, also the name of its directories.
pub const PROGRAM: &str = "heat-salt-bootstrap";
