//! Keys: what wheel says of them, public halves, fingerprints.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, sentence, within_memory};
use heat_salt_bootstrap::parts::salt::key_state::KeyState;
use heat_salt_bootstrap::parts::salt::public_key::{Fingerprint, PublicKey};
use heat_salt_bootstrap::parts::types::names::MinionId;

const OURS: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n-----END PUBLIC KEY-----\n";

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let id = MinionId::parse("web-1").expect("a good id");
    within_memory(|| {
        if let Ok(returned) = serde_json::from_slice(data) {
            match KeyState::read(&returned, &id) {
                Ok(state) => {
                    let ours = PublicKey::parse(OURS).expect("a good key");
                    let _ = (state.judge(Some(&ours)), state.judge(None), state.holds_others(&ours));
                }
                Err(why) => sentence(&why, 2_000),
            }
        }
        match Fingerprint::parse(&text) {
            Ok(finger) => assert_eq!(Fingerprint::parse(finger.as_str()), Ok(finger)),
            Err(why) => sentence(&why, 2_000),
        }
        match PublicKey::parse(&text) {
            Ok(key) => {
                let again = PublicKey::parse(key.text()).expect("a key that was read is read again");
                assert_eq!(again.fingerprint(), key.fingerprint());
                assert!(key.fingerprints().contains(&key.fingerprint()));
            }
            Err(why) => sentence(&why, 2_000),
        }
    });
});
