//! An identity's attachment by HTTPS: one request after the other, over connections that come and go.
//!
//! What belongs to the attachment is no connection, but the locks of its deliveries. When it ends they are given back;
//! what can't or must not be, and what a poll without an answer may have locked, is waited for before the next one
//! begins ([`Left`]).
//!
//! Invariants
//! - At most one request is under way. It is kept here, so that whoever waits for it may leave and come again: no
//!   answer is lost (a message in it would be locked for a minute, and those behind it come first).
//! - While a message may be locked that nobody holds, none is asked for (G5).
//! - Settlements go before all else, in the order of receipt (G5); events and polls take turns.
//! - Only so many deliveries are unsettled as are settled within the lock of the oldest.
//! - Where no messages are wanted, none is locked for nobody: the hub is asked to complete what no message is locked
//!   by, which it answers by whether it lets the device in.
//! - A message without a lock is not run: it could never be settled, and its sender would be told that it expired.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{timeout, Instant};

use super::answers;
use super::book::{Book, End};
use super::client::{Client, IsOut, Requests};
use crate::command::Message;
use crate::config::Settle;
use crate::hub::account::Account;
use crate::hub::dial::Dial;
use crate::hub::left::Left;
use crate::hub::lock::Recipient;
use crate::hub::pace::Pace;
use crate::hub::transport::{Attachment, Crash, Entry, Inbound, Pending, Reached, Rest, Transport};
use crate::hub::trouble::Trouble;
use crate::hub::{lock, way, Settlement};
use crate::ledger::row::Event;
use crate::net::http::{Answer, Request};
use crate::proof::crash::{self, Point};
use crate::time::until;

/// Most deliveries unsettled at a time, where a delivery is settled after its execution: its lock runs out 60 s after
/// the hub hands it out, and the one before it may take that long.
const WINDOW_AFTER_EXECUTION: usize = 1;
/// And where it is settled as soon as it is recorded.
const WINDOW_AFTER_ACCEPT: usize = 16;
/// Most of a message's body that is read, in bytes: as much as the REST reference has for a message. That of a C2D
/// message is a quarter of it, so one that is too large is told by its true size.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Most that is read of an answer that is no message, in bytes.
const WORDS_BYTES_MAX: usize = 4096;
/// How long the identity waits for the hub to answer a settlement before it goes on with the rest meanwhile: the
/// watchdog hears nothing of it until then.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
/// How long giving back may take when the attachment ends.
const GIVE_BACK_PATIENCE: Duration = Duration::from_secs(10);
/// A message that the hub has had back so often is not given back again, but comes again when its lock runs out, which
/// the hub does not count: at ten it would throw the message away.
const ABANDONED_MAX: u32 = 3;
/// There is nothing to be kept alive.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// HTTPS over streams that are dialled.
pub struct Https {
    dial: Arc<dyn Dial>,
    pace: Arc<Pace>,
    left: Arc<Left>,
}

impl Https {
    /// Over streams that are dialled so, at this pace.
    pub fn over(dial: Arc<dyn Dial>, pace: Arc<Pace>) -> Https {
        Https { dial, pace, left: Arc::default() }
    }
}

impl Transport for Https {
    fn reach<'a>(&'a self, account: &'a Account) -> Pending<'a, Result<Box<dyn Reached>, Trouble>> {
        Box::pin(async {
            let stream = way::open(&*self.dial, account).await?;
            let (dial, pace) = (self.dial.clone(), self.pace.clone());
            let client = Client::over(stream, dial, pace, account.clone()).await?;
            Ok(Box::new(AtTheHub { client, left: self.left.clone() }) as Box<dyn Reached>)
        })
    }

    fn note_crash(&self, account: &Account, device: &str, crash: Crash) {
        if crash.for_others {
            return;
        }
        self.left.note(&Recipient::of(&account.access.hub.host, device), Some(crash.begun + lock::time()));
    }

    fn locked_until(&self, account: &Account, device: &str) -> Option<Instant> {
        self.left.until(&Recipient::of(&account.access.hub.host, device))
    }

