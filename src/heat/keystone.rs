//! Keystone v3 on the wire: a token by password, and where the catalog has a service
//! (<https://docs.openstack.org/api-ref/identity/v3/>, "Password authentication with scoped authorization").

use serde_json::{Value, json};

use super::handle::Keystone;
use crate::types::secret::{Secret, wipe};
use crate::types::url::Url;

/// The body of `POST /v3/auth/tokens`.
pub fn token_body(login: &Keystone) -> Secret {
    let mut body = json!({"auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {"id": login.user_id, "password": login.password.expose()}},
        },
        "scope": {"project": {"id": login.project_id}},
    }});
    let text = Secret::new(body.to_string());
    wipe(&mut body);
    text
}

/// The public URL of a service in the answer's catalog, without a slash at its end.
pub fn endpoint(answer: &[u8], service: &str, region: Option<&str>) -> Option<Url> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let services = answer["token"]["catalog"].as_array()?;
    let endpoints = services.iter().filter(|entry| entry["type"] == service).filter_map(|entry| entry["endpoints"].as_array()).flatten();
    let fits = |endpoint: &&Value| endpoint["interface"] == "public" && region.is_none_or(|region| endpoint["region"] == region);
    endpoints.into_iter().filter(fits).find_map(|endpoint| Url::parse(endpoint["url"].as_str()?).ok()).map(|url| url.base())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_endpoint_of_the_region_is_found() {
        let endpoints = json!([
            {"interface": "internal", "region": "One", "url": "http://internal"},
            {"interface": "public", "region": "Two", "url": "http://two"},
            {"interface": "public", "region": "One", "url": "http://one/v1/p/"}]);
        let answer = json!({"token": {"catalog": [{"type": "image", "endpoints": []}, {"type": "orchestration", "endpoints": endpoints}]}})
            .to_string();
        let url = |text| Url::parse(text).unwrap();
        let found = |region| endpoint(answer.as_bytes(), "orchestration", region);
        assert_eq!(found(Some("One")), Some(url("http://one/v1/p")));
        assert_eq!(found(None), Some(url("http://two")));
        assert_eq!(found(Some("Three")), None);
        for nonsense in [&b""[..], b"[]", b"{\"token\": 1}"] {
            assert_eq!(endpoint(nonsense, "orchestration", None), None);
        }
    }
}
