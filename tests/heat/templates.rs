//! What is shipped for Heat, in a real Heat: every template is valid, refuses what its constraints refuse, and what its server would
//! be booted with leads to the stack's end. There is no Nova; see heat/plugins of the laboratory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lab::openstack::Heat;
use lab::process::until;
use serde_json::{Map, Value, json};

use crate::fixture::{LONG, Vm, assert_complete, assert_failed, named, shared, type_to_client};

pub const CASES: &[(&str, fn())] = &[
    ("templates::are_valid", are_valid),
    ("templates::a_misspelt_one_is_not", a_misspelt_one_is_not),
    ("templates::constraints", constraints),
    ("templates::time_for_everything", time_for_everything),
    ("templates::server_succeeds", || server("server.yaml", "tpl-server", true)),
    ("templates::server_fails", || server("server.yaml", "tpl-server-fails", false)),
    ("templates::server_classic", server_classic),
    ("templates::as_the_page_says", as_the_page_says),
    ("templates::image_succeeds", || server("image.yaml", "tpl-image", true)),
    ("templates::multipart_succeeds", || server("multipart.yaml", "tpl-multipart", true)),
    ("templates::multipart_parts", multipart_parts),
    ("templates::autoscaling", autoscaling),
    ("templates::server_is_updated", || is_updated("server.yaml", "tpl-update-server")),
    ("templates::image_is_updated", || is_updated("image.yaml", "tpl-update-image")),
    ("templates::multipart_is_updated", || is_updated("multipart.yaml", "tpl-update-parts")),
    ("templates::autoscaling_is_updated", autoscaling_is_updated),
    ("templates::deployment_is_updated", || is_updated("deployment.yaml", "tpl-update-deployment")),
    ("templates::deployment_succeeds", || deployment("tpl-deployment", "HEAT_SIGNAL", 0)),
    ("templates::deployment_fails", || deployment("tpl-deployment-fails", "HEAT_SIGNAL", 51)),
    ("templates::deployment_by_cfn", || deployment("tpl-deployment-cfn", "CFN_SIGNAL", 0)),
    ("templates::deployment_by_cfn_fails", || deployment("tpl-deployment-cfn-fails", "CFN_SIGNAL", 51)),
];

const TOKEN: &str = "hsb2.0123456789abcdef.Template-secret_AAAAAAAAAAAAAAAAAAAAAAAAAAA.sAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// For whatever stands between a template and the file on the VM.
const ODD: &str = "it's a \"$secret\" \u{e4} `x` \\ @CA@";

/// A shipped file.
pub fn shipped(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cloud-init").join(name)).unwrap()
}

/// What a template may name.
pub fn beside() -> Vec<(&'static str, String)> {
    ["fetch.sh", "server.yaml"].map(|name| (name, shipped(name))).to_vec()
}

/// What everybody has to give; the deployment and image templates fetch nothing.
pub fn parameters(template: &str) -> Map<String, Value> {
    let finger = ["ab"; 32].join(":");
    let mut all = json!({
        "image": "an-image", "flavor": "a-flavor", "network": "a-network", "key_name": "a-key",
        "agent_url": "https://mirror.example.net/heat-salt-bootstrap", "agent_sha256": "ab".repeat(32),
        "salt_master": "salt.example.net", "salt_enroll_url": "https://salt.example.net:8010", "salt_token": TOKEN,
        "salt_master_finger": finger,
        "salt_states": "memcached_v14,other", "salt_pillar": {"a": {"b": "ü"}, "odd": ODD}, "timeout": 600,
    });
    let all = all.as_object_mut().unwrap();
    if !template.contains("server.yaml") && !template.contains("fetch.sh") {
        all.retain(|key, _| !key.starts_with("agent_"));
    }
    all.clone()
}

