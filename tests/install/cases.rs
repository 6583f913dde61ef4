//! One case after the other, for each package manager that it makes sense for.

use std::fs;
use std::time::Duration;

use lab::harness::Case;
use lab::listen::ClosedPort;
use lab::tls::Authority;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::case_of;
use lab::vm::{Mirror, Mood, Vm, file};

/// A package manager and where it is at home.
#[derive(Clone, Copy)]
struct Flavour {
    name: &'static str,
    root: &'static str,
    /// The directory of the repositories.
    format: &'static str,
    /// What has to go away before, so that it is this one's turn.
    without: &'static str,
    /// The lock that its library takes.
    lock: &'static str,
}

const DNF: Flavour = Flavour { name: "dnf", root: "el", format: "rpm", without: "true", lock: "/var/lib/rpm/.rpm.lock" };
const ZYPPER: Flavour = Flavour { name: "zypper", without: "rm -f /usr/bin/dnf*", ..DNF };
const RPM: Flavour = Flavour { name: "rpm", without: "rm -f /usr/bin/dnf* /usr/bin/zypper", ..DNF };
const APT: Flavour = Flavour { name: "apt", root: "bookworm", format: "deb", without: "true", lock: "/var/lib/dpkg/lock-frontend" };
const DPKG: Flavour = Flavour { name: "dpkg", without: "rm -f /usr/bin/apt-get", ..APT };
const BULLSEYE: Flavour = Flavour { name: "apt-bullseye", root: "bullseye", ..APT };
const TRIXIE: Flavour = Flavour { name: "apt-trixie", root: "trixie", ..APT };

const WITH_REPOSITORIES: [Flavour; 3] = [DNF, ZYPPER, APT];
const ALL: [Flavour; 5] = [DNF, ZYPPER, RPM, APT, DPKG];

pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name: &str, flavours: &[Flavour], case: fn(Flavour)| {
        for flavour in flavours.iter().copied() {
            cases.push(case_of(format!("{}::{name}", flavour.name), move || case(flavour)));
        }
    };
    add("newest_of_a_line", &[DNF, ZYPPER, APT, BULLSEYE, TRIXIE], newest_of_a_line);
    add("pinned_to_an_older_one", &WITH_REPOSITORIES, pinned_to_an_older_one);
    add("no_such_version", &WITH_REPOSITORIES, no_such_version);
    add("another_version_is_there", &WITH_REPOSITORIES, another_version_is_there);
    add("wrong_key", &WITH_REPOSITORIES, wrong_key);
    add("unsigned", &WITH_REPOSITORIES, unsigned);
    add("metadata_of_another", &[DNF, ZYPPER, APT], metadata_of_another);
    add("metadata_not_signed_at_all", &[DNF], metadata_not_signed_at_all);
    add("content_does_not_fit_its_index", &[APT], content_does_not_fit_its_index);
    add("down", &WITH_REPOSITORIES, down);
    add("not_found", &WITH_REPOSITORIES, not_found);
    add("half_a_package_once", &WITH_REPOSITORIES, half_a_package_once);
    // zypper itself tries for longer than such a case should take.
    add("half_a_package_for_ever", &[DNF, APT], half_a_package_for_ever);
    add("slow", &[DNF, APT], slow);
    add("key_from_elsewhere", &[DNF, APT], key_from_elsewhere);
    add("locked_for_a_while", &WITH_REPOSITORIES, locked_for_a_while);
    add("locked_for_ever", &WITH_REPOSITORIES, locked_for_ever);
    add("disk_full", &[DNF, APT], disk_full);
    add("by_way_of_a_proxy", &[DNF, APT], by_way_of_a_proxy);
    add("around_a_proxy", &[DNF, APT], around_a_proxy);
    add("mirror_with_a_password", &WITH_REPOSITORIES, mirror_with_a_password);
    add("dpkg_was_cut_off", &[APT], dpkg_was_cut_off);
    add("killed_in_mid_run", &[DNF, APT], killed_in_mid_run);
    add("stale_lists", &[APT], stale_lists);
    add("a_file", &ALL, a_file);
    add("a_file_with_another_checksum", &[DNF, APT], a_file_with_another_checksum);
    add("a_file_with_dependencies", &[DNF, ZYPPER], a_file_with_dependencies);
    add("a_file_of_an_unknown_authority", &[APT], a_file_of_an_unknown_authority);
    add("no_repositories", &[RPM, DPKG], no_repositories);
    add("not_root", &[APT], not_root);
    add("unknown_system", &[APT], unknown_system);
    add("contexts_are_restored", &[DNF], contexts_are_restored);
    cases
}

