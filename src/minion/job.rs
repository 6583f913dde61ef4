//! The minion's own job files: `proc/<jid>` while a job runs (`salt/minion.py`, `_thread_return`)
//! and `minion_jobs/<jid>/return.p` once it has ended (`salt/utils/minion.py`, `cache_jobs`). Both
//! are MessagePack, both are written in place, so either can be found half written.

use rmpv::Value;

use super::msgpack;
use crate::types::names::Jid;
use crate::types::report::{FailedState, States};

/// More than this no state run returns; the rest of a larger file is not read.
pub const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// What a job file says about which job it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The function, such as `state.sls`.
    pub fun: String,
    /// Its first positional argument.
    pub argument: Option<String>,
    /// The id that our reactor passes on, as metadata and as a keyword argument; the classic reactor
    /// passes none.
    pub bootstrap_id: Option<String>,
    /// What else it was given, each as `name=value`; further positional arguments as `argument=value`.
    pub options: Vec<(String, Value)>,
    /// The process that runs it; only while it runs.
    pub pid: Option<i32>,
}

impl Job {
    /// Was it told to try only, and to apply nothing?
    pub fn only_tests(&self) -> bool {
        self.options.iter().any(|(name, value)| name == "test" && is_true(value))
    }
}

/// What the trigger asked for: how to know the job that came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The id sent with the hook.
    pub bootstrap_id: String,
    /// The states joined by commas, as sent with the hook.
    pub argument: String,
    /// The pillar sent with the hook.
    pub pillar: serde_json::Map<String, serde_json::Value>,
    /// The reactor is known to pass the id on, so a job without it came of something else.
    pub known_by_id: bool,
}

/// What a job is to somebody who has triggered one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kinship {
    /// It bears the id of this bootstrap.
    Ours,
    /// It bears none, and is what was asked for: it is taken for ours if it is newer than the trigger.
    Alike,
    /// It is somebody else's. Where it runs the same states, what makes it another run.
    Foreign(Option<String>),
}

impl Wanted {
    /// Is this the job? Where it carries a bootstrap id, that decides. Where it does not (a classic reactor), its function and all
    /// of its arguments do: the same states with `test=True` or from another `saltenv` are another run.
    pub fn judge(&self, job: &Job) -> Kinship {
        if let Some(id) = &job.bootstrap_id {
            return if *id == self.bootstrap_id { Kinship::Ours } else { Kinship::Foreign(None) };
        }
        let same =
            matches!(job.fun.as_str(), "state.sls" | "state.apply" | "state.highstate") && job.argument.as_deref() == Some(&self.argument);
        if !same {
            return Kinship::Foreign(None);
        }
        if self.known_by_id {
            return Kinship::Foreign(Some("it bears no bootstrap_id, and this reactor passes it on".to_owned()));
        }
        match job.options.iter().find(|(name, value)| !self.permits(name, value)) {
            Some((name, value)) => Kinship::Foreign(Some(format!("it was given {name}={value}"))),
            None => Kinship::Alike,
        }
    }

    /// Does a reactor of somebody else's change nothing of what was asked for by giving this as well?
    fn permits(&self, name: &str, value: &Value) -> bool {
        match name {
            // It only says when.
            "queue" => true,
            "test" => !is_true(value),
            "saltenv" => value.is_nil() || value.as_str() == Some("base"),
            "pillar" => empty(value) || equal(&serde_json::Value::Object(self.pillar.clone()), value),
            _ => false,
        }
    }
}

/// Is it true, by the rules of Python and of Salt's command line?
fn is_true(value: &Value) -> bool {
    match value {
        Value::Nil => false,
        Value::Boolean(so) => *so,
        Value::Integer(number) => number.as_i64() != Some(0),
        Value::String(word) => !matches!(word.as_str().unwrap_or_default(), "" | "False" | "false"),
        _ => true,
    }
}

/// Is it the same value in JSON and in MessagePack?
fn equal(json: &serde_json::Value, packed: &Value) -> bool {
    use serde_json::Value as Json;
    match (json, packed) {
        (Json::Null, Value::Nil) => true,
        (Json::Bool(one), Value::Boolean(other)) => one == other,
        (Json::Number(one), _) => one.as_i64().map_or_else(|| one.as_f64() == packed.as_f64(), |one| packed.as_i64() == Some(one)),
        (Json::String(one), _) => text(packed).as_ref() == Some(one),
        (Json::Array(ones), Value::Array(others)) => {
            ones.len() == others.len() && ones.iter().zip(others).all(|(one, other)| equal(one, other))
        }
        (Json::Object(ones), Value::Map(others)) => {
            ones.len() == others.len() && ones.iter().all(|(key, one)| field(packed, key).is_some_and(|other| equal(one, other)))
        }
        _ => false,
    }
}