    fn rest(&self) -> Rest {
        self.left.rest(Rest::Doubtful)
    }
}

/// The hub is reached.
struct AtTheHub {
    client: Client,
    left: Arc<Left>,
}

impl Reached for AtTheHub {
    fn attach<'a>(self: Box<Self>, entry: Entry<'a>) -> Pending<'a, Result<Box<dyn Attachment>, Trouble>> {
        Box::pin(async move {
            let mut attached = Attached::new(*self, entry);
            attached.enter().await?;
            crash::point(Point::LoginAccepted);
            attached.inbox.push_front(Inbound::Ready);
            Ok(Box::new(attached) as Box<dyn Attachment>)
        })
    }
}

/// What a request under way is for.
enum Work {
    Poll,
    Settle,
    /// Of the delivery with this number.
    Abandon(u64),
    /// The event with this number of the ledger.
    Publish(i64),
}

type Asking = Pin<Box<dyn Future<Output = (Client, Result<Answer, Trouble>)> + Send>>;

/// An identity that the hub has answered.
struct Attached {
    requests: Requests,
    /// Not here while a request is under way.
    client: Option<Client>,
    asking: Option<(Work, Asking)>,
    /// Whether that has gone out: before, the hub has handed out nothing for it.
    is_out: IsOut,
    book: Book,
    /// What has come and was not taken.
    inbox: VecDeque<Inbound>,
    /// Events that wait for their turn.
    events: VecDeque<Event>,
    window: usize,
    /// Messages are wanted.
    takes_more: bool,
    poll_interval: Duration,
    /// When the queue is looked at next.
    poll_at: Instant,
    /// Not before this, whatever else would have it sooner: a message may be locked that nobody holds.
    not_before: Instant,
    /// When an empty queue is looked at once more, whatever the interval: what an earlier attachment may have left
    /// comes when its lock has run out.
    look_again_at: Instant,
    /// When the hub may have handed out the last message.
    handed_out: Option<Instant>,
    /// The last poll went unanswered: what it may have brought is locked, and not on the book.
    is_unsure: bool,
    left: Arc<Left>,
    recipient: Recipient,
    /// The last request was an event's, so that a poll has the next turn.
    has_published: bool,
    /// The hub was told of a delivery's end, and the identity was not told that yet.
    has_told: bool,
    /// What is held when it ends is given back.
    gives_back: bool,
}

impl Attached {
    fn new(reached: AtTheHub, entry: Entry) -> Attached {
        let Entry { hub, device, token, wants_messages, settle, .. } = entry;
        let AtTheHub { client, left } = reached;
        let now = Instant::now();
        Attached {
            requests: Requests::of(hub, device, token),
            is_out: client.is_out(),
            client: Some(client),
            asking: None,
            book: Book::default(),
            inbox: VecDeque::new(),
            events: VecDeque::new(),
            window: match settle {
                Settle::AfterExecution => WINDOW_AFTER_EXECUTION,
                Settle::AfterAccept => WINDOW_AFTER_ACCEPT,
            },
            takes_more: wants_messages,
            poll_interval: hub.poll_interval,
            poll_at: now,
            not_before: now,
            look_again_at: now + lock::time(),
            handed_out: None,
            is_unsure: false,
            left,
            recipient: Recipient::of(&hub.host, device),
            has_published: false,
            has_told: false,
            gives_back: true,
        }
    }

    /// Shows the identity: by the first poll, or where no messages are wanted, by a request that takes none.
    async fn enter(&mut self) -> Result<(), Trouble> {
        if !self.takes_more && self.knock().await? {
            return Ok(());
        }
        let poll = self.requests.poll();
        self.begin(Work::Poll, poll);
        self.step().await
    }

