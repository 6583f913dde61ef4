//! Telling Heat. One function a transport; the match on [`Handle`] is the seam for more.

use std::time::Duration;

use tracing::info;

use crate::decide::handle::Handle;
use crate::decide::settings::Signal;
use crate::decide::signal::{Answer, Message, heat_answer};
use crate::machine::http::{Client, Distrust, Request, Trouble};
use crate::machine::patience::{Miss, Patience};
use crate::words::failure::{Failure, Kind};

/// heat-api answers at once; what takes longer than this is tried again.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Sends a signal until Heat has taken it, has refused it for good, or the time is up.
pub fn tell(signal: &Signal, message: &Message, patience: &Patience) -> Result<(), Failure> {
    let client =
        Client::trusting(needed_ca(signal)).map_err(|why| Failure::new(Kind::SignalUndelivered, format!("Heat cannot be told: {why}")))?;
    match &signal.handle {
        Handle::Token { endpoint, token } => {
            let headers = [("X-Auth-Token", token.expose()), ("Content-Type", "application/json"), ("Accept", "application/json")];
            // A form's Content-Type, or a body that does not begin with {, would count as SUCCESS.
            let body = message.heat_body();
            patience.retry("signal", |_| {
                let timeout = TIMEOUT.min(patience.remaining()).max(Duration::from_millis(200));
                let reply = client
                    .send(&Request { method: "POST", url: endpoint, headers: &headers, body: &body, timeout })
                    .map_err(|trouble| no_answer(endpoint, trouble))?;
                match heat_answer(reply.status, reply.retry_after) {
                    Answer::Taken => Ok(()),
                    Answer::Later(why, when) => Err(Miss::Passing(undelivered(why), when)),
                    Answer::Never(why) => Err(Miss::Final(undelivered(why))),
                }
            })?;
        }
    }
    info!("told Heat {} as {} ({})", message.status.as_str(), message.id, signal.handle.transport());
    Ok(())
}

/// Loading the system's CAs costs more than everything else; over plain HTTP none is needed.
fn needed_ca(signal: &Signal) -> Option<&str> {
    match &signal.ca {
        None if signal.handle.url().starts_with("http://") => Some(""),
        ca => ca.as_deref(),
    }
}

fn undelivered(why: String) -> Failure {
    Failure::new(Kind::SignalUndelivered, why)
}

fn no_answer(endpoint: &str, trouble: Trouble) -> Miss {
    // The path names the stack; the host is enough.
    let host = endpoint.split('/').nth(2).unwrap_or(endpoint);
    let failure = undelivered(format!("Heat at {host}: {trouble}"));
    match trouble {
        Trouble::Tls(Distrust::NotYetValid) | Trouble::Name(_) | Trouble::Connect(_) | Trouble::TimedOut(_) | Trouble::Broken(_) => {
            Miss::Passing(failure, None)
        }
        Trouble::Tls(_) => Miss::Final(failure.hint("Give the CA that signed Heat's certificate in signal.ca or signal.ca_file.")),
    }
}
