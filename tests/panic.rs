//! A panic in the work becomes a result like any other. This has no test harness: the thread that
//! panicked stays in the panic hook for ever, as it does in the program.

use std::time::Duration;

use heat_salt_bootstrap::parts::Kind;
use heat_salt_bootstrap::parts::bootstrap::Journal;
use heat_salt_bootstrap::parts::cli::supervisor;
use heat_salt_bootstrap::parts::types::deadline::Deadline;

fn main() {
    let journal = Journal::begin("run", "web-1");
    let result = supervisor::watch_over(&journal, Deadline::after(Duration::from_secs(30)), |_| panic!("impossible {}", 7));
    let failure = match result {
        Err(failure) => failure,
        Ok(said) => fail(&format!("a panic ended in {said:?}")),
    };
    if failure.kind != Kind::Bug || !failure.message.contains("impossible 7") || !failure.message.contains("tests/panic.rs") {
        fail(&format!("a panic ended in {failure:?}"));
    }
    println!("1 passed, 0 failed");
    std::process::exit(0);
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    println!("0 passed, 1 failed");
    std::process::exit(1);
}
