//! The cases: each makes a stack, lets the agent signal, and looks at the stack.

use std::time::Duration;

use lab::http::{Answer, Request, Server};
use lab::openstack::{Heat, Service, Stack, aws_condition, condition};
use lab::process::{Running, until};
use lab::proxy::Proxy;
use lab::tls::{Authority, Validity};
use serde_json::{Value, json};

use crate::fixture::{LONG, Vm, alone, assert_complete, assert_failed, attribute, named, shared, token_handle};

/// By name.
pub const CASES: &[(&str, fn())] = &[
    ("token::success", token_success),
    ("token::failure", token_failure),
    ("token::curl_cli", token_curl_cli),
    ("token::worthless", token_worthless),
    ("token::stack_deleted", stack_deleted),
    ("token::ids_count_once", ids_count_once),
    ("token::failure_stands", failure_stands),
    ("token::long_text", long_text),
    ("token::any_characters", any_characters),
    ("token::astral_characters", astral_characters),
    ("token::broken_config", broken_config),
    ("token::heat_away", heat_away),
    ("heat::success", || with_signal_attribute("HEAT_SIGNAL", "heat-success", true)),
    ("heat::failure", || with_signal_attribute("HEAT_SIGNAL", "heat-failure", false)),
    ("heat::stack_deleted", heat_stack_deleted),
    ("heat::heat_away", keystone_away),
    ("cfn::success", || with_signal_attribute("CFN_SIGNAL", "cfn-success", true)),
    ("cfn::failure", || with_signal_attribute("CFN_SIGNAL", "cfn-failure", false)),
    ("aws::success", aws_success),
    ("aws::failure", aws_failure),
    ("none::no_signal", no_signal),
    ("lifetimes::only_heat_signal_lives_on", only_heat_signal_lives_on),
    ("token::heat_away_for_longer", heat_away_for_longer),
    ("token::own_ca", || own_ca("own-ca-token", "TOKEN_SIGNAL", token_handle)),
    ("heat::own_ca", || own_ca("own-ca-heat", "HEAT_SIGNAL", |stack| attribute(stack, "signal"))),
    ("token::states_with_odd_names", states_with_odd_names),
];

/// Keystone takes what was signed less than 15 minutes ago.
const LONG_AGO: &str = "2020-02-02T02:02:02Z";
const LONG_HENCE: &str = "2100-01-01T00:00:00Z";
const FAILED: &str = "Resource CREATE failed: WaitConditionFailure: resources.w: ";

/// Creates a stack, and does something with it while it waits.
fn with_stack(name: &str, template: &Value, parameters: Value, case: impl FnOnce(&Stack)) {
    let heat = shared();
    case(&heat.as_ref().unwrap().stack_create(&named(name), template, parameters).unwrap());
}

/// A whole other stack of this Heat is made, signalled and complete: its engine, which looks at all of them by turns, has looked at this
/// one as well.
fn overtaken(stack: &Stack) {
    for _ in 0..2 {
        let other = stack.heat().stack_create(&named("overtakes"), &condition("TOKEN_SIGNAL"), json!({})).unwrap();
        Vm::new("vm-1", token_handle(&other)).succeed("sooner");
        assert_complete(&other);
    }
}

fn with_token(name: &str, case: impl FnOnce(&Stack)) {
    with_stack(name, &condition("TOKEN_SIGNAL"), json!({}), case);
}

fn token_success() {
    with_token("token-success", |stack| {
        Vm::new("vm-1", token_handle(stack)).succeed("seven states applied");
        assert_complete(stack);
        assert_eq!(stack.data().unwrap(), json!({"vm-1": "seven states applied"}));
    });
}

fn token_failure() {
    with_token("token-failure", |stack| {
        Vm::new("vm-1", token_handle(stack)).fail("state-failed: two of seven");
        assert_eq!(assert_failed(stack), format!("{FAILED}state-failed: two of seven"));
    });
}

