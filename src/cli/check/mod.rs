//! `check`: looks at everything that a run depends on, says what is wrong and how to fix it, and changes nothing.
//!
//! The table follows a run: configuration, program, salt-api and what it says of this user, master and key, the way to the master,
//! the minion, Heat. Its lines are looked at by several chains at once (`board`), so that one peer that hangs hides nothing else.

mod api;
mod board;
mod here;
mod net;
mod service;

use std::sync::Arc;
use std::time::Duration;

use self::board::Board;
use super::args::Common;
use super::output;
use super::terminal::print;
use crate::bootstrap::state::Store;
use crate::config::load;
use crate::config::settings::Settings;
use crate::heat::client;
use crate::heat::handle_age;
use crate::heat::settings::Signal;
use crate::minion::paths::MinionPaths;
use crate::system::clock;
use crate::system::files::Root;
use crate::system::retry::Wait;
use crate::types::failure::Failure;
use crate::types::finding::{Finding, State, Subject, exit_code};
use crate::types::url::Url;

/// Long enough for Keystone and Heat to answer; what fails is not worth trying for longer while a person waits.
const HEAT: Duration = Duration::from_secs(8);

/// Looks at everything, whatever it finds first; returns the exit code of the first thing that is wrong.
pub fn check(as_json: bool, root: &Root, common: &Common) -> u8 {
    let findings = findings(root, common);
    print(&if as_json { format!("{:#}\n", output::findings_json(&findings)) } else { output::findings(&findings) });
    exit_code(&findings)
}

/// Looks at everything.
pub fn findings(root: &Root, common: &Common) -> Vec<Finding> {
    let mut board = Board::new();
    let found = load::find(root, common.config.as_deref(), &common.settings.overrides());
    found.warn_of_open_files();
    let mut spare = false;
    let mut serves = Duration::ZERO;
    let signal = found.signal();
    match found.settings() {
        Err(failure) => board.note(Subject::Configuration.alone(), State::Wrong(failure)),
        Ok(settings) => {
            board.note(Subject::Configuration.alone(), State::Fine(format!("can be used, for the minion {}", settings.minion.id)));
            serves = settings.deadline;
            spare = check_by(Arc::new(settings), root, &mut board);
        }
    }
    if let Some(signal) = signal {
        board.check(vec![Subject::Heat.alone()], move |chain, wait| chain.put(heat(&signal, serves, wait)));
    }
    let mut findings = board.findings();
    if spare {
        excuse_other_urls(&mut findings);
    }
    findings
}

/// Looks at all that the settings name. Says whether one salt-api may stand in for another.
fn check_by(settings: Arc<Settings>, root: &Root, board: &mut Board) -> bool {
    let paths = Arc::new(MinionPaths::of(root, &settings.minion));
    {
        let (settings, root) = (Arc::clone(&settings), root.clone());
        let rows = [Subject::Program, Subject::PackageSource, Subject::PackageLocks].map(Subject::alone).to_vec();
        board.check(rows, move |chain, wait| here::packages(chain, &settings, &root, wait));
    }
    let spare = match &settings.enroll {
        Some(enroll) => {
            enrolment(&settings, &enroll.urls, &paths, root, board);
            enroll.urls.len() > 1 && !settings.one_service_for_each_master()
        }
        None => salt_api(&settings, &paths, board),
    };
    let several = settings.minion.masters.len() > 1;
    for (number, master) in settings.minion.masters.iter().enumerate() {
        let suffix = suffix(several, master);
        let ports = [paths.master_port, paths.publish_port];
        let of_port = |port| if several { format!("{port} {suffix}") } else { format!("{port}") };
        let rows = vec![
            Subject::MasterName.of(suffix.as_str()),
            Subject::MasterPort.of(of_port(paths.master_port)),
            Subject::PublishPort.of(of_port(paths.publish_port)),
        ];
        let settings = Arc::clone(&settings);
        board.check(rows, move |chain, _| net::master(chain, &settings.minion.masters[number], ports));
    }
    board.check(vec![Subject::Minion.alone()], move |chain, _| here::minion(chain, &paths));
    spare
}

