//! What Heat is sent, and what its answers mean.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::handle::{Form, Transport};
use crate::types::excerpt::cut;
use crate::types::report::{Report, Verdict};

/// Heat takes no body above 1,048,576 bytes (`heat/common/wsgi.py`, `max_json_body_size`). The data may take this much in the form
/// in which it takes most, as a JSON text within JSON; what stands around it fits into the rest.
const MOST_DATA: usize = 900_000;

/// More than this nobody reads in a stack's status.
const MOST_REASON: usize = 4_000;

/// What a person says by hand, in bytes: seven times as much is still less than [`MOST_DATA`], and more a byte never takes.
const MOST_BY_HAND: usize = 100_000;

/// No id is longer, in bytes: a minion's is a file name.
const MOST_ID: usize = 255;

/// The two words that Heat counts; any other is lost without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// The condition is met.
    Success,
    /// The stack fails.
    Failure,
}

impl Status {
    /// Heat's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Success => "SUCCESS",
            Status::Failure => "FAILURE",
        }
    }
}

/// What one signal says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Which of the two.
    pub status: Status,
    /// Shown in the stack's status when it fails.
    pub reason: String,
    /// Signals with the same id count once; the last one stands.
    pub id: String,
    /// Found in the wait condition's `data` attribute under the id.
    pub data: Value,
}

impl Message {
    /// The signal that tells a report.
    pub fn of(report: &Report, id: String) -> Message {
        let status = match report.verdict {
            Verdict::Done => Status::Success,
            Verdict::Failed => Status::Failure,
        };
        Message { status, reason: storable(&reason(report)), id: cut(&id, MOST_ID), data: fitted(report) }
    }

    /// A signal that somebody else decided on.
    pub fn by_hand(status: Status, reason: &str, id: String) -> Message {
        let (short, data) = (cut(reason, MOST_REASON), cut(reason, MOST_BY_HAND));
        Message { status, reason: storable(&short), id: cut(&id, MOST_ID), data: Value::String(data) }
    }

    /// The content of the signal in the form that the handle counts.
    pub fn content(&self, form: Form) -> Value {
        let status = self.status.as_str();
        match form {
            // Exactly these four keys, or the signal is lost
            // (heat/engine/resources/openstack/heat/wait_condition_handle.py, handle_signal).
            Form::Condition => json!({"status": status, "reason": self.reason, "id": self.id, "data": self.data}),
            // All of these, and Data as a text (heat/engine/resources/aws/cfn/wait_condition_handle.py).
            Form::AwsCondition => json!({"Status": status, "Reason": self.reason, "UniqueId": self.id, "Data": self.data.to_string()}),
            // A code other than 0 fails the deployment; the other keys are outputs
            // (heat/engine/resources/openstack/heat/software_deployment.py, handle_signal).
            Form::Deployment => {
                let failed = self.status == Status::Failure;
                let code = self.data["code"].as_u64().filter(|code| *code != 0).unwrap_or(1);
                json!({"deploy_stdout": self.reason, "deploy_stderr": if failed { &self.reason } else { "" },
                    "deploy_status_code": if failed { code } else { 0 }, "report": self.data.to_string()})
            }
        }
    }
}

/// The report's line, and behind it the failing states, since the status of the stack is the first
/// thing that people look at.
fn reason(report: &Report) -> String {
    let mut reason = report.line();
    for failed in report.states.iter().flat_map(|states| &states.failures).take(MOST_REASON) {
        reason.push_str(&format!("; {} ({}): {}", failed.id, failed.sls, failed.comment));
        if reason.len() > MOST_REASON {
            break;
        }
    }
    cut(&reason, MOST_REASON)
}

/// The report as data, made to fit by taking the least useful away first: the tails of long texts, then the failing states beyond
/// the first, then facts and steps.
fn fitted(report: &Report) -> Value {
    let mut report = report.clone();
    for most in [20_000, 2_000, 200] {
        if length_within(&report) <= MOST_DATA {
            break;
        }
        texts(&mut report).filter(|text| text.len() > most).for_each(|text| *text = cut(text, most));
    }
    if let Some(states) = report.states.as_mut().filter(|states| states.failures.len() > 500) {
        states.failures.truncate(500);
    }
    if length_within(&report) > MOST_DATA {
        report.states.iter_mut().for_each(|states| states.failures.truncate(1));
    }
    if length_within(&report) > MOST_DATA {
        report.facts.clear();
        report.steps.clear();
    }
    json!(report)
}

/// Every text of a report that is not one of a few words.
fn texts(report: &mut Report) -> impl Iterator<Item = &mut String> {
    let states = report.states.iter_mut().flat_map(|states| &mut states.failures);
    let of_states = states.flat_map(|failed| [&mut failed.id, &mut failed.sls, &mut failed.comment]);
    let maybe = [&mut report.bootstrap_id, &mut report.step, &mut report.hint].into_iter().flatten();
    [&mut report.message, &mut report.minion_id, &mut report.verb, &mut report.agent, &mut report.reason]
        .into_iter()
        .chain(maybe)
        .chain(report.facts.values_mut())
        .chain(report.steps.iter_mut().map(|step| &mut step.name))
        .chain(report.signal.iter_mut().flat_map(|signal| [&mut signal.transport].into_iter().chain(&mut signal.error)))
        .chain(of_states)
}