    /// Asks for nothing but to be let in. `false`: the hub has said nothing about that.
    async fn knock(&mut self) -> Result<bool, Trouble> {
        let client = self.client.as_mut().expect("no request is under way");
        let answer = client.ask(&self.requests.knock(), WORDS_BYTES_MAX, true).await?;
        let is_let_in = answers::knocked(&answer)?;
        if !is_let_in {
            // A poll that goes unanswered on a fresh connection is not taken for one that the hub was slow to close.
            client.hang_up();
        }
        Ok(is_let_in)
    }

    async fn next_inbound(&mut self) -> Result<Inbound, Trouble> {
        loop {
            if let Some(inbound) = self.inbox.pop_front() {
                if matches!(inbound, Inbound::Ready) {
                    crash::point(Point::SubscriptionGranted);
                }
                return Ok(inbound);
            }
            self.step().await?;
        }
    }

    /// Asks what is due, or waits until something is. Cancel-safe.
    async fn step(&mut self) -> Result<(), Trouble> {
        if self.asking.is_none() {
            match self.next_work() {
                Some((work, request)) => self.begin(work, request),
                None => {
                    self.idle().await;
                    return Ok(());
                }
            }
        }
        let Some((_, asking)) = &mut self.asking else { return Ok(()) };
        let (client, answer) = asking.await;
        let (work, _) = self.asking.take().expect("it was just waited for");
        let was_kept = client.was_kept();
        self.client = Some(client);
        match (work, answer) {
            (Work::Poll, Err(Trouble::Broken(why))) if was_kept => {
                tracing::debug!("the hub has closed a connection while it was asked for a message: {why}");
                self.poll_went_unanswered();
                Ok(())
            }
            (Work::Poll, Err(trouble)) => {
                if self.is_out.get() {
                    self.poll_went_unanswered();
                }
                Err(trouble)
            }
            (work, answer) => self.on_answer(work, answer?),
        }
    }

    /// The hub may have handed a message out, and not have been heard.
    fn poll_went_unanswered(&mut self) {
        let now = Instant::now();
        (self.handed_out, self.is_unsure) = (Some(now), true);
        self.not_before = now + lock::time();
        self.look_again_at = self.look_again_at.max(self.not_before);
    }

    fn next_poll(&self) -> Instant {
        self.poll_at.max(self.not_before)
    }

    fn may_poll(&self) -> bool {
        self.takes_more && self.book.len() < self.window
    }

    /// When a poll could go out. It is not begun before: one that waits for its turn can still be left alone.
    fn is_ready_at(&mut self) -> Instant {
        self.client.as_mut().expect("no request is under way").ready_at()
    }

    fn next_work(&mut self) -> Option<(Work, Request)> {
        if let Some((lock, end)) = self.book.due() {
            crash::point(Point::PubackQueued);
            return Some((Work::Settle, self.requests.settle(lock, end)));
        }
        let polls = self.may_poll() && Instant::now() >= self.next_poll() && self.is_ready_at() <= Instant::now();
        if polls && (self.has_published || self.events.is_empty()) {
            self.has_published = false;
            return Some((Work::Poll, self.requests.poll()));
        }
        let event = self.events.pop_front()?;
        self.has_published = true;
        Some((Work::Publish(event.seq), self.requests.publish(event)))
    }

    fn begin(&mut self, work: Work, request: Request) {
        let mut client = self.client.take().expect("no request is under way");
        let is_poll = matches!(work, Work::Poll);
        let body_max = if is_poll { MESSAGE_BYTES_MAX } else { WORDS_BYTES_MAX };
        let asking = async move {
            let answer = client.ask(&request, body_max, !is_poll).await;
            (client, answer)
        };
        self.asking = Some((work, Box::pin(asking)));
    }

    /// Until the next poll, or for ever while none may be made: what comes then comes from the identity.
    async fn idle(&mut self) {
        let (may_poll, mut poll_at) = (self.may_poll(), self.next_poll());
        if may_poll && Instant::now() >= poll_at {
            poll_at = self.is_ready_at();
        }
        let client = self.client.as_mut().expect("no request is under way");
        tokio::select! {
            () = until(poll_at), if may_poll => {}
            () = client.rest() => {}
        }
    }

