//! What runs on which line, and in which order.
//!
//! A case runs on both lines if Salt does something in it that it does in no other case. What shows the agent alone, and what needs of Salt
//! only what another case shows on both lines, runs on one, and on the other in the whole matrix (`HSB_ALL=1`, `make test-all`).

use lab::harness::Case;
use lab::venv::Line;

/// The line on which everything runs that runs on one only; the table of faults does so on the other.
const ONE: Line = Line::Lts3008;

/// No minion is started for these, and what is asked of salt-api, if anything, has no part in what they show.
const OF_THE_AGENT_ALONE: &[&str] = &[
    "api::wrong_ca",
    "api::expired_certificate",
    "api::future_certificate",
    "api::wrong_name",
    "api::certificate_of_a_ca",
    "api::plain_http",
    "api::port_closed",
    "api::unknown_name",
    "keys::program_missing",
    "keys::version_by_the_program",
    "keys::start_fails",
    "keys::id_as_pattern",
    "ends::bad_configuration",
    "ends::broken_configuration",
    "ends::plan",
    "ends::status_without_a_run",
    "ends::explain",
    "ends::heat_hangs_and_the_run_fails",
    "ends::signal_by_hand",
    "ends::not_root",
    "check::api_closed",
    "check::next_url",
    "check::each_master",
    "check::unknown_names",
    "check::expired_certificate",
    "check::future_certificate",
    "check::clock",
    "check::ports_closed",
    "check::program_missing",
    "check::login_hangs",
    "check::api_hangs",
    "secrets::in_no_core_file",
    "surroundings::clock_behind",
    "surroundings::without_a_name",
];

/// These take long, and what they show is of the agent, of Heat and of this machine; real Salt does what it does in all cases.
const LONG_AND_ALIKE: &[&str] = &[
    "good::two_at_once",
    "good::first_use",
    "ends::deadline_passed",
    "ends::heat_down",
    "surroundings::disk_full",
    "surroundings::processes_hidden",
    "surroundings::read_only",
    "enroll::clock_off",
    "enroll::openssl_hangs",
    "enroll::without_openssl",
    "enroll::worthless_tokens",
    "enroll::wrong_master_finger",
];

/// What Salt does in these, on either line: a minion joins, states hold or do not, a key has one of its states, salt-api answers or does not.
/// `good::one_state`, `enroll::joined`, `keys::rejected`, `states::failing`, `api::api_restarted` and others show it on both. The enrolment
/// service has tests of its own in each Salt.
const SHOWN_ON_BOTH_BY_OTHERS: &[&str] = &[
    "good::two_states",
    "good::renamed",
    "good::link_by_link",
    "good::password_in_a_file",
    "good::grains",
    "good::odd_values_and_foreign_files",
    "api::next_url",
    "api::dies_in_between",
    "api::master_given",
    "api::master_away_while_accepting",
    "keys::another_pending",
    "keys::nothing_starts",
    "keys::wrong_master_finger",
    "enroll::pinned",
    "enroll::renamed",
    "enroll::pinned_other_key",
    "enroll::link_by_link",
    "enroll::second_run",
    "enroll::moved_from_wheel",
    "enroll::killed_after_the_claim",
    "enroll::killed_after_the_job",
    "enroll::answers_lost",
    "enroll::taken",
    "enroll::rebuilt",
    "enroll::other_master_met",
    "enroll::one_token_two_machines",
    "enroll::state_fails",
    "enroll::job_never_comes",
    "enroll::deregistered_by_wheel",
    "enroll::forgotten_secrets",
    "enroll::two_masters",
    "enroll::service_away",
    "states::somebody_else_applies",
    "states::too_slow",
    "states::nobody_listens",
    "states::killed_while_states_run_shipped",
    "states::killed_before_the_trigger",
    "states::terminated_while_states_run",
    "instances::api_away_on_the_second_run",
    "instances::copy_of_a_disk",
    "instances::copy_of_the_same_name",
    "instances::copy_that_keeps_its_key",
    "instances::halves_of_two_pairs",
    "check::master_away",
    "check::taken",
    "check::wrong_master_finger",
    "surroundings::network_late",
    "surroundings::names_late",
    "surroundings::ipv6_only",
    "surroundings::ipv6_closed",
    "surroundings::tmp_noexec",
];

/// They have the master for themselves (`fixture::alone`), one after the other.
const MASTER_FOR_ITSELF: &[&str] = &[
    "api::master_away_while_states_run",
    "api::master_away_while_accepting",
    "api::api_restarted",
    "api::pam",
    "check::master_away",
    "enroll::two_masters",
    "enroll::service_away",
    "enroll::master_restarted",
    "good::few_requests",
];

/// What takes longest beside those: no run shall end with one of them.
const LONGEST: &[&str] = &[
    "enroll::worthless_tokens",
    "api::dies_in_between",
    "enroll::deregistered",
    "good::two_at_once",
    "good::first_use",
    "enroll::one_token_two_machines",
    "api::master_given",
    "good::second_run",
];

/// A case of a theme on a line.
pub fn case(line: Line, theme: &str, name: &str, run: fn(Line)) -> Case {
    let full = format!("{theme}::{name}");
    let run = move || {
        run(line);
        Ok(())
    };
    let mut case = Case::new(format!("{line}::{full}"), run);
    // They mostly wait.
    if OF_THE_AGENT_ALONE.contains(&full.as_str()) {
        case = case.light();
    }
    if line != ONE && is_in(&[OF_THE_AGENT_ALONE, LONG_AND_ALIKE, SHOWN_ON_BOTH_BY_OTHERS], &full) {
        case = case.repeats();
    }
    if has_the_master_for_itself(&full) {
        case = case.sharing(format!("the master of {line} that cases have for themselves"));
    }
    case
}

/// Does it stand in the list?
pub fn has_the_master_for_itself(full: &str) -> bool {
    is_in(&[MASTER_FOR_ITSELF], full)
}

/// Those that wait for each other first, then those that take longest.
pub fn in_order(cases: &mut [Case]) {
    for listed in [OF_THE_AGENT_ALONE, LONG_AND_ALIKE, SHOWN_ON_BOTH_BY_OTHERS, MASTER_FOR_ITSELF, LONGEST].concat() {
        assert!(cases.iter().any(|case| without_line(case.name()) == listed), "{listed} is listed, and there is no such case");
    }
    let place = |case: &Case| {
        let (name, first) = (without_line(case.name()), [MASTER_FOR_ITSELF, LONGEST].concat());
        first.iter().position(|listed| *listed == name).unwrap_or(first.len())
    };
    cases.sort_by_key(place);
}

/// `theme::name`, of a case of whichever line.
pub fn without_line(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, full)| full)
}

fn is_in(lists: &[&[&str]], full: &str) -> bool {
    lists.iter().any(|list| list.contains(&full))
}
