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

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout, Instant};
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::remains::Remains;
use super::token::{pause_before_renewal, Which};
use super::twin::Twin;
use super::unheard::Unheard;
use super::{Ending, Identity, CLOCK_PERIOD};
use crate::command::message::Gist;
use crate::command::{Form, Message};
use crate::health::{pulse, LinkState};
use crate::hub::account::Account;
use crate::hub::call::{Answered, Answers};
use crate::hub::transport::{Attachment, Inbound};
use crate::hub::trouble::Trouble;
use crate::hub::{Delivery, FirstReceipts, Settled, Settlement, Settlements, Ticket};
use crate::proof::crash::{self, Part, Point};
use crate::time::{until, Timestamp};

/// How long a renewal waits for deliveries that are not settled.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stop waits for the hub to take the last result events.
const EVENTS_PATIENCE: Duration = Duration::from_secs(2);

/// One connection while it is served.
pub(super) struct Serving<'a> {
    pub(super) identity: &'a Identity,
    pub(super) attachment: Box<dyn Attachment>,
    pub(super) settlements: Settlements,
    pub(super) answers: Answers,
    pub(super) twin: &'a mut Twin,
    /// Ends what was desired on it, and not begun.
    pub(super) wishes: CancellationToken,
    pub(super) worked: bool,
    pub(super) subscribed: bool,
    pub(super) renewed: bool,
    /// The hub has closed the last ones soon after they were made: not to be called a connection before this.
    pub(super) proven_at: Option<Instant>,
    pub(super) renewal: Option<Instant>,
    /// When the token expires.
    pub(super) token_end: Option<Instant>,
    /// When the one before it does.
    pub(super) former_end: Option<Instant>,
    pub(super) account: Arc<Account>,
    /// The key that tokens are made with.
    pub(super) which: Which,
    /// The configuration has changed, and with it whom to connect as.
    pub(super) reconfigured: bool,
    /// The first delivery that found no room.
    pub(super) left: Option<Left>,
    /// When it may be replaced, once that is wanted; and whether that is over.
    pub(super) turn: Option<Instant>,
    pub(super) has_turn: bool,
    /// No message is begun any more, and none is asked for.
    pub(super) leaves: bool,
    /// Messages are to stay at the hub: it ends when there is nothing to publish any more.
    pub(super) held: bool,
    pub(super) remains: Remains,
    pub(super) unheard: Unheard,
}

/// A delivery that was left with the hub.
#[derive(Clone, Copy)]
pub(super) struct Left {
    number: u64,
    /// The room that it asks for, in bytes.
    weight: usize,
}

/// What a message says, and when it came first.
pub(super) fn note_receipt(
    receipts: &dyn FirstReceipts,
    hub: &str,
    form: &Form,
    message: Message,
) -> (Gist, Instant, Timestamp) {
    let (at, wall) = receipt(message.came, Instant::now(), Timestamp::now());
    let gist = message.condense(form);
    let (received, received_at) = receipts.of(hub, &gist, at, wall);
    (gist, received, received_at)
}

/// When a message that is taken now came, by both clocks: its deadline counts while something else was done, too.
fn receipt(came: Option<std::time::Instant>, now: Instant, wall: Timestamp) -> (Instant, Timestamp) {
    let came = came.map_or(now, Instant::from_std).min(now);
    let waited = i64::try_from(now.duration_since(came).as_millis()).unwrap_or(i64::MAX);
    (came, Timestamp(wall.0.saturating_sub(waited)))
}

