//! What polls have read of one device, on the wire: behind every result event, and behind what its peripheral says by
//! itself.
//!
//! Invariants
//! - Few messages of it are on the wire at a time, so that a result event waits behind no more than those.
//! - It leaves its store only after the hub has acknowledged it. What a connection leaves unacknowledged is published
//!   again on the next, under the same id.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::ledger::row::{Event, EventKind, NEWS_FROM};
use crate::telemetry::{Kind, Outlet, FROM};

/// Messages that the hub has not acknowledged.
const IN_FLIGHT_MAX: usize = 4;

/// What is to be told of one device.
pub(super) struct Readings {
    device: String,
    outlet: Outlet,
    /// When each was sent, by its number.
    in_flight: HashMap<i64, Instant>,
    /// No more goes on this connection.
    rests: bool,
    /// The last connection has ended badly with some of these: one goes at a time, so that it shows for which.
    is_cautious: bool,
    has_told_of_a_refusal: bool,
}

impl Readings {
    pub(super) fn new(device: &str, outlet: Outlet) -> Readings {
        let (in_flight, rests, is_cautious) = (HashMap::new(), false, false);
        Readings { device: device.to_owned(), outlet, in_flight, rests, is_cautious, has_told_of_a_refusal: false }
    }

    /// Whether a message is one of these, by its number.
    pub(super) fn is_of(seq: i64) -> bool {
        (FROM..NEWS_FROM).contains(&seq)
    }

    /// Whether more may go.
    fn has_room(&self) -> bool {
        !self.rests && self.in_flight.len() < if self.is_cautious { 1 } else { IN_FLIGHT_MAX }
    }

    /// Waits until there may be something to publish. Cancel-safe.
    pub(super) async fn stirred(&self) {
        match self.has_room() {
            true => self.outlet.stirred().await,
            false => std::future::pending().await,
        }
    }

    /// The next one that is to be published now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Event> {
        let batch = self.has_room().then(|| self.outlet.take()).flatten()?;
        self.in_flight.insert(batch.number, now);
        let kind = match batch.kind {
            Kind::Samples => EventKind::Telemetry,
            Kind::Gap => EventKind::TelemetryGap,
        };
        Some(Event { kind, seq: batch.number, id: batch.id, message_id: None, body: batch.body })
    }

    /// Whether nothing is on the wire. What waits does so in its store.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Since when the oldest on the wire is there.
    pub(super) fn since(&self) -> Option<Instant> {
        self.in_flight.values().min().copied()
    }

    /// No more goes on this connection: it is about to end.
    pub(super) fn rest(&mut self) {
        self.rests = true;
    }

    /// The hub has it.
    pub(super) fn acknowledged(&mut self, number: i64) {
        if self.in_flight.remove(&number).is_some() {
            (self.has_told_of_a_refusal, self.is_cautious) = (false, false);
            self.outlet.acknowledged(number);
        }
    }

    /// The hub does not take it, and takes others.
    pub(super) fn refused(&mut self, number: i64, why: &str) {
        if self.in_flight.remove(&number).is_some() {
            if !std::mem::replace(&mut self.has_told_of_a_refusal, true) {
                tracing::warn!(device = %self.device, "the hub does not take a message of telemetry ({why}): it is lost");
            }
            self.outlet.lose(number);
        }
    }

    /// It is published again.
    pub(super) fn again(&mut self, number: i64, is_suspect: bool) {
        if self.in_flight.remove(&number).is_some() {
            self.outlet.again(number, is_suspect);
        }
    }

    /// What was on the wire is published again on the next connection. `refused`: this one has ended badly, perhaps for
    /// one of them.
    pub(super) fn connection_ended(&mut self, refused: bool) {
        self.rests = false;
        self.is_cautious |= refused && !self.in_flight.is_empty();
        // If there were several nobody knows for which.
        let is_suspect = refused && self.in_flight.len() == 1;
        self.in_flight.drain().for_each(|(number, _)| self.outlet.again(number, is_suspect));
    }
}

impl Drop for Readings {
    fn drop(&mut self) {
        self.connection_ended(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::{Sample, Settings, Store};
    use crate::time::Timestamp;

    /// A device with messages of one sample each.
    fn readings(folder: &std::path::Path, count: i64) -> (Readings, Store) {
        let store = Store::new(Settings::to_test(folder));
        store.begin(["pump"]);
        let device: Arc<str> = "pump".into();
        for at in 1..=count {
            let readings = vec![("level".to_owned(), Ok(at.into()))];
            store.add(&device, &Sample { at: Timestamp(at), clock_ok: true, readings });
        }
        (Readings::new("pump", store.outlet("pump")), store)
    }

    /// So many, once they are there, and no more for now.
    async fn taken(readings: &mut Readings, count: usize) -> Vec<Event> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(readings.next(Instant::now()));
            tokio::task::yield_now().await;
        }
        assert!(readings.next(Instant::now()).is_none());
        all
    }

    #[tokio::test]
    async fn one_that_connections_end_with_is_found_alone_lost_and_told_and_the_others_go() {
        let folder = tempfile::tempdir().unwrap();
        let (mut readings, store) = readings(folder.path(), 6);
        let first = taken(&mut readings, IN_FLIGHT_MAX).await;
        assert!(first.iter().all(|event| Readings::is_of(event.seq) && event.kind == EventKind::Telemetry));
        readings.connection_ended(true);
        for _ in 0..3 {
            assert_eq!(taken(&mut readings, 1).await[0].id, first[0].id);
            readings.connection_ended(true);
        }
        let gap = taken(&mut readings, 1).await;
        assert_eq!(gap[0].kind, EventKind::TelemetryGap);
        readings.acknowledged(gap[0].seq);
        let others = taken(&mut readings, IN_FLIGHT_MAX).await;
        assert_eq!(others[0].id, first[1].id);
        others.iter().for_each(|event| readings.acknowledged(event.seq));
        assert_eq!(taken(&mut readings, 1).await[0].kind, EventKind::Telemetry);
        assert_eq!(store.standing(|_| true).map(|standing| standing.lost), Some(1));
    }
}
