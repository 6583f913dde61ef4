//! heat-salt-bootstrap; see the library for everything.

fn main() -> std::process::ExitCode {
    heat_salt_bootstrap::main()
}