fn salt_api(settings: &Arc<Settings>, paths: &Arc<MinionPaths>, board: &mut Board) -> bool {
    let urls = settings.api.as_ref().map_or(0, |api| api.urls.len());
    let each = settings.one_api_for_each_master();
    let hooks = settings.apply.is_some();
    let outside =
        |suffix: &str| [Subject::ApiName, Subject::ApiPort, Subject::Certificate, Subject::Clock].map(|subject| subject.of(suffix));
    let inside = |suffix: &str| {
        let subjects = [Subject::Login, Subject::Permissions, Subject::MasterKey, Subject::OwnKey].into_iter();
        subjects.chain(hooks.then_some(Subject::Hook)).map(|subject| subject.of(suffix)).collect::<Vec<_>>()
    };
    for (number, url) in settings.api.iter().flat_map(|api| &api.urls).enumerate() {
        let suffix = suffix(urls > 1, url.place());
        let alone = urls == 1 || each;
        let rows = outside(&suffix).into_iter().chain(if alone { inside(&suffix) } else { Vec::new() });
        let (settings, paths) = (Arc::clone(settings), Arc::clone(paths));
        board.check(rows.collect(), move |chain, wait| {
            api::reached(chain, &settings, number)?;
            if alone { api::inside(chain, &settings, Some(number), &paths, wait) } else { Some(()) }
        });
    }
    let spare = urls > 1 && !each;
    if spare {
        let (settings, paths) = (Arc::clone(settings), Arc::clone(paths));
        board.check(inside(""), move |chain, wait| api::inside(chain, &settings, None, &paths, wait));
    }
    spare
}

fn enrolment(settings: &Arc<Settings>, urls: &[Url], paths: &Arc<MinionPaths>, root: &Root, board: &mut Board) {
    for (number, url) in urls.iter().enumerate() {
        let suffix = suffix(urls.len() > 1, url.place());
        let subjects = [Subject::ServiceName, Subject::ServicePort, Subject::Certificate, Subject::Clock, Subject::Token];
        let rows = subjects.map(|subject| subject.of(suffix.as_str()));
        let (settings, paths, store) = (Arc::clone(settings), Arc::clone(paths), Store::below(root));
        board.check(rows.to_vec(), move |chain, wait| service::check(chain, &settings, number, &paths, &store, wait));
    }
}

/// Of several URLs one is enough: where a login succeeds, or a token is good, the others that are wrong fail no run.
fn excuse_other_urls(findings: &mut [Finding]) {
    let is_in = |one: &Finding| matches!(one.row.subject, Subject::Login | Subject::Token);
    if !findings.iter().any(|one| is_in(one) && matches!(one.state, State::Fine(_))) {
        return;
    }
    for one in findings {
        let subject = one.row.subject;
        let of_a_url =
            matches!(subject, Subject::ApiName | Subject::ApiPort | Subject::ServiceName | Subject::ServicePort | Subject::Certificate);
        if let (true, State::Wrong(failure)) = (of_a_url, &one.state) {
            one.state = State::Unknown(format!("{failure}; another URL is used instead"));
        }
    }
}

fn suffix(several: bool, of: &str) -> String {
    if several { format!("({of})") } else { String::new() }
}

/// Heat is asked, and not told: it counts nothing of this.
fn heat(signal: &Signal, serves: Duration, wait: &Wait) -> State {
    let aged = handle_age::warning(&signal.handle.transport, clock::now(), serves.as_secs());
    let and = |text: String| aged.as_ref().map_or_else(|| text.clone(), |aged| format!("{text}; {aged}"));
    match client::probe(signal, &wait.slice(HEAT)) {
        Ok(detail) => State::Fine(and(detail)),
        Err(failure) => State::Wrong(Failure { message: and(failure.message), ..failure }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::failure::Kind;
    use crate::types::finding::Row;

    #[test]
    fn a_url_that_does_not_answer_is_excused_by_a_login_at_another() {
        let of = |row: Row, state| Finding { row, state };
        let wrong = || State::Wrong(Failure::new(Kind::ApiUnreachable, "closed"));
        let mut findings =
            vec![of(Subject::ApiPort.of("(a:8000)"), wrong()), of(Subject::Login.alone(), wrong()), of(Subject::Heat.alone(), wrong())];
        excuse_other_urls(&mut findings);
        assert_eq!(findings[0].state, wrong());
        findings[1].state = State::Fine("in".into());
        excuse_other_urls(&mut findings);
        assert_eq!(findings[0].state, State::Unknown("api-unreachable: closed; another URL is used instead".into()));
        assert_eq!(findings[2].state, wrong());
    }
}
