//! The transports by which a daemon reaches the simulated hub, and what each of them changes for a test that plays all
//! of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use fieldbridge::demo::hub::{Fault, Options, Wire};

use super::hub::Hub;
use super::Site;

/// The shortest that the configuration allows.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    Mqtt,
    Amqp,
    /// What a daemon that was killed has left locked is waited for. Only one with the feature `proof` takes a lock for
    /// shorter than a minute.
    Https,
}

impl By {
    pub const ALL: [By; 3] = [By::Mqtt, By::Amqp, By::Https];

    /// The hub's address for it.
    pub fn address(self, hub: &Hub) -> SocketAddr {
        match self {
            By::Mqtt => hub.addr(),
            By::Amqp => hub.amqp_addr(),
            By::Https => hub.https_addr(),
        }
    }

    /// The lines of `[hub]` that choose it, at this address.
    pub fn keys(self, address: SocketAddr) -> String {
        let (name, more) = match self {
            By::Mqtt => ("mqtt", String::new()),
            By::Amqp => ("amqp", String::new()),
            By::Https => ("https", format!("poll_interval = \"{}s\"\n", POLL_INTERVAL.as_secs())),
        };
        format!("transport = \"{name}\"\naddresses = {{ {name} = \"{address}\" }}\n{more}")
    }

    /// How long the hub keeps a message locked.
    pub fn lock(self) -> Duration {
        match self {
            By::Https => Duration::from_millis(400),
            _ => Options::default().lock,
        }
    }

    /// What a daemon is told of the hub: its locks are short, and may begin late on a machine that is busy.
    pub fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            By::Https => &[("FIELDBRIDGE_LOCK_MS", "1400")],
            _ => &[],
        }
    }

    /// How long a daemon lets a device alone after a crash.
    pub fn pause_after_a_crash(self) -> Duration {
        match self {
            By::Https => Duration::from_millis(1400),
            _ => Duration::ZERO,
        }
    }

    /// Whether each of these devices is connected; over HTTPS, whether it was answered within so many polls.
    pub fn are_in_touch<'a>(self, hub: &Hub, polls: u32, mut devices: impl Iterator<Item = &'a str>) -> bool {
        if self != By::Https {
            return devices.all(|device| hub.is_connected(device));
        }
        let wire = hub.wire();
        let late = wire.iter().rev().take_while(|event| event.at.elapsed() < POLL_INTERVAL * polls);
        let is_answer = |what: &Wire| matches!(what, Wire::Request { status: 200..=299, .. });
        let heard: BTreeSet<_> = late.filter(|event| is_answer(&event.what)).map(|event| &*event.device).collect();
        devices.all(|device| heard.contains(device))
    }

    /// Whether the sender of what is refused is told so.
    pub fn rejects(self) -> bool {
        self != By::Mqtt
    }

    /// What can go wrong at the hub, but for an event that it refuses, which is tried again after a minute.
    pub fn faults(self) -> &'static [Fault] {
        match self {
            By::Mqtt => &[
                Fault::CutBeforeConnack,
                Fault::CutBeforePublish,
                Fault::CutAfterPublish,
                Fault::LosePuback,
                Fault::CutAfterPubacks(2),
                Fault::CutBeforeTelemetry,
                Fault::CutAfterTelemetry,
            ],
            By::Amqp => &[
                Fault::CutBeforeConnack,
                Fault::CutBeforePublish,
                Fault::CutAfterPublish,
                Fault::CutInFrame,
                Fault::LosePuback,
                Fault::LoseSettlement,
                Fault::CutAfterSettlement,
                Fault::CutAfterPubacks(2),
                Fault::CutBeforeTelemetry,
                Fault::CutAfterTelemetry,
            ],
            By::Https => &[
                Fault::CutBeforePublish,
                Fault::CutAfterPublish,
                Fault::CutInFrame,
                Fault::LoseSettlement,
                Fault::CutAfterSettlement,
                Fault::CutBeforeTelemetry,
                Fault::CutAfterTelemetry,
            ],
        }
    }

    /// Lets the ledger of a new site trust that nothing was before it. Only MQTT's sessions would show that by
    /// themselves.
    pub fn trust(self, site: &Site) {
        if self != By::Mqtt {
            let made = site.command(&["ledger", "new", "--trust"]);
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
    }
}
