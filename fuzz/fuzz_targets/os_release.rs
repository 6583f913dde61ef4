//! os-release(5), and which system that is.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, sentence, within_memory};
use heat_salt_bootstrap::parts::packages::os::{OsRelease, System};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    within_memory(|| {
        sentence(&OsRelease::parse(&text).to_string(), 2_000);
        if let Err(why) = System::usual(OsRelease::parse(&text)) {
            sentence(&why, 2_000);
        }
        for there in ["dnf", "zypper", "apt-get", "rpm", "dpkg", ""] {
            if let Err(why) = System::of(OsRelease::parse(&text), |program| program == there) {
                sentence(&why, 2_000);
            }
        }
    });
});
