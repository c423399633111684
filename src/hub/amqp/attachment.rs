//! An identity's attachment by AMQP: a session of a connection that others have parts of, with a link for its messages,
//! two for calls of its methods, and one for its events once there is any.
//!
//! Invariants
//! - The hub is told of deliveries in the order of their receipt (G5), and each is settled with that.
//! - A message that comes before one that an earlier link has brought, and that may be locked, ends the attachment
//!   (G5): the next one begins when nothing is locked any more ([`Locked`]).
//! - A delivery that came too often before is not given back: its lock runs out, which the hub does not count.
//! - Who takes leave gives back what it holds, the oldest first, up to one that came too often: nothing behind that may
//!   come before it. While nothing can be recorded nothing is given back.
//! - When the attachment is dropped, its session ends; nothing of it is resumed (G6).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{timeout, Instant};

use super::calls::{Ended, Listening, Step};
use super::handle::{read, Command, Hold, Signal, Waiting, ATTACH_PATIENCE};
use super::locked::{Left, Locked};
use super::message::{self, audience, devicebound, events, methods};
use crate::amqp::engine::{Delivery, Settle};
use crate::command::Message;
use crate::config::Settle as SettleWhen;
use crate::hub::call::{Answered, CallId};
use crate::hub::in_order::InOrder;
use crate::hub::lock::Recipient;
use crate::hub::transport::{Attachment, Entry, Inbound, Pending, Reached};
use crate::hub::trouble::Trouble;
use crate::hub::Settlement;
use crate::ledger::row::Event;
use crate::proof::crash::{self, Point};

/// Deliveries at a time that are executed before they are settled: each is locked for a minute from when it was sent.
const WINDOW_AFTER_EXECUTION: u32 = 4;
/// Deliveries at a time that are settled as soon as they are recorded.
const WINDOW_AFTER_ACCEPT: u32 = 16;
/// What may wait for the identity: deliveries, calls, acknowledged events, and what there is beside.
const SIGNALS_MAX: usize = 64;
/// The hub answers to an Attach before it looks at who asks, and detaches a link that it does not permit: one that
/// stands for so long is permitted.
const PERMIT_PATIENCE: Duration = Duration::from_secs(2);
/// How long the hub may take to answer when a device leaves.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
/// A delivery that came so often before is not given back: at ten the hub would throw it away.
const RELEASES_MAX: u32 = 3;
/// What keeps a message from being executed that comes before one that an earlier link has brought.
const OUT_OF_TURN: &str =
    "a message came before an earlier one, which the hub may keep locked since the last connection ended, for up to \
                           65 s; both are left to come again after that, so that they are executed in order";
/// Nothing is to be done for so long.
const IDLE: Duration = Duration::from_secs(3600);

/// A connection that stands, on which an identity has not shown itself.
pub(super) struct Shared {
    pub(super) hold: Hold,
    pub(super) left: Arc<Left>,
}

impl Reached for Shared {
    fn attach<'a>(self: Box<Self>, entry: Entry<'a>) -> Pending<'a, Result<Box<dyn Attachment>, Trouble>> {
        Box::pin(async move {
            let Shared { hold, left } = *self;
            let (user, mut waiting) = (hold.user(), Waiting::default());
            let of = audience(&entry.hub.host, entry.device);
            let is_shared = entry.token.is_some();
            if let Some(token) = entry.token {
                let (told, answer) = oneshot::channel();
                let show = Command::Show { user, of: of.clone(), token, told: Some(told) };
                waiting.want(&hold, show).await?;
                crash::point(Point::LoginSent);
                answer.await.unwrap_or_else(|_| Err(hold.why()))?;
            }
            crash::point(Point::LoginAccepted);
            let (sender, signals) = mpsc::channel(SIGNALS_MAX);
            let locked = Locked::of(left, Recipient::of(&entry.hub.host, entry.device));
            waiting.want(&hold, Command::Join { user, signals: sender, late: locked.late(entry.note_late) }).await?;
            let window = match (entry.wants_messages, entry.settle) {
                (false, _) => 0,
                (true, SettleWhen::AfterExecution) => WINDOW_AFTER_EXECUTION,
                (true, SettleWhen::AfterAccept) => WINDOW_AFTER_ACCEPT,
            };
            let attached = Attached {
                device: entry.device.to_owned(),
                is_shared,
                of,
                seat: Seat { user, signals, waiting, hold },
                window,
                order: InOrder::default(),
                locked,
                attach_due: None,
                listening: Listening::new(Instant::now()),
                taken: None,
                idle_until: Instant::now() + IDLE,
                is_over: false,
                gives_back: true,
            };
            Ok(Box::new(attached) as Box<dyn Attachment>)
        })
    }
}