    fn on_answer(&mut self, work: Work, answer: Answer) -> Result<(), Trouble> {
        match work {
            Work::Poll => {
                let is_the_hubs_no = matches!(answer.status, 401 | 403 | 404 | 429) && !answer.is_page();
                let polled = answers::polled(answer);
                // Anything else is said by somebody in front of the hub's queues, which may have been asked.
                if polled.is_err() && !is_the_hubs_no {
                    self.poll_went_unanswered();
                }
                self.on_polled(polled?);
            }
            Work::Settle => {
                let was_told = answers::settled(&answer)?;
                crash::point(Point::PubackWritten);
                self.book.told();
                self.has_told |= was_told;
                if !was_told {
                    tracing::debug!(status = answer.status, "a lock had run out: the message comes again");
                    self.poll_at = Instant::now();
                }
            }
            Work::Abandon(number) => {
                answers::settled(&answer)?;
                self.book.given_back(number);
            }
            Work::Publish(seq) => {
                self.inbox.push_back(match answers::published(&answer) {
                    Err(Trouble::EventRefused(why)) => Inbound::EventRefused { event: seq, why },
                    // If it is not for this event, the next poll says so.
                    Err(trouble) if !matches!(answer.status, 401 | 404) => Inbound::EventPostponed {
                        event: seq,
                        why: trouble.to_string(),
                        is_suspect: answer.is_page() || !matches!(answer.status, 403 | 429),
                    },
                    told => told.map(|()| Inbound::Published(seq))?,
                });
            }
        }
        Ok(())
    }

    fn on_polled(&mut self, polled: Option<answers::Polled>) {
        let now = Instant::now();
        self.is_unsure = false;
        let Some((mut message, lock)) = polled else {
            self.poll_at = now + self.poll_interval;
            if now < self.look_again_at {
                self.poll_at = self.poll_at.min(self.look_again_at);
            }
            return;
        };
        crash::point(Point::PublishRead);
        message.came = Some(now.into_std());
        // There may be more behind it.
        (self.poll_at, self.handed_out) = (now, Some(now));
        self.is_unsure = lock.is_none();
        self.inbox.push_back(match lock {
            Some(lock) => {
                let number = self.book.enter(&lock, message.delivery_count);
                Inbound::Delivery { number: Some(number), message }
            }
            None => Inbound::Unclear {
                message,
                why: "a message came without a lock (ETag), so that it can't be completed, and was not run; look for a proxy that \
                      takes headers away",
            },
        });
    }

    /// Tells the hub what is due, as long as that does not take too long, and no message comes meanwhile, whose
    /// deadline counts from when it is taken: what is left goes on with the next call of [`Attachment::next`].
    async fn tell(&mut self, settlements: Vec<Settlement>) -> Result<bool, Trouble> {
        let mut abandoned = None;
        for settlement in settlements {
            match settlement {
                Settlement::Complete(number) => self.book.ended(number, End::Complete),
                Settlement::Reject(number) => self.book.ended(number, End::Reject),
                Settlement::Abandon(number) if self.gives_back => abandoned = abandoned.or(Some(number)),
                Settlement::Abandon(_) | Settlement::Leave(_) => {}
            }
        }
        if self.book.due().is_some() {
            crash::point(Point::SettlementTaken);
        }
        let told = timeout(SETTLE_PATIENCE, async {
            while self.book.due().is_some() && (self.inbox.is_empty() || abandoned.is_some()) {
                self.step().await?;
            }
            match abandoned {
                Some(number) => self.give_back(number).await,
                None => Ok(()),
            }
        });
        told.await.unwrap_or(Ok(()))?;
        Ok(std::mem::take(&mut self.has_told))
    }

    /// Gives a delivery back to the hub, which delivers it again at once.
    async fn give_back(&mut self, number: u64) -> Result<(), Trouble> {
        while self.asking.is_some() {
            self.step().await?;
        }
        let lock = self.book.lock_of(number).filter(|(_, count)| count.is_some_and(|count| count < ABANDONED_MAX));
        let Some((lock, _)) = lock else { return Ok(()) };
        let request = self.requests.abandon(lock);
        self.begin(Work::Abandon(number), request);
        self.step().await
    }
}

