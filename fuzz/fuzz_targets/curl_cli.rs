//! A handle's curl command, which is read and never run.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, sentence, texts, within_memory};
use heat_salt_bootstrap::parts::heat::curl_cli::parse;
use heat_salt_bootstrap::parts::types::url::Url;

fuzz_target!(|data: &[u8]| {
    let command = String::from_utf8_lossy(data);
    // Quotes may stand anywhere in a word.
    let bare = command.replace(['\'', '"'], "");
    within_memory(|| {
        match parse(&command) {
            Ok((url, token)) => assert!(url.expose().starts_with("http") && bare.contains("http") && token.len() <= command.len()),
            Err(why) => sentence(&why, 500),
        }
        // Whatever Heat could have put there comes out again.
        let parts: Vec<String> = texts(data).take(2).collect();
        if let [path, token] = parts.as_slice() {
            let plain = |text: &str| !text.contains(['\'', '"']) && !text.contains(char::is_whitespace);
            if plain(path) && plain(token) {
                let command = format!("curl -i -X POST -H 'X-Auth-Token: {token}' http://heat:8004/{path}");
                if let Ok(url) = Url::parse(&format!("http://heat:8004/{path}")) {
                    assert_eq!(parse(&command), Ok((url, token.clone())));
                }
            }
        }
    });
});
