//! What the program remembers between runs, below `/var/lib/heat-salt-bootstrap`.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::{info, warn};

use super::instance::{Instance, Kinship};
use crate::heat::signal::Message;
use crate::minion::restart::PendingRestart;
use crate::salt::public_key::Fingerprint;
use crate::system::files::{self, Lock, Root};
use crate::system::retry::Wait;
use crate::types::failure::{Failure, Kind};
use crate::types::names::{Jid, MinionId};
use crate::types::pin::Pin;
use crate::types::report::Report;

const DIR: &str = "/var/lib/heat-salt-bootstrap";
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// That the minion has to be restarted, and since when.
const RESTART_DUE: &str = "restart-due";
/// Which instance has worked here.
const INSTANCE: &str = "instance";
/// Which key the enrolment service has let in, and by what it is known.
const ENROLLED: &str = "enrolled";
/// Where the reports of earlier runs lie, and how many of them.
const EARLIER: &str = "reports";
const MOST_EARLIER: usize = 5;

/// The directory and its files.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    root: Root,
}

/// One bootstrap of one instance, remembered so that a run that was killed goes on where it
/// stopped and states are not triggered twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The form of this document; 1.
    pub schema: u32,
    /// The instance this is about. A clone of its disk is another instance.
    pub instance: Option<String>,
    /// A digest of what was to be triggered; other states are another bootstrap.
    pub asked: String,
    /// The id sent with the hook.
    pub bootstrap_id: String,
    /// Jobs that were there before the trigger, so none of them came of it.
    pub before: Vec<Jid>,
    /// How far it came.
    pub phase: Phase,
    /// How often salt-api has taken the hook.
    #[serde(default)]
    pub firings: u32,
    /// The hook whose reactor passes the id on to its jobs, once that was seen.
    #[serde(default)]
    pub tells_id: Option<String>,
    /// In the course of which boot the hook was fired.
    #[serde(default)]
    pub boot: Option<String>,
    /// This machine's name for the job that the enrolment service was asked for, or was about to be.
    #[serde(default)]
    pub job: Option<String>,
}

/// A signal that Heat has not taken yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingSignal {
    /// The form of this document; 1.
    pub schema: u32,
    /// The instance that owes it.
    pub instance: Option<String>,
    /// Which resource of which stack it is for.
    pub recipient: String,
    /// What Heat is to be told.
    pub message: Message,
}

/// How far a bootstrap came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The hook was about to be fired: there may be a job.
    Firing,
    /// It was: there will be a job, if somebody reacts.
    Fired,
    /// The states hold.
    Held,
    /// They do not: the next run triggers them again.
    Failed,
}

impl Store {
    /// The store below a root. Nothing is made yet.
    pub fn below(root: &Root) -> Store {
        Store { dir: root.at(DIR), root: root.clone() }
    }

    /// Makes the directory, for root only.
    pub fn prepare(&self) -> Result<(), Failure> {
        files::ensure_dir(&self.dir, 0o700)
    }

    /// Becomes the only run: two at once would fight over the minion and over the report. The second waits for the first, as long
    /// as it may wait, and the lock lasts until everybody has been told. `others` is called once if there is another.
    pub fn lock(&self, wait: &Wait, mut others: impl FnMut()) -> Result<Lock, Failure> {
        self.prepare()?;
        let path = self.dir.join("lock");
        let mut holder = None;
        let lock = wait.poll(Duration::from_millis(100), || {
            let lock = Lock::try_take(&path)?;
            if lock.is_none() && holder.is_none() {
                let pid = files::read_text(&path, 32).unwrap_or_default();
                info!("another run is under way (pid {pid}): waiting for it");
                holder = Some(pid);
                others();
            }
            Ok(lock)
        })?;
        lock.ok_or_else(|| {
            let pid = holder.unwrap_or_default();
            Failure::new(Kind::OutOfTime, format!("another run (pid {pid}) was under way all the time"))
                .hint("Look at what it does with `heat-salt-bootstrap status` and in its log.")
        })
    }