fn are_valid() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    for name in ["server.yaml", "image.yaml", "multipart.yaml", "autoscaling.yaml", "deployment.yaml"] {
        let template = shipped(name);
        let said = heat.validate(&template, &beside()).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let parameters = said["Parameters"].as_object().unwrap();
        // Heat shows a stack's parameters to everybody in the project, except hidden ones.
        for secret in ["salt_api_password", "salt_token", "salt_pillar"] {
            assert_eq!(parameters[secret]["NoEcho"], "true", "{name}: {secret}");
        }
        assert!(parameters.values().all(|parameter| parameter["Type"].is_string()), "{name}");
    }
}

fn a_misspelt_one_is_not() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    for (right, wrong) in [("config_drive: true", "config_drives: true"), ("depends_on: server", "depends_on: servers")] {
        let template = shipped("server.yaml").replace(right, wrong);
        assert!(heat.validate(&template, &beside()).is_err(), "{wrong}");
    }
}

fn constraints() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let template = shipped("server.yaml");
    for (key, value) in [
        ("agent_url", json!("http://mirror.example.net/program")),
        ("agent_url", json!("https://mirror.example.net/'; reboot; '")),
        ("agent_sha256", json!("ab")),
        ("salt_master", json!("salt example")),
        ("salt_master_finger", json!("ab:cd")),
        ("salt_token", json!("no token")),
        ("salt_token", json!("hsb1.00ff.of-the-hooks")),
        ("salt_api_url", json!("http://salt.example.net:8000")),
        ("salt_enroll_url", json!("http://salt.example.net:8010")),
        ("timeout", json!(10)),
        ("timeout", json!(50_000)),
    ] {
        let mut parameters = parameters(&template);
        parameters.insert(key.to_owned(), value.clone());
        let refused = heat.stack_of(&named("tpl-refused"), &template, &beside(), parameters.into()).map(drop);
        let why = format!("{:#}", refused.unwrap_err());
        assert!(why.contains(key), "{key} {value}: {why}");
    }
}

/// The directories of the servers that would have been booted for this stack, as soon as there are so many.
pub fn booted(heat: &Heat, stack: &str, count: usize) -> Vec<PathBuf> {
    let of_stack = || -> Vec<PathBuf> {
        let all = heat.servers();
        // A node's name begins with its group's stack's.
        let is_of = |name: &str| name == stack || (count > 1 && name.starts_with(stack));
        all.into_iter().filter(|path| is_of(&path.file_name().unwrap().to_string_lossy())).collect()
    };
    let found = until(LONG, || Some(of_stack()).filter(|found| found.len() >= count));
    found.unwrap_or_else(|error| panic!("{stack}: {error}: {:?}", of_stack()))
}

/// The configuration that the user_data leaves on the VM, read as cloud-init and the shell would.
fn configuration(user_data: &str) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), user_data).unwrap();
    let python = lab::openstack::python().unwrap();
    let output =
        Command::new(python).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/heat/user_data.py")).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}\n{user_data}", String::from_utf8_lossy(&output.stderr));
    let [mut config, signal]: [Value; 2] = serde_json::from_slice(&output.stdout).unwrap();
    let beside = config["signal"].take();
    config["signal"] = signal;
    for (key, value) in beside.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        config["signal"][key] = value.clone();
    }
    config
}

fn user_data(server: &std::path::Path) -> String {
    fs::read_to_string(server.join("user_data")).unwrap()
}

