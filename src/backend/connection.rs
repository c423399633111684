//! A back end's connection to the hub, by AMQP: one session, a link to send by, and one that feedback comes on.
//!
//! Invariants
//! - Whatever waits here may be dropped at any await and begun again: what has come meanwhile is kept.
//! - A batch of feedback is settled by whoever took it, and by nobody else. A connection that fails settles nothing.
//! - The end of a link is a trouble for whoever waits for something on it, and for nobody else: the hub may end what is
//!   idle.
//! - While a token is asked for or shown, the connection is served; it stands as long as the token before that counts.

use std::collections::{BTreeMap, VecDeque};
use std::future::{pending, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep_until, timeout, timeout_at, Instant};

use super::feedback::{Batch, End, Record};
use super::message::Outgoing;
use super::renewal::Renewal;
use super::sentences::in_options;
use super::who::{Proof, Who};
use super::{within, BackendError, Place, SEND_LIMIT};
use crate::amqp::engine::{Attaching, Direction, Engine, Event, LinkId, Problem, SessionId, Settings, Settle};
use crate::amqp::message::{number, read};
use crate::certificate::Trust;
use crate::config::{Credential, Hub, Settle as SettleMode, TransportKind};
use crate::hub::account::{Access, Account};
use crate::hub::amqp::cbs::{Cbs, Told};
use crate::hub::amqp::wire::Wire;
use crate::hub::dial::Network;
use crate::hub::trouble::Trouble;
use crate::hub::way;
use crate::time::Timestamp;

/// How long a connection may take until the hub lets the back end in.
const CONNECT_LIMIT: Duration = Duration::from_secs(90);
/// How long the hub may take to answer to an Attach. It throttles by delaying it.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// How long the hub may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// Batches of feedback that are held unsettled.
const BATCHES: u32 = 64;
/// What is said where records of others keep one from coming.
const NOBODY_TAKES: &str =
    "feedback of other messages goes round or piles up in the hub's one queue, and nobody takes \
                            it: another consumer is needed (such as `fieldbridge feedback --follow`)";
/// Messages under way.
const UNDER_WAY: usize = 16;

const SEND_TO: &str = "/messages/devicebound";
const FEEDBACK: &str = "/messages/serviceBound/feedback";

/// A token that is being asked for.
type Asked = Pin<Box<dyn Future<Output = Result<Proof, BackendError>> + Send>>;

/// A back end that the hub has let in.
pub struct Backend {
    who: Arc<Who>,
    wire: Wire,
    engine: Engine,
    cbs: Cbs<()>,
    session: Option<SessionId>,
    sender: Option<LinkId>,
    receiver: Option<LinkId>,
    /// Batches that have come and were not asked for yet.
    come: VecDeque<Delivered>,
    /// Batches in which one record was looked for.
    held: Vec<Delivered>,
    /// The number of the last message.
    last: u64,
    renewal: Renewal,
    asked: Option<Asked>,
}

/// A batch of feedback, and the right to settle it.
pub struct Delivered {
    link: LinkId,
    id: u32,
    /// What is in it.
    pub batch: Batch,
}