    /// The place of a file.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The pid of the run that is under way, if one is.
    pub fn runner(&self) -> Option<String> {
        Lock::holder(&self.dir.join("lock"))
    }

    /// The path of the report.
    pub fn report_path(&self) -> PathBuf {
        self.dir.join("report.json")
    }

    /// Where what `support` collects lies for a moment.
    pub fn support(&self) -> PathBuf {
        self.dir.join("support")
    }

    /// The names of all that is kept, the earlier reports too.
    pub fn names(&self) -> Vec<String> {
        let earlier = self.earlier().into_iter().map(|name| format!("{EARLIER}/{name}"));
        files::names(&self.dir).into_iter().filter(|name| !name.starts_with("support") && name != "lock").chain(earlier).collect()
    }

    /// The last report, if there is a whole one.
    pub fn report(&self) -> Option<Report> {
        self.load("report.json")
    }

    /// The last report; an error where there is none.
    pub fn last_report(&self) -> Result<Report, Failure> {
        let path = self.report_path();
        self.report().ok_or_else(|| {
            Failure::new(
                Kind::LocalSystem,
                format!("there is no report at {} that can be read: nothing has run to its end here", path.display()),
            )
            .hint("Run `heat-salt-bootstrap run`; under another root give the same --root; the report can be read by root only.")
        })
    }

    /// Keeps a report. What lies there of an earlier run gets another name, and the oldest of those goes.
    pub fn keep_report(&self, report: &Report) -> Result<(), Failure> {
        self.prepare()?;
        if let Some(last) = self.load::<Report>("report.json").filter(|last| (last.started, &last.verb) != (report.started, &report.verb)) {
            // A disk that takes no more names is no reason to lose the new one.
            self.set_aside(&last).unwrap_or_else(|failure| warn!("{failure}"));
        }
        self.save("report.json", report)
    }

    fn set_aside(&self, last: &Report) -> Result<(), Failure> {
        let dir = self.dir.join(EARLIER);
        files::ensure_dir(&dir, 0o700)?;
        // Ten digits last until 2286, and the names are in the order of time until then.
        files::link(&self.report_path(), &dir.join(format!("{:010}-{}.json", last.started, last.verb)))?;
        self.earlier().into_iter().skip(MOST_EARLIER).try_for_each(|name| files::remove(&dir.join(name)))
    }

    /// The names of the reports of earlier runs, the last one first.
    fn earlier(&self) -> Vec<String> {
        let mut names = files::names(&self.dir.join(EARLIER));
        names.reverse();
        names
    }

    /// How many reports of earlier runs there are.
    pub fn earlier_reports(&self) -> usize {
        self.earlier().len()
    }

    /// The report of the run that came so many runs before the last one.
    pub fn earlier_report(&self, before: usize) -> Option<Report> {
        self.load(&format!("{EARLIER}/{}", self.earlier().get(before.checked_sub(1)?)?))
    }

    /// What is remembered of the last bootstrap.
    pub fn memory(&self) -> Option<Memory> {
        self.load("bootstrap.json").filter(|memory: &Memory| memory.schema == 1)
    }

    /// Where that lies.
    pub fn memory_path(&self) -> PathBuf {
        self.dir.join("bootstrap.json")
    }

    /// Remembers.
    pub fn keep_memory(&self, memory: &Memory) -> Result<(), Failure> {
        self.save("bootstrap.json", memory)
    }

    /// Keeps a signal that could not be delivered. It is told later, and only the last one.
    pub fn keep_signal(&self, recipient: String, message: &Message) -> Result<(), Failure> {
        self.prepare()?;
        self.save("signal.json", &PendingSignal { schema: 1, instance: self.instance(), recipient, message: message.clone() })
    }

    /// Is there a signal that Heat has not taken?
    pub fn keeps_signal(&self) -> bool {
        self.dir.join("signal.json").exists()
    }

    /// The signal that this instance owes to this recipient.
    pub fn pending_signal(&self, recipient: &str) -> Option<Message> {
        let owed: PendingSignal = self.load("signal.json")?;
        (owed.schema == 1 && self.is_here(owed.instance.as_deref()) && owed.recipient == recipient).then_some(owed.message)
    }

