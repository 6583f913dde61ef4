//! What a template passes on of a wait condition handle: JSON, or a text.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{SECRET, fuzz_target, sentence, within_memory};
use heat_salt_bootstrap::parts::heat::handle::parse;
use serde_json::Value;

/// Puts our secret where one would be.
fn plant(value: &mut Value) {
    for key in ["token", "password", "deploy_password"] {
        if let Some(secret @ Value::String(_)) = value.get_mut(key) {
            *secret = SECRET.into();
        }
    }
}

fn look(value: &Value) {
    match parse(value) {
        Ok(Some(handle)) => {
            assert!(!handle.transport().is_empty());
            assert!(!format!("{handle:?}").contains(SECRET), "{handle:?}");
        }
        Ok(None) => {}
        Err(why) => {
            sentence(&why, 2_000);
            assert!(!why.contains(SECRET), "{why}");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    // Elsewhere it would be no secret.
    if String::from_utf8_lossy(data).contains(SECRET) {
        return;
    }
    within_memory(|| {
        if let Ok(mut value) = serde_json::from_slice(data) {
            plant(&mut value);
            if let Some(deployment) = value.get_mut("deployment") {
                plant(deployment);
            }
            look(&value);
        }
        look(&Value::String(String::from_utf8_lossy(data).into_owned()));
    });
});
