//! What the daemon says of itself: `status`, and the line that systemd shows.

use std::time::Duration;

use super::registry::{Registry, Served};
use super::Gateway;
use crate::health::snapshot::{self, Snapshot};
use crate::health::LinkState;
use crate::systemd;
use crate::time::Timestamp;

/// How often the status line is written, if it has changed.
const STATUS_PERIOD: Duration = Duration::from_secs(2);

impl Registry {
    fn connected(&self) -> usize {
        self.devices.values().filter(|served| served.health.link() == LinkState::Connected).count()
    }
}

impl Served {
    fn snapshot(&self) -> snapshot::Device {
        let present = self.context.present();
        self.health.snapshot(&present.device.bus, present.device.transport.as_str())
    }
}

impl Gateway {
    pub(super) async fn snapshot(&self) -> Snapshot {
        let health = self.ledger.health().borrow().clone();
        let (rows, events) = self.ledger.counts().await.unwrap_or((0, 0));
        let configured = self.registry().devices.keys().cloned().collect();
        let of_removed_devices = self.ledger.events_of_others(configured).await.unwrap_or(0);
        let doubt = self.ledger.wall_clock().now().err();
        let registry = self.registry();
        let devices = registry.devices.values();
        Snapshot {
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
            },
            hub: snapshot::Hub {
                host: registry.config.hub.host.clone(),
                connected: registry.connected(),
                identities: registry.devices.len(),
            },
            devices: devices.map(Served::snapshot).collect(),
            buses: registry.buses.values().map(|running| running.handle.snapshot()).collect(),
            ledger: snapshot::Ledger { ok: health.ok, rows, last_error: health.last_error },
            outbox: snapshot::Outbox { pending: (events - of_removed_devices).max(0), of_removed_devices },
        }
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
        let open = registry.buses.values().filter(|running| running.handle.status().is_open()).count();
        let in_doubt: u64 = registry.devices.values().map(|served| served.health.in_doubt.get()).sum();
        let mut line = format!(
            "{} of {} identities connected, {open} of {} buses open, {in_doubt} {} in doubt since the start",
            registry.connected(),
            registry.devices.len(),
            registry.buses.len(),
            if in_doubt == 1 { "command" } else { "commands" },
        );
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
