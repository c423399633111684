//! What systemd and the operating system want of a daemon: readiness, status line, watchdog, signals.
//!
//! Invariant: a systemd that does not listen (it reloads, or hangs) holds up nothing but what it is told.

use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::LazyLock;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{signal, Signal, SignalKind};

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

    /// Waits for the word to stop.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP changes nothing; restart the service to take up a new configuration");
                }
            }
        }
    }
}
