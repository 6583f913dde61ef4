//! A target without libFuzzer: it tries the inputs that are kept, once each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// Makes a program of a target that is written for libFuzzer.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        fn main() -> std::process::ExitCode {
            $crate::replay(|$data: &[u8]| $body)
        }
    };
}

/// Tries each file of the directories on the command line, and the input with nothing in it. Every input that panics is named; of one that
/// takes too much memory, which ends the program, the name is the last word.
pub fn replay(target: impl Fn(&[u8])) -> ExitCode {
    let mut failed = ExitCode::SUCCESS;
    let mut tried = 0;
    let mut attempt = |name: &str, input: &[u8]| {
        println!("{name}");
        tried += 1;
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            println!("FAILED {name}");
            failed = ExitCode::FAILURE;
        }
    };
    attempt("nothing", b"");
    for dir in env::args_os().skip(1) {
        for file in files(Path::new(&dir)) {
            let input = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            attempt(&file.display().to_string(), &input);
        }
    }
    // As libFuzzer says it.
    println!("stat::number_of_executed_units: {tried}");
    failed
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}
