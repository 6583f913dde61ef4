//! A handle of Heat's as a template passes it on, in whatever form Heat gave it: where the signal goes and what it looks like.
//!
//! What Heat gives is made in `heat/engine/resources/wait_condition.py` and `signal_responder.py`; software deployments get the
//! same transports as `deploy_*` inputs (`heat/engine/resources/openstack/heat/software_deployment.py`).

use serde_json::{Map, Value};

use super::curl_cli;
use crate::types::excerpt::quoted;
use crate::types::secret::Secret;
use crate::types::url::Url;

/// Where, how, and in which form Heat wants to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handle {
    /// Where and how.
    pub transport: Transport,
    /// In which form.
    pub form: Form,
}

/// The transports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// TOKEN_SIGNAL: POST to heat-api with a token that lives as long as Keystone lets it, 3600 s by default.
    Token {
        /// The resource's signal URL.
        endpoint: Url,
        /// The content of X-Auth-Token.
        token: Secret,
    },
    /// HEAT_SIGNAL: POST to heat-api with a fresh token for the stack's own user, for as long as the stack lives.
    Heat {
        /// The stack's user.
        login: Keystone,
        /// Where the resource is.
        target: Target,
    },
    /// CFN_SIGNAL: a signed URL of heat-api-cfn. It dies 15 minutes after the handle's creation on a stock Keystone.
    Cfn {
        /// The URL.
        url: Url,
        /// PUT for a wait condition handle, POST for a deployment: heat-api-cfn routes them apart (`heat/api/cfn/v1/__init__.py`).
        method: &'static str,
    },
    /// `AWS::CloudFormation::WaitConditionHandle`: PUT to a signed URL of heat-api-cfn, which dies likewise.
    Aws(Url),
    /// TEMP_URL_SIGNAL: PUT to a signed URL of Swift.
    TempUrl(Url),
    /// ZAQAR_SIGNAL: a message into a queue.
    Zaqar {
        /// The stack's user.
        login: Keystone,
        /// The queue's name.
        queue: String,
    },
}

/// Where heat-api has the resource to signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// At this URL.
    Url(Url),
    /// At this place below the endpoint in Keystone's catalog.
    Resource {
        /// `NAME/ID` of the stack.
        stack: String,
        /// The resource's name in it.
        resource: String,
    },
}

/// What a signal has to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For `OS::Heat::WaitConditionHandle`.
    Condition,
    /// For `AWS::CloudFormation::WaitConditionHandle`, whose keys are others.
    AwsCondition,
    /// For `OS::Heat::SoftwareDeployment`.
    Deployment,
}

/// How to get a token for a stack's user from Keystone v3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keystone {
    /// The identity endpoint, with its `/v3`.
    pub auth_url: Url,
    /// The user's id.
    pub user_id: String,
    /// The password.
    pub password: Secret,
    /// The project the token is for.
    pub project_id: String,
    /// The region in the catalog; any if absent.
    pub region: Option<String>,
}

impl Handle {
    /// The one that is no part of a URL.
    pub fn secret(&self) -> Option<&Secret> {
        match &self.transport {
            Transport::Token { token, .. } => Some(token),
            Transport::Heat { login, .. } | Transport::Zaqar { login, .. } => Some(&login.password),
            Transport::Cfn { .. } | Transport::Aws(_) | Transport::TempUrl(_) => None,
        }
    }

    /// Heat's word for the transport.
    pub fn transport(&self) -> &'static str {
        match self.transport {
            Transport::Token { .. } => "TOKEN_SIGNAL",
            Transport::Heat { .. } => "HEAT_SIGNAL",
            Transport::Cfn { .. } => "CFN_SIGNAL",
            Transport::Aws(_) => "AWS::CloudFormation::WaitConditionHandle",
            Transport::TempUrl(_) => "TEMP_URL_SIGNAL",
            Transport::Zaqar { .. } => "ZAQAR_SIGNAL",
        }
    }

    /// The address that is talked to first.
    pub fn address(&self) -> &Url {
        match &self.transport {
            Transport::Token { endpoint, .. } => endpoint,
            Transport::Heat { login, .. } | Transport::Zaqar { login, .. } => &login.auth_url,
            Transport::Cfn { url, .. } | Transport::Aws(url) | Transport::TempUrl(url) => url,
        }
    }

    /// Which resource of which stack is told. A handle of another stack at the same Heat is another; one with a fresh token or signature
    /// for the same resource is the same.
    pub fn recipient(&self) -> String {
        match &self.transport {
            Transport::Token { .. } | Transport::Cfn { .. } | Transport::Aws(_) | Transport::TempUrl(_) => self.address().to_string(),
            Transport::Heat { target: Target::Url(url), .. } => url.to_string(),
            Transport::Heat { login, target: Target::Resource { stack, resource } } => {
                format!("{} stack {stack} resource {resource}", login.auth_url)
            }
            Transport::Zaqar { login, queue } => format!("{} queue {queue}", login.auth_url),
        }
    }
}

