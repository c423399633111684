//! One connection, from the dialling to its end: a task that owns stream and engine, and a handle of it for each
//! identity.
//!
//! Invariants
//! - What happens to one identity is told to it alone; when the connection ends, each learns why.
//! - The task waits for no identity: what one does not take ends that one's part (G11). All queues are bounded.
//! - When no handle is left, the connection is closed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch, Notify};
use tokio::time::{sleep, sleep_until, timeout, Instant};

use super::cbs::{Cbs, Told};
use super::pool::IDENTITIES_MAX;
use super::wire::Wire;
use crate::amqp::engine::{
    Attaching, Delivery, Engine, Event, LinkId, Outcome, Problem, SessionId, Settings, Settle, Way,
};
use crate::amqp::types::definitions::Fields;
use crate::amqp::Value;
use crate::config::Credential;
use crate::hub::account::Account;
use crate::hub::dial::Dial;
use crate::hub::trouble::Trouble;
use crate::hub::way;

/// Look-up, TCP, TLS, SASL and Open together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the hub may be silent, as it is told.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the hub may take to answer to a Close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a connection is kept for an identity whose part of it has ended: a little longer than identities wait.
const LINGER: Duration = Duration::from_secs(60);
/// Commands that wait for the task, of all identities together.
const COMMANDS_MAX: usize = 64;
/// Nothing more is done for the identities while so many bytes wait to be sent.
const OUT_MAX: usize = 256 * 1024;
/// Result events of an identity on the wire; an identity has fewer.
const EVENTS_MAX: usize = 64;

/// What an identity wants of the connection.
pub(super) enum Command {
    /// To show a token for what it is of. Without `told`, only a refusal is told, and ends the identity's part.
    Show { user: u64, of: String, token: String, told: Option<oneshot::Sender<Result<(), Trouble>>> },
    /// To be served.
    Join { user: u64, signals: mpsc::Sender<Signal> },
    /// To have messages from there, so many at a time.
    Receive { user: u64, from: String, window: u32 },
    /// To have an event sent to there.
    Publish { user: u64, to: String, seq: i64, message: Bytes },
    /// To have the hub told of a delivery.
    Settle { user: u64, delivery: u32, how: Settle },
    /// To be served no longer.
    Leave { user: u64 },
}

/// What an identity is told.
pub(super) enum Signal {
    /// Its messages come from now on.
    Ready,
    /// A message.
    Delivered(Delivery),
    /// The hub has the event with this number of the ledger.
    Published(i64),
    /// Its part of the connection is over.
    Over(Trouble),
}

/// How far a connection is.
#[derive(Debug, Clone)]
enum State {
    Connecting,
    Up,
    Down(Trouble),
}

/// An identity's hold on a connection.
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
    /// Rung when an identity has gone without a word.
    left: Arc<Notify>,
    users: AtomicU64,
    /// Identities that it takes.
    room: Arc<AtomicUsize>,
    itself: Weak<Handle>,
}