fn key(name: &str) -> String {
    String::from_utf8(file(name)).unwrap()
}

/// The `install` section for a repository of ours.
fn from(mirror: &Mirror, flavour: Flavour, repository: &str, version: &str) -> Value {
    let url = mirror.url(&format!("{}/{repository}", flavour.format));
    json!({"version": version, "repository": {"url": url, "gpg_key": key("key.asc")}})
}

fn machine(flavour: Flavour, install: &Value) -> Vm {
    let vm = Vm::new(flavour.root, install);
    assert_eq!(vm.sh(flavour.without).code, 0);
    vm
}

/// Nobody may ever have started the minion under another name than ours.
#[track_caller]
fn only_as_itself(vm: &Vm) {
    let started = vm.text("var/log/started-as");
    assert!(!started.is_empty() && started.lines().all(|line| line.contains("web-1")), "started as {started:?}");
}

fn newest_of_a_line(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    // The second run has to find the minion of the first.
    let story = vm.install_after("heat-salt-bootstrap install && cp /var/lib/heat-salt-bootstrap/report.json /first || exit 1");
    let first: Value = serde_json::from_str(&vm.text("first")).unwrap_or_default();
    let changed = |report: &Value| report["steps"].as_array().unwrap().iter().filter(|step| step["changed"] == true).count();
    story.done(false);
    story.expect(changed(&first) > 0 && changed(&story.report) == 0, "the first run changes, the second does not");
    assert_eq!(vm.version(), "3006.27");
    only_as_itself(&vm);
    assert_eq!(vm.text("var/log/started-as").lines().count(), 1, "it is started once");
}

fn pinned_to_an_older_one(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006.26"));
    vm.install().done(true);
    assert_eq!(vm.version(), "3006.26");
    if flavour.name != "zypper" {
        // The file that was written keeps a later upgrade from leaving the version.
        let upgrade = if flavour.name == "dnf" { "dnf -y upgrade" } else { "apt-get update && apt-get -y upgrade" };
        assert_eq!(vm.sh(upgrade).code, 0);
        assert_eq!(vm.version(), "3006.26");
    }
}

fn no_such_version(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006.99"));
    vm.install().failed(20, "package-failed", &["no salt-minion 3006.99", "3006.27"]);
    assert_eq!(vm.version(), "");
}

fn another_version_is_there(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006.26"));
    vm.install().done(true);
    // What is newer than what is wanted is replaced too, and nobody can overlook it.
    for (there, wanted, goes_back) in [("3006.26", "3006.27", false), ("3006.27", "3008.5", false), ("3008.5", "3006.27", true)] {
        vm.set("/install/version", json!(wanted));
        let checked = vm.sh("heat-salt-bootstrap check");
        assert_eq!(checked.stdout.contains(&format!("goes back from {there}")), goes_back, "{}", checked.stdout);
        let ended = vm.install();
        let warned = ended.stderr.lines().any(|line| line.contains(" warn") && line.contains("which is older: going back"));
        ended.expect(warned == goes_back, "whether it warns");
        ended
            .done(true)
            .expect(ended.stderr.contains(&format!("salt-minion {there} is there, {wanted} is wanted")), "what is done, and why");
        assert_eq!(vm.version(), wanted);
    }
    let asked = mirror.asked().len();
    vm.set("/install/version", json!("3006"));
    vm.install().done(false);
    assert_eq!(mirror.asked().len(), asked, "what is there is not looked for");
    only_as_itself(&vm);
}

fn wrong_key(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    vm.set("/install/repository/gpg_key", json!(key("other-key.asc")));
    vm.install().failed(22, "package-untrusted", &["gpg_key"]);
    assert_eq!(vm.version(), "");
}

fn unsigned(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let repository = if flavour.format == "rpm" { "unsigned-packages" } else { "unsigned" };
    let vm = machine(flavour, &from(&mirror, flavour, repository, "3006"));
    vm.install().failed(22, "package-untrusted", &["do not turn the check off"]);
    assert_eq!(vm.version(), "");
}

