//! The `signal` key of the configuration.

use serde_json::Value;

use super::handle::{self, Handle};
use crate::types::references::{References, certificate};
use crate::types::section::Section;

/// The `signal` key.
#[derive(Debug)]
pub struct Signal {
    /// Where and how.
    pub handle: Handle,
    /// The CA that signed the endpoint's certificate, as PEM; the system's if absent.
    pub ca: Option<String>,
    /// Under which id; the minion's if absent.
    pub id: Option<String>,
}

/// Reads it: a handle in one of its forms, or the systemd credential `signal`.
pub fn signal(top: &Section, refs: &dyn References) -> Option<Signal> {
    let credential;
    let value = match top.value("signal") {
        Some(value) => value,
        None => {
            credential = Value::String(refs.credential("signal")?.expose().trim().to_owned());
            &credential
        }
    };
    let handle = handle::parse(value).map_err(|why| top.complain("signal", why)).ok()??;
    if !value.is_object() {
        return Some(Signal { handle, ca: None, id: None });
    }
    let section = top.section("signal");
    let ca = certificate(&section, refs);
    let id = section.text("id").map(str::to_owned);
    Some(Signal { handle, ca, id })
}
