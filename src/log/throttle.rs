//! A log that stays quiet when a peer misbehaves for a week, and says how much it has left out.
//!
//! Each place in the source has a budget of lines for each device, bus or operator. Within it every line is written.
//! Beyond it lines are counted, and the last of them is written with their number as soon as there is a place again, so
//! that the log ends with how things stand. One subject's flood takes nothing from another's budget.
//!
//! A command that was done is worth a line: the target [`COMMANDS`] has a budget that honest traffic does not use up.
//! Left alone are lines of target [`EACH`], which nobody outside can cause at will, and those below `info`, which
//! somebody has asked for.
//!
//! Invariants
//! - Lines of one place about one subject: at most [`BURST`] at once, and [`PER_HOUR`] an hour in the long run.
//!   Commands done: 600 at once, one a second in the long run.
//! - Memory is bounded, whatever comes: `BUDGETS_MAX` budgets, a line of `LINE_BYTES_MAX` bytes each. Beyond them a
//!   place has one budget for all other subjects.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::time::Timestamp;

/// The target of lines that are written whatever happens, such as the notes of a start.
pub const EACH: &str = "fieldbridge::each";
/// The target of lines that tell of a command that was done.
pub const COMMANDS: &str = "fieldbridge::commands";
/// Lines that are written without a pause.
pub const BURST: u32 = 10;
/// Lines an hour after that.
pub const PER_HOUR: u32 = 4;

/// Budgets that are kept at most.
const BUDGETS_MAX: usize = 8192;
/// What is kept of a line.
const LINE_BYTES_MAX: usize = 512;
/// For what a peer can cause at will.
const FEW: Terms = Terms { burst: BURST, refill: Duration::from_secs(3600 / PER_HOUR as u64) };
/// For commands that were done.
const MANY: Terms = Terms { burst: 600, refill: Duration::from_secs(1) };
/// How often it is looked for counted lines that can be written.
const REPORT_PERIOD: Duration = Duration::from_secs(30);
/// Whom or what a line is about, and how it ended. Their values come from the configuration or from the source.
const SUBJECTS: [&str; 5] = ["device", "bus", "uid", "state", "code"];

/// The budgets of a log.
#[derive(Debug, Clone, Default)]
pub struct Throttle(Arc<Mutex<HashMap<Key, Budget>>>);

/// A place in the source and a digest of the subject.
type Key = (Identifier, u64);

/// The size of a budget.
#[derive(Debug, Clone, Copy)]
struct Terms {
    burst: u32,
    /// A place in it comes back after this.
    refill: Duration,
}

#[derive(Debug)]
struct Budget {
    terms: Terms,
    /// Lines that may be written now.
    left: u32,
    /// From when on the time to the next place counts.
    since: Instant,
    held: Option<Held>,
}

/// Lines that were left out.
#[derive(Debug)]
struct Held {
    count: u64,
    since: Timestamp,
    last: Timestamp,
    level: Level,
    /// The last of them.
    line: String,
}

impl Budget {
    fn new(terms: Terms, now: Instant) -> Budget {
        Budget { terms, left: terms.burst, since: now, held: None }
    }

    /// Takes a place, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let Terms { burst, refill } = self.terms;
        let places = now.saturating_duration_since(self.since).as_secs() / refill.as_secs();
        let places = u32::try_from(places).unwrap_or(u32::MAX);
        if self.left.saturating_add(places) >= burst {
            (self.left, self.since) = (burst, now);
        } else {
            self.left += places;
            self.since += refill * places;
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }

    /// Whether it is as a new one.
    fn is_idle(&self, now: Instant) -> bool {
        let rest = self.terms.burst - self.left;
        self.held.is_none() && now.saturating_duration_since(self.since) >= self.terms.refill * rest
    }
}

impl Throttle {
    /// Whether a line may be written now. If not, it is counted, and may be the one that is kept.
    fn admit(&self, key: Key, terms: Terms, level: Level, line: impl FnOnce() -> String) -> bool {
        let (now, date) = (Instant::now(), Timestamp::now());
        let mut budgets = self.lock();
        let key = match budgets.len() >= BUDGETS_MAX && !budgets.contains_key(&key) {
            true => (key.0, 0),
            false => key,
        };
        let budget = budgets.entry(key).or_insert_with(|| Budget::new(terms, now));
        // What is held is written first, by whoever reports.
        if budget.held.is_none() && budget.take(now) {
            return true;
        }
        let held = budget.held.get_or_insert(Held { count: 0, since: date, last: date, level, line: String::new() });
        (held.count, held.last, held.level, held.line) = (held.count + 1, date, level, line());
        false
    }

    /// The lines that were left out and can be written now.
    fn due(&self) -> Vec<Held> {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut budgets = self.lock();
        for budget in budgets.values_mut() {
            if budget.held.is_some() && budget.take(now) {
                due.extend(budget.held.take());
            }
        }
        if budgets.len() > BUDGETS_MAX / 2 {
            budgets.retain(|_, budget| !budget.is_idle(now));
        }
        drop(budgets);
        due.sort_by_key(|held| held.last);
        due
    }

    /// Writes what was left out, as soon as it may be. Runs as long as the daemon does.
    pub async fn report(&self) {
        let mut period = tokio::time::interval(REPORT_PERIOD);
        loop {
            period.tick().await;
            self.due().iter().for_each(Held::write);
        }
    }

    /// Writes what was left out, at the end.
    pub fn report_all(&self) {
        let mut held: Vec<_> = self.lock().values_mut().filter_map(|budget| budget.held.take()).collect();
        held.sort_by_key(|held| held.last);
        held.iter().for_each(Held::write);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Budget>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn write(&self) {
        let Held { count, since, last, level, line } = self;
        let count = match count {
            1 => format!("at {last}"),
            count => format!("at {last}, the last of {count} like it since {since}; the others were left out"),
        };
        match *level {
            Level::ERROR => tracing::error!(target: EACH, "{line} ({count})"),
            Level::WARN => tracing::warn!(target: EACH, "{line} ({count})"),
            _ => tracing::info!(target: EACH, "{line} ({count})"),
        }
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if metadata.target() == EACH || *metadata.level() > Level::INFO {
            return true;
        }
        let mut subject = Subject(DefaultHasher::new());
        event.record(&mut subject);
        let line = || {
            let mut line = Line::default();
            event.record(&mut line);
            line.end()
        };
        let terms = if metadata.target() == COMMANDS { MANY } else { FEW };
        self.admit((metadata.callsite(), subject.0.finish()), terms, *metadata.level(), line)
    }
}

/// Collects whom a line is about.
struct Subject(DefaultHasher);

impl Visit for Subject {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if SUBJECTS.contains(&field.name()) {
            field.name().hash(&mut self.0);
            format!("{value:?}").hash(&mut self.0);
        }
    }
}

/// A line as text.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl Line {
    fn end(self) -> String {
        let mut line = self.message + &self.fields;
        let end = (0..=LINE_BYTES_MAX.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
        line.truncate(end.unwrap_or_default());
        line
    }
}

#[cfg(test)]
mod tests;
