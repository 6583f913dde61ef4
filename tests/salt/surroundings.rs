//! Bad surroundings: a network that comes late, or is not what one is used to; disks that take nothing; a machine that does not
//! know who it is.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lab::http::{Answer, Front, Request, Server};
use lab::island::{Island, Says};
use lab::peer::Certificate;
use lab::venv::Line;
use serde_json::Value;

use crate::OnEachLine;
use crate::fixture::{Ended, Vm};

pub const CASES: &[OnEachLine] = &[
    ("network_late", network_late),
    ("names_late", names_late),
    ("ipv6_only", ipv6_only),
    ("ipv6_closed", ipv6_closed),
    ("clock_behind", clock_behind),
    ("disk_full", disk_full),
    ("read_only", read_only),
    ("tmp_noexec", tmp_noexec),
    ("processes_hidden", processes_hidden),
    ("half_a_key", half_a_key),
    ("cloned", cloned),
    ("without_a_name", without_a_name),
];

/// An island from which everything that the VM needs is reached, at these addresses.
fn island(vm: &Vm, at: &[&str]) -> Island {
    let island = Island::new().unwrap();
    let ports = vm.master.minion_ports();
    let port = |name: &str| u16::try_from(ports[name].as_u64().unwrap()).unwrap();
    let heat = vm.config["signal"]["endpoint"].as_str().unwrap().split('/').nth(2).unwrap().rsplit(':').next().unwrap();
    let here: Vec<SocketAddr> = [port("publish_port"), port("master_port")]
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .into_iter()
        .chain([vm.gate.faults.address(), SocketAddr::from(([127, 0, 0, 1], heat.parse().unwrap()))])
        .collect();
    for to in here {
        for at in at {
            island.let_through(SocketAddr::new(at.parse().unwrap(), to.port()), to).unwrap();
        }
    }
    island
}

/// The VM finds salt-api and Heat by this name.
fn by_name(vm: &mut Vm, name: &str) {
    for key in ["api/url", "signal/endpoint"] {
        let (parent, last) = key.split_once('/').unwrap();
        let named = vm.config[parent][last].as_str().unwrap().replace("127.0.0.1", name);
        vm.set(key, named);
    }
}

/// Names resolve on the island by this file of hosts, and by the name server there.
fn names(vm: &Vm, island: &Island, hosts: &str) {
    let (hosts_file, resolver) = (vm.path("lab-hosts"), vm.path("lab-resolv.conf"));
    fs::write(&hosts_file, hosts).unwrap();
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    let mount = |file: &std::path::Path, at: &str| island.sh(&format!("mount --bind '{}' {at}", file.display())).unwrap();
    mount(&hosts_file, "/etc/hosts");
    mount(&resolver, "/etc/resolv.conf");
}

fn network_late(line: Line) {
    let mut vm = Vm::new(line, "network-late");
    let island = island(&vm, &["127.0.0.1"]);
    island.sh("ip address del 127.0.0.1/8 dev lo").unwrap();
    vm.prefix = island.prefix();
    let started = vm.start(&["run"]);
    started.await_word("trying again");
    assert!(vm.gate.requests().is_empty());
    island.sh("ip address add 127.0.0.1/8 dev lo").unwrap();
    let ended = started.end(&vm);
    ended.done().states(2, 0);
    ended.expect(ended.report["steps"][0]["attempts"].as_u64() > Some(1), "it was tried more than once");
}

fn names_late(line: Line) {
    let mut vm = Vm::new(line, "names-late");
    by_name(&mut vm, "salt.test");
    let island = island(&vm, &["127.0.0.1"]);
    names(&vm, &island, "127.0.0.1 localhost\n");
    let known = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&known);
    island.name_server([127, 0, 0, 1], move |_| if asked.load(Ordering::Relaxed) { Says::Known } else { Says::Failed }).unwrap();
    vm.prefix = island.prefix();
    let started = vm.start(&["run"]);
    started.await_word("trying again");
    assert!(vm.gate.requests().is_empty());
    known.store(true, Ordering::Relaxed);
    let ended = started.end(&vm);
    ended.done().states(2, 0);
    ended.expect(ended.report["steps"][0]["attempts"].as_u64() > Some(1), "it was tried more than once");
}

fn ipv6_only(line: Line) {
    let mut vm = Vm::new(line, "ipv6-only");
    by_name(&mut vm, "localhost");
    vm.set("minion/master", "::1").set("minion/config/ipv6", true);
    let island = island(&vm, &["::1"]);
    names(&vm, &island, "::1 localhost\n");
    island.sh("ip address del 127.0.0.1/8 dev lo; test -z \"$(ip -4 -oneline address)\"").unwrap();
    vm.prefix = island.prefix();
    vm.run().done().states(2, 0);
}

