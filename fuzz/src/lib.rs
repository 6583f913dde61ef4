//! What all targets share.

#[cfg(not(feature = "libfuzzer"))]
mod replay;

use std::alloc::System;

use cap::Cap;
#[cfg(feature = "libfuzzer")]
pub use libfuzzer_sys::fuzz_target;
#[cfg(not(feature = "libfuzzer"))]
pub use replay::replay;

/// Counts what is allocated, and refuses more than a limit: then the input is a finding.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// So much is allowed beside what was there before: reading never takes a multiple of an answer's greatest length.
const MOST_MEMORY: usize = 64 * 1024 * 1024;

/// Stands where a secret would; it must never come to light.
pub const SECRET: &str = "Planted-7f3a-Secret";

/// Runs the reading of one input within the limit.
pub fn within_memory<T>(read: impl FnOnce() -> T) -> T {
    MEMORY.set_limit(MEMORY.allocated() + MOST_MEMORY).expect("the limit is above what is there");
    let done = read();
    MEMORY.set_limit(usize::MAX).expect("there is no higher limit");
    done
}

/// A sentence for a person: short, on one line, with nothing in it that a terminal obeys.
#[track_caller]
pub fn sentence(text: &str, most: usize) {
    assert!(text.len() <= most, "{} bytes: {}", text.len(), &text.chars().take(200).collect::<String>());
    assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
}

/// Texts out of an input: what stands between zeros.
pub fn texts(data: &[u8]) -> impl Iterator<Item = String> + '_ {
    data.split(|byte| *byte == 0).map(|piece| String::from_utf8_lossy(piece).into_owned())
}