impl Serving<'_> {
    pub(super) async fn run(
        &mut self,
        settled: &mut mpsc::Receiver<Settled>,
        answered: &mut mpsc::Receiver<Answered>,
        outbox: &mut Outbox,
    ) -> Result<Ending, Trouble> {
        let identity = self.identity;
        self.attachment.receive().await?;
        let mut ledger_health = identity.ledger.health();
        let mut configured = identity.account.clone();
        let mut held = identity.held.clone();
        loop {
            if *held.borrow_and_update() && !self.held {
                self.hold(outbox).await?;
            }
            if self.held && self.subscribed && outbox.is_idle() && self.twin.is_idle(Instant::now()) {
                self.tell_all(settled, answered).await?;
                return Ok(Ending::Held);
            }
            if let Some(ending) = self.before_it_waits(&mut configured).await? {
                return Ok(ending);
            }
            let (alive_at, renewal_at) = (self.attachment.keep_alive_at(), self.renewal_check());
            let turn_at = self.turn.unwrap_or(alive_at);
            let proven_at = self.proven_at.unwrap_or(alive_at);
            let unsettled = self.attachment.unsettled();
            let (due, acks_late_at) = (outbox.due(), outbox.due().unwrap_or(alive_at));
            let twin_at = self.twin_at(outbox);
            tokio::select! {
                inbound = self.attachment.next() => self.on_inbound(inbound?, outbox).await?,
                Some(first) = settled.recv() => self.on_settlement(first, settled).await?,
                Some(answered) = answered.recv() => self.on_answered(answered).await?,
                stirred = outbox.stirred(), if self.subscribed => {
                    stirred?;
                    outbox.publish_more(&mut *self.attachment).await?;
                }
                () = sleep_until(acks_late_at), if due.is_some() => outbox.check()?,
                () = sleep_until(alive_at) => self.attachment.keep_alive().await?,
                () = sleep(pulse::TICK) => if self.subscribed {
                    // One that was set aside may be due.
                    outbox.publish_more(&mut *self.attachment).await?;
                },
                () = until(twin_at.unwrap_or(alive_at)), if twin_at.is_some() => self.ask_for_twin(outbox).await?,
                () = identity.board.rung() => self.on_wishes_ended(outbox).await?,
                () = identity.room.freed(), if self.left.is_some() => {}
                () = sleep_until(renewal_at), if self.renewal.is_some() => {}
                () = until(turn_at), if self.turn.is_some() && !self.has_turn => {
                    self.has_turn = true;
                    // What is on its way has a while from now on to be settled.
                    self.renewal = Some(Instant::now());
                }
                Ok(()) = configured.changed() => {}
                Ok(()) = held.changed(), if !self.held => {}
                () = identity.leaves.cancelled(), if !self.leaves => {
                    self.leaves = true;
                    self.attachment.take_no_more().await?;
                }
                () = sleep_until(proven_at), if self.proven_at.is_some() => {
                    self.proven_at = None;
                    tracing::info!(device = %identity.id, "connected to the hub");
                }
                () = self.remains.are_gone(unsettled), if self.subscribed => self.remains.trust().await?,
                changed = ledger_health.changed() => {
                    if changed.is_err() || !ledger_health.borrow().ok {
                        return Ok(Ending::LedgerUnwell);
                    }
                }
                () = identity.stop.cancelled() => {
                    self.tell_all(settled, answered).await?;
                    self.publish_the_last(outbox).await?;
                    return Ok(Ending::Stop);
                }
            }
        }
    }

    /// Nothing more is asked for, and it ends as soon as the hub has all events.
    async fn hold(&mut self, outbox: &mut Outbox) -> Result<(), Trouble> {
        self.held = true;
        tracing::info!(device = %self.identity.id, "its unit is away: its messages stay at the hub until that is back");
        if !self.leaves {
            self.attachment.take_no_more().await?;
        }
        outbox.hold_readings();
        self.twin.hold((self.identity.stand)());
        // The bell may have rung for one, and nobody has listened yet.
        outbox.look_again();
        match self.subscribed {
            true => outbox.publish_more(&mut *self.attachment).await,
            false => Ok(()),
        }
    }

    /// Tells the hub what is settled and answered before the connection ends.
    async fn tell_all(
        &mut self,
        settled: &mut mpsc::Receiver<Settled>,
        answered: &mut mpsc::Receiver<Answered>,
    ) -> Result<(), Trouble> {
        while let Ok(first) = settled.try_recv() {
            self.on_settlement(first, settled).await?;
        }
        while let Ok(answered) = answered.try_recv() {
            self.on_answered(answered).await?;
        }
        self.note_what_was_told();
        Ok(())
    }

    /// Notes with the rows what the hub was told of them.
    fn note_what_was_told(&mut self) {
        let heard = self.unheard.heard(self.attachment.oldest());
        for (row, end) in heard {
            let word = end.word(self.attachment.can_reject());
            self.identity.ledger.settled(row, format!("{word} by {}", self.account.transport));
        }
    }

    /// What is to be done before anything is waited for. Gives how it ends, if it does.
    async fn before_it_waits(
        &mut self,
        configured: &mut watch::Receiver<Arc<Account>>,
    ) -> Result<Option<Ending>, Trouble> {
        self.note_what_was_told();
        let pulse = &self.identity.health.pulse;
        pulse.allow(Duration::ZERO);
        crash::stick(Part::Session).await;
        self.compare(&configured.borrow_and_update());
        self.renew_in_place().await?;
        pulse.allow(Duration::ZERO);
        if self.is_to_be_renewed() {
            return Ok(Some(if self.reconfigured { Ending::Reconfigured } else { Ending::Renew }));
        }
        if !self.leaves && self.could_get_the_rest() {
            return Err(Trouble::LeftBehind);
        }
        self.ask_for_a_turn(&configured.borrow());
        Ok(None)
    }

    async fn on_inbound(&mut self, inbound: Inbound, outbox: &mut Outbox) -> Result<(), Trouble> {
        self.identity.health.pulse.allow(Duration::ZERO);
        match inbound {
            Inbound::Delivery { number, message } => self.on_delivery(number, message),
            Inbound::Call { call, method } => self.on_call(call, method).await,
            Inbound::Twin(word) => {
                self.on_twin(word);
                Ok(())
            }
            Inbound::Unclear { message, why } => {
                self.note_receipt(message);
                Err(Trouble::Ambiguous(why))
            }
            Inbound::Published(event) => {
                outbox.acknowledged(event).await?;
                self.identity.health.pulse.allow(Duration::ZERO);
                outbox.publish_more(&mut *self.attachment).await
            }
            Inbound::EventPostponed { event, why, is_suspect } => {
                outbox.postponed(event, &why, is_suspect);
                Ok(())
            }
            Inbound::EventRefused { event, why } => {
                outbox.refused(event, &why);
                outbox.publish_more(&mut *self.attachment).await
            }
            Inbound::NotRenewed(trouble) => self.renew_later(trouble),
            Inbound::Ready => {
                self.subscribed = true;
                let device = &self.identity.id;
                // A renewal is a matter of course: an hourly line for each device would hide what matters.
                match (self.renewed, self.proven_at) {
                    (true, _) => tracing::debug!(%device, "connected to the hub with a new token"),
                    (false, None) => tracing::info!(%device, "connected to the hub"),
                    (false, Some(_)) => tracing::debug!(%device, "connected to the hub, for now"),
                }
                self.identity.health.set_link(LinkState::Connected, None);
                self.begin_twin();
                outbox.publish_more(&mut *self.attachment).await
            }
        }
    }

    /// Publishes the events of the last commands before a stop. What the hub does not take in time stays in the ledger.
    async fn publish_the_last(&mut self, outbox: &mut Outbox) -> Result<(), Trouble> {
        let publish = async {
            outbox.look_again();
            outbox.hurry();
            outbox.publish_more(&mut *self.attachment).await?;
            while !outbox.is_idle() {
                tokio::select! {
                    inbound = self.attachment.next() => match inbound? {
                        Inbound::Published(event) => outbox.acknowledged(event).await?,
                        Inbound::EventRefused { event, why } => outbox.refused(event, &why),
                        Inbound::EventPostponed { event, why, is_suspect } => outbox.postponed(event, &why, is_suspect),
                        // It comes again, perhaps still in this life of the daemon.
                        Inbound::Delivery { message, .. } | Inbound::Unclear { message, .. } => {
                            self.note_receipt(message);
                        }
                        // Whoever calls now has no answer, and finds nobody the next time.
                        Inbound::Ready | Inbound::NotRenewed(_) | Inbound::Call { .. } | Inbound::Twin(_) => {}
                    },
                    stirred = outbox.stirred() => stirred?,
                }
                outbox.publish_more(&mut *self.attachment).await?;
            }
            Ok(())
        };
        timeout(EVENTS_PATIENCE, publish).await.unwrap_or(Ok(()))
    }

    fn on_delivery(&mut self, number: Option<u64>, message: Message) -> Result<(), Trouble> {
        self.identity.health.received.add();
        self.remains.something_moved();
        let hub: Arc<str> = self.account.access.hub.host.as_str().into();
        let (gist, received, received_at) = self.note_receipt(message);
        let weight = gist.weight();
        let (room, ticket) = match number {
            None => (Some(self.identity.room.hold_anyhow(weight)), Ticket::of_the_only_delivery()),
            Some(number) => {
                let ticket = Ticket::new(number, self.settlements.clone());
                (self.left.is_none().then(|| self.identity.room.hold(weight)).flatten(), ticket)
            }
        };
        let offered = room
            .map(|room| self.identity.deliveries.offer(Delivery { hub, gist, received_at, received, ticket, room }));
        match (offered, number) {
            (Some(Ok(())), _) => crash::point(Point::DeliveryPassedOn),
            (_, Some(number)) => self.leave(Left { number, weight }),
            (_, None) => return Err(Trouble::Ambiguous("the hub sent more messages than can wait")),
        }
        Ok(())
    }

    /// How messages are read at present, whatever this connection was made with.
    fn form(&self) -> Arc<Form> {
        self.identity.account.borrow().form.clone()
    }

    /// What a message says, and when it came first: noted of each that is read, whatever becomes of it here (G13).
    fn note_receipt(&self, message: Message) -> (Gist, Instant, Timestamp) {
        note_receipt(&*self.identity.deliveries.receipts(), &self.account.access.hub.host, &self.form(), message)
    }

    /// The same of what came and was not taken before the attachment ended: it comes again, perhaps still in this life
    /// of the daemon.
    pub(super) fn note_what_is_left_behind(&mut self) {
        while let Some(message) = self.attachment.left_behind() {
            self.note_receipt(message);
        }
    }

    /// Takes leave, and notes the same of what comes meanwhile.
    pub(super) async fn detach(self) {
        let (receipts, form) = (self.identity.deliveries.receipts(), self.form());
        let hub = &self.account.access.hub.host;
        for message in self.attachment.detach().await {
            note_receipt(&*receipts, hub, &form, message);
        }
    }

    /// Leaves a delivery with the hub, unless those before it were left already.
    fn leave(&mut self, delivery: Left) {
        if self.left.is_none() {
            tracing::debug!(device = %self.identity.id, "no room for more messages: the rest is left with the hub");
            self.left = Some(delivery);
        }
    }

    /// Whether all that came before what was left is settled, and a new connection would find room for that.
    fn could_get_the_rest(&self) -> bool {
        self.left.is_some_and(|left| {
            self.attachment.oldest().is_none_or(|oldest| oldest >= left.number) && self.identity.room.has(left.weight)
        })
    }

    /// Tells the hub what is settled, and everything else that has been settled meanwhile.
    async fn on_settlement(&mut self, first: Settled, settled: &mut mpsc::Receiver<Settled>) -> Result<(), Trouble> {
        self.identity.health.pulse.allow(Duration::ZERO);
        let mut settlements = Vec::new();
        for settled in std::iter::once(first).chain(std::iter::from_fn(|| settled.try_recv().ok())) {
            self.unheard.note(settled);
            settlements.push(settled.settlement);
        }
        let leaves = settlements.iter().any(|settlement| matches!(settlement, Settlement::Leave(_)));
        if leaves {
            // Nor is anything that came behind it given back.
            self.attachment.give_nothing_back();
        }
        let gives_back = leaves || settlements.iter().any(|settlement| matches!(settlement, Settlement::Abandon(_)));
        if self.attachment.settle(settlements).await? {
            self.remains.something_moved();
            self.worked = true;
        }
        // What came behind it comes again too, in order, after a pause that grows.
        match gives_back {
            true => Err(Trouble::Abandoned),
            false => Ok(()),
        }
    }

    /// A connection for another account is replaced like one whose token runs out: what is on its way is settled first.
    fn compare(&mut self, configured: &Account) {
        if !self.reconfigured && !configured.connects_as(&self.account) {
            self.reconfigured = true;
            self.renewal = Some(Instant::now());
            tracing::info!(device = %self.identity.id, "the configuration has changed: connecting anew");
        }
    }

    /// Shows a new token where that ends nothing.
    async fn renew_in_place(&mut self) -> Result<(), Trouble> {
        let due = !self.reconfigured && self.renewal.is_some_and(|renewal| Instant::now() >= renewal);
        if !due || self.has_turn || !self.attachment.takes_tokens() {
            return Ok(());
        }
        // Without a clock that is believed the old one lives on for a while.
        let Ok(date) = self.identity.ledger.wall_clock().now() else { return Ok(()) };
        if let Some((token, life)) = self.identity.token(&self.account, self.which, date) {
            self.attachment.show(token).await?;
            tracing::debug!(device = %self.identity.id, "a new token is shown to the hub");
            self.former_end = self.token_end;
            (self.renewal, self.token_end) = (Some(life.renewal), Some(life.end));
        }
        Ok(())
    }

    /// The hub did not take the new token, and may take another: the one before lives on while it counts.
    fn renew_later(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        let now = Instant::now();
        self.token_end = self.former_end;
        let left = self.token_end.map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
        let Some(pause) = pause_before_renewal(left, fastrand::f64()) else { return Err(trouble) };
        tracing::debug!(device = %self.identity.id, "the token counts still and is renewed later: {trouble}");
        if !self.reconfigured {
            self.renewal = Some(now + pause);
        }
        Ok(())
    }

    /// A connection that stands is not given up before the next one may be made; until then it goes on.
    fn ask_for_a_turn(&mut self, configured: &Account) {
        let due = self.turn.is_none() && self.renewal.is_some_and(|renewal| Instant::now() >= renewal);
        if due && self.identity.ledger.wall_clock().now().is_ok() {
            self.turn = Some(self.identity.shared.pace.turn(configured.access.hub.connect_rate));
        }
    }

    /// Nor is it for a new token that can't be made: the old one lives on for a while.
    fn is_to_be_renewed(&self) -> bool {
        let now = Instant::now();
        let due = self
            .renewal
            .is_some_and(|renewal| now >= renewal + RENEWAL_PATIENCE || (now >= renewal && !self.is_waited_for()));
        self.has_turn && due && self.identity.ledger.wall_clock().now().is_ok()
    }

    /// Whether the hub waits for settlements or answers on this connection.
    fn is_waited_for(&self) -> bool {
        self.attachment.unsettled() > 0 || self.answers.outstanding() > 0
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
        if now < settled_at && self.is_waited_for() {
            settled_at
        } else {
            now + CLOCK_PERIOD
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_was_received_when_it_came_and_not_when_it_is_taken() {
        let (now, wall, waited) = (Instant::now(), Timestamp(1_795_305_600_000), Duration::from_millis(1_500));
        let came = now.checked_sub(waited).expect("the machine runs for longer");
        assert_eq!(receipt(Some(came.into_std()), now, wall), (came, Timestamp(wall.0 - 1_500)));
        for at_once in [None, Some((now + waited).into_std())] {
            assert_eq!(receipt(at_once, now, wall), (now, wall));
        }
    }
}