/// The agent, with the configuration that the rendered user_data gives it, ends the stack.
fn server(template: &str, name: &str, success: bool) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped(template);
    let name = named(name);
    let mut given = parameters(&text);
    if text.contains("close_metadata:") {
        given.insert("close_metadata".to_owned(), success.into());
    }
    let stack = heat.stack_of(&name, &text, &beside(), given.into()).unwrap();
    let dir = booted(heat, &name, 1).remove(0);
    let asked: Value = serde_json::from_slice(&fs::read(dir.join("server.json")).unwrap()).unwrap();
    assert_eq!((&asked["name"], &asked["request"]["config_drive"]), (&json!(name), &json!(true)));
    let user_data = user_data(&dir);
    // Heat garbles it in some places, and Nova takes no more than 64 KiB in base64.
    assert!(user_data.is_ascii() && user_data.len() < 48_000, "{} bytes", user_data.len());
    for left in ["@AGENT_URL@", "@CONFIG@", "@SIGNAL@"] {
        assert!(!user_data.contains(left), "{left} in {user_data}");
    }
    assert!(!text.contains("close_metadata:") || user_data.contains(&format!("\nclosed=$(given '{success}')")), "{user_data}");
    let config = configuration(&user_data);
    assert_eq!((&config["minion"]["id"], &config["minion"]["master"]), (&json!(name), &json!("salt.example.net")));
    let enroll = json!({"url": "https://salt.example.net:8010", "token": TOKEN});
    let without_ca = |mut section: Value| {
        section.as_object_mut().unwrap().remove("ca");
        section
    };
    assert_eq!((&config["api"], without_ca(config["enroll"].clone())), (&Value::Null, enroll));
    assert_eq!(config["apply"], json!({"states": ["memcached_v14", "other"], "pillar": {"a": {"b": "ü"}, "odd": ODD}}));
    assert_eq!(config["deadline"], "450s", "three quarters of the timeout");
    let vm = Vm::with(&config);
    // Nothing in it is refused.
    let plan = vm.agent(&["plan"], 0);
    assert!(plan.stdout.contains("memcached_v14") && !plan.stdout.contains("secret"), "{}", plan.stdout);
    if success {
        vm.succeed("seven states hold");
        assert_complete(&stack);
        let report = stack.output("report").unwrap();
        let report: Value = serde_json::from_str(report.as_str().unwrap()).unwrap();
        assert_eq!(report, json!({name: "seven states hold"}));
        assert_eq!(stack.output("address").unwrap(), "192.0.2.10");
    } else {
        vm.fail("state-failed: memcached");
        let reason = assert_failed(&stack);
        assert!(reason.ends_with("WaitConditionFailure: resources.condition: state-failed: memcached"), "{reason}");
    }
}

/// Whatever timeout is legal: a minute for booting and one for telling are left of it, and the program has its time.
fn time_for_everything() {
    const TIMEOUTS: [u64; 7] = [300, 301, 479, 480, 481, 1800, 43_200];
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let texts = ["server.yaml", "image.yaml", "multipart.yaml"].map(shipped);
    let expression = |text: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix("expression: ")).expect("an expression");
        assert!(text.contains("constraints: [{range: {min: 300, max: 43200}}]"), "other timeouts are legal now");
        line.to_owned()
    };
    let used = texts.map(|text| expression(&text));
    assert!(used.iter().all(|one| *one == used[0]), "{used:?}");
    // Heat's own yaql says what becomes of it.
    let resources: Map<String, Value> = TIMEOUTS
        .iter()
        .map(|timeout| {
            let value = json!({"yaql": {"expression": used[0], "data": timeout}});
            (format!("t{timeout}"), json!({"type": "OS::Heat::Value", "properties": {"value": value}}))
        })
        .collect();
    let outputs: Map<String, Value> =
        resources.keys().map(|name| (name.clone(), json!({"value": {"get_attr": [name, "value"]}}))).collect();
    let template = json!({"heat_template_version": "2018-08-31", "resources": resources, "outputs": outputs});
    let stack = heat.stack_create(&named("tpl-time"), &template, json!({})).unwrap();
    assert_complete(&stack);
    for timeout in TIMEOUTS {
        let said = stack.output(&format!("t{timeout}")).unwrap();
        let deadline: u64 =
            said.as_str().and_then(|text| text.strip_suffix('s')?.parse().ok()).unwrap_or_else(|| panic!("{timeout}: {said}"));
        assert!(deadline + 120 <= timeout && deadline >= timeout / 2, "{deadline} of {timeout}");
    }
}