impl Attached {
    /// Tells the hub what is known of deliveries, and gives the others back, oldest first, so that nothing overtakes
    /// them, if that may be. A poll under way is heard out: what it brings is among them.
    async fn give_all_back(&mut self) -> Result<(), Trouble> {
        loop {
            let is_held = self.book.len() > 0;
            if self.is_polling() || (is_held && self.asking.is_some()) || self.book.due().is_some() {
                self.step().await?;
                continue;
            }
            let Some(oldest) = self.book.oldest().filter(|_| self.gives_back) else { return Ok(()) };
            self.give_back(oldest).await?;
            if self.book.oldest() == Some(oldest) {
                return Ok(());
            }
        }
    }

    /// Whether the hub is asked for a message.
    fn is_polling(&self) -> bool {
        matches!(self.asking, Some((Work::Poll, _))) && self.is_out.get()
    }

    /// Until when the hub may keep something locked, if the attachment ends now.
    fn locked_until(&self) -> Option<Instant> {
        match (self.is_polling(), self.is_unsure || self.book.len() > 0) {
            (true, _) => Some(Instant::now() + lock::time()),
            (false, true) => self.handed_out.map(|handed_out| handed_out + lock::time()),
            (false, false) => None,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.left.note(&self.recipient, self.locked_until());
    }
}

impl Attachment for Attached {
    fn was_known(&self) -> bool {
        true
    }

    fn receive(&mut self) -> Pending<'_, Result<(), Trouble>> {
        // The first answer said that they come.
        Box::pin(async { Ok(()) })
    }

    fn take_no_more(&mut self) -> Pending<'_, Result<(), Trouble>> {
        self.takes_more = false;
        Box::pin(async { Ok(()) })
    }

    fn next(&mut self) -> Pending<'_, Result<Inbound, Trouble>> {
        Box::pin(self.next_inbound())
    }

    fn keep_alive_at(&self) -> Instant {
        Instant::now() + NEVER
    }

    fn keep_alive(&mut self) -> Pending<'_, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    fn settle(&mut self, settlements: Vec<Settlement>) -> Pending<'_, Result<bool, Trouble>> {
        Box::pin(self.tell(settlements))
    }

    fn publish(&mut self, event: Event) -> Pending<'_, Result<(), Trouble>> {
        // The outbox hands on no more than it may have on the wire.
        self.events.push_back(event);
        Box::pin(async { Ok(()) })
    }

    fn tells_enqueued_time(&self) -> bool {
        true
    }

    fn is_one_connection(&self) -> bool {
        false
    }

    fn takes_tokens(&self) -> bool {
        true
    }

    fn show(&mut self, token: String) -> Pending<'_, Result<(), Trouble>> {
        self.requests.token = Some(token);
        Box::pin(async { Ok(()) })
    }

    fn unsettled(&self) -> usize {
        self.book.len()
    }

    fn oldest(&self) -> Option<u64> {
        self.book.oldest()
    }

    fn left_behind(&mut self) -> Option<Message> {
        std::iter::from_fn(|| self.inbox.pop_front()).find_map(|inbound| match inbound {
            Inbound::Delivery { message, .. } | Inbound::Unclear { message, .. } => Some(message),
            _ => None,
        })
    }

    fn give_nothing_back(&mut self) {
        self.gives_back = false;
    }

    fn detach(mut self: Box<Self>) -> Pending<'static, Vec<Message>> {
        Box::pin(async move {
            if let Ok(Err(trouble)) = timeout(GIVE_BACK_PATIENCE, self.give_all_back()).await {
                tracing::debug!("what is left with the hub comes again when its lock has run out: {trouble}");
            }
            crash::point(Point::GoodbyeSaid);
            std::iter::from_fn(|| self.left_behind()).collect()
        })
    }
}
