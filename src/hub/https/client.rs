//! Requests of one identity, and the connections that they go over.
//!
//! A connection is kept as long as the next request may come soon, and no longer: at the interval that the hub asks
//! for, 25 minutes, it would be dead by then in some router's memory, and cost both sides memory meanwhile. So a
//! settlement and its result event go over one, and each poll of an empty queue makes its own, with a resumed TLS
//! session.
//!
//! Invariants
//! - A settlement or an event that goes unanswered on a connection that was idle is asked once more, on a new one: the
//!   server may have closed it just then. It does no harm where it was read: a lock that is gone is said to be, an
//!   event has its id. No other request is asked twice: what a poll was answered and did not bring is locked, and the
//!   message behind it would come first (G5).
//! - A request has one limit, with the connection that has to be made for it. It does not count while the connection
//!   waits for its turn: those that come and go keep to the pace of all others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{sleep_until, timeout, Instant};

use super::book::End;
use crate::config::Hub;
use crate::hub::account::Account;
use crate::hub::dial::Dial;
use crate::hub::pace::Pace;
use crate::hub::properties::percent_encoded;
use crate::hub::trouble::Trouble;
use crate::hub::way;
use crate::ledger::row::Event;
use crate::net::http::{Answer, Connection, Fault, Method, Request};
use crate::net::Stream;
use crate::time::until;

/// How long a request may take, with its connection.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a connection is kept after an answer.
const LINGER: Duration = Duration::from_secs(30);

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        match fault {
            Fault::Unanswered(why) | Fault::Cut(why) => Trouble::Broken(why),
            Fault::Garbled(why) => Trouble::Protocol(format!("it is not HTTP ({why})")),
        }
    }
}

fn slow(_: Elapsed) -> Trouble {
    Trouble::Slow(LIMIT.as_secs())
}

/// Whether the last request has gone out: to be seen also while it is under way.
#[derive(Clone, Default)]
pub(super) struct IsOut(Arc<AtomicBool>);

impl IsOut {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, is_out: bool) {
        self.0.store(is_out, Ordering::Relaxed);
    }
}

/// Asks the hub for an identity.
pub(super) struct Client {
    dial: Arc<dyn Dial>,
    pace: Arc<Pace>,
    account: Account,
    connection: Option<Connection>,
    /// When the next one may be made, if that was asked for.
    turn: Option<Instant>,
    /// When the last answer came.
    answered: Option<Instant>,
    /// The last request went over a connection that had answered before.
    was_kept: bool,
    is_out: IsOut,
}

impl Client {
    /// Over a fresh stream, and when that is over, over others that are made in the same way.
    pub(super) async fn over(
        stream: Box<dyn Stream>,
        dial: Arc<dyn Dial>,
        pace: Arc<Pace>,
        account: Account,
    ) -> Result<Client, Trouble> {
        let connection = Some(Connection::over(stream).await?);
        Ok(Client {
            dial,
            pace,
            account,
            connection,
            turn: None,
            answered: None,
            was_kept: false,
            is_out: IsOut::default(),
        })
    }

    /// Asks, and waits for the answer, with at most so many bytes of its body. `again`: once more if a connection that
    /// was idle brings none.
    pub(super) async fn ask(&mut self, request: &Request, body_max: usize, again: bool) -> Result<Answer, Trouble> {
        self.was_kept = false;
        self.is_out.set(false);
        // It is put back only when it has answered: one that was left in the middle of an answer takes no request.
        if let Some(mut idle) = self.connection.take() {
            if idle.is_open().await {
                self.was_kept = self.answered.is_some();
                self.is_out.set(true);
                match timeout(LIMIT, idle.ask(request, body_max)).await.map_err(slow)? {
                    Err(Fault::Unanswered(why)) if again => {
                        tracing::debug!("the hub has closed a connection that was idle: {why}")
                    }
                    Err(fault) => return Err(fault.into()),
                    Ok(answer) => return Ok(self.answered(idle, answer)),
                }
            }
        }
        self.ask_anew(request, body_max).await
    }

    /// Asks over a new connection, when its turn has come.
    async fn ask_anew(&mut self, request: &Request, body_max: usize) -> Result<Answer, Trouble> {
        until(self.turn()).await;
        self.turn = None;
        let permit = self.pace.handshake(self.rate(), true).await;
        let (dial, account, is_out) = (&*self.dial, &self.account, &self.is_out);
        let asked = async {
            let mut new = Connection::over(way::open(dial, account).await?).await?;
            drop(permit);
            is_out.set(true);
            let answer = new.ask(request, body_max).await?;
            Ok::<_, Trouble>((new, answer))
        };
        let (new, answer) = timeout(LIMIT, asked).await.map_err(slow)??;
        Ok(self.answered(new, answer))
    }

