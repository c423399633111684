//! What everything in a simulation shares: its dice, its clock, the life of the gateway's process, the record of what
//! happened.
//!
//! Invariants
//! - Everything random comes from the one seed, so that a seed is a schedule.
//! - What the gateway does is counted in steps: a task that runs, an operation on the disk, bytes on a wire. A crash is
//!   planned for a step and strikes there; from then on nothing the process does has an effect.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fieldbridge::time::simulated::Simulation;
use fieldbridge::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

/// When a simulation begins: 2026-11-22T00:00:00Z.
pub const BEGIN: Timestamp = Timestamp(1_795_305_600_000);

/// How long a task is let wait at most, ms.
const SLOWNESS_MS: u64 = 40;

/// The world of one schedule.
pub struct World {
    inner: Mutex<Inner>,
    died: Notify,
    began: Instant,
}

struct Inner {
    seed: u64,
    random: fastrand::Rng,
    /// The present life of the gateway's process, from 1.
    life: u64,
    alive: bool,
    steps: u64,
    /// Steps until the process dies.
    dies_in: Option<u64>,
    /// The chance in a thousand that a task which could run is let wait.
    slowness: u64,
    /// How wrong the gateway's wall clock is, ms.
    clock_error: i64,
    /// The system calls the clock synchronised, right or wrong.
    synchronised: bool,
    /// It called one synchronised that was behind by more than the ledger's epoch allows for.
    misled: bool,
    /// When the faults ended.
    peace: Option<Instant>,
    digest: u64,
    story: Option<Vec<String>>,
    counts: BTreeMap<&'static str, u64>,
    violations: Vec<String>,
}