fn token_curl_cli() {
    with_token("token-curl-cli", |stack| {
        Vm::new("vm-1", attribute(stack, "curl_cli")).succeed("by curl_cli");
        assert_complete(stack);
        assert_eq!(stack.data().unwrap(), json!({"vm-1": "by curl_cli"}));
    });
}

/// A token that has expired is answered as one that was revoked.
fn token_worthless() {
    with_token("token-worthless", |stack| {
        let handle = token_handle(stack);
        stack.heat().revoke(handle["token"].as_str().unwrap()).unwrap();
        let told = Vm::new("vm-1", handle).agent(&["signal", "--status", "success"], 70);
        assert!(told.stderr.contains("401") && told.stderr.contains("expired"), "{}", told.stderr);
        assert_tried_five_times(&told.stderr);
        assert_eq!(stack.status().unwrap().0, "CREATE_IN_PROGRESS");
    });
}

fn stack_deleted() {
    with_token("token-deleted", |stack| {
        let handle = token_handle(stack);
        stack.delete().unwrap();
        let told = Vm::new("vm-1", handle).agent(&["signal", "--status", "success"], 70);
        assert!(told.stderr.contains("stack is gone"), "{}", told.stderr);
    });
}

fn ids_count_once() {
    with_stack("ids-count-once", &condition("TOKEN_SIGNAL"), json!({"count": 2}), |stack| {
        let handle = token_handle(stack);
        let one = Vm::new("vm-1", handle.clone());
        for reason in ["first", "second", "third"] {
            one.succeed(reason);
        }
        // Had one id counted twice, this would have been the end, and the data that of one.
        overtaken(stack);
        assert_eq!(stack.status().unwrap().0, "CREATE_IN_PROGRESS");
        Vm::new("vm-2", handle).succeed("the other");
        assert_complete(stack);
        assert_eq!(stack.data().unwrap(), json!({"vm-1": "third", "vm-2": "the other"}));
    });
}

fn failure_stands() {
    with_token("failure-stands", |stack| {
        let vm = Vm::new("vm-1", token_handle(stack));
        vm.fail("it broke");
        // Until the engine has looked, which it does every second, a second signal under the same id replaces the first.
        assert_eq!(assert_failed(stack), format!("{FAILED}it broke"));
        vm.succeed("no, it did not");
        overtaken(stack);
        assert_eq!(stack.status().unwrap(), ("CREATE_FAILED".to_owned(), format!("{FAILED}it broke")));
    });
}

/// A report of 300 kB: all of it is in the data, and the beginning of it in the stack's status.
fn long_text() {
    with_token("long-text", |stack| {
        let vm = Vm::new("vm-1", token_handle(stack));
        let text = format!("beginning {} end", "rendering failed; ".repeat(17_000));
        // It takes a run to have a report, and this one is not told to Heat.
        let silent = Vm::new("vm-1", Value::Null);
        silent.agent(&["run"], 10);
        let mut report = silent.report();
        report["message"] = json!(text);
        vm.keep_report(&report);
        vm.agent(&["signal"], 0);
        let reason = assert_failed(stack);
        assert!(reason.starts_with(&format!("{FAILED}config: beginning rendering failed")) && reason.ends_with("[...]"), "{reason}");
        assert_eq!(stack.data().unwrap()["vm-1"]["message"], json!(text));
    });
}

fn any_characters() {
    with_token("any-characters", |stack| {
        let reason = "Größe \"1\" \\ 'zwei'\n\t漢字 ﷽ \u{7f} & <b> %s {0} $x";
        Vm::new("vm-1", token_handle(stack)).fail(reason);
        assert_eq!(assert_failed(stack), format!("{FAILED}{reason}"));
    });
}

/// Heat's database is commonly in MySQL's `utf8`, which ends at U+FFFF. A status reason with more than that cannot be
/// written, and the stack then stays in progress for ever; what is data may hold anything.
fn astral_characters() {
    with_token("astral-data", |stack| {
        Vm::new("vm-1", token_handle(stack)).succeed("a crab 🦀 in the log");
        assert_complete(stack);
        assert_eq!(stack.data().unwrap(), json!({"vm-1": "a crab 🦀 in the log"}));
    });
    with_token("astral-reason", |stack| {
        Vm::new("vm-1", token_handle(stack)).fail("a crab 🦀 in the log");
        let reason = assert_failed(stack);
        assert!(reason.starts_with(&format!("{FAILED}a crab ")) && reason.ends_with(" in the log"), "{reason}");
    });
}

