//! Tokens on a connection: claims-based security ("AMQP Claims-based Security" of OASIS, as the hub has it).
//!
//! Requests go out one behind the other, and each answer is matched by its correlation id; an answer may come before
//! the hub says that it has the request. A refusal is of the identity whose token it is, and of no other.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::amqp::engine::{Attaching, Engine, Event, LinkId, Outcome, SessionId, Settle, Way};
use crate::hub::trouble::Trouble;

use super::message::{put_token, read_answer, REPLY_TO};

/// Most identities of a connection: the hub takes so many tokens on one (IoT Hub's SDK for .NET).
pub(crate) const IDENTITIES_MAX: usize = 999;

/// How long the hub may take to answer to a token.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Answers that may come before one was read.
const ANSWERS: u32 = 64;

const NODE: &str = "$cbs";

/// The tokens that are being shown on a connection.
pub(crate) struct Cbs<T> {
    node: Option<Node>,
    last: u64,
    /// In the order in which they were asked, and so in that of their time limits.
    asked: VecDeque<Asked<T>>,
}

/// The links to where tokens are shown.
#[derive(Clone, Copy)]
struct Node {
    session: SessionId,
    requests: LinkId,
    answers: LinkId,
}

struct Asked<T> {
    id: u64,
    due: Instant,
    who: T,
}

/// How showing a token ended, and for whom.
pub(crate) type Told<T> = (T, Result<(), Trouble>);

impl<T> Cbs<T> {
    pub(crate) fn new() -> Cbs<T> {
        Cbs { node: None, last: 0, asked: VecDeque::new() }
    }

    /// Shows a token for what it is of.
    ///
    /// # Errors
    /// There is no way to.
    pub(crate) fn ask(
        &mut self,
        engine: &mut Engine,
        of: &str,
        token: &str,
        who: T,
        now: Instant,
    ) -> Result<(), Told<T>> {
        let Some(node) = self.node.or_else(|| Node::attach(engine, self.last)) else {
            return Err((who, Err(Trouble::NoSession)));
        };
        self.node = Some(node);
        self.last += 1;
        let id = self.last;
        let message = match put_token(&name(id), of, token) {
            Ok(message) => Bytes::from(message),
            Err(error) => return Err((who, Err(Trouble::Protocol(error.to_string())))),
        };
        if !engine.send(node.requests, id, message) {
            return Err((who, Err(Trouble::TokenUnanswered(PATIENCE.as_secs()))));
        }
        self.asked.push_back(Asked { id, due: now + PATIENCE, who });
        Ok(())
    }

    /// When [`Cbs::on_time`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.asked.front().map(|asked| asked.due)
    }

    /// Gives up what the hub does not answer, one at each call.
    pub(crate) fn on_time(&mut self, engine: &mut Engine, now: Instant) -> Option<Told<T>> {
        self.asked.front().filter(|asked| asked.due <= now)?;
        let asked = self.asked.pop_front()?;
        if self.asked.is_empty() {
            // The next one is asked on links of its own.
            if let Some(node) = self.node.take() {
                engine.end(node.session);
            }
        }
        Some((asked.who, Err(Trouble::TokenUnanswered(PATIENCE.as_secs()))))
    }

    /// Takes what happened on the links, if it did.
    ///
    /// # Errors
    /// It happened elsewhere; it comes back.
    pub(crate) fn take(&mut self, engine: &mut Engine, event: Event) -> Result<Vec<Told<T>>, Event> {
        let Some(node) = self.node else { return Err(event) };
        match event {
            Event::Attached(link) if link == node.requests || link == node.answers => Ok(Vec::new()),
            Event::Delivered(link, delivery) if link == node.answers => {
                engine.settle(link, delivery.id, Settle::Accept);
                Ok(self.on_answer(&delivery.payload).into_iter().collect())
            }
            Event::Sent(link, number, outcome) if link == node.requests => {
                let why = match outcome {
                    // The answer says more.
                    Outcome::Accepted | Outcome::Untold => return Ok(Vec::new()),
                    Outcome::Rejected(Some(problem)) => Trouble::from_amqp(&problem.condition, &problem.description),
                    Outcome::Rejected(None) | Outcome::Released => Trouble::Throttled(String::new()),
                };
                Ok(self.found(number).map(|who| (who, Err(why))).into_iter().collect())
            }
            Event::Detached(link, problem) if link == node.requests || link == node.answers => {
                engine.end(node.session);
                Ok(self.all_fail(problem))
            }
            Event::Ended(session, problem) if session == node.session => Ok(self.all_fail(problem)),
            other => Err(other),
        }
    }

    fn on_answer(&mut self, payload: &[u8]) -> Option<Told<T>> {
        let answer = read_answer(payload)?;
        let id = self.asked.iter().find(|asked| name(asked.id) == answer.to)?.id;
        let who = self.found(id)?;
        let result = match answer.status {
            200..=299 => Ok(()),
            status => Err(Trouble::TokenRefused { status, description: answer.description }),
        };
        Some((who, result))
    }

    fn found(&mut self, id: u64) -> Option<T> {
        let at = self.asked.iter().position(|asked| asked.id == id)?;
        self.asked.remove(at).map(|asked| asked.who)
    }

    fn all_fail(&mut self, problem: Option<crate::amqp::engine::Problem>) -> Vec<Told<T>> {
        self.node = None;
        let (condition, description) = problem.map(|it| (it.condition, it.description)).unwrap_or_default();
        let why = Trouble::from_amqp(&condition, &description);
        self.asked.drain(..).map(|asked| (asked.who, Err(why.clone()))).collect()
    }
}

fn name(id: u64) -> String {
    format!("put-token-{id}")
}

impl Node {
    fn attach(engine: &mut Engine, attempt: u64) -> Option<Node> {
        let session = engine.begin()?;
        let mut attach = |way, which| {
            let (name, local) = (format!("cbs-{attempt}-{which}"), Some(REPLY_TO.into()));
            engine.attach(session, Attaching { name, address: NODE.into(), local, way, properties: None })
        };
        let answers = attach(Way::In(ANSWERS), "answers")?;
        let requests = attach(Way::Out(2 * IDENTITIES_MAX), "requests")?;
        Some(Node { session, requests, answers })
    }
}