impl Backend {
    /// Connects, and is let in.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(who: Who, place: &Place) -> Result<Backend, BackendError> {
        within(CONNECT_LIMIT, Backend::open(who, place)).await
    }

    async fn open(who: Who, place: &Place) -> Result<Backend, BackendError> {
        let account = account(who.host(), place)?;
        let proof = who.proof().await?;
        let stream = way::open(&Network, &account).await?;
        let settings = Settings {
            container_id: format!("fieldbridge-back-end-{:016x}", fastrand::u64(..)),
            hostname: who.host().to_owned(),
            mechanisms: &["ANONYMOUS"],
            idle_timeout: IDLE_TIMEOUT,
        };
        let now = Instant::now();
        let mut backend = Backend {
            who: Arc::new(who),
            wire: Wire::new(stream),
            engine: Engine::new(settings, now.into_std()),
            cbs: Cbs::new(),
            session: None,
            sender: None,
            receiver: None,
            come: VecDeque::new(),
            held: Vec::new(),
            last: 0,
            renewal: Renewal::default(),
            asked: None,
        };
        while !matches!(backend.happened().await?, Event::Opened { .. }) {}
        backend.show(&proof)?;
        while !backend.renewal.is_let_in() {
            if let Some(event) = backend.turn().await? {
                backend.set_aside(event, None)?;
            }
        }
        Ok(backend)
    }

    fn show(&mut self, proof: &Proof) -> Result<(), BackendError> {
        self.renewal.shows(proof.life);
        let asked = self.cbs.ask(&mut self.engine, &proof.audience, &proof.token, (), Instant::now());
        asked.or_else(|told| self.told([told]))
    }

    fn told(&mut self, told: impl IntoIterator<Item = Told<()>>) -> Result<(), BackendError> {
        for ((), result) in told {
            match result {
                Ok(()) => self.renewal.taken(),
                Err(trouble) => self.not_renewed(trouble.into())?,
            }
        }
        Ok(())
    }

    /// There is no new token, or the hub has not taken it: an error if the one before it does not do.
    fn not_renewed(&mut self, why: BackendError) -> Result<(), BackendError> {
        match self.renewal.failed(Instant::now().into_std(), fastrand::f64()) {
            true => Ok(()),
            false => Err(why),
        }
    }

    /// Something moves. Gives what is not about tokens. Cancel-safe.
    async fn turn(&mut self) -> Result<Option<Event>, BackendError> {
        if let Some(event) = self.engine.event() {
            return match self.cbs.take(&mut self.engine, event) {
                Ok(told) => self.told(told).map(|()| None),
                Err(Event::Closed(problem)) => Err(closed(problem, self.renewal.is_let_in())),
                Err(event) => Ok(Some(event)),
            };
        }
        let now = Instant::now();
        if let Some(told) = self.cbs.on_time(&mut self.engine, now) {
            self.told([told])?;
            return Ok(None);
        }
        let renewal = self.renewal.due().filter(|_| self.asked.is_none()).map(Instant::from_std);
        if renewal.is_some_and(|due| due <= now) {
            let who = self.who.clone();
            self.asked = Some(Box::pin(async move { who.proof().await }));
        }
        let due = self.cbs.due().into_iter().chain(renewal).filter(|due| *due > now).min();
        tokio::select! {
            turned = self.wire.turn(&mut self.engine) => turned?,
            answer = answer(&mut self.asked) => {
                self.asked = None;
                match answer {
                    Ok(proof) => self.show(&proof)?,
                    Err(why) => self.not_renewed(why)?,
                }
            }
            () = sleep_until(due.unwrap_or(now + IDLE_TIMEOUT)) => {}
        }
        Ok(None)
    }

    async fn happened(&mut self) -> Result<Event, BackendError> {
        loop {
            if let Some(event) = self.turn().await? {
                return Ok(event);
            }
        }
    }

    /// Takes what nobody waits for at present, while something is waited for on this link.
    fn set_aside(&mut self, event: Event, awaited: Option<LinkId>) -> Result<(), BackendError> {
        match event {
            Event::Delivered(link, delivery) => {
                let (message, _) = read(&delivery.payload);
                let told = message.annotation("iothub-deliverycount").and_then(number);
                let told = told.and_then(|count| u32::try_from(count).ok());
                let returns = message.delivery_count.into_iter().chain(told).max().unwrap_or(0);
                self.come.push_back(Delivered { link, id: delivery.id, batch: Batch::read(&message.body, returns) });
                Ok(())
            }
            Event::Detached(link, problem) => {
                // What came on it is not this connection's to settle any more.
                self.come.retain(|delivered| delivered.link != link);
                self.held.retain(|delivered| delivered.link != link);
                for own in [&mut self.sender, &mut self.receiver] {
                    *own = own.filter(|own| *own != link);
                }
                match awaited == Some(link) {
                    true => Err(detached(problem)),
                    // It is attached anew when it is needed.
                    false => Ok(()),
                }
            }
            Event::Ended(session, problem) if self.session == Some(session) => {
                (self.session, self.sender, self.receiver) = (None, None, None);
                self.come.clear();
                self.held.clear();
                Err(detached(problem))
            }
            Event::Closed(problem) => Err(closed(problem, self.renewal.is_let_in())),
            Event::Opened { .. } | Event::Attached(_) | Event::Sent(..) | Event::Ended(..) => Ok(()),
        }
    }

    fn attach(&mut self, address: &str, direction: Direction) -> Result<LinkId, BackendError> {
        let none = || BackendError::Unreachable("the hub takes no more links on this connection; try again".into());
        let session = match self.session {
            Some(session) => session,
            None => self.engine.begin().ok_or_else(none)?,
        };
        self.session = Some(session);
        let name = format!("back-end-{:016x}", fastrand::u64(..));
        let attaching = Attaching { name, address: address.to_owned(), local: None, direction, properties: None };
        self.engine.attach(session, attaching).ok_or_else(none)
    }

    /// Sends a message. When this is done the hub has it.
    ///
    /// # Errors
    /// The hub does not take it; or [`BackendError::Unknown`]: send it again then, under the same id.
    pub async fn send(&mut self, outgoing: &Outgoing) -> Result<(), BackendError> {
        let payload = outgoing.written(Timestamp::now())?;
        let link = match self.sender {
            Some(link) => link,
            None => self.attach(SEND_TO, Direction::Out(UNDER_WAY))?,
        };
        self.sender = Some(link);
        self.last += 1;
        let number = self.last;
        if !self.engine.send(link, number, Bytes::from(payload)) {
            return Err(BackendError::Unreachable("the hub takes no message at present; try again".into()));
        }
        let taken = async {
            loop {
                match self.happened().await? {
                    Event::Sent(of, sent, outcome) if (of, sent) == (link, number) => return Ok(outcome),
                    event => self.set_aside(event, Some(link))?,
                }
            }
        };
        match within(SEND_LIMIT, taken).await {
            Ok(outcome) => outgoing.judge(outcome),
            Err(BackendError::Unreachable(why)) => Err(BackendError::Unknown(why)),
            Err(error) => Err(error),
        }
    }

    /// Has the hub give feedback from now on, which may take its time where it throttles: only then a pause says that
    /// there is none. Cancel-safe.
    ///
    /// # Errors
    /// As [`Backend::next_batch`].
    pub async fn listen(&mut self) -> Result<(), BackendError> {
        if self.receiver.is_some() {
            return Ok(());
        }
        let link = self.listener()?;
        let attached = async {
            loop {
                match self.happened().await? {
                    Event::Attached(of) if of == link => return Ok(()),
                    event => self.set_aside(event, Some(link))?,
                }
            }
        };
        within(ATTACH_LIMIT, attached).await
    }

    /// The link that feedback comes on.
    fn listener(&mut self) -> Result<LinkId, BackendError> {
        let link = match self.receiver {
            Some(link) => link,
            None => self.attach(FEEDBACK, Direction::In(BATCHES))?,
        };
        self.receiver = Some(link);
        Ok(link)
    }

    /// The next batch of feedback. Cancel-safe. Whoever takes it settles it; what is not settled stays locked until its
    /// lock runs out, for a while after the end of the connection too, and 64 of those are the most that come.
    ///
    /// # Errors
    /// The connection is over, or the hub gives no feedback.
    pub async fn next_batch(&mut self) -> Result<Delivered, BackendError> {
        self.look_again();
        self.take_batch().await
    }

    /// What somebody has waited among, who was dropped, comes first.
    fn look_again(&mut self) {
        for delivered in self.held.drain(..).rev() {
            self.come.push_front(delivered);
        }
    }

    async fn take_batch(&mut self) -> Result<Delivered, BackendError> {
        let link = self.listener()?;
        self.engine.resume(link);
        loop {
            if let Some(delivered) = self.come.pop_front() {
                return Ok(delivered);
            }
            let event = self.happened().await?;
            self.set_aside(event, Some(link))?;
        }
    }

    /// Says what becomes of a batch.
    pub fn settle(&mut self, delivered: &Delivered, end: End) {
        let how = match end {
            End::Complete => Settle::Accept,
            End::GiveBack => {
                // Else it would come straight back here, and be locked for whoever else waits for it.
                self.engine.pause(delivered.link);
                Settle::Release
            }
            End::Forget => Settle::Forget,
        };
        self.engine.settle(delivered.link, delivered.id, how);
    }

    /// Waits for the record of one message, for so long at most, and gives back what holds records of others; but not
    /// what was given back too often already, which stays locked for a while. Cancel-safe. Where it is dropped, or the
    /// connection fails, nothing is settled, and what was looked at comes again: whoever waits on over another
    /// connection gives it back once.
    ///
    /// # Errors
    /// The connection is over; or batches go round that nobody takes, or so many of them wait that no more come.
    pub async fn wait_for(
        &mut self,
        device: &str,
        message_id: &str,
        limit: Duration,
    ) -> Result<Option<Record>, BackendError> {
        let deadline = Instant::now() + limit;
        self.look_again();
        let found = loop {
            let delivered = match timeout_at(deadline, self.take_batch()).await {
                Err(_) => break Ok(None),
                Ok(delivered) => delivered?,
            };
            let record = delivered.batch.record_of(device, message_id).cloned();
            let goes_round = delivered.batch.goes_round(device, message_id);
            self.held.push(delivered);
            if let Some(record) = record {
                break Ok(Some(record));
            }
            if goes_round || self.held.len() >= BATCHES as usize {
                break Err(BackendError::Refused(NOBODY_TAKES.into()));
            }
        };
        // Before anything makes room: what comes in its place would be locked for nobody.
        self.receiver.into_iter().for_each(|link| self.engine.pause(link));
        for delivered in std::mem::take(&mut self.held) {
            self.settle(&delivered, delivered.batch.end_for(device, message_id));
        }
        found
    }

    /// Takes leave, after what is settled was told.
    pub async fn close(mut self) {
        self.engine.close(None);
        let goodbye = async { while !self.engine.is_closed() && self.turn().await.is_ok() {} };
        let _ = timeout(GOODBYE, goodbye).await;
        self.wire.end(&mut self.engine).await;
    }
}