/// How long the JSON of a report is as a text within JSON, where each of its quotation marks and backslashes takes one more.
fn length_within(report: &Report) -> usize {
    let text = json!(report).to_string();
    text.len() + text.bytes().filter(|&byte| byte == b'"' || byte == b'\\').count() + 2
}

/// A text that every database of Heat's holds. MySQL's usual character set ends at U+FFFF; with a character beyond, the engine cannot
/// store the stack's state, which then stays as it was until the condition times out, whatever the signal's answer said (measured).
fn storable(reason: &str) -> String {
    reason.chars().map(|c| if c > '\u{ffff}' { '?' } else { c }).collect()
}

/// What an answer of heat-api to a signal means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was taken.
    Taken,
    /// It may be taken later; the server may have said when.
    Later(String, Option<Duration>),
    /// Heat would not say this, so it was probably not Heat that answered.
    Odd(String),
    /// It is refused. But so does a Keystone or a Heat that is just being restarted or moved.
    Refused(String),
}

/// What a status that refuses the signal means, for this transport.
fn gone(transport: &Transport) -> &'static str {
    match transport {
        Transport::Token { .. } => "the handle's token is wrong or has expired, or the stack is gone; HEAT_SIGNAL does not expire",
        Transport::Heat { .. } => "the stack's user may not signal this resource, or the stack is gone",
        Transport::Cfn { .. } | Transport::Aws(_) => {
            "the signed URL has died, which it does 15 minutes after the handle's creation unless Keystone's auth_ttl is raised, or the stack is gone; HEAT_SIGNAL does not expire"
        }
        Transport::TempUrl(_) => "the temporary URL has expired, or the stack is gone",
        Transport::Zaqar { .. } => "the stack's user may not write to the queue, or the stack is gone",
    }
}

/// Reads the answer to a signal. heat-api-cfn answers 500 to a body that it cannot use, after a minute; ours is one that it can,
/// so a 500 is the engine's trouble and may pass. heat-api says `null`; a page in its place is a portal's or a balancer's.
pub fn answer(transport: &Transport, status: u16, body: &[u8], retry_after: Option<Duration>) -> Answer {
    let page = || body.trim_ascii_start().starts_with(b"<");
    match status {
        200..=299 if matches!(transport, Transport::Token { .. } | Transport::Heat { .. }) && page() => {
            Answer::Odd(format!("Heat's address answered {status} with a page, as Heat never does: is the handle's URL right?"))
        }
        200..=299 => Answer::Taken,
        401 | 403 | 404 | 410 => Answer::Refused(format!("Heat answered {status}: {}", gone(transport))),
        408 | 425 | 429 | 500..=599 => Answer::Later(format!("Heat answered {status}"), retry_after),
        _ => Answer::Odd(format!("Heat answered {status}, which is no answer to a signal: is the handle's URL right?")),
    }
}

