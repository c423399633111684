//! How a device's last commands ended, as far as that says something of its peripheral.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::snapshot::{Done, Undone};

/// What is kept of a message, bytes: a status tells of a thousand devices.
const MESSAGE_BYTES_MAX: usize = 300;

/// The last command that was done, and the last that was not.
#[derive(Debug, Default)]
pub struct Ends(Mutex<Last>);

type Last = (Option<(Instant, Done)>, Option<(Instant, Undone)>);

impl Ends {
    /// One was done.
    pub fn done(&self, command: &str) {
        self.lock().0 = Some((Instant::now(), Done { command: command.to_owned(), ..Done::default() }));
    }

    /// One failed, or ended in doubt.
    pub fn undone(&self, command: &str, state: &str, code: &str, message: &str) {
        let end = (0..=MESSAGE_BYTES_MAX.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
        let message = message[..end.unwrap_or_default()].to_owned();
        let [command, state, code] = [command, state, code].map(str::to_owned);
        self.lock().1 = Some((Instant::now(), Undone { command, state, code, message, at: None, seconds_ago: 0 }));
    }

    /// Both, as they are told. `ago` knows what time it was so long ago, if the clock is believed.
    pub fn told(&self, ago: impl Fn(Duration) -> Option<String>) -> (Option<Done>, Option<Undone>) {
        let at = |then: Instant| (ago(then.elapsed()), then.elapsed().as_secs());
        let (done, undone) = &*self.lock();
        let done = done.clone().map(|(then, done)| {
            let (at, seconds_ago) = at(then);
            Done { at, seconds_ago, ..done }
        });
        let undone = undone.clone().map(|(then, undone)| {
            let (at, seconds_ago) = at(then);
            Undone { at, seconds_ago, ..undone }
        });
        (done, undone)
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.lock().expect("nobody panics while holding how commands ended")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_end_of_each_kind_is_told_with_its_age() {
        let ends = Ends::default();
        assert_eq!(ends.told(|_| None), (None, None));
        ends.undone("reset", "failed", "timeout", &"é".repeat(300));
        tokio::time::advance(Duration::from_secs(5)).await;
        ends.done("set");
        tokio::time::advance(Duration::from_secs(2)).await;
        let (done, undone) = ends.told(|ago| Some(format!("{ago:?}")));
        let done = done.expect("one was done");
        assert_eq!((done.seconds_ago, done.at.as_deref(), &*done.command), (2, Some("2s"), "set"));
        let undone = undone.expect("one was not");
        assert_eq!((undone.seconds_ago, &*undone.command, &*undone.state), (7, "reset", "failed"));
        assert_eq!(undone.message.len(), MESSAGE_BYTES_MAX);
        assert_eq!(ends.told(|_| None).0.expect("it is told").at, None);
    }
}
