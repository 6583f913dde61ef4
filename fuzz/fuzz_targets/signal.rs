//! What Heat is told fits, whatever went wrong; and what it answers is understood. The texts of a report are what stands between
//! zeros, each as often as the first byte says.

#![cfg_attr(feature = "libfuzzer", no_main)]

use fuzz::{fuzz_target, sentence, texts, within_memory};
use heat_salt_bootstrap::parts::heat::handle::{Form, Transport, parse};
use heat_salt_bootstrap::parts::heat::signal::{Answer, Message, Status, answer, probe_answer};
use heat_salt_bootstrap::parts::types::report::{Circumstances, FailedState, Report, States, Step};
use heat_salt_bootstrap::parts::{Fact, Failure, Kind};
use serde_json::json;

/// Heat keeps no more of a request, heat/common/wsgi.py (max_json_body_size).
const MOST: usize = 1_048_576;

fn report(times: usize, all: &[String]) -> Report {
    let text = |number: usize| all[number % all.len()].repeat(times);
    let failures = (0..times).map(|number| FailedState { id: text(number), sls: text(number + 1), comment: text(number + 2) }).collect();
    let steps = (0..times).map(|number| Step { name: text(number), seconds: 1.0, changed: true, attempts: 1 }).collect();
    let of = Circumstances {
        verb: "run".into(),
        minion_id: text(0),
        bootstrap_id: Some(text(1)),
        started: 1,
        seconds: 2.0,
        steps,
        states: Some(States { total: times, failed: times, failures, ..States::default() }),
        ..Circumstances::default()
    };
    let failure = Failure::new(Kind::StateFailed, text(2)).hint(text(3)).fact(Fact::Output, text(5));
    Report::failed(of, Some(text(6)), failure)
}

fn ways() -> Vec<Transport> {
    let heat = json!({"auth_url": "http://k/v3", "user_id": "u", "password": "p", "project_id": "p", "alarm_url": "http://h/x/signal"});
    let all = [json!({"endpoint": "http://h/x", "token": "t"}), json!({"url": "http://h/x?Signature=s"}), heat];
    all.iter().filter_map(|value| parse(value).ok()?).map(|handle| handle.transport).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((times, rest)) = data.split_first() else { return };
    let all: Vec<String> = texts(rest).collect();
    within_memory(|| {
        // No more than a run could hold in memory.
        let longest = all.iter().map(String::len).max().unwrap_or(0).max(1);
        let times = usize::from(*times).min(1 + 1_000 / longest);
        let messages = [
            Message::of(&report(times, &all), all[0].repeat(times)),
            Message::by_hand(Status::Failure, &all[0].repeat(usize::from(data[0])), all[0].clone()),
        ];
        for message in messages {
            for form in [Form::Condition, Form::AwsCondition, Form::Deployment] {
                let content = message.content(form).to_string();
                assert!(content.len() < MOST, "{} bytes", content.len());
            }
        }
        for transport in ways() {
            for status in [200, 201, 302, 400, 403, 404, 429, 500, 503] {
                match answer(&transport, status, rest, None) {
                    Answer::Taken => assert!(status < 300),
                    Answer::Later(why, _) | Answer::Odd(why) | Answer::Refused(why) => sentence(&why, 2_000),
                }
                probe_answer(&transport, status).map_or_else(|why| sentence(&why, 2_000), |_| ());
            }
        }
    });
});