fn metadata_of_another(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let repository = if flavour.format == "rpm" { "other-key-metadata" } else { "other-key" };
    let vm = machine(flavour, &from(&mirror, flavour, repository, "3006"));
    vm.install().failed(22, "package-untrusted", &[]);
    assert_eq!(vm.version(), "");
}

/// As many RPM repositories are: then the packages' own signatures count, and they are looked at.
fn metadata_not_signed_at_all(flavour: Flavour) {
    let plain = Mirror::start(None);
    let vm = machine(flavour, &from(&plain, flavour, "unsigned-metadata", "3006"));
    let checked = vm.sh("heat-salt-bootstrap check --json");
    let lines: Vec<Value> = serde_json::from_str(&checked.stdout).unwrap_or_else(|_| panic!("{checked:?}"));
    let source = lines.iter().find(|line| line["what"] == "package source").unwrap();
    assert_eq!((&source["state"], &source["code"]), (&json!("wrong"), &json!(22)), "check says so beforehand: {lines:#?}");
    vm.install().failed(22, "package-untrusted", &["signs its packages only", "over http://"]);
    assert_eq!(vm.version(), "");
    let authority = Authority::new().unwrap();
    let encrypted = Mirror::start(Some(&authority));
    let vm = machine(flavour, &from(&encrypted, flavour, "unsigned-metadata", "3006"));
    vm.trust(&authority);
    let ended = vm.install();
    ended.done(true).expect(ended.stderr.contains("signs its packages only"), "it is said");
    assert!(vm.text("etc/yum.repos.d/heat-salt-bootstrap.repo").contains("\ngpgcheck=1\nrepo_gpgcheck=0\n"));
}

/// The index is signed, so whoever changed the content is not who signed: that is a matter of trust.
fn content_does_not_fit_its_index(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "bad-hash", "3006"));
    vm.install().failed(22, "package-untrusted", &[]);
    assert_eq!(vm.version(), "");
}

fn down(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    vm.set("/deadline", json!("15s"));
    mirror.set_down(true);
    vm.install().failed(21, "repository-unreachable", &["trying again"]);
    vm.set("/deadline", json!("60s"));
    mirror.set_down(false);
    vm.install().done(true);
}

fn not_found(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "nothing-here", "3006"));
    vm.set("/deadline", json!("15s"));
    vm.install().failed(21, "repository-unreachable", &["install.repository.url"]);
}

fn half_a_package_once(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    mirror.be(Mood::Halves(1));
    vm.install().done(true);
    assert_eq!(vm.version(), "3006.27");
    let packages = mirror.asked().iter().filter(|path| path.ends_with(".rpm") || path.ends_with(".deb")).count();
    assert!(packages > 2, "one of the two was asked for again: {packages}");
}

fn half_a_package_for_ever(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    vm.set("/deadline", json!("15s"));
    mirror.be(Mood::Halves(u32::MAX));
    vm.install().failed(21, "repository-unreachable", &["trying again"]);
    assert_eq!(vm.version(), "");
}

/// In a file, or to be fetched over verified TLS.
fn key_from_elsewhere(flavour: Flavour) {
    let authority = Authority::new().unwrap();
    let (mirror, keys) = (Mirror::start(None), Mirror::start(Some(&authority)));
    let url = mirror.url(&format!("{}/good", flavour.format));
    let vm = machine(flavour, &json!({"version": "3006", "repository": {"url": url, "gpg_key_url": keys.url("key.asc")}}));
    vm.install().failed(21, "repository-unreachable", &["key.asc", "unknown CA"]);
    vm.trust(&authority);
    vm.install().done(true);
    let from_file = json!({"version": "3006.26", "repository": {"url": url, "gpg_key_file": "/etc/the-key"}});
    let vm = machine(flavour, &from_file);
    fs::write(vm.path("etc/the-key"), "no key").unwrap();
    vm.install().failed(10, "config", &["install.repository.gpg_key_file", "BEGIN PGP PUBLIC KEY BLOCK"]);
    fs::write(vm.path("etc/the-key"), key("other-key.asc")).unwrap();
    vm.install().failed(22, "package-untrusted", &[]);
    fs::write(vm.path("etc/the-key"), key("key.asc")).unwrap();
    vm.install().done(true);
}