    /// Heat has been told.
    pub fn signal_delivered(&self) -> Result<(), Failure> {
        files::remove(&self.dir.join("signal.json"))
    }

    /// Whether the minion has to be restarted, and since when.
    pub fn pending_restart(&self) -> PendingRestart {
        PendingRestart::kept_in(self.dir.join(RESTART_DUE))
    }

    /// The enrolment service has let this key in under this id, and is known by this pin also once the token was wiped.
    pub fn note_enrolled(&self, key: &Fingerprint, id: &MinionId, pin: Option<&Pin>) -> Result<(), Failure> {
        self.prepare()?;
        let pin = pin.map(Pin::to_string).unwrap_or_default();
        files::ensure(&self.dir.join(ENROLLED), format!("{}\n{pin}\n{id}\n", key.as_str()).as_bytes(), 0o600).map(|_| ())
    }

    /// Has it let in this key, and under this id? Earlier versions noted no id.
    pub fn is_enrolled(&self, key: &Fingerprint, id: &MinionId) -> bool {
        files::read_text(&self.dir.join(ENROLLED), 1024).is_ok_and(|text| {
            let mut lines = text.lines();
            lines.next() == Some(key.as_str()) && lines.nth(1).is_none_or(|noted| noted == id.as_str())
        })
    }

    /// By what it is known.
    pub fn pin(&self) -> Option<Pin> {
        Pin::parse(files::read_text(&self.dir.join(ENROLLED), 1024).ok()?.lines().nth(1)?)
    }

    /// The name of this instance, if one is known.
    pub fn instance(&self) -> Option<String> {
        Instance::here(&self.root).name()
    }

    /// Is this the instance that was noted? Where it cannot be known, it is not.
    pub fn is_here(&self, instance: Option<&str>) -> bool {
        instance.is_some() && self.instance().as_deref() == instance
    }

    /// Is this another machine than the one that worked here before? That is what a copy of its disk is.
    pub fn is_a_copy(&self) -> Option<String> {
        let noted = self.noted_instance()?;
        (noted.compare(&Instance::here(&self.root)) == Kinship::Other).then(|| noted.name().unwrap_or_default())
    }

    /// The key that lies here has to be this machine's own.
    pub fn refuse_copy(&self, hint: &str) -> Result<(), Failure> {
        let Some(original) = self.is_a_copy() else { return Ok(()) };
        Err(Failure::new(Kind::LocalSystem, format!("this disk is a copy of {original}'s, and so is its key")).hint(hint))
    }

    /// From now on this instance works here.
    pub fn note_instance(&self) -> Result<(), Failure> {
        let noted = self.noted_instance();
        let here = Instance::here(&self.root);
        // Before cloud-init has begun less is known than was at the last boot.
        let here = match &noted {
            Some(noted) if noted.compare(&here) != Kinship::Other => here.completed_by(noted.clone()),
            _ => here,
        };
        if noted.as_ref() == Some(&here) {
            return Ok(());
        }
        files::write(&self.dir.join(INSTANCE), here.to_string().as_bytes(), 0o600)
    }

    fn noted_instance(&self) -> Option<Instance> {
        files::read_text(&self.dir.join(INSTANCE), 4096).ok().map(|text| Instance::parse(&text))
    }

    /// Forgets what the original of this copy was about, but for its reports, which bear its name.
    pub fn forget_original(&self) -> Result<(), Failure> {
        ["bootstrap.json", "signal.json", RESTART_DUE, ENROLLED].iter().try_for_each(|name| files::remove(&self.dir.join(name)))
    }

    fn load<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.dir.join(name);
        let bytes = files::read_if_there(&path, MOST_BYTES).unwrap_or_default()?;
        serde_json::from_slice(&bytes).inspect_err(|error| warn!("{} is not used: {error}", path.display())).ok()
    }

    fn save<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        // By a value, as all JSON that is written: for each type to have a way of its own costs the program some kilobytes.
        files::write(&self.dir.join(name), format!("{:#}", json!(value)).as_bytes(), 0o600)
    }
}
