//! What the daemon says of itself: `status`, and the line that systemd shows.

use std::time::Duration;

use serde_json::{json, Value as Json};

use super::registry::Registry;
use super::Gateway;
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

impl Gateway {
    pub(super) async fn status(&self) -> Json {
        let health = self.ledger.health().borrow().clone();
        let (rows, events) = self.ledger.counts().await.unwrap_or((0, 0));
        let configured = self.registry().devices.keys().cloned().collect();
        let left_over = self.ledger.events_of_others(configured).await.unwrap_or(0);
        let doubt = self.ledger.wall_clock().now().err();
        let registry = self.registry();
        let devices =
            registry.devices.values().map(|served| served.health.to_json(&served.assignment.borrow().device.bus));
        let buses = registry.buses.values().map(|running| running.handle.status().to_json());
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptimeSeconds": self.started.elapsed().as_secs(),
            "clock": {
                "ok": doubt.is_none(), "now": Timestamp::now().to_string(), "lastError": doubt.map(|doubt| doubt.to_string())
            },
            "configuration": { "ok": registry.refused.is_none(), "lastError": registry.refused },
            "hub": {
                "host": registry.config.hub.host,
                "connected": registry.connected(),
                "identities": registry.devices.len(),
            },
            "devices": devices.collect::<Vec<_>>(),
            "buses": buses.collect::<Vec<_>>(),
            "ledger": { "ok": health.ok, "rows": rows, "lastError": health.last_error },
            "outbox": { "pending": (events - left_over).max(0), "ofRemovedDevices": left_over },
        })
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
