//! Pages where JSON belongs.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, sentence, within_memory};
use heat_salt_bootstrap::parts::salt::error_page::{message, unescape};

fuzz_target!(|data: &[u8]| {
    let page = String::from_utf8_lossy(data);
    within_memory(|| {
        if let Some(said) = message(&page) {
            sentence(&said, 2_000);
        }
        assert!(unescape(&page).len() <= page.len());
    });
});