/// Keys beside a handle's own that say how to reach it.
const BESIDE: [&str; 3] = ["ca", "ca_file", "id"];

/// Reads a handle; `Ok(None)` is a handle that wants no signal (NO_SIGNAL). The error is a sentence.
pub fn parse(value: &Value) -> Result<Option<Handle>, String> {
    match value {
        Value::String(text) => parse_text(text.trim()),
        Value::Object(keys) => parse_keys(keys),
        _ => Err("has to be a handle's attributes as a mapping or a text".into()),
    }
}

fn parse_text(text: &str) -> Result<Option<Handle>, String> {
    if text.starts_with("curl ") {
        let (endpoint, token) = curl_cli::parse(text)?;
        return token_signal(endpoint, &token).map(Some);
    }
    if let Ok(url) = Url::parse(text) {
        return presigned(url, Form::AwsCondition).map(Some);
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(keys)) if keys.is_empty() => Ok(None),
        Ok(Value::Object(keys)) => parse_keys(&keys),
        Ok(Value::Null) => {
            Err("is the text \"null\": the `signal` attribute of a TOKEN_SIGNAL handle is empty; pass {endpoint, token} or curl_cli".into())
        }
        _ => Err("is a text, but neither JSON nor a curl command nor a URL".into()),
    }
}

fn parse_keys(keys: &Map<String, Value>) -> Result<Option<Handle>, String> {
    let of = Keys { keys, prefix: "" };
    if let Some(inner) = keys.get("signal") {
        return parse(inner);
    }
    if let Some(deployment) = keys.get("deployment") {
        let inputs = deployment.as_object().ok_or("deployment has to be a mapping of deploy_* inputs")?;
        return deployment_handle(inputs);
    }
    if let Some(command) = of.text("curl_cli") {
        let (endpoint, token) = curl_cli::parse(command)?;
        return token_signal(endpoint, &token).map(Some);
    }
    if let (Some(endpoint), Some(token)) = (of.text("endpoint"), of.text("token")) {
        if let Some(key) = keys.keys().find(|key| !["endpoint", "token"].contains(&key.as_str()) && !BESIDE.contains(&key.as_str())) {
            return Err(format!("unknown key {} beside endpoint and token; known here are {}", quoted(key), BESIDE.join(", ")));
        }
        return token_signal(http_url("endpoint", endpoint)?, token).map(Some);
    }
    if of.text("auth_url").is_some() {
        let login = of.keystone()?;
        let transport = match (of.text("queue_id"), of.text("alarm_url")) {
            (Some(queue), _) => Transport::Zaqar { login, queue: queue.to_owned() },
            (None, Some(url)) => Transport::Heat { login, target: Target::Url(http_url("alarm_url", url)?) },
            (None, None) => return Err("has auth_url, but neither alarm_url (HEAT_SIGNAL) nor queue_id (ZAQAR_SIGNAL)".into()),
        };
        return Ok(Some(Handle { transport, form: Form::Condition }));
    }
    if let Some(url) = of.text("alarm_url") {
        return presigned(http_url("alarm_url", url)?, Form::Condition).map(Some);
    }
    if let Some(url) = of.text("url") {
        return presigned(http_url("url", url)?, Form::AwsCondition).map(Some);
    }
    Err("holds no handle: endpoint and token, curl_cli, signal, url, or deployment is needed".into())
}

/// The inputs that Heat adds to every software deployment.
fn deployment_handle(inputs: &Map<String, Value>) -> Result<Option<Handle>, String> {
    let of = Keys { keys: inputs, prefix: "deploy_" };
    let transport = match of.needed("signal_transport")? {
        "NO_SIGNAL" => return Ok(None),
        "CFN_SIGNAL" => {
            let method = if of.text("signal_verb") == Some("PUT") { "PUT" } else { "POST" };
            Transport::Cfn { url: http_url("deploy_signal_id", of.needed("signal_id")?)?, method }
        }
        "TEMP_URL_SIGNAL" => Transport::TempUrl(http_url("deploy_signal_id", of.needed("signal_id")?)?),
        "HEAT_SIGNAL" => {
            let target = Target::Resource { stack: of.needed("stack_id")?.to_owned(), resource: of.needed("resource_name")?.to_owned() };
            Transport::Heat { login: of.keystone()?, target }
        }
        "ZAQAR_SIGNAL" => Transport::Zaqar { login: of.keystone()?, queue: of.needed("queue_id")?.to_owned() },
        other => {
            return Err(format!(
                "deploy_signal_transport {} is not known: CFN_SIGNAL, HEAT_SIGNAL, TEMP_URL_SIGNAL, ZAQAR_SIGNAL or NO_SIGNAL",
                quoted(other)
            ));
        }
    };
    Ok(Some(Handle { transport, form: Form::Deployment }))
}

