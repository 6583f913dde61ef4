//! The configuration: fragments (between zeros) laid over each other.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{SECRET, fuzz_target, sentence, texts, within_memory};
use heat_salt_bootstrap::parts::config::Settings;
use heat_salt_bootstrap::parts::config::fragments::{Fragment, Merged, without_secrets};
use heat_salt_bootstrap::parts::types::references::References;
use heat_salt_bootstrap::parts::types::secret::Secret;
use serde_json::Value;

/// Every file that is named is there, and holds a secret.
struct Files;

impl References for Files {
    fn file(&self, path: &str) -> Result<Secret, String> {
        if path.len() % 7 == 6 { Err("No such file or directory".into()) } else { Ok(Secret::new(SECRET)) }
    }

    fn credential(&self, name: &str) -> Option<Secret> {
        (name == "enroll.token").then(|| Secret::new(format!("hsb2.0123456789abcdef.{SECRET:A<43}")))
    }

    fn host_name(&self) -> String {
        "web-1".into()
    }
}

fuzz_target!(|data: &[u8]| {
    let fragment = |(number, text): (usize, String)| match serde_json::from_str(&text) {
        Ok(Value::Object(keys)) => Some(Fragment { source: format!("{number}.json"), keys }),
        _ => None,
    };
    let fragments: Vec<Fragment> = texts(data).enumerate().filter_map(fragment).collect();
    within_memory(|| {
        for fragment in &fragments {
            if let Some((left, _)) = without_secrets(&fragment.keys) {
                assert!(without_secrets(&left).is_none(), "wiped twice");
            }
        }
        let merged = Merged::of(fragments);
        match Settings::parse(&merged, &Files) {
            Ok(settings) => {
                assert!(settings.splay <= settings.deadline);
                assert!(!format!("{settings:?}").contains(SECRET));
            }
            Err(complaints) => {
                assert!(!complaints.is_empty() && complaints.len() <= 51, "{} complaints", complaints.len());
                for complaint in complaints {
                    sentence(&complaint, 2_000);
                    assert!(!complaint.contains(SECRET), "{complaint}");
                }
            }
        }
        if let Some(signal) = Settings::parse_signal(&merged, &Files) {
            assert!(!format!("{signal:?}").contains(SECRET));
        }
    });
});
