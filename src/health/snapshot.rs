//! What a running daemon says of itself: the one picture that `status` shows and `check --live` goes by. Its JSON is an
//! interface: `status --json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// A daemon at a moment. What an older program leaves out is empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Snapshot {
    /// Of the program.
    pub version: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// The wall clock.
    pub clock: Clock,
    /// The configuration in force.
    pub configuration: Configuration,
    /// The hub.
    pub hub: Hub,
    /// Each device, by its id.
    pub devices: Vec<Device>,
    /// Each bus, by its name.
    pub buses: Vec<Bus>,
    /// The ledger.
    pub ledger: Ledger,
    /// Result events that the hub does not have yet.
    pub outbox: Outbox,
    /// What polls have read, where there are polls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// What needs a person; an older program does not say.
    pub attention: Vec<Attention>,
}

/// Something that does not come right by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attention {
    /// What is wrong, of whom.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// The wall clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Clock {
    /// It is believed.
    pub ok: bool,
    /// What it shows.
    pub now: String,
    /// Why it is not believed.
    pub last_error: Option<String>,
}

/// The configuration in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    /// What stands in the files is in force, as far as is known.
    pub ok: bool,
    /// Why the last reload was refused.
    pub last_error: Option<String>,
    /// The main file.
    pub file: String,
    /// Files that were written, came or went since they were read last: what stands in them may not be in force.
    pub changed_files: Vec<String>,
}

/// The hub.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hub {
    /// Its name.
    pub host: String,
    /// Identities that are connected.
    pub connected: usize,
    /// Identities that are configured.
    pub identities: usize,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Its id at the hub.
    pub id: String,
    /// Its bus.
    pub bus: String,
    /// How its messages come.
    pub transport: String,
    /// Host name of its hub.
    pub hub_host: String,
    /// Where its session stands.
    pub hub: LinkState,
    /// Why it is not connected.
    pub last_error: Option<String>,
    /// Why nothing is written to it, if somebody has locked it.
    pub locked: Option<Lock>,
    /// Whether its unit answers; `None`: it has not been asked often enough to tell.
    pub present: Option<bool>,
    /// Since when its unit is away, if it is, and where the clock is believed.
    pub away_since: Option<String>,
    /// Deliveries from the hub.
    pub received: u64,
    /// Commands that ended with an attempt on the wire behind them, whoever asked for them.
    pub executed: u64,
    /// Deliveries of messages whose row was there already.
    pub duplicates: u64,
    /// Commands that ended in doubt.
    pub in_doubt: u64,
    /// Commands in doubt, of whatever life of the daemon, that nobody has looked at.
    pub in_doubt_open: u64,
    /// Commands that wait or run.
    pub pending: u64,
    /// Commands that must not be repeated end in doubt: a ledger that this one has replaced may have executed them.
    pub distrusted: bool,
    /// The last command that its peripheral has done, since the start.
    pub last_success: Option<Done>,
    /// The last that failed at it, or ended in doubt.
    pub last_failure: Option<Undone>,
    /// Calls of direct methods that were answered since the start, by the answer's status, where there are some.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub calls: BTreeMap<String, u64>,
    /// What its polls came to last, by their names, where it has some that were asked.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub polls: BTreeMap<String, Poll>,
}

impl Device {
    /// Calls that were answered, and those of them whose command was not done, and will not be.
    pub fn calls_told(&self) -> (u64, u64) {
        let failed = self.calls.iter().filter(|(status, _)| !status.starts_with('2')).map(|(_, count)| count).sum();
        (self.calls.values().sum(), failed)
    }
}

/// What a poll came to last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Poll {
    /// What was read; a long one is cut to a text. `null` where nothing was, or where there is no value.
    pub value: Json,
    /// `good`, or a word for why nothing was read.
    pub quality: String,
    /// When the answer had come, where the clock is believed.
    pub at: Option<String>,
    /// Seconds since then.
    pub seconds_ago: u64,
}

/// The quality of a value that was read.
pub const GOOD: &str = "good";

/// A command that was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Done {
    /// When it ended, where the clock is believed.
    pub at: Option<String>,
    /// Seconds since then.
    pub seconds_ago: u64,
    /// The command's name.
    pub command: String,
}

/// A command that was not done, or nobody knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Undone {
    /// When it ended, where the clock is believed.
    pub at: Option<String>,
    /// Seconds since then.
    pub seconds_ago: u64,
    /// The command's name.
    pub command: String,
    /// Its state in the ledger.
    pub state: String,
    /// Why, in a word.
    pub code: String,
    /// Why, in a sentence.
    pub message: String,
}

/// A device's lock. One that stands for a file that can't be read has neither time nor user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lock {
    /// Since when, where the clock was believed then.
    pub since: Option<String>,
    /// The user who has locked it.
    pub by: Option<String>,
    /// What the user said of it.
    pub reason: Option<String>,
}

/// One bus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bus {
    /// Its name in the configuration.
    pub name: String,
    /// `modbus-rtu`, `modbus-ascii`, `modbus-tcp` or `serial`.
    pub kind: String,
    /// Whether requests can go out.
    pub state: BusState,
    /// Why it can't be opened or was lost; of an open one, what is wrong with the line.
    pub last_error: Option<String>,
    /// Why it can't be opened, in a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Exchanges of which at least one byte was sent.
    pub exchanges: u64,
    /// Those of them to which nothing came back in time.
    pub timeouts: u64,
    /// Each unit that was asked, by its id; none on a line of text.
    pub units: Vec<Unit>,
    /// What its devices have `events` for, where one has.
    pub events: Option<Events>,
}

/// What was heard that instruments say by themselves, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Events {
    /// Events of devices; one that several have `events` for is counted for each.
    pub heard: u64,
    /// Those that the hub never has: for want of room, since they may have been an answer, or as it did not take them.
    pub dropped: u64,
}

