//! What `template` prints: the files under cloud-init/, so that they and the program are of one version.

macro_rules! templates {
    ($($name:literal from $path:literal: $about:literal,)*) => {
        &[$(Template { name: $name, about: $about, text: include_str!(concat!("../../cloud-init/", $path)) },)*]
    };
}

struct Template {
    name: &'static str,
    about: &'static str,
    text: &'static str,
}

const ALL: &[Template] = templates![
    "server.yaml" from "server.yaml": "one server with a wait condition; wants fetch.sh beside it",
    "autoscaling.yaml" from "autoscaling.yaml": "a group of such servers; wants server.yaml and fetch.sh beside it",
    "multipart.yaml" from "multipart.yaml": "the classic chain of scripts, link by link; wants fetch.sh beside it",
    "image.yaml" from "image.yaml": "one server from an image that carries the program",
    "deployment.yaml" from "deployment.yaml": "a software deployment",
    "cloud-config.yaml" from "cloud-config.yaml": "user_data without Heat",
    "fetch.sh" from "fetch.sh": "user_data that fetches the program, verifies and runs it",
    "master.conf" from "salt-master/master.d/heat-salt-bootstrap.conf": "for the Salt master's /etc/salt/master.d",
    "states.sls" from "salt-master/reactor/states.sls": "the classic reactor, for the Salt master's /srv/reactor",
    "memcached_v14.sls" from "salt-master/states/memcached_v14.sls": "a state as example, for the Salt master's /srv/salt",
    "salt-master.md" from "salt-master/README.md": "what the Salt master needs, as a page",
];

/// The text of a template, by its name.
pub fn named(name: &str) -> Option<&'static str> {
    ALL.iter().find(|template| template.name == name).map(|template| template.text)
}

/// Their names, and what they are.
pub fn list() -> String {
    let width = ALL.iter().map(|template| template.name.len()).max().unwrap_or_default();
    ALL.iter().map(|template| format!("{:width$}  {}\n", template.name, template.about)).collect()
}