/// A place on a connection. Its ends are dropped in this order: whoever is told that it is left finds it left.
struct Seat {
    user: u64,
    signals: mpsc::Receiver<Signal>,
    waiting: Waiting,
    hold: Hold,
}

impl Seat {
    async fn want(&mut self, command: Command) -> Result<(), Trouble> {
        self.waiting.want(&self.hold, command).await
    }
}

/// A delivery that is not settled.
struct Held {
    delivery: u32,
    /// How often it came before, if the hub says so.
    count: Option<u32>,
    /// Its number at the hub, if the hub says so.
    number: Option<u64>,
}

impl Held {
    /// Whether it may be given back. Of one whose count is not known nobody knows how often it may be still.
    fn may_be_released(&self) -> bool {
        self.count.is_some_and(|count| count < RELEASES_MAX)
    }
}

/// A message has come that is not to be run here.
fn came(locked: &mut Locked, message: &Message) {
    if let Some(number) = message.sequence_number {
        locked.came(number);
    }
}

struct Attached {
    device: String,
    /// Others may have parts of the connection: one of a certificate is its own.
    is_shared: bool,
    /// What its tokens are of.
    of: String,
    seat: Seat,
    window: u32,
    order: InOrder<Held, Settle>,
    locked: Locked,
    /// The hub must have answered to the Attach by then.
    attach_due: Option<Instant>,
    listening: Listening,
    /// A call that it has and the connection knows nothing of.
    taken: Option<u32>,
    idle_until: Instant,
    /// It has ended, and its connection has not.
    is_over: bool,
    /// What is held when it ends is given back.
    gives_back: bool,
}

impl Attached {
    async fn next_inbound(&mut self) -> Result<Inbound, Trouble> {
        self.seat.waiting.begin_turn();
        loop {
            if let Some(delivery) = self.taken {
                self.seat.want(Command::Taken { user: self.seat.user, delivery }).await?;
                self.taken = None;
            }
            let signal = self.seat.signals.recv().await;
            if let Some(inbound) = self.on_signal(signal)? {
                return Ok(inbound);
            }
        }
    }

    /// What a signal is to the identity, if anything.
    fn on_signal(&mut self, signal: Option<Signal>) -> Result<Option<Inbound>, Trouble> {
        let inbound = match signal {
            Some(Signal::Ready) => {
                crash::point(Point::SubscriptionGranted);
                self.attach_due = None;
                self.listening.begin(Instant::now());
                Ok(Inbound::Ready)
            }
            Some(Signal::Delivered(delivery, came)) => Ok(self.on_delivery(&delivery, came)),
            Some(Signal::Called(delivery, pair)) => return Ok(self.on_call(&delivery, pair)),
            Some(Signal::Deaf(why)) => {
                let Ended { pause, is_news } = self.listening.ended(Instant::now(), fastrand::f64());
                let (device, seconds) = (&self.device, pause.as_secs_f32());
                tracing::debug!(device = %device, seconds, "the hub passes no calls of direct methods on: {why}");
                if is_news {
                    tracing::info!(
                        device = %device,
                        "calls of direct methods do not reach this device ({why}); the hub is asked for them again and \
                         again, and messages and events go on"
                    );
                }
                return Ok(None);
            }
            Some(Signal::Heard) => {
                self.listening.stands(Instant::now());
                return Ok(None);
            }
            Some(Signal::Published(seq)) => Ok(Inbound::Published(seq)),
            Some(Signal::Refused(event, why)) => Ok(Inbound::EventRefused { event, why }),
            Some(Signal::Postponed(event, why, is_suspect)) => Ok(Inbound::EventPostponed { event, why, is_suspect }),
            Some(Signal::NotRenewed(trouble)) => Ok(Inbound::NotRenewed(trouble)),
            Some(Signal::Over(trouble)) => {
                self.is_over = true;
                Err(trouble)
            }
            None => Err(self.seat.hold.why()),
        };
        inbound.map(Some)
    }

