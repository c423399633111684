//! Whether the wall clock can be believed: no token is made, and no expiry judged, by a clock that is known to be
//! wrong.
//!
//! A gateway without a clock chip boots in 1970, or where it stopped. Its clock is believed if it is not before this
//! release, and not before the latest time that was witnessed on this ledger; or if the system says that it is
//! synchronised, for then it was the later one that was wrong. A time is witnessed if a hub let an identity in by it
//! (its certificate was in force then, and it took the token), or if the system called it synchronised. A clock that
//! boots in some future is believed as long as it stands there, and leaves nothing behind that would make the right
//! time look wrong.
//!
//! Invariants
//! - A time before [`EARLIEST_BELIEVABLE`] is never believed, whoever says that it is right.
//! - Nothing that a guarantee rests on is measured with the wall clock, believed or not (G10).
//! - One log line a change.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use crate::time::{Timestamp, EARLIEST_BELIEVABLE};

/// The name of the event that the clock is not believed, by which the journal knows it.
pub const CLOCK_DOUBTED: &str = "clock-doubted";

/// So far a clock may stand behind the latest time that was witnessed: a box whose clock is saved when it is shut down
/// resumes a little before that, and clocks are put right by small steps.
const SLACK: Duration = Duration::from_secs(120);
/// How often the system is asked whether its clock is synchronised.
const ASK_PERIOD: Duration = Duration::from_secs(1);
/// systemd-timesyncd touches this file each time it has synchronised the clock (systemd-timesyncd.service(8)). Who
/// knows that the clock is right can do so, too.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It shows a time before this release.
    NotSet(Timestamp),
    /// It shows a time before one that was witnessed, and is not synchronised.
    Behind {
        /// What it shows.
        shown: Timestamp,
        /// The latest time that was witnessed.
        seen: Timestamp,
    },
}

impl Doubt {
    /// In a few words that stay the same while the clock goes on.
    pub fn in_short(&self) -> String {
        match self {
            Doubt::NotSet(_) => "the clock is not set".into(),
            Doubt::Behind { seen, .. } => format!("the clock is behind {seen}, which was seen before"),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::NotSet(shown) => write!(
                f,
                "the clock is not set: it shows {shown}, and this program is of {EARLIEST_BELIEVABLE} or later; the \
                 gateway connects when it is right"
            ),
            Doubt::Behind { shown, seen } => write!(
                f,
                "the clock shows {shown}, and the gateway has seen {seen}; it connects when the clock is synchronised or \
                 has passed that. If the clock is right: touch {SYNCHRONISED}"
            ),
        }
    }
}

/// What is to be thought of a clock that shows a time.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Believed,
    /// It is synchronised, so that the later time seen before was wrong.
    SeenWasWrong,
    Doubted(Doubt),
}

/// The rule.
fn judge(shown: Timestamp, seen: Timestamp, synchronised: impl FnOnce() -> bool) -> Judgement {
    if shown < EARLIEST_BELIEVABLE {
        Judgement::Doubted(Doubt::NotSet(shown))
    } else if shown.plus(SLACK) >= seen {
        Judgement::Believed
    } else if synchronised() {
        Judgement::SeenWasWrong
    } else {
        Judgement::Doubted(Doubt::Behind { shown, seen })
    }
}

/// What a gateway thinks of its clock.
#[derive(Debug)]
pub struct WallClock(Mutex<Mood>);

#[derive(Debug)]
struct Mood {
    /// The latest time that was witnessed, and when in this life; without one it is of an earlier life.
    witnessed: (Timestamp, Option<Instant>),
    /// A hub has let somebody in by this clock in this life.
    has_served: bool,
    doubts: bool,
    /// When the system last said that its clock is not synchronised.
    denied: Option<Instant>,
}

impl WallClock {
    /// Of a gateway whose latest witnessed time is known.
    pub fn new(seen: Timestamp) -> WallClock {
        WallClock(Mutex::new(Mood { witnessed: (seen, None), has_served: false, doubts: false, denied: None }))
    }

    /// The latest time that was witnessed, and what has passed since then in this life.
    pub fn seen(&self) -> Timestamp {
        self.mood().seen()
    }

    /// The wall time, if it can be believed now.
    ///
    /// # Errors
    /// Why it can't.
    pub fn now(&self) -> Result<Timestamp, Doubt> {
        let shown = Timestamp::now();
        let mut mood = self.mood();
        let seen = mood.seen();
        let judgement = judge(shown, seen, || mood.is_synchronised(shown));
        if judgement == Judgement::SeenWasWrong {
            mood.witness(shown);
        }
        let doubts = matches!(judgement, Judgement::Doubted(_));
        let changed = std::mem::replace(&mut mood.doubts, doubts) != doubts;
        drop(mood);
        match judgement {
            Judgement::Doubted(doubt) => {
                if changed {
                    tracing::warn!(name: CLOCK_DOUBTED, "{doubt}");
                }
                return Err(doubt);
            }
            Judgement::Believed => {}
            Judgement::SeenWasWrong => {
                tracing::warn!("the clock is synchronised and shows {shown}: {seen}, which was seen before, was wrong");
            }
        }
        if changed {
            tracing::info!("the clock shows {shown}, which can be believed");
        }
        Ok(shown)
    }

    /// The wall time, if something besides the clock itself speaks for it: a clock that was saved at a shutdown days
    /// ago shows a time that can be believed, until it is put right.
    pub fn confirmed_now(&self) -> Option<Timestamp> {
        let shown = self.now().ok()?;
        let mut mood = self.mood();
        (mood.has_served || mood.is_synchronised(shown)).then_some(shown)
    }

