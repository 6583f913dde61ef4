//! Runs the cases of a suite that has masters, machines or clouds in common, and says what became of each.
//!
//! The command line is that of `cargo test`. What this adds to it: heavy cases (which start minions or machines) and light ones
//! (which mostly wait) have slots of their own; a case that hangs is given up, with the tails of its logs; what failed is
//! tried once more, alone, when everything else is over, and if it passes then it is called FLAKY and shown with its first
//! output. More than [`MOST_FLAKY`] of those fail the run. Times go to standard output and, as JUnit, to `$HSB_JUNIT`. Cases that
//! repeat what others show run only with [`WHOLE`] in the environment, and a run without them says how many it left out.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use libtest_mimic::Arguments;

use crate::process::{command_line, descendants};

/// So many cases of a suite may pass at their second try only.
pub const MOST_FLAKY: usize = 3;
/// If more have failed than this, what is wrong is no accident, and trying all of them again tells nothing new.
const MOST_AGAIN: usize = 10;
/// No case takes so long; what does hangs.
const HANGS_AFTER: Duration = Duration::from_secs(600);
/// With this in the environment everything runs; `make test-all` puts it there.
pub const WHOLE: &str = "HSB_ALL";
/// Characters of what a case said, in the lines that say what is red.
const BRIEF: usize = 240;
/// Lines of a log that are shown.
const TAIL: usize = 40;

/// A test case.
pub struct Case {
    name: String,
    run: Box<dyn Fn() -> Result<()> + Send + Sync>,
    light: bool,
    by_hand: bool,
    repeats: bool,
    sharing: Option<String>,
    limit: Duration,
}

impl Case {
    /// A case that keeps a core busy, as the start of a minion does.
    pub fn new(name: impl Into<String>, run: impl Fn() -> Result<()> + Send + Sync + 'static) -> Case {
        Case { name: name.into(), run: Box::new(run), light: false, by_hand: false, repeats: false, sharing: None, limit: HANGS_AFTER }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One that mostly waits, so that many can run side by side.
    #[must_use]
    pub fn light(mut self) -> Case {
        self.light = true;
        self
    }

    /// One that runs only if it is asked for (`--ignored`).
    #[must_use]
    pub fn by_hand(mut self) -> Case {
        self.by_hand = true;
        self
    }

    /// One that shows once more what another one shows elsewhere: it runs only in the whole matrix.
    #[must_use]
    pub fn repeats(mut self) -> Case {
        self.repeats = true;
        self
    }

    /// One that uses this, of which there is one: those that do run one after the other, and none of them waits in a slot.
    #[must_use]
    pub fn sharing(mut self, what: impl Into<String>) -> Case {
        self.sharing = Some(what.into());
        self
    }

    /// One that may take so long.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Case {
        self.limit = limit;
        self
    }
}

/// How many cases run at once.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    /// Of those that keep a core busy.
    pub heavy: usize,
    /// Of those that mostly wait. When there are none any more, some of these slots take of the others.
    pub light: usize,
}