impl Handle {
    /// Begins to make a connection for an account.
    pub(super) fn make(dial: Arc<dyn Dial>, account: Account) -> Arc<Handle> {
        let (commands, wanted) = mpsc::channel(COMMANDS_MAX);
        let (stands, state) = watch::channel(State::Connecting);
        let (left, room) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(IDENTITIES_MAX)));
        tokio::spawn(drive(dial, account, Ends { wanted, stands, left: left.clone(), room: room.clone() }));
        Arc::new_cyclic(|itself| Handle {
            commands,
            state,
            left,
            users: AtomicU64::new(0),
            room,
            itself: itself.clone(),
        })
    }

    /// Waits until it stands.
    ///
    /// # Errors
    /// It does not come to that, or stands no longer.
    pub(super) async fn up(&self) -> Result<(), Trouble> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match state.as_deref() {
            Ok(State::Up) => Ok(()),
            _ => Err(self.why()),
        }
    }

    /// Whether another identity may have it.
    pub(super) fn takes_more(&self) -> bool {
        let is_down = matches!(*self.state.borrow(), State::Down(_)) || self.commands.is_closed();
        !is_down && self.itself.strong_count() <= self.room.load(Ordering::Relaxed)
    }

    /// Wants something of it.
    ///
    /// # Errors
    /// It has ended.
    pub(super) async fn want(&self, command: Command) -> Result<(), Trouble> {
        self.commands.send(command).await.map_err(|_| self.why())
    }

    /// Why it has ended.
    pub(super) fn why(&self) -> Trouble {
        match &*self.state.borrow() {
            State::Down(trouble) => trouble.clone(),
            State::Connecting | State::Up => Trouble::Lost("it ended without a reason".into()),
        }
    }

    /// A name for an identity on it, which no other has or had.
    pub(super) fn user(&self) -> u64 {
        self.users.fetch_add(1, Ordering::Relaxed)
    }

    /// Somebody has gone without a word.
    pub(super) fn somebody_left(&self) {
        self.left.notify_one();
    }

    /// Keeps it for a while, though nobody may have it: who has just had a trouble of its own comes back to it.
    pub(super) fn linger(self: Arc<Self>) {
        if matches!(*self.state.borrow(), State::Up) {
            tokio::spawn(async move {
                sleep(LINGER).await;
                drop(self);
            });
        }
    }

    /// Waits until it is closed, if this is the last hold on it.
    pub(super) async fn let_go(self: Arc<Self>) {
        let mut state = self.state.clone();
        if Arc::into_inner(self).is_some() {
            let _ = timeout(2 * CLOSE_PATIENCE, state.wait_for(|state| matches!(state, State::Down(_)))).await;
        }
    }
}

