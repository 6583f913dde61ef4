//! Keystone's answer to a login.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, within_memory};
use heat_salt_bootstrap::parts::heat::keystone::endpoint;

fuzz_target!(|data: &[u8]| {
    within_memory(|| {
        for (service, region) in [("orchestration", None), ("messaging", Some("RegionOne")), ("", Some(""))] {
            if let Some(url) = endpoint(data, service, region) {
                assert!(!url.expose().ends_with('/') && url.expose().len() <= data.len());
            }
        }
    });
});
