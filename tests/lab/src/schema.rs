//! What JSON has to look like: as much of JSON Schema (2020-12) as the project's own schemas use. A keyword that is not known here is a
//! mistake, and so is a field that the schema does not describe, though for others it would be none.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// The keywords that only people read.
const FOR_PEOPLE: [&str; 3] = ["$schema", "title", "description"];

/// A schema.
pub struct Schema(Value);

impl Schema {
    /// The schema of the report, docs/report.schema.json.
    pub fn of_the_report() -> Result<Schema> {
        Schema::kept("report.schema.json")
    }

    /// The schema of a line of the log, docs/log.schema.json.
    pub fn of_the_log() -> Result<Schema> {
        Schema::kept("log.schema.json")
    }

    fn kept(name: &str) -> Result<Schema> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(Schema(serde_json::from_str(&text)?))
    }

    /// The schema as it is.
    pub fn as_json(&self) -> &Value {
        &self.0
    }

    /// Everything that is wrong with a document, each with its place.
    pub fn complaints(&self, document: &Value) -> Vec<String> {
        let mut found = Vec::new();
        check(&self.0, document, "", &mut found);
        found
    }
}

/// A report as the agent left it, or nothing where there is none. One that is not as docs/report.schema.json says ends the test.
#[track_caller]
pub fn report(text: &str) -> Value {
    let Ok(report) = serde_json::from_str(text) else { return Value::Null };
    let found = Schema::of_the_report().unwrap().complaints(&report);
    assert!(found.is_empty(), "against docs/report.schema.json: {found:#?} of {report:#}");
    report
}

/// The lines of a log in JSON. One that is not as docs/log.schema.json says ends the test.
#[track_caller]
pub fn log(text: &str) -> Vec<Value> {
    let schema = Schema::of_the_log().unwrap();
    let line = |line: &str| {
        let object = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let found = schema.complaints(&object);
        assert!(found.is_empty(), "against docs/log.schema.json: {found:#?} of {line}");
        object
    };
    text.lines().map(line).collect()
}

fn check(schema: &Value, document: &Value, place: &str, found: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        return found.push(format!("{place}: the schema is no mapping"));
    };
    for (keyword, wanted) in keywords {
        let fits = match keyword.as_str() {
            word if FOR_PEOPLE.contains(&word) => true,
            "const" => document == wanted,
            "enum" => wanted.as_array().is_some_and(|words| words.contains(document)),
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|one| is_a(document, one)),
                one => is_a(document, one),
            },
            "minimum" => document.as_f64().is_none_or(|number| wanted.as_f64().is_some_and(|least| number >= least)),
            "items" => {
                for (number, item) in document.as_array().into_iter().flatten().enumerate() {
                    check(wanted, item, &format!("{place}/{number}"), found);
                }
                true
            }
            "properties" => {
                for (key, value) in document.as_object().into_iter().flatten() {
                    match wanted.get(key) {
                        Some(schema) => check(schema, value, &format!("{place}/{key}"), found),
                        None => found.push(format!("{place}/{key}: is not in the schema")),
                    }
                }
                true
            }
            "additionalProperties" => {
                for (key, value) in document.as_object().into_iter().flatten() {
                    check(wanted, value, &format!("{place}/{key}"), found);
                }
                // Beside `properties` it would be about the others only, which are none.
                !keywords.contains_key("properties")
            }
            "propertyNames" => {
                for key in document.as_object().into_iter().flat_map(|keys| keys.keys()) {
                    check(wanted, &Value::String(key.clone()), &format!("{place}/{key}"), found);
                }
                true
            }
            "required" => {
                let missing = |key: &&Value| document.is_object() && document.get(key.as_str().unwrap_or_default()).is_none();
                wanted.as_array().is_some_and(|keys| !keys.iter().any(|key| missing(&key)))
            }
            unknown => return found.push(format!("{place}: what does {unknown} mean?")),
        };
        if !fits {
            found.push(format!("{place}: {document} is against {keyword}: {wanted}"));
        }
    }
}

fn is_a(document: &Value, name: &Value) -> bool {
    match name.as_str() {
        Some("null") => document.is_null(),
        Some("boolean") => document.is_boolean(),
        Some("string") => document.is_string(),
        Some("number") => document.is_number(),
        Some("integer") => document.is_i64() || document.is_u64(),
        Some("array") => document.is_array(),
        Some("object") => document.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let schema = Schema(json!({"type": ["object", "null"], "required": ["a"], "title": "T", "properties": {
            "a": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "b": {"type": "object", "propertyNames": {"enum": ["x", "y"]}, "additionalProperties": {"type": "string"}},
            "c": {"const": 1}}}));
        for fine in [json!(null), json!({"a": []}), json!({"a": [0, 1], "b": {"x": "1"}, "c": 1})] {
            assert_eq!(schema.complaints(&fine), [""; 0], "{fine}");
        }
        for (wrong, place) in [
            (json!([]), ": [] is against type"),
            (json!({}), ": {} is against required"),
            (json!({"a": [0, -1]}), "/a/1: -1 is against minimum"),
            (json!({"a": [0.5]}), "/a/0: 0.5 is against type"),
            (json!({"a": [], "d": 1}), "/d: is not in the schema"),
            (json!({"a": [], "b": {"z": "1"}}), "/b/z: \"z\" is against enum"),
            (json!({"a": [], "b": {"x": 1}}), "/b/x: 1 is against type"),
            (json!({"a": [], "c": 2}), "/c: 2 is against const"),
        ] {
            let found = schema.complaints(&wrong);
            assert!(found.len() == 1 && found[0].starts_with(place), "{wrong}: {found:?}");
        }
        assert!(Schema(json!({"minLength": 1})).complaints(&json!("x"))[0].contains("what does minLength mean"));
    }
}
