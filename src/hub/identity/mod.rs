//! One identity at the hub: `lifecycle` connects it again and again, `attached` serves it while it is attached,
//! `outbox` publishes its result events, and behind them what `telling` has to tell of its peripheral and what
//! `readings` has from its polls. What is done about its twin is decided in `twin`, and done in `wishes`.
//!
//! Invariants
//! - Everything that belongs to a connection is made for it and dropped with it (G6).
//! - Nothing is read from the hub unless the ledger can be written (G9) and the clock could be believed; no token is
//!   made unless it can. A clock that is doubted later ends no connection: its token lives on.
//! - What a connection was made with stays as it is: who it is, and with which settings. If the configuration changes,
//!   the connection ends as for a new token, and the next one is made with what is configured then.
//! - While its messages are to stay at the hub, a connection is made when there is something to publish, and ends when
//!   there is nothing any more. What was delivered on it and not begun is the next one's.
//! - What waits for its turn when its connection ends is dropped at once: the hub delivers it again.

mod attached;
pub mod backoff;
mod calls;
mod hurdles;
mod lifecycle;
mod outbox;
mod readings;
mod remains;
mod telling;
mod token;
mod twin;
mod unheard;
mod wishes;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{watch, Notify};
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::news::News;
use super::pace::Shared;
use super::room::Room;
use super::trouble::Trouble;
use super::twin::{Board, Stand};
use super::Intake;
use crate::health::DeviceHealth;
use crate::ledger::Ledger;
use crate::telemetry::Store;

/// How often a clock that can't be believed is looked at again.
const CLOCK_PERIOD: Duration = Duration::from_secs(1);

/// One identity.
pub struct Identity {
    /// What all identities share.
    pub shared: Arc<Shared>,
    /// The device's id.
    pub id: String,
    /// What it connects as. A change that is notified ends the connection.
    pub account: watch::Receiver<Arc<Account>>,
    /// Where deliveries go.
    pub deliveries: Box<dyn Intake>,
    /// Whether its messages are to stay at the hub: it is connected to publish only.
    pub held: watch::Receiver<bool>,
    /// What it may keep of messages that wait.
    pub room: Arc<Room>,
    /// Where result events come from.
    pub ledger: Ledger,
    /// Rings when there is a new result event.
    pub event_bell: Arc<Notify>,
    /// What its peripheral says by itself.
    pub news: Arc<News>,
    /// Where what polls have read of it waits.
    pub telemetry: Store,
    /// What is desired of it, and what became of that.
    pub board: Arc<Board>,
    /// What its twin is told of it by itself.
    pub stand: Stand,
    /// What is known of the device.
    pub health: Arc<DeviceHealth>,
    /// No message is begun any more: it is about to be stopped.
    pub leaves: CancellationToken,
    /// Ends it, after what is settled was acknowledged.
    pub stop: CancellationToken,
}

/// How making or serving a connection ended.
enum Ending {
    Stop,
    /// A new token is needed.
    Renew,
    /// The configuration has changed.
    Reconfigured,
    /// Its messages are to stay at the hub, and nothing is to be published.
    Held,
    /// The ledger can't be written.
    LedgerUnwell,
    /// The clock can't be believed any more.
    ClockUnset,
    Trouble(Trouble),
}

impl From<Trouble> for Ending {
    fn from(trouble: Trouble) -> Self {
        Ending::Trouble(trouble)
    }
}
