//! docs/report.schema.json says of the report what the program puts into it. Every report that a suite reads is held to it
//! (`lab::schema::report`); here it is compared with the program's own lists. So is docs/log.schema.json, to which logs in JSON are held.

use std::collections::BTreeSet;
use std::fs;

use heat_salt_bootstrap::parts::types::report::{Circumstances, FailedState, Report, Signal, States, Step};
use heat_salt_bootstrap::parts::{Fact, Failure, Kind};
use lab::heat::StandIn;
use lab::sandbox::Sandbox;
use lab::schema::{self, Schema};
use serde_json::{Value, json};

/// The words of a closed list, as the source has them.
fn words(file: &str, of: &str) -> Value {
    let text = fs::read_to_string(format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let arms = text.lines().filter_map(|line| line.trim().strip_prefix(of)?.split_once(" => \""));
    arms.map(|(_, rest)| rest.split('"').next().unwrap()).collect()
}

#[test]
fn its_lists_are_the_programs_own() {
    let schema = Schema::of_the_report().unwrap();
    let field = |name: &str| &schema.as_json()["properties"][name];
    assert_eq!(field("code")["enum"], Kind::ALL.into_iter().map(|kind| json!(kind.code())).collect::<Value>());
    assert_eq!(field("reason")["enum"], Kind::ALL.into_iter().map(|kind| json!(kind.reason())).collect::<Value>());
    let steps = words("types/step.rs", "StepName::");
    assert!(steps.as_array().unwrap().len() > 10, "does this test still read them? {steps}");
    assert_eq!(field("steps")["items"]["properties"]["name"]["enum"], steps);
    let or_none: Value = steps.as_array().unwrap().iter().cloned().chain([Value::Null]).collect();
    assert_eq!(field("step")["enum"], or_none);
    let log = Schema::of_the_log().unwrap();
    let of_the_log = |name: &str| &log.as_json()["properties"][name]["enum"];
    assert_eq!(of_the_log("step"), &steps);
    let levels = words("cli/logging.rs", "Level::").as_array().unwrap().iter().cloned().chain([json!("debug")]).collect::<Value>();
    assert_eq!(of_the_log("level"), &levels);
    let facts = words("types/failure.rs", "Fact::");
    assert!(facts.as_array().unwrap().len() > 10, "does this test still read them? {facts}");
    assert_eq!(field("facts")["propertyNames"]["enum"], facts);
    for verb in field("verb")["enum"].as_array().unwrap() {
        let source =
            ["verbs.rs", "run.rs"].map(|file| fs::read_to_string(format!("{}/src/cli/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap());
        assert!(source.concat().contains(&format!("run({verb}")) || source.concat().contains(&format!("verb: {verb}")), "{verb}");
    }
}

/// The paths of everything that a document has, of the first item of each list.
fn fields(document: &Value, place: &str, found: &mut BTreeSet<String>) {
    if let Some(first) = document.as_array().and_then(|items| items.first()) {
        fields(first, &format!("{place}/*"), found);
    }
    for (key, value) in document.as_object().into_iter().flatten() {
        found.insert(format!("{place}/{key}"));
        fields(value, &format!("{place}/{key}"), found);
    }
}

fn described(schema: &Value, place: &str, found: &mut BTreeSet<String>) {
    if let Some(items) = schema.get("items") {
        described(items, &format!("{place}/*"), found);
    }
    for (key, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        found.insert(format!("{place}/{key}"));
        described(schema, &format!("{place}/{key}"), found);
    }
}

#[test]
fn it_describes_every_field_and_no_other() {
    let failed = FailedState { id: "nginx".into(), sls: "web".into(), comment: "no such package".into() };
    let of = Circumstances {
        verb: "run".into(),
        minion_id: "web-1".into(),
        bootstrap_id: Some("b".into()),
        instance_id: Some("i".into()),
        jid: Some("20261130000000000000".into()),
        started: 1,
        seconds: 2.0,
        steps: vec![Step { name: "look".into(), seconds: 0.5, changed: false, attempts: 1 }],
        states: Some(States { total: 1, failed: 1, failures: vec![failed], ..States::default() }),
        ..Circumstances::default()
    };
    let mut report = Report::failed(of, Some("states".into()), Failure::new(Kind::StateFailed, "1 of 1 states failed"));
    report.signal = Some(Signal { transport: "TOKEN_SIGNAL".into(), delivered: false, error: Some("503".into()) });
    let document = schema::report(&serde_json::to_string(&report).unwrap());
    let (mut has, mut told) = (BTreeSet::new(), BTreeSet::new());
    fields(&document, "", &mut has);
    described(Schema::of_the_report().unwrap().as_json(), "", &mut told);
    assert_eq!(has, told, "on the left the fields, on the right those of the schema");
    report.facts.insert(Fact::Jid.as_str().to_owned(), "1".into());
    schema::report(&serde_json::to_string(&report).unwrap());
}

/// Whoever is refused at once reports like anybody else, and Heat gets the same.
#[test]
fn what_lies_on_the_disk_and_what_heat_gets_is_as_described() {
    let heat = StandIn::start().unwrap();
    let finger = vec!["00"; 32].join(":");
    let minion = json!({"id": "web-1", "master": "127.0.0.1", "master_finger": finger});
    for (config, code) in [
        (json!({"minion": {"id": "web-1"}, "signal": heat.handle()}), 10),
        (json!({"minion": minion, "accept": "none", "signal": heat.handle()}), 23),
    ] {
        let machine = Sandbox::configured(env!("CARGO_BIN_EXE_heat-salt-bootstrap"), &config);
        let ended = machine.agent(&["run", "--log-format", "json"], code);
        assert!(schema::log(&ended.stderr).iter().any(|line| line["level"] == "error"), "{}", ended.stderr);
        let kept = machine.report();
        assert_eq!(kept["code"], code);
        assert_eq!(schema::report(&machine.agent(&["status", "--json"], 0).stdout), kept);
        let told = heat.signals().pop().unwrap();
        assert_eq!(schema::report(&told.data.to_string())["code"], code);
    }
}
