//! What the daemon says of itself: `status`, and the line that systemd shows.

use std::time::Duration;

use tokio::time::Instant;

use super::registry::{Registry, Running, Served};
use super::seen::Stock;
use super::Gateway;
use crate::health::snapshot::{self, BusState, Snapshot};
use crate::health::LinkState;
use crate::operate::attention;
use crate::systemd;
use crate::telemetry::Standing;
use crate::time::Timestamp;

/// Polls that are told of, over all devices: a status is one reply of a bounded size.
const POLLS_TOLD_MAX: usize = 4096;

/// How often the status line is written, if it has changed.
const STATUS_PERIOD: Duration = Duration::from_secs(2);

impl Registry {
    fn connected(&self) -> usize {
        self.linked(LinkState::Connected)
    }

    fn bus(&self, name: &str, running: &Running) -> snapshot::Bus {
        let of_its_own = self.devices.values().filter_map(Served::events).filter(|(bus, _)| bus == name);
        let events = of_its_own.map(|(_, events)| events).reduce(|sum, more| snapshot::Events {
            heard: sum.heard + more.heard,
            dropped: sum.dropped + more.dropped,
        });
        snapshot::Bus { events, ..running.handle.snapshot() }
    }

    /// What the polls of each device came to last, as many as are told.
    fn add_polls(&self, devices: &mut [snapshot::Device], now: Option<Timestamp>) {
        let (mut left, instant) = (POLLS_TOLD_MAX, Instant::now().into_std());
        for device in devices {
            let Some(running) = self.buses.get(&device.bus) else { continue };
            let polls = running.latest.told(&device.id, instant, |ago| now.map(|now| now.minus(ago).to_string()));
            device.polls = polls.into_iter().take(left).collect();
            left -= device.polls.len();
        }
    }

    fn linked(&self, state: LinkState) -> usize {
        self.devices.values().filter(|served| served.health.link() == state).count()
    }
}

impl Served {
    fn is_away(&self) -> bool {
        let present = self.context.present();
        present.bus.presence().is_away(&present.bus.party(&present.device))
    }

    /// What its instrument has said by itself, if it has `events`, and on which bus.
    fn events(&self) -> Option<(String, snapshot::Events)> {
        let present = self.context.present();
        let (heard, dropped) = self.news.so_far();
        let has_events = present.device.events.is_some();
        has_events.then(|| (present.device.bus.clone(), snapshot::Events { heard, dropped }))
    }

    fn snapshot(&self, hub: &str, in_doubt_open: u64) -> snapshot::Device {
        let present = self.context.present();
        let snapshot = self.health.snapshot(&present.device.bus, present.device.transport.as_str());
        let standing = present.bus.presence().standing(&present.bus.party(&present.device));
        let now = self.context.ledger.wall_clock().now().ok();
        let away_since = standing.away_since.zip(now).map(|(since, now)| now.minus(since.elapsed()).to_string());
        let locked = self.context.lockouts.shown(&self.context.id);
        let (last_success, last_failure) = self.health.ends.told(|ago| now.map(|now| now.minus(ago).to_string()));
        let ledger = &self.context.ledger;
        // By its time a message from before is told from what came since, once there is a time to compare with.
        let tells = present.device.transport.tells_enqueued_time() && ledger.epoch().is_some();
        let distrusted = !tells && ledger.distrusts(hub, &self.context.id);
        let (hub_host, present) = (hub.to_owned(), standing.present);
        snapshot::Device {
            hub_host,
            locked,
            present,
            away_since,
            in_doubt_open,
            distrusted,
            last_success,
            last_failure,
            ..snapshot
        }
    }
}

impl Gateway {
    pub(super) async fn snapshot(&self) -> Snapshot {
        self.picture(&self.stock_taken().await)
    }

