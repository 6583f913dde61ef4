//! A real Heat behind a real Keystone, from a private directory on loopback. There is no Nova:
//! what it would be asked to boot is written down (heat/plugins).
//!
//! For what only the real one proves: that a signal which was answered with 200 was also counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use ureq::Agent;

use crate::process::{Guard, run, until};

/// From nothing, on a machine that is busy with other tests; the environment may have to be built first.
const UP_WITHIN: Duration = Duration::from_secs(1800);
/// Longer than anything takes that a running Heat does at all.
const LONG: Duration = Duration::from_secs(120);

/// A running Heat.
pub struct Heat {
    agent: Agent,
    up: Value,
    dir: PathBuf,
    login: Mutex<Option<Login>>,
    _guard: Guard,
}

/// One of the services, to be stopped and started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// What answers signals by token.
    HeatApi,
    /// What answers signals to signed URLs.
    HeatApiCfn,
    /// What judges them.
    HeatEngine,
    /// What gives tokens.
    Keystone,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Service::HeatApi => "heat-api",
            Service::HeatApiCfn => "heat-api-cfn",
            Service::HeatEngine => "heat-engine",
            Service::Keystone => "keystone",
        }
    }
}

impl Heat {
    /// Starts one as a stock installation has it, and returns when it answers.
    pub fn start() -> Result<Heat> {
        // Short, because the path of a Unix socket may have 107 characters.
        let dir = tempfile::Builder::new().prefix("hsb-heat-").tempdir()?.keep();
        // Before anything is started: nothing is left behind whenever this ends.
        let clean_up = format!("'{}' \"$SUBJECT\"; [ \"$HSB_KEEP\" = 1 ] || rm -rf \"$SUBJECT\"", script("down.sh").display());
        let guard = Guard::new(&clean_up, dir.to_str().context("a directory with a name in UTF-8")?)?;
        let agent =
            Agent::config_builder().proxy(None).http_status_as_error(false).timeout_global(Some(Duration::from_secs(60))).build().into();
        let up = up(&dir)?;
        Ok(Heat { agent, up, dir, login: Mutex::default(), _guard: guard })
    }

    /// Stops one of the services.
    pub fn stop(&self, service: Service) -> Result<()> {
        let finished = run(Command::new(script("down.sh")).arg(&self.dir).arg(service.name()), UP_WITHIN)?;
        if finished.code != 0 {
            bail!("down.sh ended with {}: {}", finished.code, finished.stderr);
        }
        Ok(())
    }

    /// Starts the services that were stopped or have ended, leaves the others alone, and returns when all answer.
    pub fn restart(&self) -> Result<()> {
        up(&self.dir).map(drop)
    }

    /// Do all the services run?
    pub fn is_whole(&self) -> bool {
        let mark = format!("HSB_HEAT_LAB={}", self.dir.display());
        ["mariadb", "epmd", "rabbitmq", "keystone", "heat-engine", "heat-api", "heat-api-cfn"].iter().all(|name| {
            let pid = fs::read_to_string(self.dir.join(format!("run/{name}.pid"))).unwrap_or_default();
            let environment = fs::read(format!("/proc/{}/environ", pid.trim())).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
        })
    }

    /// Where heat-api answers.
    pub fn api_url(&self) -> &str {
        self.text("heat")
    }

    /// Where Keystone answers.
    pub fn keystone_url(&self) -> &str {
        self.text("keystone")
    }

    /// With these in its environment `openstack` is the owner of the stacks.
    pub fn openrc(&self) -> Vec<(&'static str, String)> {
        let text = |key| self.text(key).to_owned();
        let domain = "default".to_owned();
        vec![
            ("OS_AUTH_URL", format!("{}/v3", text("keystone"))),
            ("OS_IDENTITY_API_VERSION", "3".to_owned()),
            ("OS_USERNAME", text("user")),
            ("OS_PASSWORD", text("password")),
            ("OS_PROJECT_NAME", text("project")),
            ("OS_USER_DOMAIN_ID", domain.clone()),
            ("OS_PROJECT_DOMAIN_ID", domain),
        ]
    }

