//! How long the gateway waits for a peripheral's answer, and for how long one that comes late is told from another: by
//! the configuration that it asks under (G12). That may change while an answer is owed.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::scenario::{Configuration, Scenario};

/// A line that is opened so soon behind a new configuration may be opened, and asked on, under the one before still.
pub const TAKING_UP: Duration = Duration::from_millis(300);

/// How long whoever asks a peripheral waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until it asks again or does something else.
    pub timeout: Duration,
    /// How long after a request its answer may come, and be told from another's where nothing but its looks tells.
    pub window: Duration,
}

/// The configurations that this life of the gateway has read, and what they say of that.
pub struct Patiences {
    all: Vec<Patience>,
    read: Mutex<Vec<(Instant, usize)>>,
    /// The last answer that comes late.
    owed_until: Mutex<Option<Instant>>,
}

impl Patiences {
    /// Of a schedule.
    pub fn of(scenario: &Scenario) -> Patiences {
        let all = scenario.configurations.iter().map(|Configuration { patience, .. }| *patience).collect();
        Patiences { all, read: Mutex::default(), owed_until: Mutex::default() }
    }

    fn so_far(&self) -> MutexGuard<'_, Vec<(Instant, usize)>> {
        self.read.lock().expect("nobody panics while holding it")
    }

    /// The gateway reads the configuration of this number, at the beginning of a life or later. Whether it is less
    /// patient than the one before, and an answer is owed to that.
    pub fn read(&self, number: usize, is_new: bool) -> bool {
        let mut read = self.so_far();
        let before = read.last().map_or(number, |(_, number)| *number);
        if is_new {
            read.clear();
        }
        read.push((Instant::now(), number));
        self.is_owed_more(before, number)
    }

    fn is_owed_more(&self, before: usize, after: usize) -> bool {
        let owed_until = *self.owed_until.lock().expect("nobody panics while holding it");
        self.all[after].window < self.all[before].window && owed_until.is_some_and(|until| until > Instant::now())
    }

    /// An answer is owed until then.
    pub fn owes(&self, until: Instant) {
        let mut owed_until = self.owed_until.lock().expect("nobody panics while holding it");
        *owed_until = (*owed_until).max(Some(until));
    }

    /// Of whoever asks now on a line that was opened then: where it may be one of several, the longer timeout and the
    /// shorter window.
    pub fn of_a_line(&self, opened: Instant) -> Patience {
        let read = self.so_far();
        let ends = read.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
        let may_be = read.iter().zip(ends).filter(|(_, end)| end.is_none_or(|end| end + TAKING_UP > opened));
        let all: Vec<Patience> = may_be.map(|((_, number), _)| self.all[*number]).collect();
        let (timeout, window) = (all.iter().map(|one| one.timeout).max(), all.iter().map(|one| one.window).min());
        Patience { timeout: timeout.expect("there is one"), window: window.expect("there is one") }
    }

    /// The shortest timeout of any configuration.
    pub fn shortest_timeout(&self) -> Duration {
        self.all.iter().map(|one| one.timeout).min().unwrap_or_default()
    }

    /// The longest window of any configuration.
    pub fn longest_window(&self) -> Duration {
        self.all.iter().map(|one| one.window).max().unwrap_or_default()
    }
}
