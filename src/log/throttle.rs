//! A log that stays quiet when a peer misbehaves for a week, and says how much it has left out.
//!
//! Each place in the source has a budget of lines for each device, bus or operator. Within it every line is written.
//! Beyond it lines are counted, and the last of them is written with their number as soon as there is a place again, so
//! that the log ends with how things stand. It is the same event then, with its name and its fields. One subject's
//! flood takes nothing from another's budget.
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

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::dispatcher::get_default;
use tracing::field::{display, Field, Value, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
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
/// What is kept of a line, with its fields.
const LINE_BYTES_MAX: usize = 512;
/// For what a peer can cause at will.
const FEW: Terms = Terms { burst: BURST, refill: Duration::from_secs(3600 / PER_HOUR as u64) };
/// For commands that were done.
const MANY: Terms = Terms { burst: 600, refill: Duration::from_secs(1) };
/// How often it is looked for counted lines that can be written.
const REPORT_PERIOD: Duration = Duration::from_secs(30);
/// Whom or what a line is about, and how it ended. Their values come from the configuration or from the source.
const SUBJECTS: [&str; 5] = ["device", "bus", "uid", "state", "code"];

/// Fields of an event at most, its message among them: the library gives it no more.
const FIELDS_MAX: usize = 32;

thread_local! {
    /// What was left out is being told.
    static TELLS: Cell<bool> = const { Cell::new(false) };
}

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
    /// The last of them.
    line: Line,
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
    fn admit(&self, key: Key, terms: Terms, line: impl FnOnce() -> Line) -> bool {
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
        let (count, since) = budget.held.as_ref().map_or((0, date), |held| (held.count, held.since));
        budget.held = Some(Held { count: count + 1, since, last: date, line: line() });
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
        let Held { count, since, last, line } = self;
        let count = match count {
            1 => format!("at {last}"),
            count => format!("at {last}, the last of {count} like it since {since}; the others were left out"),
        };
        line.say(&format!("{} ({count})", line.message));
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if TELLS.get() || metadata.target() == EACH || *metadata.level() > Level::INFO {
            return true;
        }
        let mut subject = Subject(DefaultHasher::new());
        event.record(&mut subject);
        let line = || {
            let mut line = Line { metadata, message: String::new(), fields: Vec::new(), left: LINE_BYTES_MAX };
            event.record(&mut line);
            line
        };
        let terms = if metadata.target() == COMMANDS { MANY } else { FEW };
        self.admit((metadata.callsite(), subject.0.finish()), terms, line)
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

/// A line as it was said.
#[derive(Debug)]
struct Line {
    metadata: &'static Metadata<'static>,
    message: String,
    fields: Vec<(Field, Said)>,
    /// Bytes that may be kept of what follows.
    left: usize,
}

/// A field's value as it was written.
#[derive(Debug)]
enum Said {
    Text(String),
    Other(String),
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        let said = Said::Text(self.cut(value.to_owned()));
        self.fields.push((field.clone(), said));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = self.cut(format!("{value:?}"));
        match field.name() {
            "message" => self.message = text,
            _ => self.fields.push((field.clone(), Said::Other(text))),
        }
    }
}

impl Line {
    /// As much of it as may be kept.
    fn cut(&mut self, mut text: String) -> String {
        let end = (0..=self.left.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        self.left -= text.len();
        text
    }

    /// Says it again with another message, past the budgets: the same event with the same fields.
    fn say(&self, message: &str) {
        let all = self.metadata.fields();
        let (Some(first), message) = (all.iter().next(), display(message)) else { return };
        let said: Vec<(&Field, Box<dyn Value + '_>)> =
            self.fields.iter().map(|(field, said)| (field, said.value())).collect();
        let of_message = all.field("message");
        let mut values: [(&Field, Option<&dyn Value>); FIELDS_MAX] = [(&first, None); FIELDS_MAX];
        let told = of_message.iter().map(|field| (field, &message as &dyn Value));
        let told = told.chain(said.iter().map(|(field, value)| (*field, &**value)));
        for (place, (field, value)) in values.iter_mut().zip(told) {
            *place = (field, Some(value));
        }
        TELLS.set(true);
        get_default(|log| {
            if log.enabled(self.metadata) {
                log.event(&Event::new(self.metadata, &all.value_set(&values)));
            }
        });
        TELLS.set(false);
    }
}

#[cfg(test)]
impl Line {
    fn bytes(&self) -> usize {
        LINE_BYTES_MAX - self.left
    }
}

impl Said {
    fn value(&self) -> Box<dyn Value + '_> {
        match self {
            Said::Text(text) => Box::new(text.as_str()),
            Said::Other(text) => Box::new(display(text)),
        }
    }
}

#[cfg(test)]
mod tests;