    /// Where a service writes what it does.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Creates a stack of a HOT template, which may be written as JSON, and does not wait for it.
    pub fn stack_create(&self, name: &str, template: &Value, parameters: Value) -> Result<Stack<'_>> {
        let login = self.login()?;
        let url = format!("{}/v1/{}/stacks", self.text("heat"), login.project);
        let body =
            json!({"stack_name": name, "template": template, "parameters": parameters, "timeout_mins": 10, "disable_rollback": true});
        let answer = self.ask("POST", &url, Some(&body))?;
        let id = answer["stack"]["id"].as_str().with_context(|| format!("no stack came of it: {answer}"))?;
        Ok(Stack { heat: self, url: format!("{url}/{name}/{id}") })
    }

    /// Creates a stack of a template as it is written, with the files that it names.
    pub fn stack_of(&self, name: &str, template: &str, files: &[(&str, String)], parameters: Value) -> Result<Stack<'_>> {
        let login = self.login()?;
        let url = format!("{}/v1/{}/stacks", self.text("heat"), login.project);
        let mut body = json!({"stack_name": name, "parameters": parameters, "timeout_mins": 10, "disable_rollback": true});
        add_template(&mut body, template, files);
        let answer = self.ask("POST", &url, Some(&body))?;
        let id = answer["stack"]["id"].as_str().with_context(|| format!("no stack came of it: {answer}"))?;
        Ok(Stack { heat: self, url: format!("{url}/{name}/{id}") })
    }

    /// A stack that somebody else has made, such as a group its node's.
    pub fn stack_named(&self, name: &str) -> Result<Stack<'_>> {
        let login = self.login()?;
        let url = format!("{}/v1/{}/stacks/{name}", self.text("heat"), login.project);
        let found = self.ask("GET", &url, None)?;
        let id = found["stack"]["id"].as_str().with_context(|| format!("no stack of that name: {found}"))?;
        Ok(Stack { heat: self, url: format!("{url}/{id}") })
    }

    /// Has a template validated, with the files that it names; what Heat says of its parameters.
    pub fn validate(&self, template: &str, files: &[(&str, String)]) -> Result<Value> {
        let login = self.login()?;
        let mut body = json!({});
        add_template(&mut body, template, files);
        self.ask("POST", &format!("{}/v1/{}/validate", self.text("heat"), login.project), Some(&body))
    }

    /// The inputs of the deployments on a server, as what runs them there is told.
    pub fn deployment_inputs(&self, server: &str) -> Result<Vec<Map<String, Value>>> {
        let login = self.login()?;
        let base = format!("{}/v1/{}", self.text("heat"), login.project);
        let all = self.ask("GET", &format!("{base}/software_deployments?server_id={server}"), None)?;
        let mut found = Vec::new();
        for deployment in all["software_deployments"].as_array().into_iter().flatten() {
            let id = deployment["config_id"].as_str().context("a deployment without a config")?;
            let config = self.ask("GET", &format!("{base}/software_configs/{id}"), None)?;
            let inputs = config["software_config"]["inputs"].as_array().cloned().unwrap_or_default();
            let mut map: Map<String, Value> =
                inputs.iter().filter_map(|input| Some((input["name"].as_str()?.to_owned(), input["value"].clone()))).collect();
            map.insert("config_text".to_owned(), config["software_config"]["config"].clone());
            found.push(map);
        }
        Ok(found)
    }

    /// What Nova would have been asked to boot, by the servers' names: the directories where it lies.
    pub fn servers(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.join("servers"));
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.join("server.json").exists()).collect()
    }

    /// The same signed URL as it would be had it been made at another time, such as `2026-11-23T22:41:39Z`.
    pub fn signed_at(&self, url: &str, method: &str, time: &str) -> Result<String> {
        let by = self.log_in_as("admin", "admin")?.token;
        let all = format!("{}/v3/credentials?type=ec2", self.text("keystone"));
        let (status, credentials) = self.ask_with("GET", &all, &by, None)?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/heat/sign.py");
        let mut command = Command::new(python()?);
        let finished = run(command.arg(script).args([url, method, time]).arg(&credentials), UP_WITHIN)?;
        if finished.code != 0 {
            bail!("{url} cannot be signed ({status}): {}", finished.stderr);
        }
        Ok(finished.stdout.trim().to_owned())
    }

    /// Makes a token worthless before its time, as its expiry does.
    pub fn revoke(&self, token: &str) -> Result<()> {
        let url = format!("{}/v3/auth/tokens", self.text("keystone"));
        let by = self.log_in_as("admin", "admin")?.token;
        let response = self.agent.delete(&url).header("X-Auth-Token", &by).header("X-Subject-Token", token).call()?;
        if response.status() != 204 {
            bail!("DELETE {url}: {}", response.status());
        }
        Ok(())
    }

    /// The owner of the stacks, who stays logged in.
    fn login(&self) -> Result<Login> {
        let mut kept = self.login.lock().unwrap();
        if kept.is_none() {
            *kept = Some(self.log_in_as(self.text("user"), self.text("project"))?);
        }
        kept.clone().context("just logged in")
    }

    /// Asks as the owner of the stacks; logs in anew if the token has died, however long ago it was made.
    fn ask(&self, method: &str, url: &str, body: Option<&Value>) -> Result<Value> {
        let token = self.login()?.token;
        let (status, text) = match self.ask_with(method, url, &token, body)? {
            (401, _) => {
                self.login.lock().unwrap().take_if(|login| login.token == token);
                self.ask_with(method, url, &self.login()?.token, body)?
            }
            other => other,
        };
        if !(200..300).contains(&status) {
            // What it is about comes last, after sentences that are always the same.
            let said: Value = serde_json::from_str(&text).unwrap_or_default();
            let about = said["error"]["message"].as_str().map(|message| format!("{message}: ")).unwrap_or_default();
            bail!("{status}: {about}{method} {url}: {text}");
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("{method} {url}: no JSON: {text}"))
    }

    fn log_in_as(&self, user: &str, project: &str) -> Result<Login> {
        let domain = json!({"id": "default"});
        let user = json!({"name": user, "password": self.text("password"), "domain": domain});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        let url = format!("{}/v3/auth/tokens", self.text("keystone"));
        let mut response = self.agent.post(&url).header("Content-Type", "application/json").send(body.to_string())?;
        let text = response.body_mut().read_to_string()?;
        let token = response.headers().get("X-Subject-Token").with_context(|| format!("POST {url}: {}: {text}", response.status()))?;
        let token = token.to_str()?.to_owned();
        let answer: Value = serde_json::from_str(&text)?;
        let project = answer["token"]["project"]["id"].as_str().context("a token without a project")?.to_owned();
        Ok(Login { token, project })
    }

    fn ask_with(&self, method: &str, url: &str, token: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let request = match method {
            "POST" | "PUT" => {
                let request = if method == "PUT" { self.agent.put(url) } else { self.agent.post(url) };
                let request = request.header("Content-Type", "application/json");
                request.header("X-Auth-Token", token).send(body.unwrap_or(&Value::Null).to_string())
            }
            "DELETE" => self.agent.delete(url).header("X-Auth-Token", token).call(),
            _ => self.agent.get(url).header("X-Auth-Token", token).call(),
        };
        let mut response = request.with_context(|| format!("{method} {url}"))?;
        // What a stack says may be long.
        let text = response.body_mut().with_config().limit(50_000_000).read_to_string()?;
        Ok((response.status().as_u16(), text))
    }

    fn text(&self, key: &str) -> &str {
        self.up[key].as_str().unwrap_or_default()
    }
}