    /// When a request would go out: at once over a connection that there is, else when the turn of a new one has come.
    pub(super) fn ready_at(&mut self) -> Instant {
        match self.connection {
            Some(_) => Instant::now(),
            None => self.turn(),
        }
    }

    fn turn(&mut self) -> Instant {
        let rate = self.rate();
        *self.turn.get_or_insert_with(|| self.pace.turn(rate))
    }

    fn rate(&self) -> u32 {
        self.account.access.hub.connect_rate
    }

    /// Whether the last request went over a connection that had answered before.
    pub(super) fn was_kept(&self) -> bool {
        self.was_kept
    }

    /// Whether the last request has gone out.
    pub(super) fn is_out(&self) -> IsOut {
        self.is_out.clone()
    }

    /// Leaves the connection, if there is one: the next request makes its own.
    pub(super) fn hang_up(&mut self) {
        self.connection = None;
    }

    fn answered(&mut self, connection: Connection, answer: Answer) -> Answer {
        self.connection = Some(connection);
        self.answered = Some(Instant::now());
        answer
    }

    /// Waits while nothing is asked, until the connection is over or was idle for long enough. For ever if there is
    /// none. Cancel-safe.
    pub(super) async fn rest(&mut self) {
        let Some(connection) = &mut self.connection else { return std::future::pending().await };
        tokio::select! {
            () = connection.closed() => {}
            () = sleep_until(self.answered.unwrap_or_else(Instant::now) + LINGER) => {}
        }
        self.connection = None;
    }
}

/// What is asked of the hub, for a device.
pub(super) struct Requests {
    /// Whom the requests are for. Behind a gateway that is the gateway, as the vendor's clients have it.
    host: String,
    /// `/devices/{id}/messages`
    messages: String,
    api_version: String,
    pub(super) token: Option<String>,
}

impl Requests {
    pub(super) fn of(hub: &Hub, device: &str, token: Option<String>) -> Requests {
        Requests {
            host: hub.server_name().to_owned(),
            messages: format!("/devices/{}/messages", percent_encoded(device)),
            api_version: percent_encoded(&hub.api_version),
            token,
        }
    }

    fn request(&self, method: Method, target: &str, query: &str, body: String) -> Request {
        let target = format!("{}/{target}?api-version={}{query}", self.messages, self.api_version);
        let request = Request::new(method, &target, &self.host, body).expect("all of it is encoded, or a host's name");
        match &self.token {
            Some(token) => request.with("authorization", token),
            None => request,
        }
    }

    /// For the next message.
    pub(super) fn poll(&self) -> Request {
        self.request(Method::GET, "devicebound", "", String::new())
    }

    /// To tell what became of one.
    pub(super) fn settle(&self, lock: &str, end: End) -> Request {
        let query = match end {
            End::Complete => "",
            End::Reject => "&reject",
        };
        let target = format!("devicebound/{}", percent_encoded(lock));
        self.request(Method::DELETE, &target, query, String::new()).with("if-match", lock)
    }

    /// To complete what is locked as no message is: by a GUID, as the hub's own locks are, that is made here.
    pub(super) fn knock(&self) -> Request {
        let random = fastrand::u128(..);
        let field = |from: u32, bits: u32| random >> from & ((1 << bits) - 1);
        let (head, tail) = (format!("{:08x}-{:04x}", field(96, 32), field(80, 16)), field(0, 48));
        let (version, variant) = (0x4000 | field(64, 12), 0x8000 | field(48, 14));
        self.settle(&format!("{head}-{version:04x}-{variant:04x}-{tail:012x}"), End::Complete)
    }

    /// To give one back.
    pub(super) fn abandon(&self, lock: &str) -> Request {
        let target = format!("devicebound/{}/abandon", percent_encoded(lock));
        self.request(Method::POST, &target, "", String::new()).with("if-match", lock)
    }

    /// To publish an event. A message id that no header holds is left out: another one would name another
    /// message. The event's body has it.
    pub(super) fn publish(&self, event: Event) -> Request {
        let request = self
            .request(Method::POST, "events", "", event.body)
            .with("iothub-messageid", &event.id)
            .with("iothub-contenttype", "application/json")
            .with("iothub-contentencoding", "utf-8")
            .with("iothub-app-fieldbridge", event.kind.as_str());
        match &event.message_id {
            Some(id) => request.with("iothub-correlationid", id),
            None => request,
        }
    }
}