/// A signed URL says by itself where it leads, but not what it wants to hear: the URLs of both kinds of wait condition handle look
/// the same. An OS::Heat one gives it as `alarm_url`, an AWS one as itself.
fn presigned(url: Url, handle: Form) -> Result<Handle, String> {
    let (transport, form) = if url.parameter("temp_url_sig").is_some() {
        (Transport::TempUrl(url), Form::Condition)
    } else if url.path().contains("/waitcondition/") && handle == Form::AwsCondition {
        (Transport::Aws(url), Form::AwsCondition)
    } else if url.path().contains("/waitcondition/") {
        (Transport::Cfn { url, method: "PUT" }, Form::Condition)
    } else if url.path().contains("/signal/") {
        (Transport::Cfn { url, method: "POST" }, Form::Condition)
    } else {
        return Err("the URL is none that Heat gives: neither /v1/signal/ nor /v1/waitcondition/ nor a temporary URL".into());
    };
    Ok(Handle { transport, form })
}

fn token_signal(endpoint: Url, token: &str) -> Result<Handle, String> {
    if token.chars().any(|c| c.is_control() || c.is_whitespace() || !c.is_ascii()) {
        return Err("the token holds characters that no header can carry".into());
    }
    let transport = Transport::Token { endpoint, token: Secret::new(token) };
    Ok(Handle { transport, form: Form::Condition })
}

fn http_url(what: &str, url: &str) -> Result<Url, String> {
    // It may be a signature, or another secret in a wrong place: only its beginning is shown.
    Url::parse(url).map_err(|_| format!("{what} ({:?}...) is no http(s) URL", url.chars().take(12).collect::<String>()))
}

/// The keys of a mapping, with the prefix that they bear there.
struct Keys<'a> {
    keys: &'a Map<String, Value>,
    prefix: &'static str,
}

