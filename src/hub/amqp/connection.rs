//! One connection, from the dialling to its end: a task that owns stream and engine, and does what identities want of
//! it by their handles.
//!
//! Invariants
//! - What happens to one identity is told to it alone; when the connection ends, each learns why.
//! - The task waits for no identity: what one does not take ends that one's part (G11). All queues are bounded.
//! - When no handle is left, the connection is closed.
//! - A message that comes for an identity that is there no more is noted: the hub may keep it locked, and what is
//!   behind it is not to be run before (G5).
//! - An uplink that takes less than there is to be sent, for long, ends the connection, and not the memory.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout, Instant};

use super::calls::Pair;
use super::cbs::{Cbs, Told, IDENTITIES_MAX, SESSIONS};
use super::handle::{Command, Ends, Handle, Signal, State, ATTACH_PATIENCE, CLOSE_PATIENCE};
use super::locked::Late;
use super::wire::Wire;
use crate::amqp::engine::{
    Attaching, Delivery, Direction, Engine, Event, LinkId, Outcome, Problem, SessionId, Settings,
};
use crate::amqp::types::definitions::Fields;
use crate::amqp::Value;
use crate::config::Credential;
use crate::handles::Place;
use crate::hub::account::Account;
use crate::hub::dial::Dial;
use crate::hub::trouble::Trouble;
use crate::hub::way;

/// Look-up, TCP, TLS, SASL and Open together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the hub may be silent, as it is told.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the uplink may take so little that the connection does nothing more for its identities.
const FULL_PATIENCE: Duration = Duration::from_secs(30);
/// Result events of an identity on the wire; an identity has fewer.
const EVENTS_MAX: usize = 64;

/// Begins to make a connection for an account. Its handle to the system, if it has a place for that, is taken until it
/// has ended.
pub(super) fn make(dial: Arc<dyn Dial>, account: Account, place: Option<Place>) -> Arc<Handle> {
    let (handle, ends) = Handle::new();
    tokio::spawn(async move {
        drive(dial, account, ends).await;
        drop(place);
    });
    handle
}

/// Makes a connection and serves it to its end.
async fn drive(dial: Arc<dyn Dial>, account: Account, mut ends: Ends) {
    let slow = |_| Err(Trouble::Slow(OPEN_TIMEOUT.as_secs()));
    let made = tokio::select! {
        made = timeout(OPEN_TIMEOUT, Driver::open(&*dial, &account)) => made.unwrap_or_else(slow),
        // Nobody waits for it any more.
        None = ends.wanted.recv() => return,
    };
    let mut driver = match made {
        Ok((driver, sessions)) => {
            ends.room.store(IDENTITIES_MAX.min(sessions.saturating_sub(SESSIONS)), Ordering::Relaxed);
            driver
        }
        Err(trouble) => {
            ends.stands.send_replace(State::Down(trouble));
            return;
        }
    };
    ends.stands.send_replace(State::Up);
    let served = driver.serve(&mut ends).await;
    // What waits in the queue is for a connection that is no more.
    ends.wanted.close();
    match &served {
        Ok(()) => driver.close().await,
        Err(trouble) => {
            tracing::debug!("an AMQP connection has ended: {trouble}");
            ends.stands.send_replace(State::Down(trouble.clone()));
            driver.users.clear();
        }
    }
    let Driver { wire, mut engine, .. } = driver;
    wire.end(&mut engine).await;
    if served.is_ok() {
        ends.stands.send_replace(State::Down(Trouble::Lost("nobody has it any more".into())));
    }
}

/// An identity that is served.
struct User {
    session: SessionId,
    sender: Option<LinkId>,
    /// Events whose end the hub has not told.
    events: usize,
    signals: mpsc::Sender<Signal>,
    is_leaving: bool,
}

/// An identity's part of the connection, until both sides have ended it.
struct Part {
    user: u64,
    late: Late,
    /// The link of its messages.
    receiver: Option<LinkId>,
    /// The links of its calls, or those before.
    calls: Option<Pair>,
}

/// Who asked for a token to be shown.
struct Asker {
    user: u64,
    told: Option<oneshot::Sender<Result<(), Trouble>>>,
}

