//! heat-salt-bootstrap(1): the verbs and options as the command line defines them, the exit codes as the failures do. And a short page for
//! each verb, which `man heat-salt-bootstrap run` shows.

use clap::{Arg, ArgAction, Command};
use heat_salt_bootstrap::parts::Kind;

use crate::Day;
use crate::roff::Page;

const NAME: &str = "heat-salt-bootstrap";
const FILES: [(&str, &str); 9] = [
    (
        "/etc/heat-salt-bootstrap/config.json",
        "The configuration, with what lies in `config.d/*.json` beside it: `heat-salt-bootstrap-config`(5).",
    ),
    ("/var/lib/heat-salt-bootstrap/report.json", "The last report, which `status` shows."),
    ("/var/lib/heat-salt-bootstrap/reports/", "The reports of five runs before it."),
    ("/var/lib/heat-salt-bootstrap/signal.json", "What Heat has not taken yet."),
    ("/var/lib/heat-salt-bootstrap/bootstrap.json", "How far the bootstrap of this instance came, so that states are not triggered twice."),
    ("/var/log/heat-salt-bootstrap.log", "The log, with what `-v` shows; at most 1 MiB, and as much again in `heat-salt-bootstrap.log.1`."),
    ("/etc/salt/minion.d/zz-heat-salt-bootstrap.conf", "What the minion is told."),
    (
        "/var/lib/cloud/instance/heat-salt-bootstrap.done",
        "Made when a run of `heat-salt-bootstrap.service` has ended and told so: the unit does not run again in this instance. On a machine \
         without cloud-init it is `/var/lib/heat-salt-bootstrap/done`.",
    ),
    (
        "heat-salt-bootstrap.service, heat-salt-bootstrap-signal.service, heat-salt-bootstrap-deregister.service, \
         heat-salt-bootstrap-renew.service, heat-salt-bootstrap-renew.timer",
        "The units of the package: the bootstrap at the first boot; what Heat has not taken yet, at each boot; the removal of the minion's \
         key, and the news that this machine lives, for those who configure `deregister`.",
    ),
];

/// The page.
pub fn page(command: &Command, day: &Day) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Page::new(NAME, 1, &decapitalized(&about), day);
    page.heading("Synopsis");
    page.paragraph(&format!("`{NAME}` [**OPTION**]... **VERB** [**ARGUMENT**]..."));
    page.heading("Description");
    page.paragraph(
        "The program installs and configures the minion, gets its key accepted by the Salt master, has states applied, waits for their real \
         result, and tells Heat SUCCESS or FAILURE with the reason. It looks at each thing before it changes it: a second run finds \
         everything in place, and a run that was cut off goes on where it stopped.",
    );
    page.heading("Verbs");
    for verb in verbs(command) {
        page.subheading(&synopsis(verb));
        page.paragraph(&sentence(verb.get_about()));
        own(verb).for_each(|arg| option(&mut page, arg));
    }
    page.heading("Options of every verb");
    let mut last = None;
    for arg in command.get_arguments().filter(|arg| arg.is_global_set() || is_of_the_program(arg)) {
        let heading = arg.get_help_heading().map(str::to_owned);
        if heading != last {
            page.subheading(heading.as_deref().unwrap_or("Common"));
            last = heading;
        }
        option(&mut page, arg);
    }
    page.heading("Exit status");
    page.paragraph("The tens name the part that failed. If a run and its signal to Heat both failed, it is the run's code.");
    for kind in Kind::ALL {
        page.item(&format!("`{}` {}", kind.code(), kind.reason()), &format!("{} {}", kind.meaning(), kind.advice()));
    }
    page.heading("Files");
    FILES.into_iter().for_each(|(file, what)| page.item(&format!("`{file}`"), what));
    page.heading("See also");
    page.paragraph("`heat-salt-bootstrap-config`(5), `salt-minion`(1), `systemd.unit`(5)");
    page.done()
}

/// The page of each verb, with the name of its file.
pub fn of_verbs(command: &Command, day: &Day) -> Vec<(String, String)> {
    verbs(command).map(|verb| (format!("{NAME}-{}.1", verb.get_name()), of_verb(verb, day))).collect()
}

fn of_verb(verb: &Command, day: &Day) -> String {
    let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Page::new(&format!("{NAME}-{}", verb.get_name()), 1, &decapitalized(&about), day);
    page.heading("Synopsis");
    page.paragraph(&format!("`{NAME}` [**OPTION**]... {}", synopsis(verb)));
    page.heading("Description");
    page.paragraph(&sentence(verb.get_long_about().or(verb.get_about())));
    if own(verb).next().is_some() {
        page.heading("Options");
        own(verb).for_each(|arg| option(&mut page, arg));
    }
    page.heading("See also");
    page.paragraph(&format!(
        "`{NAME}`(1) has the options of every verb, the exit codes and the files; `{NAME}-config`(5) has the configuration."
    ));
    page.done()
}

/// Those that are the program's own: clap adds one that shows help.
fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|verb| verb.get_name() != "help")
}

fn is_of_the_program(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
}

/// What only this verb takes.
fn own(verb: &Command) -> impl Iterator<Item = &Arg> {
    verb.get_arguments().filter(|arg| !arg.is_global_set() && !is_of_the_program(arg))
}

fn synopsis(verb: &Command) -> String {
    let words = own(verb).map(|arg| if arg.is_positional() { format!("[{}]", value(arg)) } else { format!("[{}]", spelled(arg)) });
    std::iter::once(verb.get_name().to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn value(arg: &Arg) -> String {
    arg.get_value_names().map(|names| names.join(" ")).unwrap_or_else(|| arg.get_id().as_str().to_uppercase())
}

/// `-v, --verbose`, `--config FILE`.
fn spelled(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let name = short.into_iter().chain(long).collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() { format!("{name} {}", value(arg)) } else { name }
}

fn option(page: &mut Page, arg: &Arg) {
    let term = if arg.is_positional() { value(arg) } else { spelled(arg) };
    let mut help = sentence(arg.get_help());
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if arg.get_action().takes_values() {
        let possible: Vec<String> = arg
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}` ({})", value.get_name(), value.get_help().map(ToString::to_string).unwrap_or_default()))
            .collect();
        if !possible.is_empty() {
            help.push_str(&format!(" One of {}.", possible.join(", ")));
        }
        if !defaults.is_empty() {
            help.push_str(&format!(" Default: `{}`.", defaults.join(" ")));
        }
    }
    page.item(&format!("`{term}`"), &help);
}

fn sentence(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    if text.ends_with('.') || text.is_empty() { text } else { text + "." }
}

fn decapitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
