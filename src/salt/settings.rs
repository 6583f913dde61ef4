//! Reading how the key gets accepted, and what for that is in the `enroll` section.

use super::claim::Token;
use crate::config::parse::{References, certificate, secret, urls};
use crate::config::settings::{Accept, Enroll};
use crate::types::section::Section;

/// Reads `accept`. Whoever names the enrolment service wants it.
pub fn accept(top: &Section) -> Accept {
    let ways = [("enroll", Accept::Enroll), ("wheel", Accept::Wheel), ("none", Accept::Nobody)];
    let service = top.section("enroll").value("url").is_some();
    top.choice("accept", &ways).unwrap_or(if service { Accept::Enroll } else { Accept::Wheel })
}

/// Reads `enroll`. Without a token nobody is let in, unless it was wiped after use.
pub fn enroll(top: &Section, refs: &dyn References, accept: Accept, wiped: bool) -> Option<Enroll> {
    let section = top.section("enroll");
    if accept != Accept::Enroll {
        if section.is_present() {
            top.complain("enroll", "belongs to accept \"enroll\", which is not set");
        }
        return None;
    }
    let given = secret(&section, "token", "token_file", refs);
    if given.is_none() && section.value("token").is_none() && section.value("token_file").is_none() && !wiped {
        let missing = "is missing: give token, token_file, or the systemd credential enroll.token";
        section.complain("token", format!("{missing}; `heat-bootstrap token create` on the master makes one"));
    }
    let token = given.and_then(|given| Token::parse(given.expose()).map_err(|why| section.complain("token", why)).ok());
    let urls = urls(&section, "https://salt.example.net:8010");
    let ca = certificate(&section, refs);
    section.finish();
    Some(Enroll { urls, token, ca })
}