struct Driver {
    wire: Wire,
    engine: Engine,
    container: String,
    client: Fields,
    cbs: Cbs<Asker>,
    /// Sorted, so that what ends them all ends them in the same order each time.
    users: BTreeMap<u64, User>,
    sessions: BTreeMap<SessionId, Part>,
    /// Links that were asked for: each attempt has a name of its own, as one that comes again asks for the link before
    /// to be resumed (OASIS AMQP 1.0, 2.6.3).
    links: u64,
    /// Since when nothing more is done for the identities, as too much waits to be sent.
    full_since: Option<Instant>,
}

impl Driver {
    /// Gives also how many sessions the hub takes on it.
    async fn open(dial: &dyn Dial, account: &Account) -> Result<(Driver, usize), Trouble> {
        let stream = way::open(dial, account).await?;
        let container = format!("fieldbridge-{:016x}", fastrand::u64(..));
        let settings = Settings {
            container_id: container.clone(),
            hostname: account.access.hub.host.clone(),
            mechanisms: match account.credential {
                Credential::Key(_) => &["ANONYMOUS"],
                // TLS has shown it already.
                Credential::Certificate { .. } => &["EXTERNAL", "ANONYMOUS"],
            },
            idle_timeout: IDLE_TIMEOUT,
        };
        let (mut wire, mut engine) = (Wire::new(stream), Engine::new(settings, Instant::now().into_std()));
        loop {
            match engine.event() {
                Some(Event::Opened { sessions }) => {
                    let client = client(&account.access.hub.api_version);
                    let driver = Driver {
                        wire,
                        engine,
                        container,
                        client,
                        cbs: Cbs::new(),
                        users: BTreeMap::new(),
                        sessions: BTreeMap::new(),
                        links: 0,
                        full_since: None,
                    };
                    return Ok((driver, sessions));
                }
                Some(Event::Closed(problem)) => return Err(dismissed(problem)),
                Some(_) => {}
                None => wire.turn(&mut engine).await?,
            }
        }
    }

