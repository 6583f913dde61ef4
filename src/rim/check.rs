//! `check`: looks at what a run depends on, says what is wrong and how to mend it, and changes nothing.

use std::time::Duration;

use super::agent::{complain, print};
use super::cli::Common;
use crate::decide::settings::{Api, Signal};
use crate::machine::files::Root;
use crate::machine::interrupt::Interrupt;
use crate::machine::patience::Patience;
use crate::service::salt::session::Session;
use crate::service::{config, heat};
use crate::words::deadline::Deadline;
use crate::words::failure::{Failure, Kind};

/// For each peer. A person waits.
const FOR_EACH: Duration = Duration::from_secs(15);

/// Looks at everything, whatever it finds first; returns the exit code of the first thing that is wrong.
pub fn check(root: &Root, common: &Common) -> u8 {
    let found = config::find(root, common.config.as_deref(), &common.settings.overrides());
    let settings = found.settings();
    let api = settings.as_ref().ok().and_then(|settings| settings.api.as_ref());
    let mut findings = vec![("configuration", settings.as_ref().map(|_| "can be used".to_owned()).map_err(Clone::clone))];
    findings.extend(api.map(|api| ("salt-api", salt_api(api))));
    findings.extend(found.signal().map(|signal| ("heat", told(&signal))));
    let mut code = Kind::Done.code();
    for (what, finding) in findings {
        match finding {
            Ok(said) => print(&format!("ok      {what}: {said}\n")),
            Err(failure) => {
                print(&format!("WRONG   {what}: {failure}\n"));
                let own = complain(&failure);
                code = if code == Kind::Done.code() { own } else { code };
            }
        }
    }
    code
}

fn patience() -> Patience {
    Patience::until(Deadline::after(FOR_EACH), Interrupt::default())
}

fn salt_api(api: &Api) -> Result<String, Failure> {
    let mut session = Session::new(api)?;
    session.log_in(&patience())?;
    Ok(format!("{} may log in as {}", api.username, api.eauth))
}

fn told(signal: &Signal) -> Result<String, Failure> {
    heat::probe(signal, &patience())
}
