//! The agent with / as its root, under the service managers that run minions: a real systemd (booted in systemd-nspawn) and a
//! real init script, both on a throw-away copy of this machine's tree. One line of Salt each.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail};
use lab::harness::{self, Case, Slots};
use lab::heat::StandIn;
use lab::master::Master;
use lab::minion::{Root, enrolling};
use lab::process::{self, Running, until};
use lab::venv::Line;
use serde_json::{Value, json};

/// Each of the two boots a machine and a master.
const SLOTS: Slots = Slots { heavy: 2, light: 1 };

fn main() -> ExitCode {
    let all = vec![
        Case::new("systemd", || minion_under("systemd.sh", Line::Lts3008, "enabled")),
        Case::new("sysv", || minion_under("sysv.sh", Line::Lts3006, "Ssalt-minion")),
        Case::new("sysv_rebooted", sysv_rebooted),
    ];
    harness::run("services", SLOTS, all, || (), || ())
}

/// First run: started and enabled. Second run: nothing changes. Third, with another grain: restarted, states not triggered again.
fn minion_under(script: &str, line: Line, enabled: &str) -> Result<()> {
    let master = Master::start(line)?;
    let heat = StandIn::start()?;
    let root = Root::new(&master, "vm-1")?;
    let mut config = root.base_config(Some(&heat));
    config["minion"]["start"] = json!("auto");
    // Under systemd the machine has a token, and takes its key off the master when it is switched off.
    let enrolls = script == "systemd.sh";
    if enrolls {
        enrolling(&mut config, &master, &master.service_url(), &master.token("vm-1", &["--deregister"])?);
        config["deregister"] = json!("when-gone");
    }
    let config = root.write_config(&config)?;
    let out = tempfile::tempdir()?;
    let minion = master.venv().program("salt-minion");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services").join(script);
    let mut command = Command::new("bash");
    command.arg(script).arg(env!("CARGO_BIN_EXE_heat-salt-bootstrap")).arg(config).arg(minion).arg(out.path());
    let finished = process::run(&mut command, Duration::from_secs(300))?;
    if finished.code != 0 {
        bail!("the script ended with {}: {}{}", finished.code, finished.stdout, finished.stderr);
    }

    let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap_or_default();
    let all = ["first", "second", "third"].map(|turn| format!("{turn}: {}", read(&format!("{turn}.out")))).join("\n");
    let report = |turn: &str| serde_json::from_str::<Value>(&read(&format!("{turn}.report"))).unwrap_or_default();
    let changed = |turn: &str| -> Vec<String> {
        let steps = report(turn)["steps"].as_array().cloned().unwrap_or_default();
        steps.iter().filter(|step| step["changed"] == true).filter_map(|step| step["name"].as_str().map(str::to_owned)).collect()
    };
    let pid = |turn: &str| read(&format!("{turn}.service")).lines().last().unwrap_or_default().to_owned();
    for turn in ["first", "second", "third"] {
        assert_eq!(read(&format!("{turn}.code")).trim(), "0", "{all}");
        let service = read(&format!("{turn}.service"));
        assert!(service.starts_with(enabled) && service.contains("\nactive\n"), "{turn}: {service}\n{all}");
    }
    for unit in ["bootstrap-signal.service are written for the time of the run", "bootstrap-renew.timer is enabled"] {
        assert_eq!(read("plan.out").contains(unit), enrolls, "{}", read("plan.out"));
    }
    let first: &[&str] = if enrolls { &["keys", "enroll", "configure", "unit", "states"] } else { &["configure", "accept", "states"] };
    let third: &[&str] = if enrolls { &["configure", "unit"] } else { &["configure"] };
    assert_eq!(changed("first"), first, "{all}");
    assert_eq!(changed("second"), Vec::<String>::new(), "{all}");
    assert_eq!(changed("third"), third, "{all}");
    assert_eq!(pid("first"), pid("second"), "{all}");
    assert_ne!(pid("second"), pid("third"), "the minion was not restarted: {all}");
    assert_eq!(heat.signals().len(), 3, "{all}");
    if enrolls {
        for (turn, units) in [
            ("first", ["renew.service enabled inactive", "renew.timer enabled active", "deregister.service not-found inactive"]),
            ("third", ["renew.service enabled inactive", "renew.timer disabled inactive", "deregister.service enabled active"]),
        ] {
            let service = read(&format!("{turn}.service"));
            let holds = |unit: &&str| service.lines().any(|line| line == format!("heat-salt-bootstrap-{unit}"));
            assert!(units.iter().all(holds), "{turn}: {units:?}: {service}\n{all}");
        }
        assert_eq!(read("leaver.service").trim(), "active", "{all}");
        // Switched off, it took its key along; switched on, it got it back.
        let decisions = master.decisions("vm-1");
        let words: Vec<&str> = decisions.iter().filter_map(|one| one["word"].as_str()).collect();
        assert!(words.ends_with(&["removed", "returned"]), "{decisions:#?}\n{}\n{}", read("back.service"), read("console"));
        assert!(read("back.service").contains("Result=success"), "{}", read("back.service"));
    }
    assert_eq!(master.key_states("vm-1").len(), 1);
    Ok(())
}

/// Without systemd: what init has started goes on with the run at each boot, and with telling Heat, and is removed when that is done.
fn sysv_rebooted() -> Result<()> {
    let (master, heat) = (Master::start(Line::Lts3006)?, StandIn::start()?);
    let root = Root::new(&master, "vm-1")?;
    let mut config = root.base_config(Some(&heat));
    config["minion"]["start"] = json!("auto");
    config["apply"]["states"] = json!(["held"]);
    config["deadline"] = json!("10m");
    let config = root.write_config(&config)?;
    let out = tempfile::tempdir()?;
    let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap_or_default();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/sysv-boots.sh");
    let mut command = Command::new("bash");
    command.arg(script).arg(env!("CARGO_BIN_EXE_heat-salt-bootstrap")).arg(config);
    let running = Running::start(command.arg(master.venv().program("salt-minion")).arg(out.path()))?;
    let asks = until(Duration::from_secs(500), || out.path().join("asks").exists().then_some(()));
    let too_early = heat.signals();
    // So often it is not believed.
    heat.fail_next(5, 403);
    fs::write(out.path().join("refuses"), "")?;
    let finished = running.finish(Duration::from_secs(500))?;
    if finished.code != 0 || asks.is_err() {
        bail!("the script ended with {}: {}{}", finished.code, finished.stdout, finished.stderr);
    }
    assert_eq!(too_early, [], "neither a reboot nor a power cut is an end");
    let all = format!("{}{}{}", read("first.out"), read("boots.out"), read("log.out"));
    let report = |turn: &str| serde_json::from_str::<Value>(&read(&format!("{turn}.report"))).unwrap_or_default();
    assert_eq!((read("first.code").trim(), &report("first")["code"]), ("61", &json!(61)), "{all}");
    assert_eq!((&report("third")["code"], &report("third")["bootstrap_id"]), (&json!(70), &report("first")["bootstrap_id"]), "{all}");
    let scripts = |turn: &str| read(&format!("{turn}.service")).lines().filter(|line| !line.is_empty()).count();
    // A script and its links in four run levels, twice
    assert_eq!(["during", "third", "fourth"].map(scripts), [10, 5, 0], "{}{all}", read("during.service"));
    let told: Vec<String> = heat.signals().into_iter().map(|signal| signal.status).collect();
    assert_eq!(told, ["SUCCESS"], "{all}");
    Ok(())
}