fn add_template(body: &mut Value, template: &str, files: &[(&str, String)]) {
    body["template"] = template.into();
    body["files"] = files.iter().map(|(name, text)| ((*name).to_owned(), json!(text))).collect::<Map<_, _>>().into();
}

#[derive(Clone)]
struct Login {
    token: String,
    project: String,
}

/// A stack.
pub struct Stack<'a> {
    heat: &'a Heat,
    url: String,
}

impl Stack<'_> {
    /// Whose it is.
    pub fn heat(&self) -> &Heat {
        self.heat
    }

    /// Its status, such as CREATE_COMPLETE, and the reason.
    pub fn status(&self) -> Result<(String, String)> {
        let stack = self.show()?;
        let text = |key: &str| stack[key].as_str().unwrap_or_default().to_owned();
        Ok((text("stack_status"), text("stack_status_reason")))
    }

    /// Waits until it has one of these statuses; returns that and the reason.
    pub fn wait(&self, statuses: &[&str], timeout: Duration) -> Result<(String, String)> {
        let mut last = None;
        let found = until(timeout, || {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.status();
            let is_one = now.as_ref().is_ok_and(|(status, _)| statuses.contains(&status.as_str()));
            last = Some(now);
            if is_one { last.take() } else { None }
        });
        match found {
            Ok(found) => found,
            Err(error) => Err(error.context(format!("the stack is none of {statuses:?}, but {last:?}"))),
        }
    }

    /// An attribute of a resource, as soon as the resource is complete or has failed: the stack may still be on its way.
    pub fn attribute(&self, resource: &str, name: &str) -> Result<Value> {
        let url = format!("{}/resources/{resource}?with_attr={name}", self.url);
        let mut last = Value::Null;
        let found = until(LONG, || {
            let answer = self.heat.ask("GET", &url, None);
            last = match answer {
                Ok(mut answer) => answer["resource"].take(),
                Err(error) => format!("{error:#}").into(),
            };
            if matches!(last["resource_status"].as_str(), Some("CREATE_COMPLETE" | "CREATE_FAILED")) {
                return Some(last["attributes"][name].clone());
            }
            std::thread::sleep(Duration::from_millis(100));
            None
        });
        found.with_context(|| format!("{resource} has no attributes: {last}"))
    }

    /// What `get_resource` gives for a resource: an AWS handle's signed URL.
    pub fn reference(&self, output: &str) -> Result<Value> {
        let found = until(LONG, || {
            std::thread::sleep(Duration::from_millis(100));
            self.output(output).ok().filter(|value| value.as_str().is_some_and(|text| text.starts_with("http")))
        });
        found.with_context(|| format!("the output {output} is empty"))
    }

    /// One of its outputs; those are there while the stack is on its way, as far as it has come.
    pub fn output(&self, name: &str) -> Result<Value> {
        let url = format!("{}/outputs/{name}", self.url);
        let mut answer = self.heat.ask("GET", &url, None)?;
        Ok(answer["output"]["output_value"].take())
    }

    /// The `data` of its wait condition `w`: id to data.
    pub fn data(&self) -> Result<Value> {
        let data = self.attribute("w", "data")?;
        let text = data.as_str().with_context(|| format!("the data is {data}"))?;
        Ok(serde_json::from_str(text)?)
    }

    /// What has been signalled to one of its resources, as its events tell it, in the order in which it came. A handle's are
    /// `status:STATUS reason:REASON`. What Heat has lost is not among them.
    pub fn signals(&self, resource: &str) -> Result<Vec<String>> {
        let url = format!("{}/resources/{resource}/events?sort_keys=created_at&sort_dir=asc", self.url);
        let answer = self.heat.ask("GET", &url, None)?;
        let reasons = answer["events"].as_array().into_iter().flatten().filter_map(|event| event["resource_status_reason"].as_str());
        Ok(reasons.filter_map(|reason| reason.strip_prefix("Signal: ")).map(str::to_owned).collect())
    }

    /// Signals one of its resources as its owner, such as a scaling policy.
    pub fn signal(&self, resource: &str) -> Result<()> {
        self.heat.ask("POST", &format!("{}/resources/{resource}/signal", self.url), Some(&json!({}))).map(drop)
    }

    /// Updates it to this template and these parameters.
    pub fn update(&self, template: &str, files: &[(&str, String)], parameters: Value) -> Result<()> {
        let mut body = json!({"parameters": parameters});
        add_template(&mut body, template, files);
        // It is accepted by a page, and not by JSON.
        let (status, text) = self.heat.ask_with("PUT", &self.url, &self.heat.login()?.token, Some(&body))?;
        if status == 202 { Ok(()) } else { bail!("the update is answered with {status}: {text}") }
    }

    /// What an update to this template and these parameters would do, with what is nested: `resource_changes`, by what becomes of a resource.
    pub fn preview(&self, template: &str, files: &[(&str, String)], parameters: Value) -> Result<Value> {
        let mut body = json!({"parameters": parameters});
        add_template(&mut body, template, files);
        let mut answer = self.heat.ask("PUT", &format!("{}/preview?show_nested=True", self.url), Some(&body))?;
        Ok(answer["resource_changes"].take())
    }

    /// Deletes it, and waits until it is gone.
    pub fn delete(&self) -> Result<()> {
        self.heat.ask("DELETE", &self.url, None)?;
        let gone = || {
            std::thread::sleep(Duration::from_millis(100));
            match self.status() {
                Ok((status, _)) => (status == "DELETE_COMPLETE").then_some(()),
                Err(error) => format!("{error:#}").contains(": 404: ").then_some(()),
            }
        };
        until(LONG, gone).context("the stack is still there")
    }

    fn show(&self) -> Result<Value> {
        let mut answer = self.heat.ask("GET", &format!("{}?resolve_outputs=false", self.url), None)?;
        Ok(answer["stack"].take())
    }
}

