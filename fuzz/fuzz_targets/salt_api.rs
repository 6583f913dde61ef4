//! salt-api's answers: the first byte picks the status, the rest is the body.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{SECRET, fuzz_target, sentence, within_memory};
use heat_salt_bootstrap::parts::salt::api::{Refusal, hook_answer, login_answer, wheel_answer};
use heat_salt_bootstrap::parts::types::secret::Secret;

const STATUSES: [u16; 9] = [200, 201, 302, 400, 401, 403, 404, 500, 503];

fn look(refusal: Refusal) {
    let masked = refusal.without(&Secret::new(SECRET));
    match masked {
        Refusal::Credentials | Refusal::Session | Refusal::TokenExpired => {}
        Refusal::Permission(detail)
        | Refusal::ClientDisabled(detail)
        | Refusal::Unavailable { detail, .. }
        | Refusal::Exception(detail)
        | Refusal::InvalidResponse(detail) => {
            sentence(&detail, 2_000);
            assert!(!detail.contains(SECRET), "{detail}");
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((pick, body)) = data.split_first() else { return };
    let status = STATUSES[usize::from(*pick) % STATUSES.len()];
    within_memory(|| {
        match login_answer(status, body) {
            Ok(opened) => assert!(!opened.token.expose().is_empty()),
            Err(refusal) => look(refusal),
        }
        wheel_answer(status, body).map_or_else(look, drop);
        hook_answer(status, body).map_or_else(look, drop);
    });
});
