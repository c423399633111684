//! The daemon as its supervisor knows it: it is started again whenever it has ended.

use std::time::{Duration, Instant};

use super::plant::Plant;
use crate::support::{signal, Daemon};

/// How long after its end it is started again.
const RESTART: Duration = Duration::from_millis(100);
/// What the end of a disk's trouble may still lead to.
const GRACE: Duration = Duration::from_secs(3);

pub struct Supervisor {
    daemon: Option<Daemon>,
    next_start: Instant,
    began: Instant,
    stopped: bool,
    /// Until when it may end because of its disk.
    refuses_until: Instant,
    pub starts: usize,
    /// How often it has ended because of its disk.
    pub refusals: usize,
}

impl Supervisor {
    pub fn new() -> Supervisor {
        let now = Instant::now();
        Supervisor {
            daemon: None,
            next_start: now,
            began: now,
            stopped: false,
            refuses_until: now,
            starts: 0,
            refusals: 0,
        }
    }

    /// Seconds since the beginning.
    pub fn elapsed(&self) -> f32 {
        self.began.elapsed().as_secs_f32()
    }

    /// Starts it if it is time, and looks whether it still runs.
    pub fn tend(&mut self, plant: &Plant) {
        let Some(daemon) = &mut self.daemon else {
            if Instant::now() >= self.next_start {
                self.daemon = Some(plant.start());
                self.starts += 1;
            }
            return;
        };
        if !daemon.is_running() {
            let status = daemon.wait();
            let allowed = status.code() == Some(74) && Instant::now() < self.refuses_until;
            assert!(allowed, "the daemon has ended by itself with {status}\n{}", daemon.log());
            self.refusals += 1;
            self.gone();
        }
    }

    fn gone(&mut self) {
        self.daemon = None;
        self.next_start = Instant::now() + RESTART;
    }

    /// Whether it runs, and is not stopped.
    pub fn serves(&self) -> bool {
        self.daemon.is_some() && !self.stopped
    }

    /// From now on, or no longer, its disk is bad.
    pub fn expect_refusals(&mut self, bad: bool) {
        if bad {
            self.refuses_until = Instant::now() + GRACE;
        }
    }

    pub fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
        self.gone();
    }

    /// Asks it to end, which it does in order, unless it has not begun to mind signals, or its disk is bad.
    pub fn terminate(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        let log = daemon.log();
        let status = daemon.terminate();
        let excused = status.code().is_none() || Instant::now() < self.refuses_until;
        assert!(status.success() || excused, "{status}\n{log}");
        self.gone();
    }

    pub fn stop(&mut self) {
        if let Some(daemon) = &self.daemon {
            signal(daemon.pid(), "STOP");
            self.stopped = true;
        }
    }

    pub fn go_on(&mut self) {
        if let Some(daemon) = self.daemon.as_ref().filter(|_| self.stopped) {
            signal(daemon.pid(), "CONT");
        }
        self.stopped = false;
    }

    /// Whether it says that it can't write its ledger.
    pub fn is_unwell(&self, plant: &Plant) -> bool {
        if !self.serves() {
            return false;
        }
        let output = plant.site.command(&["status", "--json"]);
        let status = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default();
        status["ledger"]["ok"] == false
    }

    /// The one that runs.
    pub fn into_daemon(self) -> Daemon {
        self.daemon.expect("it was started")
    }
}