/// A wait condition `w` behind a handle `h` of this transport. It waits for as many ids as the parameter `count` says.
pub fn condition(transport: &str) -> Value {
    json!({
        "heat_template_version": "2018-08-31",
        "parameters": {"count": {"type": "number", "default": 1}, "timeout": {"type": "number", "default": 120}},
        "resources": {
            "h": {"type": "OS::Heat::WaitConditionHandle", "properties": {"signal_transport": transport}},
            "w": {"type": "OS::Heat::WaitCondition", "properties":
                {"handle": {"get_resource": "h"}, "count": {"get_param": "count"}, "timeout": {"get_param": "timeout"}}},
        },
    })
}

/// The same with the older kind of handle, whose signed URL is the output `url`.
pub fn aws_condition() -> Value {
    json!({
        "heat_template_version": "2018-08-31",
        "parameters": {"count": {"type": "number", "default": 1}, "timeout": {"type": "number", "default": 120}},
        "resources": {
            "h": {"type": "AWS::CloudFormation::WaitConditionHandle"},
            "w": {"type": "AWS::CloudFormation::WaitCondition", "properties":
                {"Handle": {"get_resource": "h"}, "Count": {"get_param": "count"}, "Timeout": {"get_param": "timeout"}}},
        },
        "outputs": {"url": {"value": {"get_resource": "h"}}},
    })
}

/// The Python of Heat's environment, which can read what Heat writes.
pub fn python() -> Result<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("venv.sh");
    let finished = run(Command::new(venv).arg("heat").stdin(Stdio::null()), UP_WITHIN)?;
    Ok(Path::new(finished.stdout.trim_end()).join("bin/python"))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("heat").join(name)
}

fn up(dir: &Path) -> Result<Value> {
    let script = script("up.sh");
    let mut command = Command::new(&script);
    command.arg(dir).stdin(Stdio::null());
    let finished = run(&mut command, UP_WITHIN)?;
    if finished.code != 0 {
        bail!("{} ended with {}:\n{}", script.display(), finished.code, finished.stderr);
    }
    let line = finished.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("up.sh printed {:?}", finished.stdout))
}