fn broken_config() {
    with_token("broken-config", |stack| {
        let vm = Vm::new("vm-1", token_handle(stack));
        vm.agent(&["run"], 10);
        let reason = assert_failed(stack);
        assert!(reason.starts_with(&format!("{FAILED}config: ")), "{reason}");
        let mut report = vm.report();
        assert_eq!(report["signal"].take(), json!({"transport": "TOKEN_SIGNAL", "delivered": true}));
        let data = stack.data().unwrap();
        assert_eq!(data["vm-1"]["reason"], "config");
        assert_eq!(data["vm-1"]["bootstrap_id"], report["bootstrap_id"]);
        assert_eq!(data["vm-1"]["message"], report["message"]);
    });
}

/// What is refused is believed then.
fn assert_tried_five_times(stderr: &str) {
    assert_eq!(stderr.matches("trying again").count(), 4, "{stderr}");
}

/// heat-api is away when the agent wants to tell it something.
fn heat_away() {
    while_away("heat-away", "TOKEN_SIGNAL", Heat::api_url, token_handle);
}

fn keystone_away() {
    while_away("keystone-away", "HEAT_SIGNAL", Heat::keystone_url, |stack| attribute(stack, "signal"));
}

/// Seen from the VM the service is away, and comes back when the agent has tried in vain several times: its time is running.
fn while_away(name: &str, transport: &str, service: fn(&Heat) -> &str, handle: fn(&Stack) -> Value) {
    with_stack(name, &condition(transport), json!({}), |stack| {
        let url = service(stack.heat());
        let wire = Proxy::start(url.trim_start_matches("http://").parse().unwrap()).unwrap();
        let text = handle(stack).to_string().replace(url, &format!("http://{}", wire.address()));
        assert!(text.contains(&wire.address().to_string()), "{text}");
        let vm = Vm::new("vm-1", serde_json::from_str(&text).unwrap());
        wire.refuse(true);
        let agent = vm.start(&["signal", "--status", "success", "--reason", "late"]);
        assert_in_vain(&agent, 3);
        wire.refuse(false);
        let told = agent.finish(LONG).unwrap();
        assert_eq!(told.code, 0, "{}", told.stderr);
        assert_complete(stack);
    });
}

/// Waits until the agent has tried so often in vain.
fn assert_in_vain(agent: &Running, times: usize) {
    let tried = until(LONG, || (agent.stderr_so_far().matches("trying again").count() >= times).then_some(()));
    tried.unwrap_or_else(|error| panic!("{error}: {}", agent.stderr_so_far()));
}

/// A run that fails at once, while heat-api itself is away: its deadline is the limit, and Heat gets the reason.
fn heat_away_for_longer() {
    let heat = alone();
    let heat = heat.as_ref().unwrap();
    let stack = heat.stack_create(&named("heat-away-long"), &condition("TOKEN_SIGNAL"), json!({"timeout": 3000})).unwrap();
    let finger = vec!["ab"; 32].join(":");
    let deadline = Duration::from_secs(30 * 60);
    let vm = Vm::with(&json!({
        "minion": {"id": "vm-1", "master": "127.0.0.1", "master_finger": finger, "program": "/nowhere/salt-minion"},
        "install": {"source": "preinstalled"}, "accept": "none", "deadline": "30m", "signal": token_handle(&stack),
    }));
    heat.stop(Service::HeatApi).unwrap();
    let agent = vm.start(&["run"]);
    assert_in_vain(&agent, 4);
    heat.restart().unwrap();
    let told = agent.finish(deadline).unwrap();
    assert_eq!(told.code, 20, "{}", told.stderr);
    let reason = assert_failed(&stack);
    assert!(reason.starts_with(&format!("{FAILED}package-failed: ")), "{reason}");
    assert_eq!(vm.report()["signal"], json!({"transport": "TOKEN_SIGNAL", "delivered": true}));
}