/// Runs what the command line asks for. `before` comes before the first case, if there is any to run, and `after` when all are over.
pub fn run(suite: &str, slots: Slots, cases: Vec<Case>, before: impl FnOnce(), after: impl FnOnce()) -> ExitCode {
    let arguments = Arguments::from_args();
    let all = cases.len();
    let matrix = cases.iter().any(|case| case.repeats);
    let chosen: Vec<Case> = cases.into_iter().filter(|case| is_chosen(&arguments, &case.name)).collect();
    let filtered = all - chosen.len();
    if arguments.list {
        for case in &chosen {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    let wanted = |case: &Case| if arguments.ignored { case.by_hand } else { arguments.include_ignored || !case.by_hand };
    let (chosen, ignored): (Vec<Case>, Vec<Case>) = chosen.into_iter().partition(wanted);
    for case in &ignored {
        println!("ignored          {} (by hand: --ignored)", case.name);
    }
    let whole = env::var_os(WHOLE).is_some_and(|asked| !asked.is_empty());
    let (chosen, left): (Vec<Case>, Vec<Case>) = chosen.into_iter().partition(|case| whole || !case.repeats);
    let slots = match arguments.test_threads {
        // A small number is meant to make it quiet, a large one to hurry.
        Some(threads) => Slots { heavy: threads, light: threads },
        None => slots,
    };
    let begun = Instant::now();
    let mut results = Vec::new();
    if !chosen.is_empty() {
        before();
        install_hook();
        results = run_all(suite, slots, chosen.into_iter().map(Arc::new).collect());
        after();
    }
    if matrix {
        println!("\n{suite}: {}", which_matrix(results.len(), left.len(), whole));
    }
    conclude(suite, &results, ignored.len() + left.len(), filtered, begun.elapsed())
}

/// What was run of all there is: nothing is left out in silence.
fn which_matrix(run: usize, left: usize, whole: bool) -> String {
    if whole {
        format!("{run} run, of the whole matrix")
    } else {
        format!("{run} run; {left} that show once more what others show are left to the whole matrix: make test-all")
    }
}

fn is_chosen(arguments: &Arguments, name: &str) -> bool {
    let fits = |filter: &String| if arguments.exact { name == filter } else { name.contains(filter.as_str()) };
    arguments.filter.as_ref().is_none_or(fits) && !arguments.skip.iter().any(fits)
}

/// What became of a case.
struct Outcome {
    case: Arc<Case>,
    seconds: f64,
    /// What it said when it failed first.
    failure: Option<String>,
    /// And when it was tried again: nothing, if it passed then. Outside: it was not tried again.
    again: Option<Option<String>>,
}

impl Outcome {
    fn is_flaky(&self) -> bool {
        self.failure.is_some() && matches!(self.again, Some(None))
    }

    fn failed(&self) -> bool {
        self.failure.is_some() && !self.is_flaky()
    }
}

/// Cases that wait for a slot, in their order.
struct Queue {
    waiting: Mutex<Waiting>,
    returned: Condvar,
}

struct Waiting {
    cases: VecDeque<Arc<Case>>,
    /// What the running ones share.
    taken: Vec<String>,
}

impl Queue {
    fn of(cases: VecDeque<Arc<Case>>) -> Queue {
        Queue { waiting: Mutex::new(Waiting { cases, taken: Vec::new() }), returned: Condvar::new() }
    }

    /// The first that need not wait for another one.
    fn next(&self) -> Option<Arc<Case>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while !waiting.cases.is_empty() {
            let free = |case: &Arc<Case>| case.sharing.as_ref().is_none_or(|what| !waiting.taken.contains(what));
            if let Some(case) = waiting.cases.iter().position(free).and_then(|at| waiting.cases.remove(at)) {
                waiting.taken.extend(case.sharing.clone());
                return Some(case);
            }
            waiting = self.returned.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// What this one shared is free again.
    fn give_back(&self, case: &Case) {
        let Some(what) = &case.sharing else { return };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).taken.retain(|taken| taken != what);
        self.returned.notify_all();
    }
}

fn run_all(suite: &str, slots: Slots, cases: Vec<Arc<Case>>) -> Vec<Outcome> {
    let (light, heavy): (VecDeque<_>, VecDeque<_>) = cases.into_iter().partition(|case| case.light);
    let outcomes = Mutex::new(Vec::new());
    let (light, heavy) = (Queue::of(light), Queue::of(heavy));
    thread::scope(|scope| {
        // Who has no light case any more takes heavy ones: what waited beside them is gone, and of the heavy ones half wait, too.
        let helping = slots.heavy.div_ceil(2);
        let of_heavy = (0..slots.heavy.max(1)).map(|_| vec![&heavy]);
        let of_light = (0..slots.light.max(1)).map(|number| if number < helping { vec![&light, &heavy] } else { vec![&light] });
        for queues in of_heavy.chain(of_light) {
            let outcomes = &outcomes;
            scope.spawn(move || {
                for queue in queues {
                    while let Some(case) = queue.next() {
                        let (seconds, failure) = attempt(&case);
                        queue.give_back(&case);
                        say(suite, if failure.is_none() { "ok" } else { "failed" }, seconds, &case.name);
                        if let Some(failure) = &failure {
                            println!("{}", indented(failure));
                        }
                        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                        outcomes.push(Outcome { case, seconds, failure, again: None });
                    }
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.failure.is_some()).take(MOST_AGAIN) {
        println!("once more, alone: {}", outcome.case.name);
        let (seconds, failure) = attempt(&outcome.case);
        say(suite, if failure.is_none() { "flaky" } else { "failed" }, seconds, &outcome.case.name);
        if let Some(failure) = &failure {
            println!("{}", indented(failure));
        }
        outcome.again = Some(failure);
    }
    outcomes
}

fn say(suite: &str, what: &str, seconds: f64, name: &str) {
    println!("{what:<7} {seconds:7.1} s {suite} {name}");
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("        | {line}\n")).collect()
}

/// What a running case has left for whoever has to say why it failed.
#[derive(Default)]
struct Notes {
    failure: Mutex<String>,
    logs: Mutex<Vec<PathBuf>>,
}

thread_local! {
    static NOTES: RefCell<Option<Arc<Notes>>> = const { RefCell::new(None) };
}

/// The end of this log is shown if the case that is running on this thread fails or hangs.
pub fn show_on_failure(log: &Path) {
    NOTES.with_borrow(|notes| {
        if let Some(notes) = notes {
            notes.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log.to_owned());
        }
    });
}

/// Runs a case on a thread of its own, so that one that hangs can be left behind.
fn attempt(case: &Arc<Case>) -> (f64, Option<String>) {
    let begun = Instant::now();
    let notes = Arc::new(Notes::default());
    let (tell, told) = mpsc::channel();
    let (inner, kept) = (Arc::clone(case), Arc::clone(&notes));
    let spawned = thread::Builder::new().name(case.name.clone()).spawn(move || {
        NOTES.with_borrow_mut(|own| *own = Some(Arc::clone(&kept)));
        let ended = panic::catch_unwind(AssertUnwindSafe(|| (inner.run)()));
        let failure = match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}\n{}", tails(&kept))),
            // The hook has written it down.
            Err(_) => Some(kept.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        };
        // Nobody listens to one that was given up.
        let _ = tell.send(failure);
    });
    if let Err(error) = spawned {
        return (0.0, Some(format!("no thread for it: {error}")));
    }
    let failure = match told.recv_timeout(case.limit) {
        Ok(failure) => failure,
        Err(RecvTimeoutError::Timeout) => {
            Some(format!("it hangs: no end after {} s\n{}{}", case.limit.as_secs(), processes(), tails(&notes)))
        }
        Err(RecvTimeoutError::Disconnected) => Some("its thread ended without a word".to_owned()),
    };
    (begun.elapsed().as_secs_f64(), failure)
}

/// A panic of a case is written down with the lines of the tests that led there; its logs are read now, since unwinding removes them.
fn install_hook() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let notes = NOTES.with_borrow(|notes| notes.as_ref().map(Arc::clone));
        let Some(notes) = notes else { return default(info) };
        let mut text = format!("{info}\n");
        let trace = std::backtrace::Backtrace::force_capture().to_string();
        let own = trace.lines().map(str::trim).filter(|line| line.starts_with("at ./tests/"));
        // The last of them is always this file.
        for line in own.filter(|line| !line.contains("src/harness.rs")) {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&tails(&notes));
        let mut failure = notes.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // While it unwinds another panic may come; the first one counts.
        if failure.is_empty() {
            *failure = text;
        }
    }));
}