/// A token, if one is asked for.
async fn answer(asked: &mut Option<Asked>) -> Result<Proof, BackendError> {
    match asked {
        Some(asked) => asked.await,
        None => pending().await,
    }
}

/// Why the hub has ended a part of the connection.
fn detached(problem: Option<Problem>) -> BackendError {
    let (condition, description) = problem.map(|it| (it.condition, it.description)).unwrap_or_default();
    over(Trouble::from_amqp(&condition, &description), true)
}

/// Why it has closed all of it: where that is a no, it is the same as a link's.
fn closed(problem: Option<Problem>, is_let_in: bool) -> BackendError {
    let Some(Problem { condition, description }) = problem else {
        return BackendError::Unreachable("the hub closed the connection; try again".into());
    };
    over(
        match Trouble::from_amqp(&condition, &description) {
            Trouble::Detached { condition, description } => Trouble::Dismissed { condition, description },
            other => other,
        },
        is_let_in,
    )
}

fn over(why: Trouble, is_let_in: bool) -> BackendError {
    match why {
        // It has let the back end in before, and will again.
        Trouble::TokenExpired if is_let_in => BackendError::Unreachable(
            "the hub ended that, as the token's time was over; another connection has another token".into(),
        ),
        other => other.into(),
    }
}

/// What the way to the hub is made with.
pub(super) fn account(host: &str, place: &Place) -> Result<Account, BackendError> {
    let trust =
        Trust::load(place.ca_file.as_deref()).map_err(|why| BackendError::Nobody(in_options(&why.to_string())))?;
    let address = |kind: TransportKind| match &place.address {
        Some(address) => address.clone(),
        None => format!("{host}:{}", kind.port(true)),
    };
    let addresses: BTreeMap<_, _> = TransportKind::ALL.into_iter().map(|kind| (kind, address(kind))).collect();
    let hub = Hub {
        host: host.to_owned(),
        transport: place.transport,
        addresses,
        gateway: None,
        proxy: place.proxy.clone(),
        ca_file: place.ca_file.clone(),
        tls: true,
        keepalive: IDLE_TIMEOUT,
        connect_rate: 1,
        api_version: String::new(),
        token_lifetime: IDLE_TIMEOUT,
        poll_interval: IDLE_TIMEOUT,
    };
    Ok(Account {
        access: Arc::new(Access { hub, trust: Some(trust) }),
        transport: place.transport,
        credential: Credential::Key(Vec::new()),
        secondary: None,
        settle: SettleMode::AfterExecution,
        form: Arc::default(),
        desired: Arc::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_is_a_no_whatever_of_the_connection_the_hub_ends_with_it() {
        let problem = |condition: &str, description: &str| {
            Some(Problem { condition: condition.into(), description: description.into() })
        };
        let is_no = |error: &BackendError| matches!(error, BackendError::Refused(_));
        for (condition, expected) in [
            ("amqp:unauthorized-access", true),
            ("amqp:not-found", true),
            ("amqp:connection:forced", false),
            ("amqp:internal-error", false),
            ("com.microsoft:server-busy", false),
            ("amqp:link:stolen", false),
        ] {
            let all = [detached(problem(condition, "why")), closed(problem(condition, "why"), true)];
            assert_eq!(all.each_ref().map(is_no), [expected; 2], "{all:?}");
        }
        assert!(!is_no(&detached(None)) && !is_no(&closed(None, false)));
        // A token whose time is over is renewed with the next connection; one that is new never counts.
        let expired = || problem("amqp:unauthorized-access", "ErrorCode:ExpiredToken;the token's time is over");
        assert!(!is_no(&detached(expired())) && !is_no(&closed(expired(), true)) && is_no(&closed(expired(), false)));
    }
}