/// Long after their handles were made: the token has died, and what was signed was signed too long ago. Who can log in anew is still heard.
fn only_heat_signal_lives_on() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let create = |name: &str, template: &Value| heat.stack_create(&named(name), template, json!({"timeout": 600})).unwrap();
    let token = create("old-token", &condition("TOKEN_SIGNAL"));
    let cfn = create("old-cfn", &condition("CFN_SIGNAL"));
    let aws = create("old-aws", &aws_condition());
    let fresh = create("old-heat", &condition("HEAT_SIGNAL"));
    let dead = token_handle(&token);
    heat.revoke(dead["token"].as_str().unwrap()).unwrap();
    let aws_url = aws.reference("url").unwrap();
    let at = |url: &Value, method: &str, time: &str| json!(heat.signed_at(url.as_str().unwrap(), method, time).unwrap());
    let old_cfn = {
        // The attribute is JSON in a text.
        let text = attribute(&cfn, "signal");
        let mut signal: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        signal["alarm_url"] = at(&signal["alarm_url"], "POST", LONG_AGO);
        signal
    };
    let handles =
        [(dead, "401", "expired"), (old_cfn, "403", "15 minutes"), (json!({"url": at(&aws_url, "PUT", LONG_AGO)}), "403", "15 minutes")];
    for (handle, status, why) in handles {
        let vm = Vm::new("vm-1", handle);
        let told = vm.agent(&["signal", "--status", "success"], 70);
        assert!(told.stderr.contains(status) && told.stderr.contains(why) && told.stderr.contains("HEAT_SIGNAL"), "{}", told.stderr);
        assert_tried_five_times(&told.stderr);
    }
    // It was the time, and not the signature: with another time the same URL is taken.
    Vm::new("vm-1", json!({"url": at(&aws_url, "PUT", LONG_HENCE)})).succeed("in time");
    assert_complete(&aws);
    let vm = Vm::new("vm-1", attribute(&fresh, "signal"));
    let checked = vm.agent(&["check"], 10);
    assert!(checked.stdout.contains("\nok      heat           HEAT_SIGNAL at "), "{}", checked.stdout);
    vm.succeed("late");
    assert_complete(&fresh);
}

/// Heat and Keystone behind TLS, with a certificate of an authority that no system knows.
fn own_ca(name: &str, transport: &str, handle: fn(&Stack) -> Value) {
    let authority = Authority::new().unwrap();
    with_stack(name, &condition(transport), json!({}), |stack| {
        let mut text = handle(stack).to_string();
        let mut gates = Vec::new();
        for plain in [stack.heat().api_url(), stack.heat().keystone_url()] {
            let tls = authority.issue(&["127.0.0.1"], Validity::Current).unwrap().server_config().unwrap();
            let target = plain.to_owned();
            let gate = Server::start(Some(tls), move |request| forward(&target, request)).unwrap();
            text = text.replace(plain, &gate.url());
            gates.push(gate);
        }
        let handle: Value = serde_json::from_str(&text).unwrap();
        assert!(text.contains("https://") && !text.contains("http://"), "{text}");
        let told = Vm::new("vm-1", handle.clone()).agent(&["signal", "--status", "success"], 70);
        assert!(told.stderr.contains("certificate"), "{}", told.stderr);
        let vm = Vm::new("vm-1", json!({"signal": handle, "ca": authority.ca_pem()}));
        let checked = vm.agent(&["check"], 10);
        assert!(checked.stdout.contains("\nok      heat           "), "{}", checked.stdout);
        assert_eq!(stack.status().unwrap().0, "CREATE_IN_PROGRESS", "a check counts as nothing");
        vm.succeed("by TLS");
        assert_complete(stack);
        assert_eq!(stack.data().unwrap(), json!({"vm-1": "by TLS"}));
    });
}