    /// A hub let an identity in that took this time for the present one.
    pub fn hub_agrees(&self, shown: Timestamp) {
        let mut mood = self.mood();
        mood.has_served = true;
        if shown > mood.seen() {
            mood.witness(shown);
        }
    }

    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mood {
    fn seen(&self) -> Timestamp {
        let (time, at) = self.witnessed;
        at.map_or(time, |at| time.plus(at.elapsed()))
    }

    fn witness(&mut self, shown: Timestamp) {
        self.witnessed = (shown, Some(Instant::now()));
    }

    /// Whether the system says that the clock is synchronised. A no is kept for a moment: many may ask.
    fn is_synchronised(&mut self, shown: Timestamp) -> bool {
        #[cfg(feature = "proof")]
        if let Some(synchronised) = crate::time::simulated::synchronised() {
            return synchronised;
        }
        let now = Instant::now();
        if self.denied.is_some_and(|at| now < at + ASK_PERIOD) {
            return false;
        }
        let synchronised = is_synchronised(shown);
        self.denied = (!synchronised).then_some(now);
        synchronised
    }
}

/// Whether the system says that its clock, which shows this time, is synchronised.
pub fn is_synchronised(shown: Timestamp) -> bool {
    kernel_is_synchronised() || file_says_synchronised(shown)
}

/// Whether something disciplines the kernel's clock: chrony, ntpd and timesyncd all tell it so, and setting the clock
/// by hand makes it forget. A sandbox may forbid the question.
#[allow(unsafe_code)] // No safe library asks this; it is one call that fills a structure of plain numbers.
fn kernel_is_synchronised() -> bool {
    // SAFETY: all its fields are numbers, for which zero is a value; with no mode set, the call only writes to it.
    let (answer, state) = unsafe {
        let mut state: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut state), state)
    };
    answer >= 0 && state.status & libc::STA_UNSYNC == 0
}

/// Whether the file of timesyncd's says so. A file that is of later than the clock shows is of before a jump.
fn file_says_synchronised(shown: Timestamp) -> bool {
    let Ok(touched) = std::fs::metadata(SYNCHRONISED).and_then(|found| found.modified()) else { return false };
    let Ok(touched) = touched.duration_since(UNIX_EPOCH) else { return false };
    (EARLIEST_BELIEVABLE..=shown.plus(SLACK)).contains(&Timestamp(0).plus(touched))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_clock_is_believed_from_the_release_and_the_latest_time_seen_on_or_if_it_is_synchronised() {
        let seen = EARLIEST_BELIEVABLE.plus(24 * HOUR);
        let earlier = EARLIEST_BELIEVABLE.plus(HOUR);
        let unasked = || panic!("nobody needs to know");
        assert_eq!(judge(seen, seen, unasked), Judgement::Believed);
        assert_eq!(judge(Timestamp(seen.0 - 60_000), seen, unasked), Judgement::Believed, "a small step back");
        assert_eq!(judge(seen.plus(10_000 * HOUR), seen, unasked), Judgement::Believed);
        assert_eq!(judge(earlier, Timestamp(0), unasked), Judgement::Believed, "nothing was seen yet");
        assert_eq!(judge(earlier, seen, || true), Judgement::SeenWasWrong);
        let behind = Doubt::Behind { shown: earlier, seen };
        assert_eq!(judge(earlier, seen, || false), Judgement::Doubted(behind));
        let booted = Timestamp(60_000);
        for seen in [Timestamp(0), seen] {
            assert_eq!(judge(booted, seen, unasked), Judgement::Doubted(Doubt::NotSet(booted)), "synchronised or not");
        }
        let text = behind.to_string();
        assert!(text.contains(&format!("the clock shows {earlier}, and the gateway has seen {seen}")), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_time_that_was_witnessed_makes_an_earlier_one_look_wrong_and_it_goes_on_while_the_gateway_runs() {
        let right = EARLIEST_BELIEVABLE.plus(24 * HOUR);
        let belief = WallClock::new(right);
        assert_eq!(belief.seen(), right);
        belief.now().expect("the test's machine knows the time");
        assert_eq!(belief.seen(), right, "that a clock is believed is no witness");
        belief.hub_agrees(Timestamp(right.0 - 60_000));
        assert_eq!(belief.seen(), right, "a step back");
        belief.hub_agrees(right.plus(HOUR));
        tokio::time::advance(HOUR).await;
        assert_eq!(belief.seen(), right.plus(2 * HOUR));
    }

    #[cfg(feature = "proof")]
    #[test]
    fn a_clock_that_nothing_was_seen_against_is_believed_and_confirmed_only_by_a_hub_or_by_being_synchronised() {
        use std::rc::Rc;

        use crate::time::simulated::{simulate, Simulation};

        struct Saved(bool);

        impl Simulation for Saved {
            fn now(&self) -> Timestamp {
                EARLIEST_BELIEVABLE.plus(HOUR)
            }
            fn synchronised(&self) -> bool {
                self.0
            }
            fn step(&self) -> bool {
                true
            }
            fn delay(&self) -> Option<Duration> {
                None
            }
        }

        let shown = Timestamp(EARLIEST_BELIEVABLE.plus(HOUR).0);
        simulate(Some(Rc::new(Saved(false))));
        let clock = WallClock::new(Timestamp(0));
        assert_eq!((clock.now(), clock.confirmed_now()), (Ok(shown), None));
        clock.hub_agrees(shown);
        assert_eq!(clock.confirmed_now(), Some(shown));
        simulate(Some(Rc::new(Saved(true))));
        assert_eq!(WallClock::new(Timestamp(0)).confirmed_now(), Some(shown));
        simulate(None);
    }
}
