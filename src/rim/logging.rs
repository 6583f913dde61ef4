//! The log on standard error: plain lines for people and consoles, levels for the journal, JSON
//! for collectors.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::cli::LogFormat;

/// Starts the log. A second call changes nothing.
pub fn start(format: LogFormat, verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let line = match format {
        LogFormat::Json => Line::Json,
        // systemd sets this for what it starts (systemd.exec(5)); it reads <N> as the level (sd-daemon(3)).
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => Line::Journal,
        LogFormat::Text => Line::Plain,
    };
    // Fails only if there is a log already.
    let _ = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).event_format(line).try_init();
}

enum Line {
    Plain,
    Journal,
    Json,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        let mut said = Said::default();
        event.record(&mut said);
        match self {
            Line::Plain => writeln!(writer, "{} {:5} {}", clock(), word(level), said.message),
            Line::Journal => said.message.lines().try_for_each(|line| writeln!(writer, "<{}>{line}", priority(level))),
            Line::Json => {
                let mut object = Map::new();
                object.insert("time".into(), json!(now()));
                object.insert("level".into(), json!(word(level).trim_end()));
                object.insert("message".into(), json!(said.message));
                writeln!(writer, "{}", Value::Object(object))
            }
        }
    }
}

#[derive(Default)]
struct Said {
    message: String,
}

impl Visit for Said {
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
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The levels of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The time of day in UTC: a first boot has no time zone worth trusting.
fn clock() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let day = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}", day / 3600, day / 60 % 60, day % 60, since.subsec_millis())
}