    /// A call. `None`: it is one that can't be answered.
    fn on_call(&mut self, delivery: &Delivery, pair: u64) -> Option<Inbound> {
        crash::point(Point::PublishRead);
        self.taken = Some(delivery.id);
        match message::called(&delivery.payload, delivery.is_whole) {
            Ok((id, method)) => {
                let call = CallId([&pair.to_be_bytes()[..], &id].concat().into());
                Some(Inbound::Call { call, method })
            }
            // Its caller gives up by itself.
            Err(why) => {
                tracing::debug!(device = %self.device, "a call that can't be answered: {why}");
                None
            }
        }
    }

    fn on_delivery(&mut self, delivery: &Delivery, came: Instant) -> Inbound {
        crash::point(Point::PublishRead);
        let message = read(delivery, came);
        if !message.sequence_number.is_none_or(|number| self.locked.came(number)) {
            return Inbound::Unclear { message, why: OUT_OF_TURN };
        }
        let (count, number) = (message.delivery_count, message.sequence_number);
        let number = self.order.push(Held { delivery: delivery.id, count, number });
        Inbound::Delivery { number: Some(number), message }
    }

    async fn settle_all(&mut self, settlements: Vec<Settlement>) -> Result<bool, Trouble> {
        for settlement in settlements {
            match settlement {
                Settlement::Complete(number) => self.order.settle(number, Settle::Accept),
                Settlement::Reject(number) => self.order.settle(number, Settle::Reject),
                Settlement::Abandon(number) if self.gives_back => self.order.settle(number, Settle::Release),
                Settlement::Abandon(_) | Settlement::Leave(_) => {}
            }
        }
        let mut has_told = false;
        while let Some((held, how)) = self.order.take_first() {
            let how = match how {
                Settle::Release if !held.may_be_released() => Settle::Forget,
                how => how,
            };
            if how != Settle::Forget {
                crash::point(Point::SettlementTaken);
            }
            if let (Settle::Accept | Settle::Reject, Some(number)) = (how, held.number) {
                self.locked.ended(number);
            }
            // One that is given back has brought nothing on: the pause before the next attempt grows.
            has_told |= matches!(how, Settle::Accept | Settle::Reject);
            self.seat.want(Command::Settle { user: self.seat.user, delivery: held.delivery, how }).await?;
        }
        Ok(has_told)
    }

    /// What the hub is told at the end of the deliveries that are left, the oldest first: what became of them, or that
    /// they are given back. What is locked in any case is not: that would only be counted.
    fn last_words(&mut self) -> Vec<(u32, Settle)> {
        let mut words = Vec::new();
        while let Some(oldest) = self.order.oldest() {
            self.order.settle(oldest, Settle::Release);
            let Some((held, how)) = self.order.take_first() else { break };
            let stays = !self.gives_back || self.locked.is_out_of_turn() || !held.may_be_released();
            match (how, held.number) {
                (Settle::Release | Settle::Forget, _) if stays => break,
                (Settle::Accept | Settle::Reject, Some(number)) => self.locked.ended(number),
                _ => {}
            }
            words.push((held.delivery, how));
        }
        words
    }
}

impl Attachment for Attached {
    /// AMQP has no sessions that outlive a connection: it can't be told.
    fn was_known(&self) -> bool {
        true
    }

