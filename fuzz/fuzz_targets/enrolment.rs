//! The enrolment service's answers, whoever gives them.
#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, sentence, within_memory};
use heat_salt_bootstrap::parts::salt::claim::{
    Refusal, Token, apply_answer, check_answer, deregister_answer, enroll_answer, report_answer,
};

fuzz_target!(|data: &[u8]| {
    let status =
        data.first().map_or(200, |byte| [200, 200, 200, 400, 401, 403, 404, 409, 413, 429, 500, 502, 503][usize::from(*byte) % 13]);
    let body = data.get(1..).unwrap_or_default();
    let token = Token::parse(&format!("hsb2.0123456789abcdef.{:A<43}", "")).unwrap();
    let refused = |refusal: Refusal| match refusal {
        Refusal::Refused { message, hint, word, .. } => {
            sentence(&message, 700);
            sentence(&word, 700);
            sentence(hint.as_deref().unwrap_or("none"), 700);
        }
        Refusal::Unavailable(said) | Refusal::InvalidResponse(said) => sentence(&said, 700),
        Refusal::Skewed { .. } => {}
    };
    within_memory(|| {
        // Nobody but who knows the token says who the master is.
        refused(enroll_answer(status, body, &token, "00ff").unwrap_err());
        let _ = check_answer(status, body).map_err(refused);
        let _ = apply_answer(status, body).map_err(refused);
        let _ = deregister_answer(status, body).map_err(refused);
        let _ = report_answer(status, body).map_err(refused);
    });
});