/// What became of the exchanges with one unit since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Unit {
    /// Its id.
    pub unit: u8,
    /// Exchanges of which at least one byte was sent.
    pub exchanges: u64,
    /// Those to which nothing came back in time.
    pub timeouts: u64,
    /// Those to which came what is no answer: with a wrong checksum, of another unit, or cut.
    pub bad_replies: u64,
    /// Those of the bad replies in which nothing stood with a right checksum: noise, or another rate or parity.
    pub checksum_errors: u64,
    /// Those that were answered by an exception, by its code.
    pub exceptions: BTreeMap<u8, u64>,
    /// How long those took that were answered, with the silence before the request.
    pub milliseconds: Option<Times>,
}

/// How long something took, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The last time.
    pub last: f64,
    /// On average.
    pub mean: f64,
    /// At most.
    pub max: f64,
    /// How often it took how long, in order; what never happened is left out.
    pub histogram: Vec<Bar>,
}

/// How often something took longer than what is before, and not longer than this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bar {
    /// In milliseconds.
    pub up_to: u32,
    /// How often.
    pub count: u64,
}

/// Where the session of a device's identity stands: `waiting`, `waiting-for-locks`, `connecting`, `connected` or
/// `held`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// It waits: for a believable clock, for the ledger, or after a failure.
    Waiting,
    /// The hub may keep a message locked that would be overtaken. It has a reason, and no trouble.
    WaitingForLocks,
    /// A connection is being made.
    Connecting,
    /// Subscribed: messages flow.
    Connected,
    /// Its unit is away, and its messages stay at the hub. That is no trouble.
    Held,
    /// A word that this program does not know, or none.
    #[default]
    #[serde(other)]
    Unknown,
}

impl LinkState {
    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Waiting => "waiting",
            LinkState::WaitingForLocks => "waiting-for-locks",
            LinkState::Connecting => "connecting",
            LinkState::Connected => "connected",
            LinkState::Held => "held",
            LinkState::Unknown => "unknown",
        }
    }
}

/// Whether requests can go out on a bus: `open`, `opening` or `closed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BusState {
    /// At once.
    Open,
    /// It can't be opened or was lost, and is tried again and again.
    Opening,
    /// Nothing is wrong, and the next request opens it (a connection that ended, or that nobody needed), or the gateway
    /// stops.
    Closed,
    /// A word that this program does not know, or none.
    #[default]
    #[serde(other)]
    Unknown,
}

impl BusState {
    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            BusState::Open => "open",
            BusState::Opening => "opening",
            BusState::Closed => "closed",
            BusState::Unknown => "unknown",
        }
    }
}

/// What keeps a bus's port from being opened, for whoever decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// There is no such port.
    Missing,
    /// This user may not.
    Denied,
    /// Another program holds it.
    Held,
    /// Its driver does not respond.
    Hung,
    /// Nobody answers at the address.
    Unreachable,
    /// Something else.
    #[serde(other)]
    Other,
}

/// The ledger.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// It can be written.
    pub ok: bool,
    /// Its rows.
    pub rows: i64,
    /// Commands in doubt that nobody has looked at, also of devices that are not configured any more.
    pub in_doubt_open: u64,
    /// It is new, or from a backup, and does not know of all devices what was before.
    pub distrusted: bool,
    /// Why it can't be written.
    pub last_error: Option<String>,
}

/// Result events that the hub does not have yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Outbox {
    /// Of devices that are configured.
    pub pending: i64,
    /// Of devices that are not configured any more: each is published when its device is back.
    pub of_removed_devices: i64,
}

/// What polls have read, on its way to the hub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// Its file can be written.
    pub ok: bool,
    /// Samples that were read and are told, since the start.
    pub samples: u64,
    /// Messages that the hub has taken, since the start.
    pub published: u64,
    /// Messages that the hub does not have yet.
    pub pending: u64,
    /// Such messages of devices that are not configured any more: each goes when its device is back.
    pub of_removed_devices: u64,
    /// Samples that were lost for want of room, or since the hub did not take them, since the start.
    pub lost: u64,
    /// Bytes that its file uses.
    pub bytes: u64,
    /// Why it can't be written.
    pub last_error: Option<String>,
}

impl Snapshot {
    /// One device, if the daemon has it.
    pub fn device(&self, id: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// One bus, if the daemon has it.
    pub fn bus(&self, name: &str) -> Option<&Bus> {
        self.buses.iter().find(|bus| bus.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_state_is_the_one_that_is_shown_and_a_new_one_keeps_nobody_from_reading_the_rest() {
        use LinkState::{Connected, Connecting, Held, Waiting, WaitingForLocks};
        let links = [Waiting, WaitingForLocks, Connecting, Connected, Held];
        for state in links {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(serde_json::from_value::<LinkState>(state.as_str().into()).unwrap(), state);
        }
        for state in [BusState::Open, BusState::Opening, BusState::Closed] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(serde_json::from_value::<BusState>(state.as_str().into()).unwrap(), state);
        }
        let newer = r#"{"devices": [{"id": "pump", "hub": "resting"}, {"id": "valve"}],
            "buses": [{"name": "line", "state": "listening", "cause": "melted", "exchanges": 3}]}"#;
        let read: Snapshot = serde_json::from_str(newer).unwrap();
        assert_eq!(read.device("pump").map(|device| device.hub), Some(LinkState::Unknown));
        assert_eq!(read.device("valve").map(|device| device.hub), Some(LinkState::Unknown));
        let bus = read.bus("line").expect("it is read");
        assert_eq!((bus.state, bus.cause, bus.exchanges), (BusState::Unknown, Some(Cause::Other), 3));
    }
}
