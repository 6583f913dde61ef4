//! The log. On standard error: plain lines for people and consoles, levels for the journal, JSON for collectors, and on a terminal a
//! last line that shows what is under way. In a file, for whoever comes a day later. Each line names the step and the time left.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, debug};

use super::args::LogFormat;
use super::moment::attempt;
use super::terminal::{ERASE, LastLine, columns};
use crate::system::files::Root;
use crate::system::log_file::{LONGEST_LINE, LogFile};
use crate::types::deadline::Deadline;
use crate::types::excerpt::cut;
use crate::types::excerpt::without_credentials;
use crate::types::time;

/// For whoever comes a day later; the one before has `.1` after its name.
pub const FILE: &str = "/var/log/heat-salt-bootstrap.log";
/// How often the last line on a terminal moves.
pub const TICK: Duration = Duration::from_millis(200);

static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    form: Form,
    shown: LevelFilter,
    now: Mutex<Now>,
}

/// What changes in the course of a run.
#[derive(Default)]
struct Now {
    step: Option<(String, Instant)>,
    /// What was said last in this step, and which try comes next.
    said: Option<String>,
    attempt: Option<u32>,
    deadline: Option<Deadline>,
    file: Option<LogFile>,
    /// How often the last line was drawn; `None` where there is none.
    drawn: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Journal,
    Json,
}

/// Starts the log. A second call changes nothing.
pub fn start(format: LogFormat, verbose: u8) {
    let shown = if verbose == 0 { LevelFilter::INFO } else { LevelFilter::DEBUG };
    let form = match format {
        LogFormat::Json => Form::Json,
        LogFormat::Text if is_journal() => Form::Journal,
        LogFormat::Text => Form::Plain,
    };
    LOG.get_or_init(|| Log { form, shown, now: Mutex::default() });
    // Fails only if there is a log already.
    let _ = tracing::subscriber::set_global_default(Ear);
}

/// From now on the log is written to its file too, with what `-v` would show. Where there can be no file, there is none.
pub fn keep(root: &Root) {
    match LogFile::open(&root.at(FILE)) {
        Ok(file) => now(|now| now.file = Some(file)),
        Err(error) => debug!("no log is kept in {}: {error}", root.at(FILE).display()),
    }
}

/// From now on the log says how much time is left, and a terminal shows what is under way.
pub fn until(deadline: Deadline) {
    let Some(log) = LOG.get() else { return };
    log.now().deadline = Some(deadline);
    let dumb = std::env::var_os("TERM").is_none_or(|kind| kind == "dumb");
    if log.form == Form::Plain && !dumb && std::io::stderr().is_terminal() {
        log.now().drawn = Some(0);
        // Without this thread there is a line less.
        let _ = thread::Builder::new().name("terminal".into()).spawn(|| {
            while log.draw() {
                thread::sleep(TICK);
            }
        });
    }
}

/// Nothing is under way any more.
pub fn quiet() {
    now(|now| {
        now.step = None;
        if now.drawn.take().is_some_and(|times| times > 0) {
            say(ERASE);
        }
    });
}

fn now(change: impl FnOnce(&mut Now)) {
    if let Some(log) = LOG.get() {
        change(&mut log.now());
    }
}

/// Whoever is not there any more to read it misses nothing.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// systemd sets JOURNAL_STREAM for what it starts, and everybody inherits it; it names the device and the inode of the stream that the
/// journal reads (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(std::io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

