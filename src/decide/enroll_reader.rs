//! Reading how the key gets accepted, and what for that is in the `enroll` section.

use super::claim::Token;
use super::section::Section;
use super::settings::Accept;
use super::settings_reader::{References, secret};

/// Reads `accept`.
pub fn accept(top: &Section) -> Accept {
    top.choice("accept", &[("wheel", Accept::Wheel), ("hook", Accept::Hook), ("none", Accept::Nobody)]).unwrap_or(Accept::Wheel)
}

/// Reads `enroll`. Without a token there is nothing to claim, unless it was wiped after use.
pub fn token(top: &Section, refs: &dyn References, accept: Accept, wiped: bool) -> Option<Token> {
    let section = top.section("enroll");
    if accept != Accept::Hook {
        if section.is_present() {
            top.complain("enroll", "belongs to accept \"hook\", which is not set");
        }
        return None;
    }
    let given = secret(&section, "token", "token_file", refs);
    if given.is_none() && section.value("token").is_none() && section.value("token_file").is_none() && !wiped {
        top.complain(
            "enroll.token",
            "is missing: give token, token_file, or the systemd credential enroll.token; `salt-run heat_salt_bootstrap.mint` on the master makes one",
        );
    }
    let token = given.and_then(|given| Token::parse(given.expose()).map_err(|why| section.complain("token", why)).ok());
    section.finish();
    token
}