/// The name has an IPv6 address too, and it is the first, but nobody listens there.
fn ipv6_closed(line: Line) {
    let mut vm = Vm::new(line, "ipv6-closed");
    by_name(&mut vm, "localhost");
    let island = island(&vm, &["127.0.0.1"]);
    names(&vm, &island, "::1 localhost\n127.0.0.1 localhost\n");
    vm.prefix = island.prefix();
    let ended = vm.run();
    ended.done().states(2, 0);
    ended.expect(ended.report["steps"][0]["attempts"] == 1, "the other address is part of the same try");
}

/// To a machine whose clock is behind a good certificate is one that will be valid some day; then somebody sets the clock. Here it is
/// the certificate that moves.
fn clock_behind(line: Line) {
    let mut vm = Vm::new(line, "clock-behind");
    let [future, good] =
        [Certificate::Future, Certificate::Good].map(|certificate| certificate.shown(vm.master.authority()).unwrap().unwrap());
    let is_set = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_set);
    let shown = move || Front::Tls(Arc::clone(if asked.load(Ordering::Relaxed) { &good } else { &future }));
    let refused = |_: &Request| Answer::cherrypy_error(401, "Could not authenticate using provided credentials");
    let peer = Server::behind(shown, refused).unwrap();
    let started = vm.set("api/url", peer.url()).start(&["run"]);
    started.await_word("not valid yet");
    started.await_word("trying again");
    is_set.store(true, Ordering::Relaxed);
    let ended = started.end(&vm);
    // That it is refused shows that it was heard.
    ended.failed(32, "login-refused", "login");
}

/// Runs the agent where this piece of shell has changed the mounts; `$ROOT` is the root.
fn mounted(vm: &mut Vm, change: &str) -> Ended {
    let script = format!("ROOT='{}'\n{change}\nexec \"$@\"", vm.root.path().display());
    vm.prefix = ["unshare", "--mount", "sh", "-ec", &script, "sh"].map(str::to_owned).to_vec();
    let ended = vm.run();
    vm.prefix.clear();
    ended
}

/// It could not even keep its report.
#[track_caller]
fn told_without_a_report(ended: &Ended, hint: &str) {
    ended.expect(ended.code == 24, "exit code 24");
    ended.expect(ended.stderr.contains(hint), hint);
    ended.expect(ended.signals.len() == 1 && ended.signals[0].status == "FAILURE", "Heat was told once");
    let told = &ended.signals[0];
    ended
        .expect(told.reason.starts_with("local-system: ") && told.data["hint"].as_str().is_some_and(|said| said.contains(hint)), "and why");
}

fn disk_full(line: Line) {
    let mut vm = Vm::new(line, "disk-full");
    let full =
        |dir: &str| format!("mkdir -p $ROOT/{dir}; mount -t tmpfs -o size=4k tmpfs $ROOT/{dir}; head -c 4096 /dev/zero >$ROOT/{dir}/fill");
    let ended = mounted(&mut vm, &full("etc/salt"));
    ended.failed(24, "local-system", "configure").hints("Make room");
    // Not even the lock can be made.
    vm.next_stack();
    let ended = mounted(&mut vm, "mkdir -p $ROOT/var; mount -t tmpfs -o nr_inodes=3 tmpfs $ROOT/var");
    told_without_a_report(&ended, "Make room");
    // There is a lock, but no room for what is to be remembered.
    vm.next_stack();
    let ended = mounted(&mut vm, &full("var/lib/heat-salt-bootstrap"));
    told_without_a_report(&ended, "Make room");
    vm.next_stack().run().done();
}

fn read_only(line: Line) {
    let mut vm = Vm::new(line, "read-only");
    let fixed = |dir: &str| format!("mkdir -p $ROOT/{dir}; mount --bind $ROOT/{dir} $ROOT/{dir}; mount -o remount,bind,ro $ROOT/{dir}");
    let ended = mounted(&mut vm, &fixed("etc"));
    ended.failed(24, "local-system", "configure").hints("read-only");
    vm.next_stack();
    let ended = mounted(&mut vm, &fixed("var"));
    told_without_a_report(&ended, "read-only");
    vm.next_stack().run().done();
}

fn tmp_noexec(line: Line) {
    let mut vm = Vm::new(line, "tmp-noexec");
    // Salt and the agent are none of what is meant, wherever their directories are.
    let change = format!(
        "for dir in /tmp /var/tmp; do mount --bind $dir $dir; mount -o remount,bind,noexec,nosuid,nodev $dir; done
         for dir in '{}' \"$(dirname \"$1\")\"; do mount --bind \"$dir\" \"$dir\"; mount -o remount,bind,exec \"$dir\"; done",
        vm.master.venv().dir().display()
    );
    let ended = mounted(&mut vm, &change);
    ended.done().states(2, 0);
}