/// How a state run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every state holds.
    Held(States),
    /// At least one state failed, or Salt itself says that the run did.
    Failed(States),
    /// No state failed, but some were only tried: what they would change is still to be done.
    Pending(States),
    /// Nothing ran: Salt's own lines say why.
    NotRendered {
        /// Salt's lines.
        lines: Vec<String>,
        /// Is it the pillar that has errors?
        pillar: bool,
    },
    /// Another state run was in the way.
    Busy {
        /// Salt's lines.
        lines: Vec<String>,
        /// The other run's job.
        other: Option<Jid>,
    },
    /// Nothing ran: Salt could not read its own job files, of which one was just being written. This is its last line.
    Fell(String),
}

/// Reads a job file of either kind; `None` if it is not whole (yet).
pub fn read_job(bytes: &[u8]) -> Option<Job> {
    let value = msgpack::read(bytes)?;
    let arguments = ["fun_args", "arg"].into_iter().find_map(|key| field(&value, key)?.as_array()).map_or(&[][..], Vec::as_slice);
    // A job that had to queue has lost its metadata, but kept its arguments.
    let id = field(&value, "metadata").into_iter().chain(arguments).find_map(|paths| field(paths, "bootstrap_id"));
    Some(Job {
        fun: field(&value, "fun").and_then(text)?,
        argument: arguments.first().and_then(text),
        options: arguments.iter().skip(1).flat_map(options).collect(),
        bootstrap_id: id.and_then(text),
        pid: field(&value, "pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok()),
    })
}

/// Keyword arguments are a mapping among the others, with a mark (`salt/utils/args.py`, `condition_input`).
fn options(argument: &Value) -> Vec<(String, Value)> {
    match argument {
        Value::Map(entries) if field(argument, "__kwarg__").is_some() => entries
            .iter()
            .filter_map(|(name, value)| Some((text(name)?, value.clone())))
            .filter(|(name, _)| name != "__kwarg__" && name != "bootstrap_id")
            .collect(),
        other => vec![("argument".to_owned(), other.clone())],
    }
}

/// Reads how the job of a `return.p` ended; `None` if the file is not whole (yet).
pub fn read_outcome(bytes: &[u8]) -> Option<Outcome> {
    let value = msgpack::read(bytes)?;
    let returned = field(&value, "return")?;
    // Both are there in every return of both lines; what does not say that it went well did not.
    let retcode = field(&value, "retcode").and_then(Value::as_i64);
    let success = field(&value, "success").and_then(Value::as_bool);
    match returned {
        // A file that renders to nothing, and so do those that it includes.
        Value::Map(entries) if entries.is_empty() => {
            Some(Outcome::NotRendered { lines: vec!["not one state came of the files".to_owned()], pillar: false })
        }
        Value::Map(entries) => Some(ran(entries, retcode == Some(0) && success == Some(true))),
        other => Some(did_not_run(lines(other), retcode)),
    }
}

/// Salt's `success` is true for runs whose states failed, so each state's own result is looked at
/// as well. `None` is the result of a state under `test=True` that would change something.
fn ran(entries: &[(Value, Value)], sound: bool) -> Outcome {
    let mut states = States { total: entries.len(), ..States::default() };
    let mut failures = Vec::new();
    for (tag, state) in entries {
        if field(state, "changes").is_some_and(|changes| !empty(changes)) {
            states.changed += 1;
        }
        // What is neither true nor false is none of Salt's results, or none at all.
        let result = field(state, "result").and_then(Value::as_bool);
        if result.is_none() {
            states.pending += 1;
        }
        if result == Some(false) {
            let order = field(state, "__run_num__").and_then(Value::as_i64).unwrap_or(i64::MAX);
            failures.push((order, failed_state(&text(tag).unwrap_or_default(), state)));
        }
    }
    failures.sort_by_key(|(order, _)| *order);
    states.failures = failures.into_iter().map(|(_, failed)| failed).collect();
    states.failed = states.failures.len();
    match (sound && states.failed == 0, states.pending) {
        (false, _) => Outcome::Failed(states),
        (true, 0) => Outcome::Held(states),
        (true, _) => Outcome::Pending(states),
    }
}

fn failed_state(tag: &str, state: &Value) -> FailedState {
    // The tag is `module_|-id_|-name_|-function` (salt/state.py, `_gen_tag`).
    let id = field(state, "__id__").and_then(text).or_else(|| tag.split("_|-").nth(1).map(str::to_owned)).unwrap_or_else(|| tag.to_owned());
    let comment = field(state, "comment").map(|comment| lines(comment).join("\n")).unwrap_or_default();
    FailedState { id, sls: field(state, "__sls__").and_then(text).unwrap_or_default(), comment: comment.trim().to_owned() }
}

fn did_not_run(lines: Vec<String>, retcode: Option<i64>) -> Outcome {
    // salt/modules/state.py, `running` and `_check_queue`.
    if let Some(line) = lines.iter().find(|line| line.contains("is running as PID")) {
        let other = line.split(|c: char| !c.is_ascii_digit()).find_map(Jid::parse);
        return Outcome::Busy { lines, other };
    }
    // salt/utils/minion.py reads the files of all jobs before a state runs, and does not mind that another process writes one of them.
    if lines.iter().any(|line| line.contains("in _read_proc_file")) {
        return Outcome::Fell(lines.iter().flat_map(|line| line.lines()).last().unwrap_or_default().to_owned());
    }
    // 5 is EX_PILLAR_FAILURE (salt/defaults/exitcodes.py).
    let pillar = retcode == Some(5) || lines.iter().any(|line| line.starts_with("Pillar failed to render"));
    Outcome::NotRendered { lines, pillar }
}

fn field<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_map()?.iter().find(|(name, _)| text(name).as_deref() == Some(key)).map(|(_, value)| value)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(string) => Some(String::from_utf8_lossy(string.as_bytes()).into_owned()),
        Value::Binary(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(|item| text(item).unwrap_or_else(|| item.to_string())).collect(),
        Value::Nil => Vec::new(),
        other => vec![text(other).unwrap_or_else(|| other.to_string())],
    }
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Map(entries) => entries.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(string) => string.as_bytes().is_empty(),
        other => other.is_nil(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
    }

    fn packed(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn state(order: i64, result: Value, comment: &str) -> Value {
        map(&[
            ("result", result),
            ("comment", comment.into()),
            ("__run_num__", order.into()),
            ("__sls__", "web".into()),
            ("changes", map(&[("a", 1.into())])),
        ])
    }

    #[test]
    fn one_false_result_fails_the_run_whatever_salt_says_of_success() {
        let states = map(&[
            ("pkg_|-second_|-x_|-installed", state(2, Value::from(false), "two")),
            ("pkg_|-first_|-x_|-installed", state(1, Value::from(false), "one")),
            ("test_|-fine_|-x_|-nop", state(0, Value::from(true), "")),
            ("test_|-maybe_|-x_|-nop", state(3, Value::Nil, "")),
        ]);
        let file = packed(&map(&[("return", states), ("retcode", 0.into()), ("success", true.into()), ("fun", "state.sls".into())]));
        let Some(Outcome::Failed(states)) = read_outcome(&file) else { panic!("not failed") };
        assert_eq!((states.total, states.failed, states.changed), (4, 2, 4));
        assert_eq!(states.failures.iter().map(|failed| failed.id.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    }

    #[test]
    fn a_run_that_salt_calls_failed_is_failed() {
        let states = map(&[("test_|-fine_|-x_|-nop", state(0, Value::from(true), ""))]);
        let file = packed(&map(&[("return", states), ("retcode", 2.into()), ("success", true.into())]));
        assert!(matches!(read_outcome(&file), Some(Outcome::Failed(_))));
    }

    #[test]
    fn a_list_says_why_nothing_ran() {
        let ended = |line: &str, retcode: i64| {
            read_outcome(&packed(&map(&[
                ("return", Value::Array(vec![line.into()])),
                ("retcode", retcode.into()),
                ("success", false.into()),
            ])))
            .unwrap()
        };
        assert!(matches!(ended("No matching sls found for 'x' in env 'base'", 1), Outcome::NotRendered { pillar: false, .. }));
        assert!(matches!(
            ended("Specified SLS 'nope' in environment 'base' is not available", 5),
            Outcome::NotRendered { pillar: true, .. }
        ));
        let busy = ended(
            "The function \"state.sls\" is running as PID 4711 and was started at 2026, Nov 22 10:11:12.123456 with jid 20261122101112123456",
            1,
        );
        assert!(matches!(busy, Outcome::Busy { other: Some(jid), .. } if jid.as_str() == "20261122101112123456"));
        let fell = ended(
            "The minion function caused an exception: Traceback (most recent call last):\n  \
             File \"salt/utils/minion.py\", line 62, in _read_proc_file\n    data = salt.payload.loads(buf)\n\
             salt.exceptions.SaltDeserializationError: Could not deserialize msgpack message.\n",
            1,
        );
        assert_eq!(fell, Outcome::Fell("salt.exceptions.SaltDeserializationError: Could not deserialize msgpack message.".to_owned()));
    }

    #[test]
    fn half_a_file_is_no_file() {
        let whole = packed(&map(&[
            ("fun", "state.sls".into()),
            ("fun_args", Value::Array(vec!["a,b".into()])),
            ("return", map(&[])),
            ("retcode", 0.into()),
            ("success", true.into()),
        ]));
        for cut in 0..whole.len() {
            assert_eq!(read_outcome(&whole[..cut]), None, "cut at {cut}");
        }
        assert!(read_outcome(&whole).is_some());
    }

    fn recorded(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/jobs").join(name)).unwrap()
    }

    // What real minions left; tests/data/jobs/README.md says how it was made.
    #[test]
    fn recorded_jobs_of_both_lines_are_read() {
        for line in ["3006", "3008"] {
            let outcome = |case: &str| read_outcome(&recorded(&format!("{line}-{case}.p"))).unwrap_or_else(|| panic!("{line}-{case}"));
            let job = |file: &str| read_job(&recorded(&format!("{line}-{file}.p"))).unwrap_or_else(|| panic!("{line}-{file}"));
            for case in ["ok", "ok-two", "with-metadata", "queued"] {
                assert!(matches!(outcome(case), Outcome::Held(states) if states.total > 0), "{line}-{case}");
            }
            let Outcome::Failed(states) = outcome("fail") else { panic!("{line}-fail") };
            assert_eq!((states.total, states.failed), (3, 2), "{line}-fail");
            assert_eq!((states.failures[0].id.as_str(), states.failures[0].comment.as_str()), ("bad", "the database is not there"));
            for case in ["missing-sls", "render-error", "bad-yaml", "missing-pillar-key", "wrong-arguments"] {
                assert!(matches!(outcome(case), Outcome::NotRendered { pillar: false, .. }), "{line}-{case}");
            }
            assert!(matches!(outcome("pillar-error"), Outcome::NotRendered { pillar: true, .. }), "{line}");
            assert!(matches!(outcome("run-active"), Outcome::Busy { other: Some(_), .. }), "{line}");
            assert!(job("running.proc").pid.is_some() && job("ok.proc").fun == "state.sls", "{line}");
            assert!(job("with-metadata").bootstrap_id.is_some(), "{line}");
        }
    }

    #[test]
    fn the_id_is_found_among_the_arguments_too() {
        let keywords = map(&[("__kwarg__", true.into()), ("bootstrap_id", "b-1".into())]);
        let file = packed(&map(&[("fun", "state.sls".into()), ("fun_args", Value::Array(vec!["a".into(), keywords]))]));
        let job = read_job(&file).unwrap();
        assert_eq!((job.argument.as_deref(), job.bootstrap_id.as_deref()), (Some("a"), Some("b-1")));
    }

    #[test]
    fn what_was_only_tried_is_pending() {
        let outcome = |results: &[Value]| {
            let states: Vec<_> = results
                .iter()
                .enumerate()
                .map(|(order, result)| (Value::from(format!("t_|-{order}_|-x_|-nop")), state(order as i64, result.clone(), "")))
                .collect();
            read_outcome(&packed(&map(&[("return", Value::Map(states)), ("retcode", 0.into()), ("success", true.into())]))).unwrap()
        };
        assert!(matches!(outcome(&[true.into(), Value::Nil]), Outcome::Pending(States { total: 2, pending: 1, failed: 0, .. })));
        assert!(matches!(outcome(&[false.into(), Value::Nil]), Outcome::Failed(States { pending: 1, failed: 1, .. })));
        assert!(matches!(outcome(&[true.into()]), Outcome::Held(States { pending: 0, .. })));
    }

    #[test]
    fn nothing_at_all_and_what_says_nothing_of_itself_are_not_good() {
        let one = map(&[("test_|-fine_|-x_|-nop", state(0, Value::from(true), ""))]);
        let outcome = |fields: &[(&str, Value)]| read_outcome(&packed(&map(fields))).unwrap();
        let good = [("retcode", 0.into()), ("success", true.into())];
        assert!(matches!(outcome(&[("return", map(&[])), good[0].clone(), good[1].clone()]), Outcome::NotRendered { pillar: false, .. }));
        assert!(matches!(outcome(&[("return", one.clone()), good[0].clone(), good[1].clone()]), Outcome::Held(_)));
        assert!(matches!(outcome(&[("return", one.clone()), good[0].clone()]), Outcome::Failed(_)));
        assert!(matches!(outcome(&[("return", one), good[1].clone()]), Outcome::Failed(_)));
    }

    fn wanted() -> Wanted {
        let pillar = serde_json::json!({"who": "world", "list": [1, 2.5, null, true]}).as_object().unwrap().clone();
        Wanted { bootstrap_id: "b-1".into(), argument: "a,b".into(), pillar, known_by_id: false }
    }

    fn alike(options: &[(&str, Value)]) -> Job {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        Job { fun: "state.sls".into(), argument: Some("a,b".into()), bootstrap_id: None, options, pid: None }
    }

    #[test]
    fn where_there_is_an_id_it_decides() {
        let with = |id: &str| Job { bootstrap_id: Some(id.into()), ..alike(&[("test", true.into())]) };
        assert_eq!(wanted().judge(&with("b-1")), Kinship::Ours);
        assert_eq!(wanted().judge(&with("b-2")), Kinship::Foreign(None));
        assert_eq!(wanted().judge(&with("")), Kinship::Foreign(None));
    }

    #[test]
    fn without_an_id_function_and_all_arguments_do() {
        let pillar =
            |who: &str| map(&[("who", who.into()), ("list", Value::Array(vec![1.into(), Value::F64(2.5), Value::Nil, true.into()]))]);
        for options in [
            vec![],
            vec![("queue", true.into())],
            vec![("test", false.into()), ("saltenv", "base".into())],
            vec![("pillar", Value::Nil)],
            vec![("pillar", map(&[]))],
            vec![("pillar", pillar("world"))],
        ] {
            assert_eq!(wanted().judge(&alike(&options)), Kinship::Alike, "{options:?}");
        }
        for (name, value) in [
            ("test", Value::from(true)),
            ("test", "True".into()),
            ("saltenv", "dev".into()),
            ("pillar", pillar("moon")),
            ("exclude", "a".into()),
            ("argument", true.into()),
        ] {
            let Kinship::Foreign(Some(why)) = wanted().judge(&alike(&[(name, value)])) else { panic!("{name}") };
            assert!(why.starts_with(&format!("it was given {name}=")), "{why}");
        }
        assert_eq!(wanted().judge(&Job { argument: Some("a".into()), ..alike(&[]) }), Kinship::Foreign(None));
        assert_eq!(wanted().judge(&Job { fun: "state.show_sls".into(), ..alike(&[]) }), Kinship::Foreign(None));
    }

    #[test]
    fn where_the_reactor_tells_the_id_nothing_else_counts() {
        let wanted = Wanted { known_by_id: true, ..wanted() };
        assert!(matches!(wanted.judge(&alike(&[])), Kinship::Foreign(Some(_))));
    }

    #[test]
    fn keyword_arguments_are_read_as_options() {
        let keywords = map(&[("__kwarg__", true.into()), ("test", true.into())]);
        let file = packed(&map(&[("fun", "state.apply".into()), ("arg", Value::Array(vec!["a".into(), keywords, "b".into()]))]));
        let job = read_job(&file).unwrap();
        assert_eq!(job.options, [("test".to_owned(), Value::from(true)), ("argument".to_owned(), Value::from("b"))]);
        assert!(job.only_tests() && !alike(&[("test", false.into())]).only_tests());
    }
}
