//! Result events on their way to the hub. The queue is the ledger's; here is only what is on the wire.
//!
//! Invariants
//! - An event leaves the ledger only after the hub's PUBACK (G7). What a connection leaves unacknowledged is
//!   published again on the next.
//! - Few events are unacknowledged at a time, and none for long.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::{timeout, Instant};

use super::mqtt::{Connection, SUBSCRIBE_PACKET_ID};
use super::topic;
use super::trouble::Trouble;
use crate::crash::{self, Part, Point};
use crate::ledger::Ledger;

/// Events on the wire without their PUBACK.
const IN_FLIGHT_MAX: usize = 16;
/// A PUBACK that takes longer ends the connection.
const PATIENCE: Duration = Duration::from_secs(60);
/// A ledger that takes longer to read hangs; the connection can't be kept alive meanwhile.
const LEDGER_PATIENCE: Duration = Duration::from_secs(10);
/// Acknowledged events that are remembered: they leave the ledger a little later than the hub acknowledged them.
const DONE_MAX: usize = 256;

/// The events of one device.
pub(super) struct Outbox {
    device: String,
    ledger: Ledger,
    in_flight: HashMap<u16, (i64, Instant)>,
    next_packet_id: u16,
    /// Events up to this number are on the wire, or acknowledged.
    cursor: i64,
    done: VecDeque<i64>,
}

impl Outbox {
    pub(super) fn new(device: &str, ledger: Ledger) -> Self {
        Outbox {
            device: device.to_owned(),
            ledger,
            in_flight: HashMap::new(),
            next_packet_id: SUBSCRIBE_PACKET_ID,
            cursor: 0,
            done: VecDeque::new(),
        }
    }

    /// Publishes what waits in the ledger, as far as there is room on the wire.
    pub(super) async fn publish_more(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        crash::stick(Part::Outbox).await;
        while self.in_flight.len() < IN_FLIGHT_MAX {
            let room = IN_FLIGHT_MAX - self.in_flight.len();
            let read = self.ledger.events(&self.device, self.cursor, room);
            let events = match timeout(LEDGER_PATIENCE, read).await {
                Err(_) => return Err(Trouble::LedgerSlow),
                Ok(Ok(events)) => events,
                Ok(Err(error)) => {
                    // The events stay in the ledger, and are looked for again with the next one or the next connection.
                    tracing::warn!(device = %self.device, %error, "result events can't be read");
                    return Ok(());
                }
            };
            if events.is_empty() {
                return Ok(());
            }
            for event in events {
                self.cursor = event.seq;
                if self.done.contains(&event.seq) {
                    // Its removal has not been committed yet, or was left out.
                    self.remove(event.seq).await?;
                    continue;
                }
                let packet_id = self.free_packet_id();
                let topic = topic::result_event(&self.device, &event.id, event.message_id.as_deref());
                crash::point(Point::EventRead);
                connection.publish(topic, packet_id, event.body).await?;
                crash::point(Point::EventPublished);
                self.in_flight.insert(packet_id, (event.seq, Instant::now()));
            }
        }
        Ok(())
    }

    /// The hub has the event with this packet id.
    pub(super) async fn acknowledged(&mut self, packet_id: u16) -> Result<(), Trouble> {
        let Some((seq, _)) = self.in_flight.remove(&packet_id) else { return Ok(()) };
        crash::point(Point::EventAcknowledged);
        self.done.push_back(seq);
        if self.done.len() > DONE_MAX {
            self.done.pop_front();
        }
        self.remove(seq).await?;
        crash::point(Point::EventRemovalAsked);
        Ok(())
    }

    async fn remove(&self, seq: i64) -> Result<(), Trouble> {
        timeout(LEDGER_PATIENCE, self.ledger.event_acknowledged(seq)).await.map_err(|_| Trouble::LedgerSlow)
    }

    /// Whether nothing is on the wire without its PUBACK.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether the hub acknowledges in time.
    pub(super) fn check(&self) -> Result<(), Trouble> {
        match self.in_flight.values().any(|(_, sent)| sent.elapsed() > PATIENCE) {
            true => Err(Trouble::EventUnacknowledged(PATIENCE)),
            false => Ok(()),
        }
    }

    /// What was on the wire is published again on the next connection.
    pub(super) fn connection_ended(&mut self) {
        self.in_flight.clear();
        self.cursor = 0;
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(SUBSCRIBE_PACKET_ID + 1);
            if !self.in_flight.contains_key(&self.next_packet_id) {
                return self.next_packet_id;
            }
        }
    }
}
