//! What becomes of a machine whose bootstrap has succeeded, by each way of starting: it is stopped and started again, which for a VM is what
//! shelving and resizing are too; it is rebuilt; and it goes with its stack. What is looked at is what the VM, the master and Heat hold then.

use lab::keys::KeyState;
use lab::openstack::Stack;
use lab::process::until;
use lab::site::{Keyboard, On, Site, Told};
use lab::vm::Vm;
use serde_json::{Value, json};

use crate::fixture::LONG;
use crate::life::Live;

/// Does the master have the key removed, once the machine is gone?
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Leaves {
    /// Its lease runs out: `when-gone`.
    WhenGone,
    /// Nobody does: the key stays until an operator removes it.
    Never,
}

/// Waits until the minion answers, and until nothing of ours is under way any more.
fn is_up(site: &Site<Live>, id: &str, keyboard: &Keyboard) {
    let answers = || site.master.local(id, "test.ping", &[]).is_ok_and(|said| said == json!(true)).then_some(());
    until(LONG, answers).unwrap_or_else(|_| panic!("{id} does not answer: {}", keyboard.types("systemctl status salt-minion")));
    keyboard.types("while systemctl list-jobs --no-legend 'heat-salt-bootstrap*' | grep -q -w -e start -e restart; do sleep 0.1; done");
}

/// When its lease was renewed, as the master shows it.
fn renewed(site: &Site<Live>, id: &str) -> String {
    let shown = || {
        let silent = site.master.heat_bootstrap(&["prune", "--gone", "1s", "--dry-run"]).unwrap();
        silent.lines().find(|row| row.starts_with(&format!("{id} "))).and_then(|row| Some(row.split_whitespace().nth(1)?.to_owned()))
    };
    until(LONG, shown).expect("it has a lease, which runs out")
}

/// The minion is back with the key that it had, and nobody else hears of it.
pub fn is_stopped_and_started(site: &Site<Live>, id: &str, on: On, leaves: Leaves) {
    let (keys, heard) = (site.master.key_states(id), site.heat.heard());
    let lease = (leaves == Leaves::WhenGone).then(|| renewed(site, id));
    let runs = site.vm.text("runs.out");
    assert!(keys.len() == 1 && keys[0].0 == KeyState::Accepted, "{keys:?}");
    site.boot(on, |keyboard| is_up(site, id, keyboard));
    assert_eq!(site.master.key_states(id), keys);
    if let Some(before) = lease {
        assert_ne!(renewed(site, id), before);
    }
    assert_eq!((site.heat.heard(), site.vm.text("runs.out")), (heard, runs));
}

/// Its disk is new, and it is the same instance: it bootstraps anew, and is taken for the one that it was. `does` is what a person, or what
/// plays heat-config, does there. Heat hears this many times of it.
pub fn is_rebuilt_and_taken(site: &mut Site<Live>, id: &str, disk: Vm, on: On, hears: usize, does: impl Fn(&Keyboard) + Send + Sync) {
    let (keys, heard) = (site.master.key_states(id), site.heat.heard().len());
    site.rebuild(disk);
    let site = &*site;
    let report = || serde_json::from_str::<Value>(&site.vm.text("var/lib/heat-salt-bootstrap/report.json")).unwrap_or_default();
    site.boot(on, |keyboard| {
        does(keyboard);
        until(LONG, || (report()["signal"]["delivered"] == true).then_some(())).unwrap_or_else(|_| panic!("{:#}", report()));
    });
    assert_eq!(report()["verdict"], "done");
    let now = site.master.key_states(id);
    assert!(now.len() == 1 && now[0].0 == KeyState::Accepted && now != keys, "{now:?}");
    let all = site.heat.heard();
    assert!(all.len() == heard + hears && all[heard..].iter().all(|(status, _)| status == "SUCCESS"), "{all:#?}");
}

/// The same, and it is refused: this is what Heat hears, and the old key stays.
pub fn is_rebuilt_and_refused(site: &mut Site<Live>, id: &str, disk: Vm, on: On, says: &str) {
    let (keys, heard) = (site.master.key_states(id), site.heat.heard().len());
    site.rebuild(disk);
    let site = &*site;
    site.boot(on, |keyboard| {
        let (status, reason) = site.heat.hears(heard + 1);
        assert!(status == "FAILURE" && reason.contains(says), "{status}: {reason}");
        // A chain of parts goes on.
        keyboard.types("while pgrep -x heat-salt-boots; do sleep 0.1; done");
    });
    assert!(site.master.key_states(id).contains(&keys[0]), "{:?}", site.master.key_states(id));
    assert_eq!(site.heat.heard().len(), heard + 1, "{:#?}", site.heat.heard());
}

/// The stack is deleted, and its machine with it.
pub fn is_deleted(site: Site<Live>, stack: &Stack, id: &str, leaves: Leaves) {
    let (status, reason) = stack.status().unwrap();
    assert!(status.ends_with("_COMPLETE"), "what comes after the stack's end changes nothing: {status} {reason}");
    stack.delete().unwrap();
    let master = &site.master;
    let keys = master.key_states(id);
    let prune = || master.heat_bootstrap(&["prune", "--gone", "1s"]).unwrap();
    match leaves {
        Leaves::WhenGone => {
            until(LONG, || {
                prune();
                master.key_states(id).is_empty().then_some(())
            })
            .unwrap_or_else(|_| panic!("{}", master.heat_bootstrap(&["prune", "--gone", "1s", "--dry-run"]).unwrap()));
        }
        Leaves::Never => {
            let said = prune();
            assert!(!said.contains(id) && master.key_states(id) == keys, "{said}");
            master.remove_key(id).unwrap();
            assert_eq!(master.key_states(id), []);
        }
    }
}