fn slow(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    mirror.be(Mood::Slow(Duration::from_secs(1)));
    vm.install().done(true);
}

/// Holds the lock as package managers do, for so many seconds.
fn holding(lock: &str, seconds: u32) -> String {
    let program = format!(
        "import fcntl, os, time\nos.makedirs(os.path.dirname('{lock}'), exist_ok=True)\nfile = open('{lock}', 'w')\nfcntl.lockf(file, fcntl.LOCK_EX)\nopen('/held', 'w')\ntime.sleep({seconds})"
    );
    format!("rm -f /held; python3 -c \"{program}\" &\nuntil [ -e /held ]; do sleep 0.1; done")
}

fn locked_for_a_while(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    let ended = vm.install_after(&holding(flavour.lock, 5));
    ended.done(true);
    for word in ["waiting for another package manager: process ", "python3", flavour.lock, "the lock is free after"] {
        ended.expect(ended.stderr.contains(word), word);
    }
}

fn locked_for_ever(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    vm.set("/deadline", json!("8s"));
    let ended = vm.install_after(&holding(flavour.lock, 100));
    ended.failed(25, "package-locked", &["python3", flavour.lock]);
    assert_eq!(vm.version(), "");
}

fn disk_full(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    let ended = vm.install_after("mount -t tmpfs -o size=4k tmpfs /usr/bin/../lib/systemd/system && dd if=/dev/zero of=/usr/lib/systemd/system/fill bs=1k count=8 2>/dev/null || true");
    ended.failed(20, "package-failed", &["Make room"]);
}

/// The name of the repository resolves nowhere: only the proxy, which here is the server itself, knows it.
fn by_way_of_a_proxy(flavour: Flavour) {
    let mirror = Mirror::start(None);
    mirror.be(Mood::ProxyOnly);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    vm.set("/install/repository/url", json!(format!("http://salt.test/{}/good", flavour.format)));
    let proxy = mirror.url("");
    let ended = vm.install_after(&format!("export http_proxy={}", proxy.trim_end_matches('/')));
    ended.done(true);
    assert!(mirror.asked().iter().any(|asked| asked.starts_with("http://salt.test/")), "{:?}", mirror.asked());
}

/// Nobody listens where the proxy is said to be: what `no_proxy` names is asked straight, for packages and, by this program, for the key. By
/// https:// apt 2.6 asks the mirror itself to be a proxy then, unless it is told in its own words, as docs/air-gapped.md says.
fn around_a_proxy(flavour: Flavour) {
    let authority = Authority::new().unwrap();
    let mirror = Mirror::start(Some(&authority));
    let keys = Mirror::start(Some(&authority));
    let url = mirror.url(&format!("{}/good", flavour.format));
    let repository = json!({"url": url, "gpg_key_url": keys.url("key.asc")});
    let vm = machine(flavour, &json!({"version": "3006", "repository": repository}));
    vm.trust(&authority);
    let nowhere = ClosedPort::pick().unwrap();
    let proxy = format!("export https_proxy=http://{0} http_proxy=http://{0}", nowhere.address());
    vm.set("/deadline", json!("10s"));
    vm.install_after(&proxy).failed(21, "repository-unreachable", &[]);
    vm.set("/deadline", json!("60s"));
    let host = url.split(['/', ':']).nth(3).unwrap();
    let straight =
        format!("mkdir -p /etc/apt/apt.conf.d && echo 'Acquire::https::Proxy::{host} \"DIRECT\";' >/etc/apt/apt.conf.d/99mirror");
    vm.install_after(&format!("{proxy} no_proxy=salt.test,127.0.0.1; {straight}")).done(true);
}

