//! One connection of an identity, from its subscription to its end.
//!
//! Invariants
//! - One task, which reads while it waits for anything but its own bounded writes: a slow command never stops the
//!   keep-alive.
//! - A delivery that finds no room is left with the hub, and all behind it on its connection too (G5). What was taken
//!   before is run and acknowledged; then the connection is made anew, to get the rest: each one brings something on.
//! - A connection that stands is not given up for what can't be made now.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout, Instant};

use super::{Delivery, Settlement, Settlements, Ticket};
use crate::health::pulse;
use crate::health::LinkState;
use crate::hub::account::Account;
use crate::hub::link::{Ending, Link, CLOCK_PERIOD};
use crate::hub::mqtt::ping::Ping;
use crate::hub::mqtt::session::{self, Incoming, Session};
use crate::hub::mqtt::topic;
use crate::hub::mqtt::{Connection, Received};
use crate::hub::outbox::Outbox;
use crate::hub::remains::Remains;
use crate::hub::trouble::Trouble;
use crate::proof::crash::{self, Part, Point};
use crate::time::Timestamp;

/// How long a renewal waits for deliveries that are not settled.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stop waits for the hub to take the last result events.
const EVENTS_PATIENCE: Duration = Duration::from_secs(2);

/// One connection while it is served.
pub(in crate::hub) struct Serving<'a> {
    pub(in crate::hub) link: &'a Link,
    pub(in crate::hub) connection: Connection,
    pub(in crate::hub) session: Session,
    pub(in crate::hub) settlements: Settlements,
    pub(in crate::hub) worked: bool,
    pub(in crate::hub) subscribed: bool,
    pub(in crate::hub) renewed: bool,
    /// The hub has closed the last ones soon after they were made: not to be called a connection before this.
    pub(in crate::hub) proven_at: Option<Instant>,
    pub(in crate::hub) ping: Ping,
    pub(in crate::hub) renewal: Option<Instant>,
    pub(in crate::hub) account: Arc<Account>,
    /// The configuration has changed, and with it whom to connect as.
    pub(in crate::hub) reconfigured: bool,
    /// The first delivery that found no room.
    pub(in crate::hub) left: Option<Left>,
    /// When it may be replaced, once that is wanted; and whether that is over.
    pub(in crate::hub) turn: Option<Instant>,
    pub(in crate::hub) has_turn: bool,
    pub(in crate::hub) remains: Remains,
}

/// A delivery that was left with the hub.
#[derive(Clone, Copy)]
pub(in crate::hub) struct Left {
    number: u64,
    /// The room that it asks for, in bytes.
    weight: usize,
}

