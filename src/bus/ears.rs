//! Who wants to know what an instrument says by itself: which lines each takes for events of its device.
//!
//! Invariants
//! - Nobody is waited for: whoever hears a line takes it at once, or does without.
//! - What may be an answer is told to nobody; that there was such a line is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peripheral::Events;

/// What somebody who listens is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overheard<'a> {
    /// An event: a line that nobody has asked for.
    Line {
        /// Without what ends it, or the frame around it; bytes that are no UTF-8 are replaced.
        text: &'a str,
        /// The same as it came.
        bytes: &'a [u8],
    },
    /// A line that would be one, if it were not perhaps an answer.
    Doubtful,
}

/// Hears, and returns at once.
type Tell = Arc<dyn Fn(Overheard<'_>) + Send + Sync>;

/// Those who listen to one bus. Clones are one.
#[derive(Debug, Clone, Default)]
pub(in crate::bus) struct Ears(Arc<Mutex<Listeners>>);

#[derive(Debug, Default)]
struct Listeners {
    /// By device.
    all: BTreeMap<String, Ear>,
    so_far: u64,
}

struct Ear {
    number: u64,
    events: Events,
    tell: Tell,
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").field("number", &self.number).field("events", &self.events).finish_non_exhaustive()
    }
}

/// Somebody listens for as long as this is kept.
#[derive(Debug)]
pub struct Hearing {
    ears: Ears,
    device: String,
    number: u64,
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let mut listeners = self.ears.listeners();
        // Another one may listen for the device by now.
        if listeners.all.get(&self.device).is_some_and(|ear| ear.number == self.number) {
            listeners.all.remove(&self.device);
        }
    }
}

impl Ears {
    /// Somebody listens for a device from now on, in the place of whoever did.
    pub(in crate::bus) fn add(&self, device: &str, events: Events, tell: Tell) -> Hearing {
        let mut listeners = self.listeners();
        listeners.so_far += 1;
        let number = listeners.so_far;
        listeners.all.insert(device.to_owned(), Ear { number, events, tell });
        Hearing { ears: self.clone(), device: device.to_owned(), number }
    }

    /// Whether nobody listens.
    pub(in crate::bus) fn are_none(&self) -> bool {
        self.listeners().all.is_empty()
    }

    /// Whether a line would be somebody's event.
    pub(in crate::bus) fn want(&self, text: &str) -> bool {
        self.listeners().all.values().any(|ear| ear.events.has(text))
    }

    /// Tells a line to everybody whose event it is; or, if it may be an answer, that there was one.
    pub(in crate::bus) fn hear(&self, text: &str, bytes: &[u8], may_be_an_answer: bool) {
        let heard = if may_be_an_answer { Overheard::Doubtful } else { Overheard::Line { text, bytes } };
        let told: Vec<Tell> =
            self.listeners().all.values().filter(|ear| ear.events.has(text)).map(|ear| ear.tell.clone()).collect();
        told.iter().for_each(|tell| tell(heard));
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        // Who listens is right, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is heard for a device, as texts.
    fn listen(ears: &Ears, device: &str, pattern: &str) -> (Hearing, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let heard = heard.clone();
            Arc::new(move |said: Overheard<'_>| {
                heard.lock().unwrap().push(match said {
                    Overheard::Line { text, .. } => text.to_owned(),
                    Overheard::Doubtful => "?".to_owned(),
                });
            })
        };
        (ears.add(device, Events::new(pattern).unwrap(), tell), heard)
    }

    fn hear(ears: &Ears, text: &str, may_be_an_answer: bool) {
        ears.hear(text, text.as_bytes(), may_be_an_answer);
    }

    #[test]
    fn each_hears_what_it_wants_and_of_what_may_be_an_answer_only_that_it_was_there() {
        let ears = Ears::default();
        assert!(ears.are_none());
        let (alarms, all_alarms) = listen(&ears, "alarms", "^ALARM");
        let (_doors, all_doors) = listen(&ears, "doors", "DOOR");
        for (line, is_wanted) in [("ALARM 1", true), ("ALARM DOOR", true), ("OK", false)] {
            assert_eq!(ears.want(line), is_wanted);
            hear(&ears, line, false);
        }
        hear(&ears, "DOOR 2", true);
        assert_eq!(*all_alarms.lock().unwrap(), ["ALARM 1", "ALARM DOOR"]);
        assert_eq!(*all_doors.lock().unwrap(), ["ALARM DOOR", "?"]);
        drop(alarms);
        assert!(!ears.want("ALARM 1") && !ears.are_none());
    }

    #[test]
    fn who_listens_in_anothers_place_is_not_ended_with_it() {
        let ears = Ears::default();
        let (first, heard_first) = listen(&ears, "d", "A");
        let (_second, heard) = listen(&ears, "d", "B");
        drop(first);
        ["A", "B"].iter().for_each(|line| hear(&ears, line, false));
        assert_eq!((heard_first.lock().unwrap().len(), heard.lock().unwrap().len()), (0, 1));
    }
}