fn forward(target: &str, request: &Request) -> Answer {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().proxy(None).http_status_as_error(false).allow_non_standard_methods(true).build().into();
    let mut asked = ureq::http::Request::builder().method(request.method.as_str()).uri(format!("{target}{}", request.path));
    for (name, value) in request.headers.iter().filter(|(name, _)| !["host", "content-length", "connection"].contains(&name.as_str())) {
        asked = asked.header(name, value);
    }
    match agent.run(asked.body(request.body.clone()).unwrap()) {
        Ok(mut answer) => {
            let headers = answer.headers().iter();
            let headers = headers.filter(|(name, _)| !["content-length", "connection", "transfer-encoding"].contains(&name.as_str()));
            let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
            Answer::Reply { status: answer.status().as_u16(), headers, body: answer.body_mut().read_to_vec().unwrap() }
        }
        Err(error) => Answer::text(502, "text/plain", &error.to_string()),
    }
}

/// Names of states and minions are people's own.
fn states_with_odd_names() {
    with_token("odd-names", |stack| {
        let silent = Vm::new("vm-1", Value::Null);
        silent.agent(&["run"], 10);
        let mut report = silent.report();
        let failure = json!({"id": "größe-漢字 \"x\"", "sls": "net.ütf", "comment": "kaputt: ∅"});
        report["states"] = json!({"total": 1, "failed": 1, "changed": 0, "failures": [failure]});
        let vm = Vm::new("vm-1", token_handle(stack));
        vm.keep_report(&report);
        vm.agent(&["signal"], 0);
        let reason = assert_failed(stack);
        assert!(reason.ends_with("; größe-漢字 \"x\" (net.ütf): kaputt: ∅"), "{reason}");
        assert_eq!(stack.data().unwrap()["vm-1"]["states"]["failures"][0], failure);
    });
}

/// The transports whose handles are told by their attribute `signal`, as it is.
fn with_signal_attribute(transport: &str, name: &str, success: bool) {
    with_stack(name, &condition(transport), json!({}), |stack| {
        let vm = Vm::new("vm-1", attribute(stack, "signal"));
        if success {
            vm.succeed("went well");
            assert_complete(stack);
            assert_eq!(stack.data().unwrap(), json!({"vm-1": "went well"}));
        } else {
            vm.fail("went badly");
            assert_eq!(assert_failed(stack), format!("{FAILED}went badly"));
        }
    });
}

fn heat_stack_deleted() {
    with_stack("heat-deleted", &condition("HEAT_SIGNAL"), json!({}), |stack| {
        let handle = attribute(stack, "signal");
        stack.delete().unwrap();
        let told = Vm::new("vm-1", handle).agent(&["signal", "--status", "success"], 70);
        assert!(told.stderr.contains("stack is gone"), "{}", told.stderr);
    });
}

fn aws_success() {
    with_stack("aws-success", &aws_condition(), json!({}), |stack| {
        Vm::new("vm-1", json!({"url": stack.reference("url").unwrap()})).succeed("went well");
        assert_complete(stack);
        let data: Value = serde_json::from_str(stack.attribute("w", "Data").unwrap().as_str().unwrap()).unwrap();
        // This kind of handle wants data that is a text, so the agent sends JSON in one.
        assert_eq!(data, json!({"vm-1": "\"went well\""}));
    });
}

fn aws_failure() {
    with_stack("aws-failure", &aws_condition(), json!({}), |stack| {
        Vm::new("vm-1", json!({"url": stack.reference("url").unwrap()})).fail("went badly");
        assert_eq!(assert_failed(stack), format!("{FAILED}went badly"));
    });
}

/// Nobody is to be told, and nobody is: Heat signals such a condition by itself.
fn no_signal() {
    with_stack("no-signal", &condition("NO_SIGNAL"), json!({}), |stack| {
        let vm = Vm::new("vm-1", attribute(stack, "signal"));
        let told = vm.agent(&["run"], 10);
        assert!(!told.stderr.contains("signal"), "{}", told.stderr);
        assert_eq!(vm.report()["signal"], Value::Null);
        assert_complete(stack);
        assert_eq!(stack.data().unwrap(), json!({"1": null}));
    });
}