impl<'a> Keys<'a> {
    fn text(&self, key: &str) -> Option<&'a str> {
        self.keys.get(&format!("{}{key}", self.prefix)).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
    }

    fn needed(&self, key: &str) -> Result<&'a str, String> {
        self.text(key).ok_or_else(|| format!("{}{key} is missing in the handle", self.prefix))
    }

    fn keystone(&self) -> Result<Keystone, String> {
        // Heat gives the versioned or the unversioned URL, as it is configured.
        let given = self.needed("auth_url")?.trim_end_matches('/');
        let top = ["/v2.0", "/v3"].iter().find_map(|version| given.strip_suffix(version)).unwrap_or(given);
        Ok(Keystone {
            auth_url: http_url("auth_url", &format!("{top}/v3"))?,
            user_id: self.needed("user_id")?.to_owned(),
            password: Secret::new(self.needed("password")?),
            project_id: self.needed("project_id")?.to_owned(),
            region: self.text("region_name").map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(value: &Value) -> Handle {
        parse(value).unwrap_or_else(|why| panic!("{value}: {why}")).unwrap_or_else(|| panic!("{value}: no signal"))
    }

    #[test]
    fn the_forms_of_a_token_signal() {
        let curl = "curl -i -X POST -H 'X-Auth-Token: gAAAA-tok_en' -H 'Accept: application/json' http://heat:8004/v1/p/signal";
        let keys = json!({"endpoint": "http://heat:8004/v1/p/signal", "token": "gAAAA-tok_en", "id": "web-1"});
        let transport =
            Transport::Token { endpoint: Url::parse("http://heat:8004/v1/p/signal").unwrap(), token: Secret::new("gAAAA-tok_en") };
        for form in [keys.clone(), json!(keys.to_string()), json!(curl), json!({"curl_cli": curl}), json!({"signal": curl})] {
            assert_eq!(parsed(&form), Handle { transport: transport.clone(), form: Form::Condition }, "{form}");
        }
    }

    #[test]
    fn the_signal_attribute_of_a_heat_signal() {
        // A JSON text, as heat-api 27 gives it; passwords hold such characters.
        let attribute = json!({"alarm_url": "http://heat:8004/v1/p/stacks/s/1/resources/h/signal", "auth_url": "http://ks:5000", "domain_id": "d",
            "password": "^a#b@c%", "project_id": "p", "region_name": "RegionOne", "user_id": "u", "username": "h-1"});
        let handle = parsed(&json!(attribute.to_string()));
        let Transport::Heat { login, target: Target::Url(url) } = &handle.transport else { panic!("{handle:?}") };
        assert_eq!(
            (login.auth_url.expose(), login.password.expose(), url.expose()),
            ("http://ks:5000/v3", "^a#b@c%", attribute["alarm_url"].as_str().unwrap())
        );
        assert_eq!(handle.transport(), "HEAT_SIGNAL");
        assert_eq!(parsed(&json!({"signal": attribute, "id": "n-1"})), handle);
    }

    #[test]
    fn what_is_told_is_a_resource_and_not_an_address() {
        let deployment = |password: &str, transport: &str, stack: &str, resource: &str| {
            let inputs = json!({"deploy_signal_transport": transport, "deploy_auth_url": "https://k/v3", "deploy_user_id": "u",
                "deploy_password": password, "deploy_project_id": "q", "deploy_stack_id": stack, "deploy_resource_name": resource,
                "deploy_queue_id": resource});
            parsed(&json!({"deployment": inputs})).recipient()
        };
        let heat = |stack, resource| deployment("p", "HEAT_SIGNAL", stack, resource);
        let queue = |name| deployment("p", "ZAQAR_SIGNAL", "s/1", name);
        let all = [heat("s/1", "a"), heat("s/1", "b"), heat("s/2", "a"), queue("1"), queue("2")];
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{all:?}");
        // A password that is new is no other resource.
        assert_eq!(deployment("new", "HEAT_SIGNAL", "s/1", "a"), all[0]);
    }

    #[test]
    fn signed_urls_and_how_they_were_given() {
        let aws = "AWS::CloudFormation::WaitConditionHandle";
        let wait = "http://h:8000/v1/waitcondition/arn%3Aopenstack%3A1?Timestamp=x&Signature=y";
        let signal = "http://h:8000/v1/signal/arn%3Aopenstack%3A1?Signature=y";
        let temporary = "https://swift/v1/AUTH_x/c/o?temp_url_sig=a&temp_url_expires=1";
        for (form, transport, keys) in [
            (json!({"alarm_url": wait}), "CFN_SIGNAL", Form::Condition),
            (json!({"alarm_url": wait}).to_string().into(), "CFN_SIGNAL", Form::Condition),
            (json!({"alarm_url": signal}), "CFN_SIGNAL", Form::Condition),
            (json!({"url": wait}), aws, Form::AwsCondition),
            (json!(wait), aws, Form::AwsCondition),
            (json!({"alarm_url": temporary}), "TEMP_URL_SIGNAL", Form::Condition),
        ] {
            let handle = parsed(&form);
            assert_eq!((handle.transport(), handle.form), (transport, keys), "{form}");
            assert!(!format!("{handle:?} {}", handle.address()).contains("ignature=y"));
        }
    }

    #[test]
    fn deployments_bring_their_inputs() {
        let heat = json!({"deployment": {"deploy_signal_transport": "HEAT_SIGNAL", "deploy_auth_url": "http://ks:5000/v3/", "deploy_user_id": "u",
            "deploy_password": "x", "deploy_project_id": "p", "deploy_stack_id": "s/1", "deploy_resource_name": "d", "other": "input"}});
        let handle = parsed(&heat);
        assert!(
            matches!(&handle.transport, Transport::Heat { target: Target::Resource { stack, .. }, .. } if stack == "s/1"),
            "{handle:?}"
        );
        assert_eq!(handle.form, Form::Deployment);
        let cfn = json!({"deployment": {"deploy_signal_transport": "CFN_SIGNAL", "deploy_signal_id": "http://h/v1/signal/a", "deploy_signal_verb": "POST"}});
        assert_eq!(parsed(&cfn).transport(), "CFN_SIGNAL");
        assert_eq!(parse(&json!({"deployment": {"deploy_signal_transport": "NO_SIGNAL"}})), Ok(None));
    }

    #[test]
    fn no_signal_is_no_handle() {
        assert_eq!(parse(&json!("{}")), Ok(None));
    }

    #[test]
    fn what_is_no_handle_is_told_why() {
        for (form, word) in [
            (json!({"auth_url": "http://k/v3", "user_id": "u", "password": "p", "project_id": "x"}), "neither alarm_url"),
            (json!({"auth_url": "http://k/v3", "user_id": "u"}), "password"),
            (json!({"endpoint": "http://c/"}), "no handle"),
            (json!("http://c/"), "none that Heat gives"),
            (json!("null"), "null"),
            (json!(3), "mapping"),
            (json!("curl -X POST http://x"), "X-Auth-Token"),
            (json!({"endpoint": "ftp://x", "token": "t"}), "http"),
            (json!({"endpoint": "http://x", "token": "t\nEvil: 1"}), "header"),
            (json!({"endpoint": "http://x", "token": "t", "tocken": "t"}), "tocken"),
            (json!({"deployment": {"deploy_signal_transport": "PIGEON"}}), "PIGEON"),
            (json!({"deployment": {}}), "deploy_signal_transport"),
        ] {
            let complaint = parse(&form).unwrap_err();
            assert!(complaint.contains(word), "{form}: {complaint}");
        }
    }
}