/// Without a token it is the classic way, by a user who may accept keys.
fn server_classic() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped("server.yaml");
    let name = named("tpl-classic");
    let mut parameters = parameters(&text);
    parameters.retain(|key, _| !["salt_token", "salt_enroll_url"].contains(&key.as_str()));
    parameters.extend([("salt_api_url".to_owned(), json!("https://salt.example.net:8000")), ("salt_api_password".to_owned(), json!(ODD))]);
    let _stack = heat.stack_of(&name, &text, &beside(), parameters.into()).unwrap();
    let config = configuration(&user_data(&booted(heat, &name, 1).remove(0)));
    assert_eq!((&config["enroll"], &config["api"]["password"]), (&Value::Null, &json!(ODD)));
    let plan = Vm::with(&config).agent(&["plan"], 0);
    assert!(plan.stdout.contains("wheel key.accept") && !plan.stdout.contains("secret"), "{}", plan.stdout);
}

/// What docs/heat.md has people type, by the client that they type it to.
fn as_the_page_says() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let name = named("tpl-page");
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/heat.md")).unwrap();
    let typed = page.split("```").find(|block| block.contains("openstack stack create web-1")).unwrap().trim_start_matches("sh\n");
    for from in ["web-1", "ITS-CHECKSUM", "hsb2.AS-IT-WAS-PRINTED"] {
        assert!(typed.contains(from), "{from}: {typed}");
    }
    let typed = typed.replace("web-1", &name).replace("ITS-CHECKSUM", &"ab".repeat(32)).replace("hsb2.AS-IT-WAS-PRINTED", TOKEN);
    let typing = type_to_client(heat, &typed);
    let dir = booted(heat, &name, 1).remove(0);
    let config = configuration(&user_data(&dir));
    assert_eq!((&config["minion"]["id"], &config["apply"]["states"]), (&json!(name), &json!(["memcached_v14"])));
    Vm::with(&config).succeed("one state holds");
    let ended = typing.finish(LONG).unwrap();
    assert!(ended.code == 0 && ended.stdout.contains("CREATE_COMPLETE"), "{}: {}{}", ended.code, ended.stdout, ended.stderr);
    assert!(ended.stdout.contains(&name) && ended.stdout.contains("one state holds"), "{}", ended.stdout);
}

fn multipart_parts() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped("multipart.yaml");
    let name = named("tpl-parts");
    let _stack = heat.stack_of(&name, &text, &beside(), parameters(&text).into()).unwrap();
    let user_data = user_data(&booted(heat, &name, 1)[0]);
    let places: Vec<usize> = ["1-fetch", "heat-salt-bootstrap install ||", "heat-salt-bootstrap accept ||", "heat-salt-bootstrap apply ||"]
        .map(|part| user_data.find(part).unwrap_or_else(|| panic!("{part}: {user_data}")))
        .to_vec();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(user_data.matches("text/x-shellscript").count(), 4, "{user_data}");
    assert_eq!(user_data.matches("[ -e $began ] ||").count(), 3, "none begins after one that failed: {user_data}");
    assert!(user_data.contains("verb=$(given 'none')"), "{user_data}");
}