    /// Serves until nobody has it any more.
    async fn serve(&mut self, ends: &mut Ends) -> Result<(), Trouble> {
        let mut turned = Ok(());
        loop {
            while let Some(event) = self.engine.event() {
                self.on_event(event)?;
            }
            // What had come before the end was told first.
            turned?;
            let tokens_due = self.cbs.due();
            let tokens_due_at = tokens_due.unwrap_or_else(Instant::now);
            let has_room = self.engine.has_room();
            let full_since = (!has_room).then(|| self.full_since.unwrap_or_else(Instant::now));
            self.full_since = full_since;
            turned = Ok(());
            tokio::select! {
                end = self.wire.turn(&mut self.engine) => turned = end,
                command = ends.wanted.recv(), if has_room => match command {
                    Some(command) => self.on_command(command),
                    None => return Ok(()),
                },
                () = ends.left.notified() => self.sweep(),
                () = sleep_until(full_since.unwrap_or(tokens_due_at) + FULL_PATIENCE), if !has_room => {
                    let why = "the uplink has taken less than there is to be sent for";
                    return Err(Trouble::Lost(format!("{why} {} s", FULL_PATIENCE.as_secs())));
                }
                () = sleep_until(tokens_due_at), if tokens_due.is_some() => {
                    while let Some(told) = self.cbs.on_time(&mut self.engine, Instant::now()) {
                        self.on_told(told);
                    }
                }
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Show { user, of, token, told } => {
                let asker = Asker { user, told };
                if let Err(told) = self.cbs.ask(&mut self.engine, &of, &token, asker, Instant::now()) {
                    self.on_told(told);
                }
            }
            Command::Join { user, signals, late } => self.join(user, signals, late),
            Command::Receive { user, from, window } => {
                let link = self.attach(user, "in", from, Direction::In(window));
                match (self.part_of(user), link) {
                    (Some(part), Some(_)) => part.receiver = link,
                    _ => self.over(user, Trouble::NoSession),
                }
            }
            Command::TakeNoMore { user } => {
                if let Some(link) = self.part_of(user).and_then(|part| part.receiver) {
                    self.engine.pause(link);
                }
            }
            Command::Listen { user, at } => self.listen(user, &at),
            Command::GiveUp { user } => {
                let part = self.users.get(&user).and_then(|user| self.sessions.get_mut(&user.session));
                if part.and_then(|part| part.calls.as_mut()).is_some_and(|calls| calls.give_up(&mut self.engine)) {
                    let patience = ATTACH_PATIENCE.as_secs();
                    self.tell(user, Signal::Deaf(format!("it does not answer within {patience} s")));
                }
            }
            Command::Taken { user, delivery } => {
                if let Some(pair) = self.part_of(user).and_then(|part| part.calls) {
                    pair.taken(&mut self.engine, delivery);
                }
            }
            Command::Answer { user, pair, message } => {
                let calls = self.part_of(user).and_then(|part| part.calls).filter(|calls| calls.number == pair);
                if !calls.is_some_and(|calls| calls.answer(&mut self.engine, message)) {
                    tracing::debug!("an answer to a call that the hub has given up goes nowhere");
                }
            }
            Command::Publish { user, to, seq, message } => self.publish(user, to, seq, message),
            Command::Settle { user, delivery, how } => {
                if let Some(link) = self.part_of(user).and_then(|part| part.receiver) {
                    self.engine.settle(link, delivery, how);
                }
            }
            Command::Leave { user } => {
                if let Some(user) = self.users.get_mut(&user) {
                    user.is_leaving = true;
                    self.engine.end(user.session);
                }
            }
        }
    }

    fn join(&mut self, user: u64, signals: mpsc::Sender<Signal>, late: Late) {
        // It has gone before its turn came.
        if signals.is_closed() {
            return;
        }
        match self.engine.begin() {
            Some(session) => {
                self.sessions.insert(session, Part { user, late, receiver: None, calls: None });
                let served = User { session, sender: None, events: 0, signals, is_leaving: false };
                self.users.insert(user, served);
            }
            // The channel is new, and has room.
            None => drop(signals.try_send(Signal::Over(Trouble::NoSession))),
        }
    }

    fn attach(&mut self, user: u64, which: &str, address: String, direction: Direction) -> Option<LinkId> {
        let session = self.users.get(&user)?.session;
        self.links += 1;
        let name = format!("{}-{user}-{which}-{}", self.container, self.links);
        self.engine
            .attach(session, Attaching { name, address, local: None, direction, properties: Some(self.client.clone()) })
    }

    /// Asks for an identity's calls.
    fn listen(&mut self, user: u64, at: &str) {
        let Some(session) = self.users.get(&user).filter(|user| !user.is_leaving).map(|user| user.session) else {
            return;
        };
        self.links += 1;
        let name = format!("{}-{user}", self.container);
        let Some(part) = self.sessions.get_mut(&session) else { return };
        if let Some(mut before) = part.calls.take() {
            before.end(&mut self.engine);
        }
        part.calls = Pair::attach(&mut self.engine, session, (self.links, &name), at, &self.client);
        if part.calls.is_none() {
            self.tell(user, Signal::Deaf("the session has no room for its links".into()));
        }
    }

    fn publish(&mut self, user: u64, to: String, seq: i64, message: Bytes) {
        let Some(served) = self.users.get(&user) else { return };
        let link = match served.sender {
            Some(link) => Some(link),
            None => self.attach(user, "out", to, Direction::Out(EVENTS_MAX)),
        };
        // The ledger's numbers begin at 1.
        let is_sent = link.is_some_and(|link| self.engine.send(link, seq.unsigned_abs(), message));
        match self.users.get_mut(&user) {
            Some(served) if is_sent => {
                served.sender = link;
                served.events += 1;
            }
            _ => self.over(user, Trouble::EventRefused("the link for events does not take it".into())),
        }
    }

    /// An identity's part is over, and it learns why.
    fn over(&mut self, user: u64, trouble: Trouble) {
        if let Some(served) = self.users.remove(&user) {
            // Their deadlines count from now (G13), whatever ends here.
            let receiver = self.sessions.get(&served.session).and_then(|part| part.receiver);
            let all = self.engine.deliveries_of(served.session).into_iter();
            for (_, delivery) in all.filter(|(link, _)| receiver == Some(*link)) {
                if let Err(untold) = served.signals.try_send(Signal::Delivered(delivery, Instant::now())) {
                    self.came_late(served.session, untold.into_inner());
                }
            }
            // If there is no room for the reason, it sees that it is over.
            let _ = served.signals.try_send(Signal::Over(trouble));
            self.engine.end(served.session);
        }
    }

    /// Ends the parts of those who have gone without a word.
    fn sweep(&mut self) {
        let engine = &mut self.engine;
        self.users.retain(|_, user| {
            let is_there = !user.signals.is_closed();
            if !is_there {
                engine.end(user.session);
            }
            is_there
        });
    }

    fn on_event(&mut self, event: Event) -> Result<(), Trouble> {
        let event = match self.cbs.take(&mut self.engine, event) {
            Ok(all) => {
                all.into_iter().for_each(|told| self.on_told(told));
                return Ok(());
            }
            Err(event) => event,
        };
        match event {
            Event::Opened { .. } => {}
            Event::Closed(problem) => return Err(dismissed(problem)),
            Event::Attached(link) => {
                let part = self.sessions.get_mut(&link.session);
                let calls = part.and_then(|part| part.calls.as_mut());
                if calls.is_some_and(|calls| calls.on_attached(link)) {
                    self.signal(link, Signal::Heard);
                } else if self.is_of_messages(link) {
                    self.signal(link, Signal::Ready);
                }
            }
            Event::Delivered(link, delivery) => self.on_delivered(link, delivery),
            Event::Sent(link, number, outcome) => {
                let number = i64::try_from(number).unwrap_or(i64::MAX);
                let told = match outcome {
                    Outcome::Accepted => Signal::Published(number),
                    Outcome::Rejected(Some(problem)) => {
                        let why = format!("{} {}", problem.condition, problem.description);
                        match Trouble::from_amqp(&problem.condition, &problem.description) {
                            Trouble::Throttled(_) => Signal::Postponed(number, why, false),
                            _ => Signal::Refused(number, why),
                        }
                    }
                    Outcome::Rejected(None) => Signal::Refused(number, "it is rejected".into()),
                    Outcome::Released | Outcome::Untold => Signal::Postponed(number, "it is given back".into(), true),
                };
                if let Some(user) = self.user_of(link.session) {
                    self.users.entry(user).and_modify(|served| served.events = served.events.saturating_sub(1));
                }
                self.signal(link, told);
            }
            Event::Detached(link, problem) => self.on_detached(link, problem),
            Event::Ended(session, problem) => {
                self.on_end(session, problem);
                self.sessions.remove(&session);
            }
        }
        Ok(())
    }

    /// A link has ended. Those of calls end nothing else, and that of the events ends the rest only if the hub may have
    /// ended it for one of them.
    fn on_detached(&mut self, link: LinkId, problem: Option<Problem>) {
        let calls = self.sessions.get_mut(&link.session).and_then(|part| part.calls.as_mut());
        if let Some(has_stood) = calls.and_then(|calls| calls.on_detached(&mut self.engine, link)) {
            if has_stood {
                let why = problem.map(|it| format!("{} {}", it.condition, it.description));
                self.signal(link, Signal::Deaf(why.unwrap_or_else(|| "it gives no reason".into())));
            }
            return;
        }
        let user = self.user_of(link.session);
        let Some(served) = user.and_then(|user| self.users.get_mut(&user)) else { return };
        match (served.sender == Some(link) && !served.is_leaving, served.events, user) {
            (true, 0, _) => served.sender = None,
            (true, _, Some(user)) => {
                let problem = problem.map(|it| format!("{} {}", it.condition, it.description));
                self.over(user, Trouble::EventRefused(problem.unwrap_or_else(|| "its link is ended".into())));
            }
            _ => self.on_end(link.session, problem),
        }
    }

    /// A link or a session of an identity has ended.
    fn on_end(&mut self, session: SessionId, problem: Option<Problem>) {
        let Some(user) = self.user_of(session) else { return };
        if self.users[&user].is_leaving {
            self.users.remove(&user);
            return;
        }
        let (condition, description) = problem.map(|it| (it.condition, it.description)).unwrap_or_default();
        self.over(user, Trouble::from_amqp(&condition, &description));
    }

    fn part_of(&mut self, user: u64) -> Option<&mut Part> {
        self.sessions.get_mut(&self.users.get(&user)?.session)
    }

    fn is_of_messages(&self, link: LinkId) -> bool {
        self.sessions.get(&link.session).is_some_and(|part| part.receiver == Some(link))
    }

    fn user_of(&self, session: SessionId) -> Option<u64> {
        self.sessions.get(&session).map(|part| part.user).filter(|user| self.users.contains_key(user))
    }

    fn on_delivered(&mut self, link: LinkId, delivery: Delivery) {
        if !self.is_of_messages(link) {
            // What is called of whom nobody serves any more, nobody hears.
            let calls = self.sessions.get(&link.session).and_then(|part| part.calls);
            if let Some(calls) = calls.filter(|calls| calls.brings(link)) {
                self.signal(link, Signal::Called(delivery, calls.number));
            }
            return;
        }
        let signal = Signal::Delivered(delivery, Instant::now());
        match self.user_of(link.session) {
            Some(user) => self.tell(user, signal),
            None => self.came_late(link.session, signal),
        }
    }

    /// A message came that nobody takes any more.
    fn came_late(&self, session: SessionId, signal: Signal) {
        if let (Some(part), Some(message)) = (self.sessions.get(&session), signal.message()) {
            part.late.came(message);
        }
    }

    fn signal(&mut self, link: LinkId, signal: Signal) {
        if let Some(user) = self.user_of(link.session) {
            self.tell(user, signal);
        }
    }

    fn tell(&mut self, user: u64, signal: Signal) {
        let Some(served) = self.users.get(&user) else { return };
        if let Err(untold) = served.signals.try_send(signal) {
            self.came_late(served.session, untold.into_inner());
            self.over(user, Trouble::Lost("the device takes nothing of what comes".into()));
        }
    }

    fn on_told(&mut self, (Asker { user, told }, result): Told<Asker>) {
        match (told, result) {
            // Whoever does not wait any more has ended.
            (Some(told), result) => drop(told.send(result)),
            (None, Ok(())) => {}
            // Its token before counts still.
            (None, Err(trouble)) if trouble.is_of_the_moment() => self.tell(user, Signal::NotRenewed(trouble)),
            (None, Err(trouble)) => self.over(user, trouble),
        }
    }

    /// Takes leave of the hub.
    async fn close(&mut self) {
        self.engine.close(None);
        let answered = async {
            let mut turned = Ok(());
            while turned.is_ok() && !self.engine.is_closed() {
                turned = self.wire.turn(&mut self.engine).await;
                while let Some(event) = self.engine.event() {
                    let Event::Delivered(link, delivery) = event else { continue };
                    if self.is_of_messages(link) {
                        self.came_late(link.session, Signal::Delivered(delivery, Instant::now()));
                    }
                }
            }
        };
        let _ = timeout(CLOSE_PATIENCE, answered).await;
    }
}

/// Who we are, as the hub's own packages say it of themselves.
fn client(api_version: &str) -> Fields {
    let mut client = Fields::new();
    let name = concat!("fieldbridge/", env!("CARGO_PKG_VERSION"));
    client.insert("com.microsoft:client-version".into(), Value::String(name.into()));
    client.insert("com.microsoft:api-version".into(), Value::String(api_version.into()));
    client
}

/// The hub closed the connection.
fn dismissed(problem: Option<Problem>) -> Trouble {
    match problem {
        None => Trouble::Lost("the hub closed it without a reason".into()),
        Some(Problem { condition, description }) => match Trouble::from_amqp(&condition, &description) {
            // What it means of a device it does not mean of a connection.
            Trouble::Throttled(description) => Trouble::Throttled(description),
            _ => Trouble::Dismissed { condition, description },
        },
    }
}
