//! What instruments say by themselves, as it comes to the hub.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value as Json;

use super::{Event, Hub, Sent};
use crate::scenario::{Message, HUBS};

/// So soon behind the settlement of its message a result goes out.
const RESULTS_WITHIN: Duration = Duration::from_secs(2);

/// What has come of it.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// What the hub has, in order.
    pub had: Vec<Event>,
    /// The lines of all that came, also of what was lost on its way then, or not taken.
    pub came: Vec<String>,
    /// Devices of which some came by HTTPS, where each is a request of its own, and the hub may have no time for one.
    by_https: BTreeSet<String>,
}

/// The line that an event tells, if it is none of a command.
pub fn line(event: &Event) -> Option<String> {
    let body: Json = serde_json::from_str(&event.body).unwrap_or_default();
    body["event"].as_str().map(str::to_owned)
}

impl Hub {
    /// Everything of it.
    pub fn news(&self) -> News {
        self.lock().news.clone()
    }

    /// An event comes, whatever becomes of it.
    pub(super) fn comes(&self, event: &Event) {
        self.lock().news.came.extend(line(event));
    }

    /// The same, by HTTPS.
    pub(super) fn comes_by_https(&self, device: &str, event: &Event) {
        self.comes(event);
        self.lock().news.by_https.insert(device.to_owned());
    }

    /// What an instrument says by itself comes when the results are told that were recorded a while ago.
    pub(super) fn judge_news(&self, device: &str) {
        let inner = self.lock();
        let told = inner.events.get(device).map(Vec::as_slice).unwrap_or_default();
        let is_told = |one: &Sent| told.iter().any(|event| event.correlation == one.message.id);
        let is_due = |one: &&Sent| {
            let Message { after_accept, id, hub, .. } = &one.message;
            let is_old = one.settled_at.is_some_and(|at| at.elapsed() > RESULTS_WITHIN);
            let is_certain = !after_accept && id.is_some() && *hub == HUBS[0];
            is_certain && is_old && one.message.device == device && !is_told(one)
        };
        // Else it may have been lost on its way, or the ledger can't be read.
        let is_judged =
            self.faults.lost_acks + self.faults.disk == 0 && self.keeps_ledger && !inner.news.by_https.contains(device);
        if let Some(one) = inner.sent.iter().find(is_due).filter(|_| is_judged) {
            self.world.violate(format!("what an instrument says goes before the result of {:?}", one.message));
        }
        if is_judged {
            self.world.count("judged: an event behind the results");
        }
    }
}