    /// A token says nothing of the device, and a certificate was shown to TLS: only a link is permitted or not. Without
    /// credit none comes over it.
    fn is_let_in(&mut self) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async move {
            self.window = 0;
            self.receive().await?;
            let slow = |_| Trouble::Slow(ATTACH_PATIENCE.as_secs());
            while !matches!(timeout(ATTACH_PATIENCE, self.next_inbound()).await.map_err(slow)??, Inbound::Ready) {}
            match timeout(PERMIT_PATIENCE, self.next_inbound()).await {
                Ok(Err(trouble)) => Err(trouble),
                Ok(Ok(_)) | Err(_) => Ok(()),
            }
        })
    }

    fn receive(&mut self) -> Pending<'_, Result<(), Trouble>> {
        self.attach_due = Some(Instant::now() + ATTACH_PATIENCE);
        let command = Command::Receive { user: self.seat.user, from: devicebound(&self.device), window: self.window };
        Box::pin(self.seat.want(command))
    }

    fn take_no_more(&mut self) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(self.seat.want(Command::TakeNoMore { user: self.seat.user }))
    }

    fn next(&mut self) -> Pending<'_, Result<Inbound, Trouble>> {
        Box::pin(self.next_inbound())
    }

    fn keep_alive_at(&self) -> Instant {
        let due = self.attach_due.unwrap_or(self.idle_until);
        self.listening.due().map_or(due, |ask| ask.min(due))
    }

    /// The connection keeps itself alive. What may be due here is the hub's answer, or a question.
    fn keep_alive(&mut self) -> Pending<'_, Result<(), Trouble>> {
        let now = Instant::now();
        self.idle_until = now + IDLE;
        Box::pin(async move {
            if self.attach_due.is_some_and(|due| due <= now) {
                return Err(Trouble::Slow(ATTACH_PATIENCE.as_secs()));
            }
            let user = self.seat.user;
            match self.listening.step(now) {
                Some(Step::Ask) => self.seat.want(Command::Listen { user, at: methods(&self.device) }).await,
                Some(Step::GiveUp) => self.seat.want(Command::GiveUp { user }).await,
                Some(Step::Tell) => {
                    tracing::info!(device = %self.device, "calls of direct methods reach this device again");
                    Ok(())
                }
                None => Ok(()),
            }
        })
    }

    fn settle(&mut self, settlements: Vec<Settlement>) -> Pending<'_, Result<bool, Trouble>> {
        Box::pin(self.settle_all(settlements))
    }

    fn answer(&mut self, answered: Answered) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async move {
            let Answered { call, answer } = answered;
            let (pair, id) = call.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
            let pair = u64::from_be_bytes(*pair);
            let message = message::answer(id, &answer).map_err(|error| Trouble::Protocol(error.to_string()))?;
            self.seat.want(Command::Answer { user: self.seat.user, pair, message: Bytes::from(message) }).await
        })
    }

    fn publish(&mut self, event: Event) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async move {
            let message = message::event(&event).map_err(|error| Trouble::EventRefused(error.to_string()))?;
            let (to, seq) = (events(&self.device), event.seq);
            self.seat.want(Command::Publish { user: self.seat.user, to, seq, message: Bytes::from(message) }).await
        })
    }

    fn tells_enqueued_time(&self) -> bool {
        true
    }

    fn give_nothing_back(&mut self) {
        self.gives_back = false;
    }

    fn takes_tokens(&self) -> bool {
        true
    }

    /// The hub's answer is not waited for: a refusal ends the attachment.
    fn show(&mut self, token: String) -> Pending<'_, Result<(), Trouble>> {
        let command = Command::Show { user: self.seat.user, of: self.of.clone(), token, told: None };
        Box::pin(self.seat.want(command))
    }

    fn unsettled(&self) -> usize {
        self.order.len()
    }

    fn oldest(&self) -> Option<u64> {
        self.order.oldest()
    }

    fn left_behind(&mut self) -> Option<Message> {
        let signals = &mut self.seat.signals;
        let message = std::iter::from_fn(|| signals.try_recv().ok()).find_map(Signal::message);
        message.inspect(|message| came(&mut self.locked, message))
    }

    fn detach(mut self: Box<Self>) -> Pending<'static, Vec<Message>> {
        Box::pin(async move {
            let words = self.last_words();
            let Attached { mut seat, mut locked, is_over, is_shared, .. } = *self;
            let mut last = Vec::new();
            let leave = async {
                let user = seat.user;
                if !words.is_empty() {
                    // What is given back would come again at once.
                    let _ = seat.want(Command::TakeNoMore { user }).await;
                }
                for (delivery, how) in words {
                    let _ = seat.want(Command::Settle { user, delivery, how }).await;
                }
                // Of a connection that is over the rest can be heard still.
                let _ = seat.want(Command::Leave { user: seat.user }).await;
                while let Some(signal) = seat.signals.recv().await {
                    last.extend(signal.message());
                }
            };
            let _ = timeout(LEAVE_PATIENCE, leave).await;
            let Seat { mut signals, hold, .. } = seat;
            // What comes from here on is noted where it is read.
            signals.close();
            last.extend(std::iter::from_fn(|| signals.try_recv().ok()).filter_map(Signal::message));
            last.iter().for_each(|message| came(&mut locked, message));
            drop(signals);
            match is_over && is_shared {
                true => hold.come_back(),
                false => hold.leave().await,
            }
            last
        })
    }
}
