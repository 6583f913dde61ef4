//! Small words: names, spans, dates, addresses, tokens, and what package managers print.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, sentence, within_memory};
use heat_salt_bootstrap::parts::packages::output::{Reason, refresh_fault, source_error, versions};
use heat_salt_bootstrap::parts::packages::version::VersionReq;
use heat_salt_bootstrap::parts::salt::claim::Token;
use heat_salt_bootstrap::parts::types::address::Address;
use heat_salt_bootstrap::parts::types::excerpt::{CUT, cut, one_line};
use heat_salt_bootstrap::parts::types::names::{HookPath, Jid, MinionId, StateName};
use heat_salt_bootstrap::parts::types::pin::Pin;
use heat_salt_bootstrap::parts::types::url::{Url, masked};
use heat_salt_bootstrap::parts::types::{duration, time};

fn refused<T>(result: Result<T, String>) {
    if let Err(why) = result {
        sentence(&why, 4_000);
    }
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    within_memory(|| {
        if let Some(jid) = Jid::parse(&text) {
            assert!(jid.as_str().bytes().all(|byte| byte.is_ascii_digit() || byte == b'_'));
        }
        if let Ok(id) = MinionId::parse(&text) {
            assert!(!id.as_str().contains(['/', '\\', '*', '?', '[', ',']) && !id.as_str().contains(char::is_whitespace));
        }
        refused(MinionId::parse(&text));
        refused(HookPath::parse(&text));
        refused(StateName::parse(&text));
        refused(duration::parse(&text));
        refused(VersionReq::parse(&text));
        refused(Token::parse(&text));
        if let Some(pin) = Pin::parse(&text) {
            assert_eq!(pin.to_string(), text.as_ref());
        }
        for moment in [time::http_date(&text), time::timestamp(&text)].into_iter().flatten() {
            let again = time::written(moment).replace(" UTC", "Z").replace(' ', "T");
            assert_eq!(time::timestamp(&again), Some(moment), "{text}");
        }
        if let Some(Ok(number)) = data.first_chunk().map(|bytes| Ok::<_, ()>(u32::from_le_bytes(*bytes))) {
            assert!(!time::length(u64::from(number)).is_empty());
        }
        let _ = Address::of_master(&text, 4506);
        if let Ok(url) = Url::parse(&text) {
            assert!(!url.host().is_empty() && url.address().port > 0);
            for made in [url.clone(), url.base(), url.top(), url.below("x")] {
                assert_eq!(Url::parse(made.expose()).as_ref(), Ok(&made));
                assert!(made.same_server(&url));
            }
            assert!(!url.has_login() || url.to_string().contains("://***@"));
        }
        refused(Url::parse(&text));
        refused(Url::encrypted(&text));
        assert!(masked(&text).len() <= text.len() + 8 + CUT.len());
        let (line, short) = (one_line(&text, 40), cut(&text, 40));
        sentence(&line, 40 + CUT.len());
        assert!(short.len() <= 40 + CUT.len() && short.starts_with(short.trim_end_matches(CUT)));
        assert!(versions(&text).iter().all(|version| text.contains(version)));
        let _ = Reason::read(&text);
        for said in [source_error(&text), refresh_fault("https://mirror/", &text, &text)].into_iter().flatten() {
            sentence(&said, 4_000);
        }
    });
});
