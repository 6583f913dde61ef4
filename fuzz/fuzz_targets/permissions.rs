//! What a login says of the user.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, sentence, within_memory};
use heat_salt_bootstrap::parts::salt::permissions::{may_wheel, summary};

fuzz_target!(|data: &[u8]| {
    let Ok(permissions) = serde_json::from_slice(data) else { return };
    within_memory(|| {
        let may = ["key.accept", "key.print", "no.such"].map(|fun| may_wheel(&permissions, fun));
        sentence(&summary(&permissions), 2_000);
        assert_eq!(may, ["key.accept", "key.print", "no.such"].map(|fun| may_wheel(&permissions, fun)));
    });
});