impl Serving<'_> {
    pub(in crate::hub) async fn run(
        &mut self,
        settled: &mut mpsc::Receiver<Settlement>,
        outbox: &mut Outbox,
    ) -> Result<Ending, Trouble> {
        let link = self.link;
        self.connection.subscribe(&topic::c2d_filter(&link.id)).await?;
        let mut ledger_health = link.ledger.health();
        let mut configured = link.account.clone();
        loop {
            link.health.pulse.allow(Duration::ZERO);
            crash::stick(Part::Session).await;
            self.compare(&configured.borrow_and_update());
            if self.is_to_be_renewed() {
                return Ok(if self.reconfigured { Ending::Reconfigured } else { Ending::Renew });
            }
            if self.could_get_the_rest() {
                return Err(Trouble::LeftBehind);
            }
            self.ask_for_a_turn(&configured.borrow());
            let (ping_at, renewal_at) = (self.ping.next(), self.renewal_check());
            let turn_at = self.turn.unwrap_or(ping_at);
            let proven_at = self.proven_at.unwrap_or(ping_at);
            let (due, acks_late_at) = (outbox.due(), outbox.due().unwrap_or(ping_at));
            tokio::select! {
                received = self.connection.next() => {
                    self.ping.heard();
                    self.on_received(received?, outbox).await?;
                }
                Some(settlement) = settled.recv() => self.on_settlement(settlement, settled).await?,
                stirred = outbox.stirred(), if self.subscribed => {
                    stirred?;
                    outbox.publish_more(&mut self.connection).await?;
                }
                () = sleep_until(acks_late_at), if due.is_some() => outbox.check()?,
                () = sleep_until(ping_at) => {
                    if self.ping.is_overdue() {
                        return Err(Trouble::HalfOpen);
                    }
                    self.ping.sent();
                    self.connection.ping().await?;
                }
                () = sleep(pulse::TICK) => if self.subscribed {
                    // One that was set aside may be due.
                    outbox.publish_more(&mut self.connection).await?;
                },
                () = link.room.freed(), if self.left.is_some() => {}
                () = sleep_until(renewal_at), if self.renewal.is_some() => {}
                () = sleep_until(turn_at), if self.turn.is_some() && !self.has_turn => {
                    self.has_turn = true;
                    // What is on its way has a while from now on to be settled.
                    self.renewal = Some(Instant::now());
                }
                Ok(()) = configured.changed() => {}
                () = sleep_until(proven_at), if self.proven_at.is_some() => {
                    self.proven_at = None;
                    tracing::info!(device = %link.id, "connected to the hub");
                }
                () = self.remains.are_gone(self.session.waiting()), if self.subscribed => self.remains.trust().await?,
                changed = ledger_health.changed() => {
                    if changed.is_err() || !ledger_health.borrow().ok {
                        return Ok(Ending::LedgerUnwell);
                    }
                }
                () = link.stop.cancelled() => {
                    while let Ok(settlement) = settled.try_recv() {
                        self.on_settlement(settlement, settled).await?;
                    }
                    self.publish_the_last(outbox).await?;
                    return Ok(Ending::Stop);
                }
            }
        }
    }

    async fn on_received(&mut self, received: Received, outbox: &mut Outbox) -> Result<(), Trouble> {
        match received {
            Received::Publish { qos, packet_id, topic, payload } => self.on_publish(qos, packet_id, &topic, &payload),
            Received::PubAck(packet_id) => {
                outbox.acknowledged(packet_id).await?;
                outbox.publish_more(&mut self.connection).await
            }
            Received::SubAck { granted: true } => {
                crash::point(Point::SubscriptionGranted);
                self.subscribed = true;
                let device = &self.link.id;
                // A renewal is a matter of course: an hourly line for each device would hide what matters.
                match (self.renewed, self.proven_at) {
                    (true, _) => tracing::debug!(%device, "connected to the hub with a new token"),
                    (false, None) => tracing::info!(%device, "connected to the hub"),
                    (false, Some(_)) => tracing::debug!(%device, "connected to the hub, for now"),
                }
                self.link.health.set_link(LinkState::Connected, None);
                outbox.publish_more(&mut self.connection).await
            }
            Received::SubAck { granted: false } => Err(Trouble::NotGranted),
            Received::PingResp => {
                self.ping.answered();
                Ok(())
            }
            Received::ConnAck { .. } => Err(Trouble::Protocol("a second CONNACK".into())),
            Received::Unexpected(what) => Err(Trouble::Protocol(what.into())),
        }
    }

    /// Publishes the events of the last commands before a stop. What the hub does not take in time stays in the ledger.
    async fn publish_the_last(&mut self, outbox: &mut Outbox) -> Result<(), Trouble> {
        let publish = async {
            outbox.look_again();
            outbox.publish_more(&mut self.connection).await?;
            while !outbox.is_idle() {
                tokio::select! {
                    // Whatever else comes is left to the next connection.
                    received = self.connection.next() => if let Received::PubAck(packet_id) = received? {
                        outbox.acknowledged(packet_id).await?;
                    },
                    stirred = outbox.stirred() => stirred?,
                }
                outbox.publish_more(&mut self.connection).await?;
            }
            Ok(())
        };
        timeout(EVENTS_PATIENCE, publish).await.unwrap_or(Ok(()))
    }

    fn on_publish(&mut self, qos: u8, packet_id: u16, topic: &[u8], payload: &[u8]) -> Result<(), Trouble> {
        crash::point(Point::PublishRead);
        let device = &self.link.id;
        let number = match qos {
            1 => match self.session.on_publish(packet_id, session::identity(topic, payload)) {
                Incoming::New(number) => Some(number),
                Incoming::Repeated => return Ok(()),
                Incoming::Drop(why) => return Err(Trouble::Ambiguous(why)),
            },
            // The hub has forgotten this message already. It is run all the same: nobody else will.
            0 => {
                tracing::error!(device = %device, "the hub delivered a command with QoS 0, and can't be told what became of it");
                None
            }
            _ => return Err(Trouble::Protocol("a PUBLISH with QoS 2".into())),
        };
        self.link.health.received.add();
        self.remains.something_moved();
        let gist = topic::parse_c2d(device, topic, payload).condense();
        let hub: Arc<str> = self.account.access.hub.host.as_str().into();
        let deliveries = &self.link.deliveries;
        let (received, received_at) = deliveries.first_receipt(&hub, &gist, Instant::now(), Timestamp::now());
        let weight = gist.weight();
        let (room, ticket) = match number {
            None => (Some(self.link.room.hold_anyhow(weight)), Ticket::of_the_only_delivery()),
            Some(number) => {
                let ticket = Ticket::new(number, self.settlements.clone());
                (self.left.is_none().then(|| self.link.room.hold(weight)).flatten(), ticket)
            }
        };
        let offered =
            room.map(|room| self.link.deliveries.offer(Delivery { hub, gist, received_at, received, ticket, room }));
        match (offered, number) {
            (Some(Ok(())), _) => crash::point(Point::DeliveryPassedOn),
            (_, Some(number)) => self.leave(Left { number, weight }),
            (_, None) => return Err(Trouble::Ambiguous("the hub sent more messages than can wait")),
        }
        Ok(())
    }

    /// Leaves a delivery with the hub, unless those before it were left already.
    fn leave(&mut self, delivery: Left) {
        if self.left.is_none() {
            tracing::debug!(device = %self.link.id, "no room for more messages: the rest is left with the hub");
            self.left = Some(delivery);
        }
    }

    /// Whether all that came before what was left is settled, and a new connection would find room for that.
    fn could_get_the_rest(&self) -> bool {
        self.left.is_some_and(|left| {
            self.session.oldest().is_none_or(|oldest| oldest >= left.number) && self.link.room.has(left.weight)
        })
    }

    /// Acknowledges what is settled, and everything else that has been settled meanwhile, in one write.
    async fn on_settlement(
        &mut self,
        first: Settlement,
        settled: &mut mpsc::Receiver<Settlement>,
    ) -> Result<(), Trouble> {
        let mut ready = Vec::new();
        let mut abandoned = false;
        let mut next = Some(first);
        while let Some(settlement) = next {
            match settlement {
                Settlement::Complete(number) => ready.extend(self.session.on_complete(number)),
                Settlement::Abandon(_) => abandoned = true,
            }
            next = settled.try_recv().ok();
        }
        if !ready.is_empty() {
            crash::point(Point::SettlementTaken);
            self.remains.something_moved();
            self.connection.acknowledge(&ready).await?;
            self.worked = true;
        }
        if abandoned {
            Err(Trouble::Abandoned)
        } else {
            Ok(())
        }
    }

    /// A connection for another account is replaced like one whose token runs out: what is on its way is settled first.
    fn compare(&mut self, configured: &Account) {
        if !self.reconfigured && !configured.connects_as(&self.account) {
            self.reconfigured = true;
            self.renewal = Some(Instant::now());
            tracing::info!(device = %self.link.id, "the configuration has changed: connecting anew");
        }
    }

    /// A connection that stands is not given up before the next one may be made; until then it goes on.
    fn ask_for_a_turn(&mut self, configured: &Account) {
        let due = self.turn.is_none() && self.renewal.is_some_and(|renewal| Instant::now() >= renewal);
        if due && self.link.ledger.belief().now().is_ok() {
            self.turn = Some(self.link.shared.turn(configured.access.hub.connect_rate));
        }
    }

    /// Nor is it for a new token that can't be made: the old one lives on for a while.
    fn is_to_be_renewed(&self) -> bool {
        let now = Instant::now();
        let due = self.renewal.is_some_and(|renewal| {
            now >= renewal + RENEWAL_PATIENCE || (now >= renewal && self.session.waiting() == 0)
        });
        self.has_turn && due && self.link.ledger.belief().now().is_ok()
    }

    /// When the renewal is to be looked at next. While deliveries wait, their settlement wakes the loop.
    fn renewal_check(&self) -> Instant {
        let now = Instant::now();
        let renewal = self.renewal.unwrap_or(now);
        if now < renewal {
            return renewal;
        }
        // Whatever is due and not done waits for the clock.
        let settled_at = renewal + RENEWAL_PATIENCE;
        if now < settled_at && self.session.waiting() > 0 {
            settled_at
        } else {
            now + CLOCK_PERIOD
        }
    }
}