/// Who reads it stands in the configuration and in one file of root's alone; `plan` shows that file without the password.
fn mirror_with_a_password(flavour: Flavour) {
    let authority = Authority::new().unwrap();
    let mirror = Mirror::start(Some(&authority));
    mirror.be(Mood::Private("Basic Ym9vdDpTM2NyZXQtb2YtdGhlLW1pcnJvcg=="));
    let url = mirror.url(&format!("{}/good", flavour.format));
    let repository = json!({"url": url, "gpg_key_url": mirror.url("key.asc"), "username": "boot", "password": "another"});
    let vm = machine(flavour, &json!({"version": "3006", "repository": repository}));
    vm.trust(&authority);
    vm.install().failed(21, "repository-unreachable", &["HTTP 401"]);
    vm.set("/install/repository/password", json!("S3cret-of-the-mirror"));
    let planned = vm.sh("heat-salt-bootstrap plan && heat-salt-bootstrap check; true");
    assert!(planned.stdout.contains("0600") && planned.stdout.contains("***"), "{}", planned.stdout);
    assert!(planned.stdout.contains("answers, and its key is there"), "{}", planned.stdout);
    let ended = vm.install();
    ended.done(true);
    assert_eq!(vm.version(), "3006.27");
    let holding = vm.sh("grep -rl S3cret-of-the-mirror /etc /var /usr/lib | xargs stat -c '%a %n'").stdout;
    assert!(holding.lines().count() == 2 && holding.lines().all(|file| file.starts_with("600 /etc/")), "{holding}");
    for said in [&planned.stdout, &planned.stderr, &ended.stderr, &ended.report.to_string()] {
        assert!(!said.contains("S3cret"), "{said}");
    }
    // Without a name there is no file that gives one away.
    vm.set("/install/repository", json!({"url": url, "gpg_key": key("key.asc")}));
    vm.set("/install/version", json!("3006.26"));
    vm.install().failed(21, "repository-unreachable", &[]);
    assert_eq!(vm.sh("grep -rl S3cret-of-the-mirror /etc /var /usr/lib").stdout, "");
}

fn dpkg_was_cut_off(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    // What a dpkg that is killed leaves behind: a journal that nobody has merged.
    let ended = vm.install_after(
        "mkdir -p /var/lib/dpkg/updates && sed -n '/^Package: base-files$/,/^$/p' /var/lib/dpkg/status >/var/lib/dpkg/updates/0001",
    );
    ended.done(true).expect(ended.stderr.contains("an earlier dpkg was cut off"), "it is said");
    assert_eq!(vm.version(), "3006.27");
}

/// The package manager dies while its package is half there, and its script waits.
fn killed_in_mid_run(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    let killer = ": >/hold; (until [ -e /held ]; do sleep 0.1; done; pkill -KILL 'dnf|dpkg|apt-get'; rm /hold) &";
    vm.install_after(killer).failed(20, "package-failed", &["killed by signal 9"]);
    let second = vm.install();
    second.expect(second.code == 0, "it goes on");
    assert_eq!(vm.version(), "3006.27");
    only_as_itself(&vm);
}

/// An image whose lists name versions that the mirror no longer has.
fn stale_lists(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    vm.install().done(true);
    let stale = "apt-get -y purge salt-minion salt-common >/dev/null && sed -i 's/3006.27/3006.20/' /var/lib/apt/lists/*good*Packages && rm /var/lib/apt/lists/*good*InRelease";
    vm.install_after(stale).done(true);
    assert_eq!(vm.version(), "3006.27");
}

/// A machine that installs one file from an https server, and that server.
fn with_a_file(flavour: Flavour) -> (Vm, Mirror, Authority) {
    let authority = Authority::new().unwrap();
    let mirror = Mirror::start(Some(&authority));
    let path =
        if flavour.format == "rpm" { "rpm/single/salt-minion-3006.27-0.noarch.rpm" } else { "deb/single/salt-minion_3006.27_all.deb" };
    let sha256: String = digest(&SHA256, &file(path)).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let vm = machine(flavour, &json!({"source": "package", "package_url": mirror.url(path), "sha256": sha256}));
    (vm, mirror, authority)
}

fn a_file(flavour: Flavour) {
    let (vm, mirror, authority) = with_a_file(flavour);
    vm.trust(&authority);
    mirror.be(Mood::Halves(1));
    let ended = vm.install();
    ended.done(true).expect(ended.stderr.contains("trying again"), "half a file is fetched again");
    assert_eq!(vm.version(), "3006.27");
    only_as_itself(&vm);
    assert_eq!(fs::read_dir(vm.path("var/cache/heat-salt-bootstrap")).unwrap().count(), 0, "the file is gone");
}

