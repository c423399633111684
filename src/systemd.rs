//! What systemd and the operating system want of a daemon: readiness, status line, watchdog, signals,
//! seclusion.
//!
//! Invariant: a systemd that does not listen (it reloads, or hangs) holds up nothing but what it is told.

use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::LazyLock;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{set_dumpable_behavior, setrlimit, umask, DumpableBehavior, Resource, Rlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{signal, Signal, SignalKind};

/// Keeps to the process what it knows and makes. Its memory holds the devices' keys: it leaves no core dump, and no
/// other process of its user can look into it (prctl(2), PR_SET_DUMPABLE). Its files are not for others.
pub fn seclude() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "a core dump of this process can't be prevented, and would hold the devices' keys");
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        // A sandbox may forbid it. What is above is enough; this is a second hold.
        tracing::debug!(%error, "the limit for core dumps stays as it is");
    }
    // The group reads: operators look at the ledger. A mask that is stricter stays so.
    let least = Mode::WGRP | Mode::RWXO;
    umask(umask(least) | least);
}

/// How much longer systemd is asked to wait each time.
const EXTENSION: Duration = Duration::from_secs(60);

/// Most messages that wait for systemd.
const WAITING_MAX: usize = 16;

/// Sending to systemd blocks while its queue is full, so a thread of its own does it.
static TELLER: LazyLock<Option<SyncSender<String>>> = LazyLock::new(|| {
    let (tell, told) = sync_channel::<String>(WAITING_MAX);
    let send = move || {
        for text in told {
            if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&text)]) {
                tracing::debug!(%error, "systemd could not be told");
            }
        }
    };
    match std::thread::Builder::new().name("systemd".into()).spawn(send) {
        Ok(_) => Some(tell),
        Err(error) => {
            tracing::warn!(%error, "systemd will not be told anything: no thread for it");
            None
        }
    }
});

/// Tells systemd, in order. Outside of systemd nothing happens. What finds no room is left out.
fn tell(state: NotifyState) {
    if let Some(Err(error)) = TELLER.as_ref().map(|teller| teller.try_send(state.to_string())) {
        tracing::debug!(%error, "systemd does not listen");
    }
}

/// The daemon serves.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// The daemon has begun to take up a new configuration; [`ready`] ends that, whatever became of it.
///
/// systemd wants to know since when, to tell a reload that it asked for from an earlier one (sd_notify(3),
/// RELOADING=1).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(since) => tell(NotifyState::Custom(&format!("{}\n{since}", NotifyState::Reloading))),
        Err(error) => tracing::debug!(%error, "no monotonic clock for systemd"),
    }
}

/// Something long at the start goes on: systemd waits for so much longer from now (sd_notify(3), EXTEND_TIMEOUT_USEC=).
pub fn goes_on(line: &str) {
    tell(NotifyState::Custom(&format!("EXTEND_TIMEOUT_USEC={}\nSTATUS={line}", EXTENSION.as_micros())));
}

/// The daemon has begun to stop.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// A line that `systemctl status` shows.
pub fn status(line: &str) {
    tell(NotifyState::Status(line));
}

/// The daemon makes progress.
pub fn alive() {
    tell(NotifyState::Watchdog);
}

/// How often to tell that there is progress: a third of what systemd allows. `None`: it does not ask.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 3)
}

/// What the daemon is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// To stop, and why.
    Stop(&'static str),
    /// To take up a new configuration.
    Reload,
}

/// Where demands come from.
pub trait Demands {
    /// Waits for the next one. Cancel-safe.
    fn next(&mut self) -> impl std::future::Future<Output = Demand> + Send;
}

/// The signals that matter.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Demands for Signals {
    async fn next(&mut self) -> Demand {
        tokio::select! {
            _ = self.terminate.recv() => Demand::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Demand::Stop("SIGINT"),
            _ = self.hangup.recv() => Demand::Reload,
        }
    }
}