fn tails(notes: &Notes) -> String {
    let mut text = String::new();
    for log in notes.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // One that never came to be has nothing to say.
        let Ok(bytes) = fs::read(log) else { continue };
        let whole = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = whole.lines().collect();
        let _ = writeln!(text, "--- {}", log.display());
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn processes() -> String {
    let mut text = String::from("--- processes\n");
    for pid in descendants(std::process::id().cast_signed()) {
        let _ = writeln!(text, "{pid} {}", command_line(pid));
    }
    text
}

/// Says in the last lines what is red, as `cargo test` does for whoever reads only those.
fn conclude(suite: &str, outcomes: &[Outcome], ignored: usize, filtered: usize, took: Duration) -> ExitCode {
    if let Some(dir) = std::env::var_os("HSB_JUNIT") {
        let written =
            fs::create_dir_all(&dir).and_then(|()| fs::write(Path::new(&dir).join(format!("{suite}.xml")), junit(suite, outcomes, took)));
        if let Err(error) = written {
            println!("{suite}: no JUnit file: {error}");
        }
    }
    let mut slowest: Vec<&Outcome> = outcomes.iter().collect();
    slowest.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let slowest: Vec<String> = slowest.iter().take(5).map(|outcome| format!("{} {:.0} s", outcome.case.name, outcome.seconds)).collect();
    println!("\n{suite}: the slowest were {}", slowest.join(", "));
    let (mut failed, mut flaky) = (0, 0);
    for outcome in outcomes {
        if outcome.is_flaky() {
            flaky += 1;
            println!("FLAKY {suite} {}: {}", outcome.case.name, brief(outcome.failure.as_deref()));
        } else if outcome.failed() {
            failed += 1;
            let again = match &outcome.again {
                None => "not tried again".to_owned(),
                Some(second) => format!("then: {}", brief(second.as_deref())),
            };
            println!("FAILED {suite} {}: {} ({again})", outcome.case.name, brief(outcome.failure.as_deref()));
        }
    }
    let passed = outcomes.len() - failed;
    let good = failed == 0 && flaky <= MOST_FLAKY;
    if failed == 0 && !good {
        println!("{suite}: {flaky} cases passed only when they were tried again, and more than {MOST_FLAKY} are too many");
    }
    let word = if good { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        took.as_secs_f64()
    );
    // A case that was given up still runs on its thread, and the process ends all the same.
    if good { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// The beginning of what a case said when it failed, on one line: what stands further up may have been cut out.
fn brief(failure: Option<&str>) -> String {
    let failure = failure.unwrap_or_default();
    let said = failure.lines().map(str::trim).filter(|line| !line.is_empty()).take(4).collect::<Vec<_>>().join(" ");
    if said.chars().count() > BRIEF { said.chars().take(BRIEF).chain(['…']).collect() } else { said }
}

fn junit(suite: &str, outcomes: &[Outcome], took: Duration) -> String {
    let failed = outcomes.iter().filter(|outcome| outcome.failed()).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{suite}\" tests=\"{}\" failures=\"{failed}\" time=\"{:.3}\">\n",
        outcomes.len(),
        took.as_secs_f64()
    );
    for outcome in outcomes {
        let _ = write!(text, "<testcase classname=\"{suite}\" name=\"{}\" time=\"{:.3}\"", escaped(&outcome.case.name), outcome.seconds);
        let Some(failure) = &outcome.failure else {
            text.push_str("/>\n");
            continue;
        };
        // As Maven's Surefire writes it, which is what servers read.
        let element = if outcome.is_flaky() { "flakyFailure" } else { "failure" };
        let _ = writeln!(
            text,
            "><{element} message=\"{}\">{}</{element}>",
            escaped(failure.lines().next().unwrap_or_default()),
            escaped(failure)
        );
        if let Some(Some(second)) = &outcome.again {
            let _ = writeln!(text, "<rerunFailure>{}</rerunFailure>", escaped(second));
        }
        text.push_str("</testcase>\n");
    }
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(letter),
            // XML 1.0 has no others, not even written as references.
            control if control.is_control() => out.push('?'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use anyhow::bail;

    use super::*;

    fn outcomes(cases: Vec<Case>) -> Vec<Outcome> {
        install_hook();
        run_all("own", Slots { heavy: 2, light: 2 }, cases.into_iter().map(Arc::new).collect())
    }

    fn of<'a>(outcomes: &'a [Outcome], name: &str) -> &'a Outcome {
        outcomes.iter().find(|outcome| outcome.case.name == name).unwrap()
    }

    #[test]
    fn what_fails_is_tried_once_more_and_alone() {
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(log.path(), "the last line\n").unwrap();
        let path = log.path().to_owned();
        let tries = AtomicUsize::new(0);
        let outcomes = outcomes(vec![
            Case::new("good", || Ok(())),
            Case::new("bad", || bail!("it always fails")).light(),
            Case::new("shaky", move || {
                show_on_failure(&path);
                assert!(tries.fetch_add(1, Ordering::Relaxed) > 0, "the first time is bad");
                Ok(())
            }),
        ]);
        assert!(of(&outcomes, "good").failure.is_none());
        let bad = of(&outcomes, "bad");
        assert!(bad.failed() && bad.failure.as_ref().unwrap().contains("always") && matches!(bad.again, Some(Some(_))));
        let shaky = of(&outcomes, "shaky");
        let said = shaky.failure.as_ref().unwrap();
        assert!(shaky.is_flaky() && said.contains("the first time is bad") && said.contains("the last line"), "{said}");
        let xml = junit("own", &outcomes, Duration::from_secs(1));
        assert!(xml.contains("failures=\"1\"") && xml.contains("<flakyFailure message=") && xml.contains("<rerunFailure>"), "{xml}");
        assert!(conclude("own", &outcomes, 0, 0, Duration::ZERO) != ExitCode::SUCCESS);
    }

    #[test]
    fn a_slot_that_has_no_light_case_any_more_takes_a_heavy_one() {
        // There are two slots for them, and three have to meet.
        let meeting = Arc::new(std::sync::Barrier::new(3));
        let heavy = |number: usize| {
            let meeting = Arc::clone(&meeting);
            let run = move || {
                meeting.wait();
                Ok(())
            };
            Case::new(format!("heavy {number}"), run).within(Duration::from_secs(30))
        };
        let outcomes = outcomes((0..3).map(heavy).chain([Case::new("light", || Ok(())).light()]).collect());
        assert!(outcomes.len() == 4 && outcomes.iter().all(|outcome| outcome.failure.is_none()));
    }

    #[test]
    fn the_last_lines_say_what_it_was() {
        let said = "panicked at tests/a.rs:1:2:\nassertion failed\n\n  left: 1\n  right: 2\n  and so on\n";
        assert_eq!(brief(Some(said)), "panicked at tests/a.rs:1:2: assertion failed left: 1 right: 2");
        let long = brief(Some(&"ä".repeat(1000)));
        assert!(long.chars().count() == BRIEF + 1 && long.ends_with('…'), "{long}");
        assert_eq!(brief(None), "");
    }

    #[test]
    fn more_than_three_that_are_flaky_fail_the_run() {
        let shaky = |number: usize| {
            let tries = AtomicUsize::new(0);
            Case::new(format!("shaky {number}"), move || {
                if tries.fetch_add(1, Ordering::Relaxed) > 0 { Ok(()) } else { bail!("the first time is bad") }
            })
        };
        let three = outcomes((0..MOST_FLAKY).map(shaky).collect());
        assert!(conclude("own", &three, 0, 0, Duration::ZERO) == ExitCode::SUCCESS);
        let four = outcomes((0..=MOST_FLAKY).map(shaky).collect());
        assert!(conclude("own", &four, 0, 0, Duration::ZERO) != ExitCode::SUCCESS);
    }

    #[test]
    fn those_that_share_something_run_one_after_the_other() {
        static INSIDE: AtomicUsize = AtomicUsize::new(0);
        static OTHERS: AtomicUsize = AtomicUsize::new(0);
        let sharing = |number: usize| {
            Case::new(format!("sharing {number}"), move || {
                assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                // Those that share nothing go by, though they come later.
                while number == 0 && OTHERS.load(Ordering::SeqCst) < 2 {
                    thread::yield_now();
                }
                INSIDE.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
            .sharing("the only one")
        };
        let other = |number: usize| {
            Case::new(format!("other {number}"), || {
                OTHERS.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        };
        let outcomes = outcomes((0..3).map(sharing).chain((0..2).map(other)).collect());
        assert!(outcomes.len() == 5 && outcomes.iter().all(|outcome| outcome.failure.is_none()));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        assert!(which_matrix(7, 3, false).starts_with("7 run; 3 that show"));
        assert!(which_matrix(7, 3, false).ends_with("left to the whole matrix: make test-all"));
        assert_eq!(which_matrix(10, 0, true), "10 run, of the whole matrix");
    }

    #[test]
    fn one_that_hangs_is_given_up() {
        let outcomes = outcomes(vec![
            Case::new("hangs", || {
                loop {
                    thread::park();
                }
            })
            .within(Duration::from_millis(50)),
            Case::new("good", || Ok(())),
        ]);
        let hangs = of(&outcomes, "hangs");
        assert!(hangs.failed() && hangs.failure.as_ref().unwrap().starts_with("it hangs"));
        assert!(of(&outcomes, "good").failure.is_none());
    }

    #[test]
    fn junit_is_xml() {
        assert_eq!(escaped("a<b> & \"c\"\u{1b}[0m\n"), "a&lt;b&gt; &amp; &quot;c&quot;?[0m\n");
    }
}