/// Two nodes, each with an id and a wait condition of its own; then one more.
fn autoscaling() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped("autoscaling.yaml");
    let mut given = parameters(&text);
    given.extend([("least".to_owned(), json!(2)), ("close_metadata".to_owned(), json!(true))]);
    let name = named("tpl-group");
    let stack = heat.stack_of(&name, &text, &beside(), given.into()).unwrap();
    let tell = |count: usize| {
        for dir in booted(heat, &name, count) {
            let user_data = user_data(&dir);
            assert!(user_data.contains("\nclosed=$(given 'true')"), "{user_data}");
            let config = configuration(&user_data);
            assert_eq!(config["deregister"], if config["enroll"].is_null() { "at-shutdown" } else { "when-gone" });
            assert_eq!(config["minion"]["id"], *dir.file_name().unwrap().to_string_lossy());
            Vm::with(&config).succeed("a node");
        }
    };
    tell(2);
    assert_complete(&stack);
    let reports = stack.output("reports").unwrap();
    assert_eq!(reports.as_array().map(Vec::len), Some(2), "{reports}");
    stack.signal("more").unwrap();
    tell(3);
    let grown = until(LONG, || {
        std::thread::sleep(Duration::from_millis(300));
        stack.output("reports").ok().filter(|reports| reports.as_array().is_some_and(|all| all.len() == 3 && !all.contains(&Value::Null)))
    });
    grown.unwrap_or_else(|error| panic!("{error}: {:?}", stack.output("reports")));
}

/// Parameters that are given anew, each by itself, and what Heat would do with the server: keep it. A new flavor resizes it and a new image
/// rebuilds it, but a key pair can only be given to a new one.
fn is_updated(template: &str, name: &str) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped(template);
    let name = named(name);
    let given = parameters(&text);
    let stack = heat.stack_of(&name, &text, &beside(), given.clone().into()).unwrap();
    let dir = booted(heat, &name, 1).remove(0);
    if template != "deployment.yaml" {
        Vm::with(&configuration(&user_data(&dir))).succeed("as it was");
        assert_complete(&stack);
    }
    let other = |value: &Value| match value {
        Value::String(text) if text == TOKEN => json!(TOKEN.replace("0123", "ffff")),
        Value::String(text) => json!(text.replace("ab", "cd").replace("example", "sample").replace("memcached", "redis")),
        Value::Number(_) => json!(900),
        _ => json!({"something": "else"}),
    };
    let mut anew: Map<String, Value> = given.iter().map(|(key, value)| (key.clone(), other(value))).collect();
    anew.extend([
        ("salt_install".to_owned(), json!({"version": "3006"})),
        ("minion_config".to_owned(), json!({"log_level": "debug"})),
        ("ca".to_owned(), json!("-----BEGIN CERTIFICATE-----")),
        ("image".to_owned(), json!("another")),
        ("flavor".to_owned(), json!("another")),
        ("key_name".to_owned(), json!("another")),
    ]);
    anew.remove("network");
    if text.contains("close_metadata:") {
        anew.insert("close_metadata".to_owned(), json!(true));
    }
    for (key, value) in anew {
        assert_ne!(given.get(&key), Some(&value), "{key} is given anew");
        let mut parameters = given.clone();
        parameters.insert(key.clone(), value);
        let changes = stack.preview(&text, &beside(), parameters.into()).unwrap_or_else(|error| panic!("{key}: {error:#}"));
        let becomes = |what: &str| {
            let all = changes[what].as_array().into_iter().flatten();
            all.filter(|change| change["resource_type"] == "OS::Nova::Server").count()
        };
        assert_eq!(becomes("replaced") + becomes("deleted") + becomes("added"), usize::from(key == "key_name"), "{key}: {changes:#}");
    }
}

/// Heat previews no update of a group, so this one is made: all that a group is given anew as time goes by, at once. Its node stays.
fn autoscaling_is_updated() {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped("autoscaling.yaml");
    let mut given = parameters(&text);
    let name = named("tpl-update-group");
    let stack = heat.stack_of(&name, &text, &beside(), given.clone().into()).unwrap();
    // A node's name is longer than its group's stack's.
    let of_group = || -> Vec<PathBuf> {
        heat.servers().into_iter().filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&name)).collect()
    };
    let dir = until(LONG, || of_group().pop()).unwrap();
    let id = || serde_json::from_slice::<Value>(&fs::read(dir.join("server.json")).unwrap()).unwrap()["id"].clone();
    Vm::with(&configuration(&user_data(&dir))).succeed("as it was");
    assert_complete(&stack);
    let before = id();
    given.extend([
        ("salt_token".to_owned(), json!(TOKEN.replace("0123", "ffff"))),
        ("agent_sha256".to_owned(), json!("cd".repeat(32))),
        ("salt_states".to_owned(), json!("redis_v7")),
        ("timeout".to_owned(), json!(900)),
    ]);
    stack.update(&text, &beside(), given.into()).unwrap();
    let (status, reason) = stack.wait(&["UPDATE_COMPLETE", "UPDATE_FAILED"], LONG).unwrap();
    assert_eq!(status, "UPDATE_COMPLETE", "{reason}");
    assert_eq!((id(), of_group()), (before, vec![dir.clone()]), "the node is the same");
}

