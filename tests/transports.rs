//! Each of Heat's signal transports, as it goes over the wire: a scripted peer plays Keystone, heat-api, heat-api-cfn, Swift and
//! Zaqar. What real Heat does with these requests is not shown here; the shapes are those that Heat's own code expects
//! (see src/heat/signal.rs and src/heat/handle.rs, which name its files).

use lab::http::{Answer, Request};
use lab::peer::{Certificate, Scripted};
use lab::process::Finished;
use lab::sandbox::Sandbox;
use lab::tls::Authority;
use serde_json::{Value, json};

const PASSWORD: &str = "^pass#w@rd%";

/// A peer that answers everything as OpenStack would; TLS, to see that the handle's own CA serves.
fn openstack() -> (Scripted, Authority) {
    let authority = Authority::new().unwrap();
    let peer = Scripted::start(&authority, Certificate::Good, |request| match request.path.as_str() {
        "/v3/auth/tokens" if request.json()["auth"]["identity"]["password"]["user"]["password"] == PASSWORD => {
            let host = request.header("host").unwrap_or_default();
            let at = |path: &str| json!([{"interface": "public", "region": "RegionOne", "url": format!("https://{host}{path}")}]);
            let catalog = json!([{"type": "orchestration", "endpoints": at("/v1/p")}, {"type": "messaging", "endpoints": at("")}]);
            let Answer::Reply { status, headers, body } = Answer::json(201, &json!({"token": {"catalog": catalog}})) else {
                unreachable!()
            };
            let headers = headers.into_iter().chain([("X-Subject-Token".to_owned(), "fresh-token".to_owned())]).collect();
            Answer::Reply { status, headers, body }
        }
        "/v3/auth/tokens" => Answer::json(401, &json!({"error": {"code": 401}})),
        path if path.starts_with("/v1/waitcondition/dead") => Answer::text(403, "text/xml", "<ErrorResponse/>"),
        _ => Answer::json(200, &Value::Null),
    })
    .unwrap();
    (peer, authority)
}

/// Sends FAILURE by hand to a handle; the peer is put in for HOST.
fn signal(peer: &Scripted, authority: &Authority, handle: &Value) -> Finished {
    let mut signal: Value = serde_json::from_str(&handle.to_string().replace("HOST", &peer.address().to_string())).unwrap();
    signal["ca"] = json!(authority.ca_pem());
    signal["id"] = json!("web-1");
    let machine = Sandbox::configured(env!("CARGO_BIN_EXE_heat-salt-bootstrap"), &json!({"signal": signal}));
    machine.run(&["signal", "--status", "failure", "--reason", "näh", "-v"])
}

/// The one request that is the signal, once it was seen that it was delivered and that nothing secret was logged.
fn delivered(handle: Value) -> Request {
    let (peer, authority) = openstack();
    let output = signal(&peer, &authority, &handle);
    let log = output.stderr.clone();
    assert_eq!(output.code, 0, "{log}");
    for secret in [PASSWORD, "fresh-token", "Signature=", "temp_url_sig="] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    peer.requests().pop().unwrap()
}

fn keystone(more: Value) -> Value {
    let mut handle =
        json!({"auth_url": "https://HOST", "user_id": "u", "password": PASSWORD, "project_id": "p", "region_name": "RegionOne"});
    handle.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    handle
}

fn condition() -> Value {
    json!({"status": "FAILURE", "reason": "näh", "id": "web-1", "data": "näh"})
}

#[test]
fn heat_signal_logs_in_and_posts() {
    let request =
        delivered(json!({"signal": keystone(json!({"alarm_url": "https://HOST/v1/p/stacks/s/1/resources/h/signal"})).to_string()}));
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v1/p/stacks/s/1/resources/h/signal"));
    assert_eq!((request.header("x-auth-token"), request.header("content-type")), (Some("fresh-token"), Some("application/json")));
    assert_eq!(request.json(), condition());
}

#[test]
fn cfn_signal_of_a_wait_condition_is_put_with_heats_own_keys() {
    let request = delivered(json!({"alarm_url": "https://HOST/v1/waitcondition/arn%3A1?Signature=x"}));
    assert_eq!((request.method.as_str(), request.json()), ("PUT", condition()));
}

#[test]
fn cfn_signal_posts_to_its_url_as_it_is() {
    let request = delivered(json!({"alarm_url": "https://HOST/v1/signal/arn%3Aopenstack%3Aheat?Timestamp=2026&Signature=a%2Bb%3D"}));
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/v1/signal/arn%3Aopenstack%3Aheat?Timestamp=2026&Signature=a%2Bb%3D")
    );
    assert_eq!(request.json(), condition());
}

#[test]
fn an_aws_handle_gets_its_own_keys_by_put() {
    let request = delivered(json!({"url": "https://HOST/v1/waitcondition/arn%3A1?Signature=x"}));
    assert_eq!(request.method, "PUT");
    assert_eq!(request.json(), json!({"Status": "FAILURE", "Reason": "näh", "UniqueId": "web-1", "Data": "\"näh\""}));
}

#[test]
fn a_temporary_url_is_put_to() {
    let request = delivered(json!({"alarm_url": "https://HOST/v1/AUTH_p/c/o?temp_url_sig=x&temp_url_expires=1"}));
    assert_eq!((request.method.as_str(), request.json()), ("PUT", condition()));
}

#[test]
fn a_zaqar_queue_gets_a_message() {
    let request = delivered(keystone(json!({"queue_id": "q-1"})));
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/v2/queues/q-1/messages"));
    assert_eq!(request.json()["messages"][0]["body"], condition());
    assert!(request.header("client-id").is_some());
}

#[test]
fn a_deployment_gets_its_outputs() {
    let heat = json!({"deploy_signal_transport": "HEAT_SIGNAL", "deploy_auth_url": "https://HOST/v3", "deploy_user_id": "u", "deploy_password": PASSWORD,
        "deploy_project_id": "p", "deploy_region_name": "RegionOne", "deploy_stack_id": "s/1", "deploy_resource_name": "d"});
    let request = delivered(json!({"deployment": heat}));
    assert_eq!(request.path, "/v1/p/stacks/s/1/resources/d/signal");
    let outputs = request.json();
    assert_eq!((&outputs["deploy_status_code"], &outputs["deploy_stderr"]), (&json!(1), &json!("näh")));
}

#[test]
fn what_is_refused_is_believed_after_the_fifth_time() {
    for (handle, word, most) in [
        (json!({"url": "https://HOST/v1/waitcondition/dead?Signature=x"}), "15 minutes", 5),
        (
            json!({"auth_url": "https://HOST", "user_id": "u", "password": "old", "project_id": "p", "alarm_url": "https://HOST/x"}),
            "Keystone answered 401",
            5,
        ),
    ] {
        let (peer, authority) = openstack();
        let output = signal(&peer, &authority, &handle);
        let log = output.stderr.clone();
        assert_eq!(output.code, 70, "{log}");
        assert!(log.contains(word), "{log}");
        assert_eq!(peer.requests().len(), most, "{log}");
    }
}

#[test]
fn a_ca_that_is_not_ours_is_not_talked_to() {
    let (peer, _) = openstack();
    let output = signal(&peer, &Authority::new().unwrap(), &json!({"url": "https://HOST/v1/waitcondition/a?Signature=x"}));
    assert_eq!(output.code, 70);
    assert!(peer.requests().is_empty());
}