    /// What it sees, with what was counted in the ledger.
    pub(super) fn picture(&self, stock: &Stock) -> Snapshot {
        let health = self.ledger.health().borrow().clone();
        let (rows, of_removed_devices, open_doubts) = (stock.rows, stock.of_removed_devices, &stock.in_doubt);
        let (file, changed_files) = (stock.file.clone(), stock.changed_files.clone());
        let now = self.ledger.wall_clock().now();
        let (now, doubt) = (now.as_ref().ok().copied(), now.err());
        let registry = self.registry();
        let of_device = |(id, served): (&String, &Served)| {
            served.snapshot(&registry.hub_of(id), open_doubts.get(id).copied().unwrap_or(0))
        };
        let distrusts = |hub: &str, id: &str| !hub.is_empty() && self.ledger.distrusts(hub, id);
        let distrusted = registry.devices.keys().any(|id| distrusts(&registry.hub_of(id), id));
        let mut snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.started.elapsed().as_secs(),
            clock: snapshot::Clock {
                ok: doubt.is_none(),
                now: Timestamp::now().to_string(),
                last_error: doubt.map(|doubt| doubt.to_string()),
            },
            configuration: snapshot::Configuration {
                ok: registry.refused.is_none(),
                last_error: registry.refused.clone(),
                file,
                changed_files,
            },
            hub: snapshot::Hub {
                host: registry.hub_host(),
                connected: registry.connected(),
                identities: registry.devices.len(),
            },
            devices: registry.devices.iter().map(of_device).collect(),
            buses: registry.buses.iter().map(|(name, running)| registry.bus(name, running)).collect(),
            ledger: snapshot::Ledger {
                ok: health.ok,
                rows,
                in_doubt_open: open_doubts.values().sum(),
                distrusted,
                last_error: health.last_error,
            },
            outbox: snapshot::Outbox { pending: (stock.events - of_removed_devices).max(0), of_removed_devices },
            telemetry: self.telemetry.standing(|id| registry.devices.contains_key(id)).map(telemetry),
            attention: Vec::new(),
        };
        registry.add_polls(&mut snapshot.devices, now);
        snapshot.attention = attention::of(&snapshot);
        snapshot
    }

    pub(super) async fn report_status(&self) {
        let mut told = String::new();
        let mut period = tokio::time::interval(STATUS_PERIOD);
        loop {
            period.tick().await;
            let line = self.status_line();
            if line != told {
                systemd::status(&line);
                told = line;
            }
        }
    }

    fn status_line(&self) -> String {
        let registry = self.registry();
        let buses: Vec<BusState> = registry.buses.values().map(|running| running.handle.status().state).collect();
        let in_doubt: u64 = registry.devices.values().map(|served| served.health.in_doubt.get()).sum();
        let mut line = format!(
            "{} of {} identities connected{}, {}, {in_doubt} {} in doubt since the start",
            registry.connected(),
            registry.devices.len(),
            held_ones(registry.linked(LinkState::Held)),
            open_ones(&buses),
            if in_doubt == 1 { "command" } else { "commands" },
        );
        match registry.devices.keys().filter(|id| self.lockouts.shown(id).is_some()).count() {
            0 => {}
            1 => line += ", 1 device locked",
            many => line += &format!(", {many} devices locked"),
        }
        match registry.devices.values().filter(|served| served.is_away()).count() {
            0 => {}
            1 => line += ", the unit of 1 device away",
            many => line += &format!(", the units of {many} devices away"),
        }
        if !self.ledger.is_well() {
            line += ", THE LEDGER CAN'T BE WRITTEN";
        }
        if let Err(doubt) = self.ledger.wall_clock().now() {
            line += &format!(", {}", doubt.in_short().to_uppercase());
        }
        if registry.refused.is_some() {
            line += ", THE NEW CONFIGURATION HAS ERRORS";
        }
        line
    }
}

fn telemetry(standing: Standing) -> snapshot::Telemetry {
    let Standing { samples, published, lost, pending, of_removed_devices, bytes, trouble } = standing;
    let (ok, last_error) = (trouble.is_none(), trouble);
    snapshot::Telemetry { ok, samples, published, pending, of_removed_devices, lost, bytes, last_error }
}

/// Those that are not connected since their units are away.
fn held_ones(count: usize) -> String {
    if count == 0 {
        String::new()
    } else {
        format!(" ({count} held)")
    }
}

/// How many buses are open. One that nobody needs at present is closed, and in order.
fn open_ones(buses: &[BusState]) -> String {
    let count = |state| buses.iter().filter(|bus| **bus == state).count();
    let (open, idle) = (count(BusState::Open), count(BusState::Closed));
    let idle = if idle == 0 { String::new() } else { format!(" ({idle} idle)") };
    format!("{open} of {} buses open{idle}", buses.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_nobody_needs_at_present_is_not_told_as_one_that_fails() {
        use BusState::{Closed, Open, Opening};
        assert_eq!(open_ones(&[Open, Open]), "2 of 2 buses open");
        assert_eq!(open_ones(&[Open, Closed]), "1 of 2 buses open (1 idle)");
        assert_eq!(open_ones(&[Opening, Closed, Closed]), "0 of 3 buses open (2 idle)");
    }
}
