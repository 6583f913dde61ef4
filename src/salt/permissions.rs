//! What a user may do, by what salt-api says at the login (`perms`): the entries of `external_auth` that are about the user.
//!
//! It is read as `salt/utils/minions.py`, `CkMinions.spec_check`, reads it, as far as that can be done without regular expressions.

use serde_json::Value;

use crate::types::excerpt::one_line;

/// More than this is no line that anybody reads.
const MOST_SUMMARY: usize = 1_000;

/// May a user with these permissions call this wheel function? `None` if they are written in a way that is not understood here.
pub fn may_wheel(permissions: &Value, fun: &str) -> Option<bool> {
    let module = fun.split('.').next().unwrap_or_default();
    let mut sure = true;
    for entry in permissions.as_array().into_iter().flatten() {
        let allowed = match entry {
            Value::String(text) => Some(text == "@wheel" || text == "@wheels" || text.strip_prefix('@') == Some(module)),
            Value::Object(keys) => match keys.iter().next().map(|(key, value)| (key.as_str(), value)) {
                Some(("@wheel" | "@wheels", patterns)) => any(patterns, fun),
                Some((key, patterns)) if key.strip_prefix('@') == Some(module) => any(patterns, fun.split('.').nth(1).unwrap_or_default()),
                _ => Some(false),
            },
            _ => None,
        };
        match allowed {
            Some(true) => return Some(true),
            Some(false) => {}
            None => sure = false,
        }
    }
    sure.then_some(false)
}

fn any(patterns: &Value, name: &str) -> Option<bool> {
    let all: Vec<&Value> = match patterns {
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    };
    let matches: Vec<Option<bool>> = all.into_iter().map(|pattern| matches(pattern.as_str()?, name)).collect();
    if matches.contains(&Some(true)) { Some(true) } else { matches.into_iter().all(|one| one.is_some()).then_some(false) }
}

/// Salt takes the pattern for a regular expression and matches it at the beginning only.
fn matches(pattern: &str, name: &str) -> Option<bool> {
    if pattern == ".*" {
        return Some(true);
    }
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    let start = pattern.strip_suffix(".*").unwrap_or(pattern);
    plain(start).then(|| name.starts_with(start))
}

/// What a user may do, in one line.
pub fn summary(permissions: &Value) -> String {
    let words: Vec<String> = permissions
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| match entry {
            Value::String(text) => text.clone(),
            Value::Object(keys) => keys
                .iter()
                .map(|(key, value)| match value {
                    Value::Array(all) => {
                        let all: Vec<String> = all.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
                        format!("{key} {}", all.join(", "))
                    }
                    other => format!("{key} {}", other.as_str().map_or_else(|| other.to_string(), str::to_owned)),
                })
                .collect::<Vec<_>>()
                .join("; "),
            other => other.to_string(),
        })
        .collect();
    if words.is_empty() { "nothing beside firing hooks".to_owned() } else { one_line(&words.join("; "), MOST_SUMMARY) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn permissions_are_read_as_salt_does() {
        for (permissions, accept, other) in [
            (json!({}), Some(false), Some(false)),
            (json!([]), Some(false), Some(false)),
            (json!([".*", "@runner"]), Some(false), Some(false)),
            (json!(["@wheel"]), Some(true), Some(true)),
            (json!([{"@wheel": ["key.accept", "key.print"]}]), Some(true), Some(false)),
            (json!([{"@wheel": "key.*"}]), Some(true), Some(true)),
            // Unanchored, as Salt has it.
            (json!([{"@wheel": ["key"]}]), Some(true), Some(true)),
            (json!([{"@key": ["accept"]}]), Some(true), Some(false)),
            (json!([{"@wheel": ["key.(accept|print)"]}]), None, None),
            (json!([{"@wheel": ["key.(x|y)", "key.accept"]}]), Some(true), None),
            (json!([{"web-*": ["state.sls"]}]), Some(false), Some(false)),
        ] {
            assert_eq!((may_wheel(&permissions, "key.accept"), may_wheel(&permissions, "key.delete")), (accept, other), "{permissions}");
        }
    }

    #[test]
    fn they_fit_one_line() {
        assert_eq!(summary(&json!([])), "nothing beside firing hooks");
        assert_eq!(
            summary(&json!(["@runner", {"@wheel": ["key.accept", "key.print"]}, {"a": "b"}])),
            "@runner; @wheel key.accept, key.print; a b"
        );
    }
}
