//! What to do about a salt-api that cannot be reached or trusted, or that refuses something.

use std::time::Duration;

use super::api::Refusal;
use crate::system::clock::Skew;
use crate::system::http::{HttpError, TlsError};
use crate::system::retry::RetryError;
use crate::types::failure::{Fact, Failure, Kind};
use crate::types::url::Url;

/// What to do about hooks that are answered with 500.
pub const BROKEN_SOCKET: &str = "Check that salt-master runs. If it does, the event socket of this salt-api is broken, as two hooks at the same moment do to Salt 3007 and 3008: restart salt-api, and set thread_pool: 1 below rest_cherrypy.";

/// What a refusal of `what` by the salt-api at `base` means, for this user.
pub fn refused(base: &Url, user: &str, eauth: &str, what: &str, refusal: Refusal, retry_after: Option<Duration>) -> RetryError {
    let fail = |kind, message: String| Failure::new(kind, message).fact(Fact::Url, base.to_string());
    RetryError::Permanent(match refusal {
        Refusal::Credentials => fail(Kind::LoginRefused, format!("salt-api refused the login of user {user:?} by eauth {eauth:?}: user, password or eauth is wrong"))
            .hint("salt-api does not say which of the three is wrong. Check that external_auth on the master names this eauth and this user; with pam from a onedir package set auth.pam.python."),
        Refusal::Session => fail(Kind::LoginRefused, format!("salt-api does not know the session in which {what} was called, although it was just opened"))
            .hint("Behind a balancer every request has to reach the same salt-api: its sessions live in its memory."),
        Refusal::TokenExpired => fail(Kind::LoginRefused, format!("the Salt token behind the session expired before {what} could be called"))
            .hint("Raise token_expire on the master; its clock may also have jumped."),
        Refusal::Permission(detail) => fail(Kind::PermissionRefused, format!("user {user:?} may not call {what}")).fact(Fact::SaltApiSays, detail).fact(Fact::Permission, what).hint(format!(
            "Give the user '@wheel': [key.accept, key.print, key.finger, key.finger_master] below external_auth: {eauth}: {user}: in the master's configuration, and restart salt-master."
        )),
        Refusal::ClientDisabled(detail) => fail(Kind::PermissionRefused, format!("salt-api does not serve {what}: {detail}")).hint("Add wheel to netapi_enable_clients in the master's configuration and restart salt-api; since Salt 3006 that list is empty by default."),
        Refusal::Exception(line) => fail(Kind::ApiProtocol, format!("{what} raised an exception on the master: {line}")).hint("See the master's log for the traceback."),
        // Something in front of salt-api may have said it.
        Refusal::InvalidResponse(detail) => return RetryError::Suspicious(fail(Kind::ApiProtocol, format!("{base} does not answer {what} as salt-api does: {detail}"))),
        Refusal::Unavailable { status: 500, detail } if what.starts_with("hook/") => return RetryError::Transient(fail(Kind::ApiUnreachable, format!("salt-api could not fire {what}: {detail}")).hint(BROKEN_SOCKET), retry_after),
        Refusal::Unavailable { detail, .. } => return RetryError::Transient(fail(Kind::ApiUnreachable, format!("salt-api or the master behind it is not available for {what}: {detail}")).hint("Check on the master that salt-master runs; salt-api answers for it only when it does."), retry_after),
    })
}

/// What it means that nobody could be spoken to at `base`.
pub fn unreachable(base: &Url, error: HttpError) -> RetryError {
    let fail = |kind| Failure::new(kind, format!("{base}: {error}")).fact(Fact::Url, base.to_string());
    match &error {
        HttpError::Tls(tls_error @ (TlsError::NotYetValid | TlsError::Expired)) => by_the_clock(base, tls_error),
        HttpError::Tls(TlsError::UnknownIssuer) => RetryError::Suspicious(fail(Kind::ApiTls).hint("Give the CA that signed salt-api's certificate in api.ca or api.ca_file.")),
        HttpError::Tls(TlsError::WrongName) => RetryError::Suspicious(fail(Kind::ApiTls).hint("Use a name in api.url that the certificate holds, or issue it for this name (subjectAltName).")),
        HttpError::Tls(TlsError::Authority) => RetryError::Suspicious(fail(Kind::ApiTls).hint("`openssl req -x509` makes such a certificate by default, and api.ca cannot help. Make salt-api one of its own (rest_cherrypy: ssl_crt), signed by that CA or, self-signed, with `-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:NAME`.")),
        HttpError::Tls(TlsError::NotTls) => RetryError::Suspicious(fail(Kind::ApiTls).hint("salt-api answers without TLS there, or it is another service: set ssl_crt and ssl_key for rest_cherrypy; disable_ssl must not be set.")),
        HttpError::Tls(TlsError::WrongKey | TlsError::Other(_)) => RetryError::Suspicious(fail(Kind::ApiTls)),
        HttpError::Name(_) => RetryError::Transient(fail(Kind::ApiUnreachable).hint("Check /etc/resolv.conf and the name in api.url; programs that ask through nsswitch.conf, as `getent` does, may know names that this one does not: it reads /etc/hosts and asks the servers of resolv.conf."), None),
        HttpError::Connect(_) | HttpError::TimedOut(_) | HttpError::Broken(_) => RetryError::Transient(fail(Kind::ApiUnreachable), None),
        HttpError::InvalidResponse(_) => RetryError::Suspicious(fail(Kind::ApiProtocol)),
    }
}

/// A certificate that is too new or too old, by a clock that nobody has set yet at a first boot: time synchronisation is waited for.
fn by_the_clock(base: &Url, tls_error: &TlsError) -> RetryError {
    let skew = Skew::asked_of(&base.below(""));
    let detail = skew.map_or_else(String::new, |skew| format!("; {skew}"));
    let failure = Failure::new(Kind::ApiTls, format!("{base}: {tls_error}{detail}")).fact(Fact::Url, base.to_string());
    let set_the_clock = "Set this machine's clock: check the time synchronisation (`timedatectl`), and on the hypervisor its own clock.";
    match (tls_error, skew) {
        (TlsError::Expired, Some(skew)) if skew.is_ahead() => RetryError::Transient(failure.hint(set_the_clock), None),
        (TlsError::Expired, _) => RetryError::Suspicious(
            failure.hint("Renew salt-api's certificate (rest_cherrypy: ssl_crt), unless this machine's clock is ahead."),
        ),
        _ => RetryError::Transient(failure.hint(set_the_clock), None),
    }
}