/// What an answer to a question says that is asked instead of signalling, and counts as no signal: a sentence, good or bad.
///
/// heat-api has only POST at the signal's URL, and looks at the token first: 405 is the answer to a good one (measured). Swift
/// takes HEAD with whatever a temporary URL is signed for; before there is a signal, there is no object.
pub fn probe_answer(transport: &Transport, status: u16) -> Result<&'static str, String> {
    match (transport, status) {
        (Transport::Token { .. } | Transport::Heat { .. }, 405) | (Transport::TempUrl(_), 200..=299 | 404) => Ok("would take a signal"),
        (Transport::Cfn { .. } | Transport::Aws(_), 100..=499) => {
            Ok("answers; whether the signed URL is still good, only a signal can tell")
        }
        (Transport::Zaqar { .. }, 200..=299) => Ok("Keystone knows the stack's user, and the catalog the queue's endpoint"),
        (_, 401 | 403 | 404 | 410) => Err(format!("Heat answered {status}: {}", gone(transport))),
        _ => Err(format!("Heat answered {status}, which is no answer of its own: is the handle's URL right?")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::failure::{Failure, Kind};
    use crate::types::report::{Circumstances, FailedState, States, Step};
    use crate::types::secret::Secret;
    use crate::types::url::Url;

    fn failed(comment: &str, count: usize) -> Report {
        let failures = (0..count).map(|n| FailedState { id: format!("state-{n}"), sls: "web".into(), comment: comment.into() }).collect();
        let of = Circumstances {
            states: Some(States { total: count, failed: count, failures, ..States::default() }),
            ..Circumstances::default()
        };
        Report::failed(of, Some("states".into()), Failure::new(Kind::StateFailed, "1 of 2 states failed"))
    }

    fn url() -> Url {
        Url::parse("http://h/").unwrap()
    }

    #[test]
    fn the_reason_names_the_failing_state() {
        let message = Message::of(&failed("no such package", 1), "web-1".into());
        assert_eq!(message.reason, "state-failed: 1 of 2 states failed (step states, code 51); state-0 (web): no such package");
        let body = message.content(Form::Condition);
        let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["status", "reason", "id", "data"]);
        assert_eq!(body["status"], "FAILURE");
    }

    #[test]
    fn whatever_the_size_it_fits() {
        for (comment, count) in [("x".repeat(300_000), 1), ("ü".repeat(600_000), 3), ("x".repeat(1000), 20_000)] {
            let body = Message::of(&failed(&comment, count), "web-1".into()).content(Form::Condition).to_string();
            assert!(body.len() < 1_000_000, "{} bytes", body.len());
            assert!(serde_json::from_str::<Value>(&body).unwrap()["data"]["states"]["failures"][0]["id"] == "state-0");
        }
        let kept = Message::of(&failed(&"x".repeat(300_000), 1), "web-1".into());
        assert_eq!(kept.data["states"]["failures"][0]["comment"].as_str().unwrap().len(), 300_000);
    }

    #[test]
    fn it_fits_also_as_a_text_within_the_text() {
        let forms = [Form::Condition, Form::AwsCondition, Form::Deployment];
        let within = |message: &Message| forms.map(|form| message.content(form).to_string().len()).into_iter().max().unwrap();
        for nasty in ["\"", "\\", "\u{1}", "\u{1f600}"] {
            let long = nasty.repeat(120_000);
            let mut everywhere = failed(&long, 3);
            everywhere.states.as_mut().unwrap().failures[0].id = long.clone();
            (everywhere.hint, everywhere.step) = (Some(long.clone()), Some(long.clone()));
            everywhere.facts.insert(long.clone(), long.clone());
            everywhere.steps.push(Step { name: long.clone(), seconds: 1.0, changed: false, attempts: 1 });
            for message in [Message::of(&everywhere, long.clone()), Message::by_hand(Status::Failure, &long, long.clone())] {
                assert!(within(&message) <= 1_048_576, "{} bytes of {nasty:?}", within(&message));
            }
        }
        let most = Message::of(&failed(&"\"".repeat(200_000), 1), "web-1".into());
        assert!(within(&most) > 800_000, "more was taken away than had to be: {}", within(&most));
    }

    #[test]
    fn the_reason_holds_nothing_that_a_database_does_not() {
        let message = Message::by_hand(Status::Failure, "na\u{ef}ve \u{1f600}", "web-1".into());
        assert_eq!((message.reason.as_str(), &message.data), ("na\u{ef}ve ?", &json!("na\u{ef}ve \u{1f600}")));
    }

    #[test]
    fn other_handles_get_other_keys() {
        let message = Message::of(&failed("no such package", 1), "web-1".into());
        let aws = message.content(Form::AwsCondition);
        assert_eq!(aws.as_object().unwrap().keys().collect::<Vec<_>>(), ["Status", "Reason", "UniqueId", "Data"]);
        assert!(aws["Data"].is_string());
        let deployment = message.content(Form::Deployment);
        assert_eq!(deployment["deploy_status_code"], 51);
        let held = Report::done(Circumstances::default(), "fine".into());
        assert_eq!(Message::of(&held, "web-1".into()).content(Form::Deployment)["deploy_status_code"], 0);
    }

    #[test]
    fn questions_that_are_no_signals() {
        let token = Transport::Token { endpoint: url(), token: Secret::new("t") };
        assert!(probe_answer(&token, 405).is_ok());
        for (status, says) in [(401, "expired"), (200, "is the handle's URL right"), (502, "502")] {
            assert!(probe_answer(&token, status).unwrap_err().contains(says), "{status}");
        }
        assert!(probe_answer(&Transport::TempUrl(url()), 404).is_ok());
        assert!(probe_answer(&Transport::Aws(url()), 500).is_err());
    }

    #[test]
    fn a_message_is_kept_as_it_is() {
        let message = Message::of(&failed("no such package", 1), "web-1".into());
        let kept = serde_json::to_string(&message).unwrap();
        assert!(kept.contains(r#""status":"FAILURE""#), "{kept}");
        assert_eq!(serde_json::from_str::<Message>(&kept).unwrap(), message);
    }

    #[test]
    fn answers() {
        let token = Transport::Token { endpoint: url(), token: Secret::new("t") };
        assert_eq!(answer(&token, 200, b"null", None), Answer::Taken);
        assert_eq!(answer(&token, 200, b"", None), Answer::Taken);
        assert!(matches!(answer(&token, 200, b"\n<html>Please log in</html>", None), Answer::Odd(_)));
        assert_eq!(answer(&Transport::Aws(url()), 200, b"<Response/>", None), Answer::Taken);
        assert!(matches!(answer(&token, 401, b"", None), Answer::Refused(why) if why.contains("HEAT_SIGNAL")));
        assert!(matches!(answer(&token, 503, b"", Some(Duration::from_secs(7))), Answer::Later(_, Some(_))));
        assert!(matches!(answer(&token, 302, b"", None), Answer::Odd(_)));
        assert!(matches!(answer(&Transport::Aws(url()), 403, b"", None), Answer::Refused(why) if why.contains("15 minutes")));
    }
}