impl Log {
    fn now(&self) -> MutexGuard<'_, Now> {
        // Whole between any two statements that hold the lock.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, level: Level, said: &str) {
        let mut now = self.now();
        let place = now.place();
        if now.drawn.is_some() && level <= Level::INFO {
            now.attempt = attempt(said).or(now.attempt);
            now.said = Some(said.to_owned());
        }
        if level <= self.shown {
            let line = match self.form {
                Form::Plain => format!("{} {:5} {place}{said}\n", clock(), word(level)),
                // <N> is the level, sd-daemon(3).
                Form::Journal => said.lines().map(|line| format!("<{}>{place}{line}\n", priority(level))).collect(),
                Form::Json => now.json(level, said),
            };
            let erase = if now.drawn.is_some_and(|times| times > 0) { ERASE } else { "" };
            say(&format!("{erase}{line}"));
        }
        if level <= Level::DEBUG
            && let Some(file) = now.file.as_mut()
        {
            let said = cut(said, LONGEST_LINE - 512).replace('\n', "\n    ");
            let line = format!("{} {:5} [{}] {place}{said}\n", date(), word(level), std::process::id());
            if file.append(&line).is_err() {
                // A full disk: what it is told on standard error it cannot be told here.
                now.file = None;
            }
        }
    }

    /// Draws the last line anew; says whether there is one.
    fn draw(&self) -> bool {
        let mut now = self.now();
        let Some(times) = now.drawn.as_mut() else { return false };
        *times += 1;
        let turn = *times;
        let step = now.step.as_ref().map(|(step, begun)| (step.as_str(), begun.elapsed().as_secs()));
        let left = now.deadline.map(|deadline| deadline.remaining().as_secs());
        let line = LastLine { step, left, attempt: now.attempt, message: now.said.as_deref() };
        say(&format!("{ERASE}{}", line.drawn(turn, columns(std::io::stderr()))));
        true
    }
}

impl Now {
    fn left(&self, before: &str) -> String {
        self.deadline.map_or_else(String::new, |deadline| format!("{before}{} s left", deadline.remaining().as_secs()))
    }

    /// Where in the run something is said: `[login, 1492 s left] `.
    fn place(&self) -> String {
        match (&self.step, self.deadline) {
            (Some((step, _)), _) => format!("[{step}{}] ", self.left(", ")),
            (None, Some(_)) => format!("[{}] ", self.left("")),
            (None, None) => String::new(),
        }
    }

    fn json(&self, level: Level, said: &str) -> String {
        let mut object = Map::new();
        object.insert("time".into(), json!(seconds()));
        object.insert("level".into(), json!(word(level)));
        object.insert("message".into(), json!(said));
        if let Some((step, _)) = &self.step {
            object.insert("step".into(), json!(step));
        }
        if let Some(deadline) = self.deadline {
            object.insert("left".into(), json!(deadline.remaining().as_secs()));
        }
        format!("{}\n", Value::Object(object))
    }
}

/// What `tracing` speaks to. The one kind of span is a step of the journal, and there is one step at a time.
struct Ear;

impl Subscriber for Ear {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // The file is opened later than the first line is said.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let Some(log) = LOG.get() else { return false };
        metadata.is_span() || *metadata.level() <= log.shown || (*metadata.level() <= Level::DEBUG && log.now().file.is_some())
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut said = Said::default();
        span.record(&mut said);
        now(|now| {
            now.step = said.name.map(|name| (name, Instant::now()));
            (now.said, now.attempt) = (None, None);
        });
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if let Some(log) = LOG.get() {
            log.write(*event.metadata().level(), &without_credentials(&said.message));
        }
    }

    fn exit(&self, _: &Id) {
        now(|now| (now.step, now.said, now.attempt) = (None, None, None));
    }

    fn enter(&self, _: &Id) {}
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    name: Option<String>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => self.name = Some(value.to_owned()),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        // Nothing is said at the level below.
        _ => "debug",
    }
}

/// The levels of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds() -> f64 {
    (since_1970().as_secs_f64() * 1000.0).round() / 1000.0
}

/// The time of day in UTC: a first boot has no time zone worth trusting.
fn clock() -> String {
    let since = since_1970();
    let day = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}", day / 3600, day / 60 % 60, day % 60, since.subsec_millis())
}

/// The same with the day, `2026-11-23T22:46:39.123Z`.
fn date() -> String {
    let day = time::written(since_1970().as_secs() as i64);
    format!("{}T{}Z", day.split(' ').next().unwrap_or_default(), clock())
}