/// The task's ends of what it shares with the handles.
struct Ends {
    wanted: mpsc::Receiver<Command>,
    stands: watch::Sender<State>,
    left: Arc<Notify>,
    room: Arc<AtomicUsize>,
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
            // Tokens take one session.
            ends.room.store(IDENTITIES_MAX.min(sessions.saturating_sub(1)), Ordering::Relaxed);
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
    receiver: Option<LinkId>,
    sender: Option<LinkId>,
    /// Events whose end the hub has not told.
    events: usize,
    signals: mpsc::Sender<Signal>,
    is_leaving: bool,
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
    sessions: BTreeMap<SessionId, u64>,
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
                    let (cbs, users, sessions_of) = (Cbs::new(), BTreeMap::new(), BTreeMap::new());
                    let driver = Driver { wire, engine, container, client, cbs, users, sessions: sessions_of };
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
        loop {
            while let Some(event) = self.engine.event() {
                self.on_event(event)?;
            }
            let tokens_due = self.cbs.due();
            let tokens_due_at = tokens_due.unwrap_or_else(Instant::now);
            let has_room = self.engine.bytes().len() < OUT_MAX;
            tokio::select! {
                turned = self.wire.turn(&mut self.engine) => turned?,
                command = ends.wanted.recv(), if has_room => match command {
                    Some(command) => self.on_command(command),
                    None => return Ok(()),
                },
                () = ends.left.notified() => self.sweep(),
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
            Command::Join { user, signals } => self.join(user, signals),
            Command::Receive { user, from, window } => {
                let link = self.attach(user, "in", from, Way::In(window));
                match (self.users.get_mut(&user), link) {
                    (Some(served), Some(_)) => served.receiver = link,
                    _ => self.over(user, Trouble::NoSession),
                }
            }
            Command::Publish { user, to, seq, message } => self.publish(user, to, seq, message),
            Command::Settle { user, delivery, how } => {
                if let Some(link) = self.users.get(&user).and_then(|user| user.receiver) {
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

    fn join(&mut self, user: u64, signals: mpsc::Sender<Signal>) {
        // It has gone before its turn came.
        if signals.is_closed() {
            return;
        }
        match self.engine.begin() {
            Some(session) => {
                self.sessions.insert(session, user);
                let served = User { session, receiver: None, sender: None, events: 0, signals, is_leaving: false };
                self.users.insert(user, served);
            }
            // The channel is new, and has room.
            None => drop(signals.try_send(Signal::Over(Trouble::NoSession))),
        }
    }

    fn attach(&mut self, user: u64, which: &str, address: String, way: Way) -> Option<LinkId> {
        let session = self.users.get(&user)?.session;
        let name = format!("{}-{user}-{which}", self.container);
        self.engine
            .attach(session, Attaching { name, address, local: None, way, properties: Some(self.client.clone()) })
    }

    fn publish(&mut self, user: u64, to: String, seq: i64, message: Bytes) {
        let Some(served) = self.users.get(&user) else { return };
        let link = match served.sender {
            Some(link) => Some(link),
            None => self.attach(user, "out", to, Way::Out(EVENTS_MAX)),
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
                let user = self.user_of(link.session);
                if user.is_some_and(|user| self.users[&user].receiver == Some(link)) {
                    self.signal(link, Signal::Ready);
                }
            }
            Event::Delivered(link, delivery) => self.signal(link, Signal::Delivered(delivery)),
            Event::Sent(link, number, Outcome::Accepted) => {
                if let Some(user) = self.user_of(link.session) {
                    self.users.entry(user).and_modify(|served| served.events = served.events.saturating_sub(1));
                }
                self.signal(link, Signal::Published(i64::try_from(number).unwrap_or(i64::MAX)));
            }
            Event::Sent(link, _, outcome) => {
                let why = match outcome {
                    Outcome::Rejected(Some(problem)) => {
                        format!("{} {}", problem.condition, shown(&problem.description))
                    }
                    Outcome::Rejected(None) => "it is rejected".into(),
                    _ => "it is given back".into(),
                };
                if let Some(user) = self.user_of(link.session) {
                    self.over(user, Trouble::EventRefused(why));
                }
            }
            Event::Detached(link, problem) => self.on_detached(link, problem),
            Event::Ended(session, problem) => {
                self.on_end(session, problem);
                self.sessions.remove(&session);
            }
        }
        Ok(())
    }

    /// A link has ended. That of the events ends the rest only if the hub may have ended it for one of them.
    fn on_detached(&mut self, link: LinkId, problem: Option<Problem>) {
        let user = self.user_of(link.session);
        let Some(served) = user.and_then(|user| self.users.get_mut(&user)) else { return };
        match (served.sender == Some(link) && !served.is_leaving, served.events, user) {
            (true, 0, _) => served.sender = None,
            (true, _, Some(user)) => {
                let problem = problem.map(|it| format!("{} {}", it.condition, shown(&it.description)));
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

    fn user_of(&self, session: SessionId) -> Option<u64> {
        self.sessions.get(&session).copied().filter(|user| self.users.contains_key(user))
    }

    fn signal(&mut self, link: LinkId, signal: Signal) {
        let Some(user) = self.user_of(link.session) else { return };
        if self.users[&user].signals.try_send(signal).is_err() {
            self.over(user, Trouble::Lost("the device takes nothing of what comes".into()));
        }
    }

    fn on_told(&mut self, (Asker { user, told }, result): Told<Asker>) {
        match (told, result) {
            // Whoever does not wait any more has ended.
            (Some(told), result) => drop(told.send(result)),
            (None, Ok(())) => {}
            (None, Err(trouble)) => self.over(user, trouble),
        }
    }

    /// Takes leave of the hub.
    async fn close(&mut self) {
        self.engine.close(None);
        let answered = async {
            while !self.engine.is_closed() {
                if self.wire.turn(&mut self.engine).await.is_err() {
                    return;
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

/// What the hub says, without what it may repeat of a token.
fn shown(description: &str) -> &str {
    description.split("SharedAccessSignature").next().unwrap_or_default().trim()
}

/// The hub closed the connection.
fn dismissed(problem: Option<Problem>) -> Trouble {
    match problem {
        None => Trouble::Lost("the hub closed it without a reason".into()),
        Some(Problem { condition, description }) => match Trouble::from_amqp(&condition, &description) {
            // What it means of a device it does not mean of a connection.
            Trouble::Throttled(description) => Trouble::Throttled(description),
            _ => Trouble::Dismissed { condition, description: shown(&description).to_owned() },
        },
    }
}