fn a_file_with_another_checksum(flavour: Flavour) {
    let (vm, _mirror, authority) = with_a_file(flavour);
    vm.trust(&authority);
    vm.set("/install/sha256", json!("ab".repeat(32)));
    vm.install().failed(22, "package-untrusted", &["SHA-256", &"ab".repeat(32)]);
    assert_eq!(vm.version(), "");
    assert_eq!(fs::read_dir(vm.path("var/cache/heat-salt-bootstrap")).unwrap().count(), 0, "the file is gone");
}

/// The checksum stands for the signature of the file that is named, and for no other: what the file depends on is checked as ever, by
/// the rules of the machine's own repositories. The file itself may be signed by whom this machine does not know.
fn a_file_with_dependencies(flavour: Flavour) {
    let authority = Authority::new().unwrap();
    let (mirror, files) = (Mirror::start(None), Mirror::start(Some(&authority)));
    for (kind, repository) in [("other-key-packages", "unsigned-packages"), ("other-key-packages", "good"), ("unsigned-packages", "good")] {
        let name = format!("rpm/{kind}/salt-minion-3006.27-0.noarch.rpm");
        let sha256: String = digest(&SHA256, &file(&name)).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let vm = machine(flavour, &json!({"source": "package", "package_url": files.url(&name), "sha256": sha256}));
        vm.trust(&authority);
        fs::write(vm.path("etc/key.asc"), key("key.asc")).unwrap();
        let url = mirror.url(&format!("rpm/{repository}"));
        let own =
            format!("[own]\nname=own\nbaseurl={url}\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\npkg_gpgcheck=1\ngpgkey=file:///etc/key.asc\n");
        let dir = if flavour.name == "zypper" { "etc/zypp/repos.d" } else { "etc/yum.repos.d" };
        fs::create_dir_all(vm.path(dir)).unwrap();
        fs::write(vm.path(dir).join("own.repo"), own).unwrap();
        assert_eq!(vm.sh("rpm --import /etc/key.asc").code, 0);
        let ended = vm.install();
        assert_eq!(fs::read_dir(vm.path("var/cache/heat-salt-bootstrap")).unwrap().count(), 0, "nothing is left behind");
        assert!(!vm.path("etc/zypp/repos.d/heat-salt-bootstrap-file.repo").exists(), "nor a repository that nobody checks");
        if repository == "good" {
            ended.done(true);
            assert_eq!(vm.version(), "3006.27");
        } else {
            ended.failed(22, "package-untrusted", &[]);
            let said = ended.report["facts"]["output"].as_str().unwrap_or_default();
            ended.expect(said.contains("salt-3006.27"), "it is said of which package");
            assert_eq!(vm.version(), "");
        }
    }
}

fn a_file_of_an_unknown_authority(flavour: Flavour) {
    let (vm, _mirror, _) = with_a_file(flavour);
    vm.install().failed(21, "repository-unreachable", &["unknown CA"]);
}

fn no_repositories(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    vm.install().failed(23, "unsupported-system", &[&format!("there is only {}", flavour.name), "package_url"]);
}

fn not_root(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    let finished = vm.sh("setpriv --reuid=65534 --regid=65534 --clear-groups heat-salt-bootstrap install");
    assert_eq!(finished.code, 12, "{}", finished.stderr);
    assert!(mirror.asked().is_empty());
}

fn unknown_system(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    let ended = vm.install_after("rm /etc/os-release; printf 'ID=plan9\\nVERSION_ID=4\\n' >/etc/os-release");
    ended.failed(23, "unsupported-system", &["ID=plan9", "apt-get"]);
    assert!(mirror.asked().is_empty());
}

/// There is no SELinux here: a stand-in for its tool says whether it would have been called.
fn contexts_are_restored(flavour: Flavour) {
    let mirror = Mirror::start(None);
    let vm = machine(flavour, &from(&mirror, flavour, "good", "3006"));
    vm.install_after("printf '#!/bin/sh\\necho \"$@\" >>/restored\\n' >/usr/sbin/restorecon; chmod 755 /usr/sbin/restorecon").done(true);
    assert!(vm.text("restored").contains("-R /etc/salt"), "{:?}", vm.text("restored"));
}