impl World {
    /// The world of a seed. With `story` what happens is kept as text.
    pub fn new(seed: u64, story: bool) -> Arc<World> {
        let inner = Inner {
            seed,
            random: fastrand::Rng::with_seed(seed),
            life: 0,
            alive: false,
            steps: 0,
            dies_in: None,
            slowness: 0,
            clock_error: 0,
            synchronised: false,
            misled: false,
            peace: None,
            digest: 0xcbf2_9ce4_8422_2325,
            story: story.then(Vec::new),
            counts: BTreeMap::new(),
            violations: Vec::new(),
        };
        Arc::new(World { inner: Mutex::new(inner), died: Notify::new(), began: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the world")
    }

    /// Dice of its own for something by this name: what is rolled with them leaves the rest of a schedule as it is.
    pub fn dice(&self, of: &str) -> fastrand::Rng {
        let seed = self.lock().seed;
        let named = of.bytes().fold(seed, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        fastrand::Rng::with_seed(named)
    }

    /// A number in a range.
    pub fn pick(&self, range: std::ops::Range<u64>) -> u64 {
        self.lock().random.u64(range)
    }

    /// True in so many cases of a thousand.
    pub fn chance(&self, permille: u64) -> bool {
        self.pick(0..1000) < permille
    }

    /// A fault that strikes in so many cases of a thousand, as long as faults may strike. It is counted.
    pub fn strikes(&self, fault: &'static str, permille: u64) -> bool {
        if permille == 0 || self.faults_are_over() || !self.chance(permille) {
            return false;
        }
        self.count(fault);
        true
    }

    /// A time between two.
    pub fn time(&self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.pick(from_ms..to_ms.max(from_ms + 1)))
    }

    /// Something happened.
    pub fn count(&self, what: &'static str) {
        *self.lock().counts.entry(what).or_default() += 1;
    }

    /// Something happened, for the story and its digest.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let at = self.began.elapsed();
        let text = format!("{:>11.3} {what}", at.as_secs_f64());
        let mut inner = self.lock();
        for byte in text.bytes() {
            inner.digest = (inner.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(story) = &mut inner.story {
            story.push(text);
        }
    }

    /// Something small happened, for the story only.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        let at = self.began.elapsed();
        if let Some(story) = &mut self.lock().story {
            story.push(format!("{:>11.3}   {}", at.as_secs_f64(), what()));
        }
    }

    /// Something happened that a guarantee excludes.
    pub fn violate(&self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.lock().violations.push(what);
    }

    /// From here on nothing goes wrong any more.
    pub fn end_faults(&self) {
        let mut inner = self.lock();
        inner.peace = Some(Instant::now());
        inner.dies_in = None;
        (inner.slowness, inner.clock_error) = (0, 0);
        // Nothing else makes good a time in the future that was believed.
        inner.synchronised = true;
    }

    /// Whether nothing goes wrong any more.
    pub fn faults_are_over(&self) -> bool {
        self.lock().peace.is_some()
    }

    /// Whether nothing has gone wrong for so long.
    pub fn peace_for(&self, length: Duration) -> bool {
        self.lock().peace.is_some_and(|since| since.elapsed() >= length)
    }

    /// How long after the beginning that was.
    pub fn since_the_beginning(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }

    /// The true time.
    pub fn true_time(&self) -> Timestamp {
        BEGIN.plus(self.began.elapsed())
    }

    /// From now on a task that could run is let wait, in so many cases of a thousand.
    pub fn slow_down(&self, permille: u64) {
        self.lock().slowness = permille;
    }

    /// The gateway's wall clock is wrong by so many ms from now on, and is called synchronised or not.
    pub fn set_clock(&self, error: i64, synchronised: bool) {
        let mut inner = self.lock();
        let back = error < inner.clock_error;
        (inner.clock_error, inner.synchronised) = (error, synchronised);
        inner.misled |= synchronised && error <= -300_000;
        let what = match (back, synchronised) {
            (true, true) => "clock: put back, and synchronised",
            (true, false) => "clock: put back",
            (false, _) => "clock: put forward, or as it was",
        };
        *inner.counts.entry(what).or_default() += 1;
    }

    /// Whether the system ever called a clock synchronised that was minutes behind.
    pub fn has_misled(&self) -> bool {
        self.lock().misled
    }

    /// A new life of the process begins, which ends after so many steps.
    pub fn begin_life(&self, dies_in: Option<u64>) -> u64 {
        let mut inner = self.lock();
        inner.life += 1;
        inner.alive = true;
        inner.dies_in = dies_in;
        inner.life
    }

    /// The life ends, from outside of it.
    pub fn end_life(&self) {
        self.lock().alive = false;
    }

    /// The number of the present life.
    pub fn life(&self) -> u64 {
        self.lock().life
    }

    /// Whether this life goes on.
    pub fn lives(&self, life: u64) -> bool {
        let inner = self.lock();
        inner.alive && inner.life == life
    }

    /// One step of a life. `false`: it has ended, perhaps just now.
    pub fn step_of(&self, life: u64) -> bool {
        let mut inner = self.lock();
        if !inner.alive || inner.life != life {
            return false;
        }
        inner.steps += 1;
        match &mut inner.dies_in {
            Some(0) => {
                inner.alive = false;
                drop(inner);
                self.died.notify_one();
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    /// The present life ends within this time.
    pub fn die_within(self: &Arc<Self>, time: Duration) {
        let (world, life) = (self.clone(), self.life());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let mut inner = world.lock();
            if inner.alive && inner.life == life && inner.peace.is_none() {
                inner.alive = false;
                world.died.notify_one();
            }
        });
    }

    /// Waits for the end of the present life.
    pub async fn death(&self) {
        while self.lock().alive {
            self.died.notified().await;
        }
    }

    /// What it came to.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        let mut counts = inner.counts.clone();
        counts.insert("steps", inner.steps);
        counts.insert("lives", inner.life);
        Report {
            digest: inner.digest,
            counts,
            violations: inner.violations.clone(),
            story: inner.story.clone().unwrap_or_default(),
        }
    }
}

/// What a schedule came to.
pub struct Report {
    /// Of everything that was noted: the same seed gives the same.
    pub digest: u64,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// What must not have happened.
    pub violations: Vec<String>,
    /// What was noted, if it was kept.
    pub story: Vec<String>,
}

/// The world, as the gateway's code sees it.
pub struct Seen(pub Arc<World>);

impl Simulation for Seen {
    fn now(&self) -> Timestamp {
        let error = self.0.lock().clock_error;
        Timestamp(self.0.true_time().0 + error)
    }

    fn synchronised(&self) -> bool {
        self.0.lock().synchronised
    }

    fn step(&self) -> bool {
        self.0.step_of(self.0.life())
    }

    fn delay(&self) -> Option<Duration> {
        let slowness = self.0.lock().slowness;
        self.0.strikes("tasks: let wait", slowness).then(|| self.0.time(0, SLOWNESS_MS))
    }
}