/// heat-config's hook for scripts is played here: inputs are in the environment, outputs in files. What it would tell Heat, the agent
/// tells, to the handle that the deployment's own inputs are.
fn deployment(name: &str, transport: &str, code: i32) {
    let heat = shared();
    let heat = heat.as_ref().unwrap();
    let text = shipped("deployment.yaml").replace("signal_transport: HEAT_SIGNAL", &format!("signal_transport: {transport}"));
    let name = named(name);
    let stack = heat.stack_of(&name, &text, &[], parameters(&text).into()).unwrap();
    let dir = booted(heat, &name, 1).remove(0);
    let asked: Value = serde_json::from_slice(&fs::read(dir.join("server.json")).unwrap()).unwrap();
    let inputs = until(LONG, || heat.deployment_inputs(asked["id"].as_str().unwrap()).ok()?.pop()).unwrap();
    let config = &inputs["config"];
    assert_eq!((&config["enroll"]["token"], &config["deadline"]), (&json!(TOKEN), &json!("600s")));

    let script = inputs["config_text"].as_str().unwrap();
    let work = tempfile::tempdir().unwrap();
    let program = format!("#!/bin/sh\necho \"$*\" >>{0}/called\necho '{{\"code\": {code}}}'\nexit {code}\n", work.path().display());
    let at = |name: &str| work.path().join(name);
    fs::write(at("heat-salt-bootstrap"), program).unwrap();
    assert!(Command::new("chmod").arg("755").arg(at("heat-salt-bootstrap")).status().unwrap().success());
    // Its /etc is this directory's.
    fs::write(at("script"), script.replace("/etc/heat-salt-bootstrap", &at("etc").to_string_lossy())).unwrap();
    let path = format!("{}:/usr/bin:/bin", work.path().display());
    let mut command = Command::new("/bin/sh");
    command.arg(at("script")).env_clear().env("PATH", path).env("config", config.to_string()).env("heat_outputs_path", at("out"));
    for (input, value) in inputs.iter().filter(|(input, _)| input.starts_with("deploy_")) {
        command.env(input, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    let ended = command.status().unwrap();
    assert_eq!(ended.code(), Some(code));
    assert_eq!(fs::read_to_string(at("called")).unwrap(), "run --json\n");
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(at("etc/config.json")).unwrap()).unwrap(), *config);
    assert_eq!(fs::read_to_string(at("out.report")).unwrap(), format!("{{\"code\": {code}}}\n"));

    // It is told to whom the program is to speak, should heat-config come to an end before it.
    let kept = fs::read(at("etc/config.d/90-signal.json")).unwrap();
    let vm = Vm::new(&name, serde_json::from_slice::<Value>(&kept).unwrap()["signal"].clone());
    if code == 0 {
        vm.succeed("seven states hold");
        assert_complete(&stack);
        assert_eq!(stack.output("report").unwrap(), "\"seven states hold\"");
    } else {
        vm.fail("state-failed: memcached");
        let reason = assert_failed(&stack);
        assert!(reason.contains("resources.deployment: Deployment to server failed: deploy_status_code"), "{reason}");
        assert_eq!(stack.output("log").unwrap(), "state-failed: memcached");
    }
}
