//! What the keys of a section hold in common: secrets, certificates, URLs, lengths of time; and the texts that a configuration
//! only refers to.

use std::time::Duration;

use serde_json::Value;

use super::duration;
use super::secret::Secret;
use super::section::Section;
use super::url::Url;

/// Texts that the configuration only refers to. Looking them up is the caller's effect.
pub trait References {
    /// The content of a file; the error is a sentence without the file's name.
    fn file(&self, path: &str) -> Result<Secret, String>;
    /// A credential handed over by the service manager, by its name.
    fn credential(&self, name: &str) -> Option<Secret>;
    /// The short host name.
    fn host_name(&self) -> String;
}

/// The base URLs of a section, without a slash at the end.
pub fn urls(section: &Section, such_as: &str) -> Vec<Url> {
    if section.value("url").is_none() {
        section.complain("url", format!("is missing: such as {such_as}"));
    }
    let texts = section.texts("url").into_iter().flatten();
    texts.filter_map(|text| base_url(text).map_err(|why| section.complain("url", why)).ok()).collect()
}

fn base_url(text: &str) -> Result<Url, String> {
    let url = Url::encrypted(text)?;
    let complaint = |what| Err(format!("\"{url}\" holds {what}: give the base URL only"));
    match (url.has_login(), url.has_query()) {
        (true, _) => complaint("a user name"),
        (_, true) => complaint("a query or a fragment"),
        _ => Ok(url.base()),
    }
}

/// A secret that stands in the configuration, in a file that it names, or in a credential under the key's path.
pub fn secret(section: &Section, key: &'static str, file_key: &'static str, refs: &dyn References) -> Option<Secret> {
    match (section.text(key), section.text(file_key)) {
        (Some(_), Some(_)) => {
            section.complain(file_key, format!("stands beside {key}: give one of them"));
            None
        }
        (Some(text), None) => Some(Secret::new(text)),
        (None, Some(path)) => match refs.file(path) {
            Ok(text) if text.expose().trim_end_matches(['\r', '\n']).is_empty() => {
                section.complain(file_key, format!("{path} is empty"));
                None
            }
            Ok(text) => Some(Secret::new(text.expose().trim_end_matches(['\r', '\n']))),
            Err(why) => {
                section.complain(file_key, format!("{path} cannot be read: {why}"));
                None
            }
        },
        (None, None) => refs.credential(&section.path_of(key)).map(|text| Secret::new(text.expose().trim_end_matches(['\r', '\n']))),
    }
}

/// A CA that stands in the configuration, or in a file that it names.
pub fn certificate(section: &Section, refs: &dyn References) -> Option<String> {
    let pem = match (section.text("ca"), section.text("ca_file")) {
        (Some(_), Some(_)) => {
            section.complain("ca_file", "stands beside ca: give one of them");
            return None;
        }
        (Some(pem), None) => ("ca", pem.to_owned()),
        (None, Some(path)) => match refs.file(path) {
            Ok(text) => ("ca_file", text.expose().to_owned()),
            Err(why) => {
                section.complain("ca_file", format!("{path} cannot be read: {why}"));
                return None;
            }
        },
        (None, None) => return None,
    };
    let (key, pem) = pem;
    let mut certificates = 0;
    for item in ureq::tls::parse_pem(pem.as_bytes()) {
        match item {
            Ok(ureq::tls::PemItem::Certificate(_)) => certificates += 1,
            Ok(_) => section.complain(key, "holds something else than certificates; a private key has no place here"),
            Err(why) => section.complain(key, format!("is no PEM: {why}")),
        }
    }
    if certificates == 0 {
        section.complain(key, "holds no certificate (-----BEGIN CERTIFICATE----- ...)");
    }
    Some(pem)
}

/// Seconds, or a text such as 25m.
pub fn duration(section: &Section, key: &'static str) -> Option<Duration> {
    match section.value(key)? {
        Value::Number(number) => {
            let seconds = number.as_u64();
            if seconds.is_none() {
                section.complain(key, "has to be a whole number of seconds, or a text such as 25m");
            }
            seconds.map(Duration::from_secs)
        }
        _ => section.parsed(key, duration::parse),
    }
}
