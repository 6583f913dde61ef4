//! The units that see to the minion's key after the bootstrap: they remove it when the machine is switched off, say that the machine
//! lives, and have the key accepted again at the next boot.

use std::path::Path;

use tracing::warn;

use super::systemd::{self, PACKAGED, UNITS, WANTS, config_words, manage, quoted};
use crate::config::settings::Leaving;
use crate::system::files::{self, Root};
use crate::system::retry::Wait;
use crate::types::failure::Failure;

/// A package brings them here.
const OF_PACKAGES: &str = "/usr/lib/systemd/system";
/// Timers that are linked here start at boot.
const TIMERS: &str = "/etc/systemd/system/timers.target.wants";

struct Unit {
    name: &'static str,
    text: &'static str,
    wanted_by: &'static str,
    /// Is it started at once, and not only at the next boot?
    at_once: bool,
}

const DEREGISTER: Unit = Unit {
    name: "heat-salt-bootstrap-deregister.service",
    text: include_str!("../../packaging/systemd/heat-salt-bootstrap-deregister.service"),
    wanted_by: WANTS,
    at_once: true,
};
const RENEW: Unit = Unit {
    name: "heat-salt-bootstrap-renew.service",
    text: include_str!("../../packaging/systemd/heat-salt-bootstrap-renew.service"),
    wanted_by: WANTS,
    // A run says itself that the machine lives.
    at_once: false,
};
const TIMER: Unit = Unit {
    name: "heat-salt-bootstrap-renew.timer",
    text: include_str!("../../packaging/systemd/heat-salt-bootstrap-renew.timer"),
    wanted_by: TIMERS,
    at_once: true,
};

const ALL: [Unit; 3] = [DEREGISTER, RENEW, TIMER];

impl Unit {
    /// Whoever is away when switched off is back when switched on again, whichever way it went.
    fn serves(&self, leaving: Leaving) -> bool {
        match leaving {
            Leaving::Never => false,
            Leaving::AtShutdown => self.name != TIMER.name,
            Leaving::WhenGone => self.name != DEREGISTER.name,
        }
    }

    fn is_enabled(&self) -> bool {
        Path::new(self.wanted_by).join(self.name).symlink_metadata().is_ok()
    }
}

/// Are they enabled, and none that another configuration wanted, or is there nothing that could be?
pub fn in_place(leaving: Leaving, root: &Root) -> bool {
    !root.is_machine() || !systemd::runs() || ALL.iter().all(|unit| unit.is_enabled() == unit.serves(leaving))
}

/// What [`ensure`] would do, for a person.
pub fn planned(leaving: Leaving, root: &Root) -> Vec<String> {
    if in_place(leaving, root) {
        return Vec::new();
    }
    let differs = ALL.iter().filter(|unit| unit.is_enabled() != unit.serves(leaving));
    differs.map(|unit| format!("{} is {}", unit.name, if unit.serves(leaving) { "enabled" } else { "disabled" })).collect()
}

/// Writes, enables and starts them, and disables what is not wanted any more. Says whether anything had to change.
pub fn ensure(leaving: Leaving, root: &Root, config: Option<&Path>, wait: &Wait) -> Result<bool, Failure> {
    if !root.is_machine() || !systemd::runs() {
        warn!("deregister needs systemd, which is not running here: nothing will remove the key");
        return Ok(false);
    }
    if in_place(leaving, root) {
        return Ok(false);
    }
    let (wanted, others): (Vec<&Unit>, Vec<&Unit>) = ALL.iter().partition(|unit| unit.serves(leaving));
    for unit in wanted.iter().filter(|unit| !Path::new(OF_PACKAGES).join(unit.name).exists()) {
        let program = systemd::own_program()?;
        files::ensure(&Path::new(UNITS).join(unit.name), text(unit, &program, config).as_bytes(), 0o644)?;
    }
    let names = |units: &[&Unit], which: fn(&Unit) -> bool| -> Vec<&str> {
        units.iter().filter(|unit| which(unit)).map(|unit| unit.name).collect()
    };
    let commands: [(&[&str], Vec<&str>); 3] = [
        // What is stopped by that learns from systemd that the machine goes on.
        (&["systemctl", "disable", "--now"], names(&others, Unit::is_enabled)),
        (&["systemctl", "enable"], names(&wanted, |_| true)),
        (&["systemctl", "--no-block", "start"], names(&wanted, |unit| unit.at_once)),
    ];
    manage(&["systemctl", "daemon-reload"], wait)?;
    for (words, units) in commands.iter().filter(|(_, units)| !units.is_empty()) {
        manage(&[words, &units[..]].concat(), wait)?;
    }
    Ok(true)
}

fn text(unit: &Unit, program: &Path, config: Option<&Path>) -> String {
    unit.text.replace(PACKAGED, &(quoted(program.as_os_str()) + &config_words(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_leaving_has_its_units() {
        let served = |leaving| ALL.iter().filter(|unit| unit.serves(leaving)).map(|unit| unit.name).collect::<Vec<_>>();
        assert_eq!(served(Leaving::Never), Vec::<&str>::new());
        assert_eq!(served(Leaving::AtShutdown), [DEREGISTER.name, RENEW.name]);
        assert_eq!(served(Leaving::WhenGone), [RENEW.name, TIMER.name]);
    }

    #[test]
    fn the_units_call_the_program_that_wrote_them() {
        for (unit, command) in [(&DEREGISTER, "ExecStop=X deregister --at-shutdown"), (&RENEW, "ExecStart=X renew")] {
            let text = text(unit, Path::new("/opt/my agent"), Some(Path::new("/etc/x.json")));
            let command = command.replace('X', "\"/opt/my agent\" --config /etc/x.json");
            assert!(text.lines().any(|line| line == command), "{text}");
            assert_eq!(unit.text.matches(PACKAGED).count(), 1);
        }
        assert_eq!(TIMER.text.matches(PACKAGED).count(), 0);
    }
}