/// `/proc` shows each user its own processes only, and to see more by a group or a capability is not allowed either (proc(5), `hidepid`).
fn processes_hidden(line: Line) {
    let mut vm = Vm::new(line, "hidepid");
    let mut other = Command::new("setpriv").args(["--reuid=65534", "--clear-groups", "sleep", "600"]).spawn().unwrap();
    let change = format!(
        "mount -t proc -o hidepid=2,gid=65533 proc /proc
         set -- setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace \"$@\"
         test -e /proc/{other}
         setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace sh -ec 'test -e /proc/$$; ! test -e /proc/{other}'",
        other = other.id()
    );
    let ended = mounted(&mut vm, &change);
    other.kill().unwrap();
    other.wait().unwrap();
    ended.done().states(2, 0);
}

/// The power went while the minion wrote its keys: Salt alone never gets over it. And the pid in its file is somebody else's by now, or nobody's and not free.
fn half_a_key(line: Line) {
    let pki = "etc/salt/pki/minion";
    let made = Command::new("openssl").args(["genrsa", "2048"]).output().unwrap().stdout;
    for (id, length, left) in [("half-a-key", made.len() / 2, true), ("no-key", 0, true), ("half-a-pair", made.len(), false)] {
        let vm = Vm::new(line, id);
        fs::create_dir_all(vm.path(pki)).unwrap();
        fs::write(vm.path(pki).join("minion.pem"), &made[..length]).unwrap();
        fs::create_dir_all(vm.path("var/run")).unwrap();
        fs::write(vm.path("var/run/salt-minion.pid"), std::process::id().to_string()).unwrap();
        // Nobody has asked yet how the minion of before ended.
        let mut before = Command::new("sleep").arg("600").spawn().unwrap();
        let note =
            "import json, sys; from salt.utils.process import get_process_info; print(json.dumps(get_process_info(int(sys.argv[1]))))";
        let noted = Command::new(vm.master.venv().program("python")).args(["-c", note, &before.id().to_string()]).output().unwrap();
        assert!(noted.status.success(), "{noted:?}");
        fs::write(vm.path("var/run/process_responsibility_salt-minion.pid"), noted.stdout).unwrap();
        before.kill().unwrap();
        vm.run().done().states(2, 0);
        before.wait().unwrap();
        assert_eq!(vm.path(pki).join("minion.pem.half").exists(), left, "{id}");
        assert_eq!(fs::read(vm.path(pki).join("minion.pem")).unwrap() == made, !left, "{id}");
    }
}

/// An image that was made of a machine with all that this program remembers: another instance is another bootstrap. The first one
/// has neither an instance id nor a machine id.
fn cloned(line: Line) {
    let mut vm = Vm::new(line, "cloned");
    assert!(!vm.path("etc/machine-id").exists());
    vm.states(&["append"]).run().done();
    let first = vm.report();
    let id = vm.path("var/lib/cloud/data/instance-id");
    fs::create_dir_all(id.parent().unwrap()).unwrap();
    for (instance, runs) in [("one", 2), ("two", 3)] {
        fs::write(&id, format!("{instance}\n")).unwrap();
        // Under the same name it is the same minion only with the same key.
        let ended = vm.next_stack().set("minion/keep_key", true).run();
        ended.done().states(2, 0);
        ended.expect(ended.changed() == ["states"], "the states run on this instance too");
        ended.expect(ended.report["bootstrap_id"] != first["bootstrap_id"], "another bootstrap");
        assert_eq!(vm.runs(), runs);
        vm.run().says("nothing had to change");
        assert_eq!(vm.runs(), runs);
    }
}

fn without_a_name(line: Line) {
    let mut vm = Vm::new(line, "without-a-name");
    vm.set("minion/id", Value::Null);
    for name in ["", "\n", "localhost\n", "localhost.localdomain\n"] {
        fs::create_dir_all(vm.path("etc")).unwrap();
        fs::write(vm.path("etc/hostname"), name).unwrap();
        let ended = vm.next_stack().run();
        ended.expect(ended.code == 10 && ended.report["reason"] == "config", &format!("{name:?} is refused"));
        ended.says("minion.id");
        ended.expect(ended.signals.len() == 1 && ended.signals[0].status == "FAILURE", "Heat was told once");
        ended.expect(ended.requests.is_empty(), "nobody was asked for anything");
    }
    // On the machine itself it is the kernel that knows the name.
    let config = vm.root.write_config(&vm.config).unwrap();
    let set_name = "printf '%s\\n' \"$0\" >/proc/sys/kernel/hostname; exec \"$@\"";
    for name in ["", "localhost"] {
        vm.prefix = ["unshare", "--uts", "sh", "-ec", set_name, name].map(str::to_owned).to_vec();
        let ended = vm.on_the_machine(&["plan", "--config", config.to_str().unwrap()]);
        ended.expect(ended.code == 10 && ended.stderr.contains("minion.id"), &format!("{name:?} is refused"));
    }
}
