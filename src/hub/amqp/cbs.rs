//! Tokens on a connection: claims-based security ("AMQP Claims-based Security" of OASIS, as the hub has it).
//!
//! Requests go out one behind the other, and each answer is matched by its correlation id; an answer may come before
//! the hub says that it has the request. A refusal is of the identity whose token it is, and of no other.
//!
//! Invariants
//! - Each request ends: with the hub's answer, with the links that it went out on, or with its time limit.
//! - Where one was not answered, none that comes after it is asked: the next ones go out on links of their own, while
//!   those that were asked before may be answered still.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::amqp::engine::{Attaching, Direction, Engine, Event, LinkId, Outcome, Problem, SessionId, Settle};
use crate::hub::trouble::Trouble;

use super::message::{put_token, read_answer, REPLY_TO};

/// Most identities of a connection: the hub takes so many tokens on one (IoT Hub's SDK for .NET).
pub const IDENTITIES_MAX: usize = 999;

/// How long the hub may take to answer to a token.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Sessions that this takes at most: that of the links in use, and that of those before.
pub(crate) const SESSIONS: usize = 2;

/// Answers that may come before one was read.
const ANSWERS: u32 = 64;

const NODE: &str = "$cbs";

/// The tokens that are being shown on a connection.
pub(crate) struct Cbs<T> {
    node: Option<Node>,
    /// The links before, on which the hub left a request unanswered and may answer others.
    before: Option<Node>,
    last: u64,
    /// In the order in which they were asked, and so in that of their time limits.
    asked: VecDeque<Asked<T>>,
}

/// The links to where tokens are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Node {
    session: SessionId,
    requests: LinkId,
    answers: LinkId,
}

struct Asked<T> {
    id: u64,
    on: SessionId,
    due: Instant,
    who: T,
}

/// How showing a token ended, and for whom.
pub(crate) type Told<T> = (T, Result<(), Trouble>);

impl<T> Cbs<T> {
    pub(crate) fn new() -> Cbs<T> {
        Cbs { node: None, before: None, last: 0, asked: VecDeque::new() }
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
        self.asked.push_back(Asked { id, on: node.session, due: now + PATIENCE, who });
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
        if let Some(silent) = self.node.take_if(|node| node.session == asked.on) {
            // Whatever was asked on those before has had its time.
            if let Some(before) = self.before.replace(silent) {
                engine.end(before.session);
            }
        }
        self.forget_the_silent(engine);
        Some((asked.who, Err(Trouble::TokenUnanswered(PATIENCE.as_secs()))))
    }

    /// Takes what happened on the links, if it did.
    ///
    /// # Errors
    /// It happened elsewhere; it comes back.
    pub(crate) fn take(&mut self, engine: &mut Engine, event: Event) -> Result<Vec<Told<T>>, Event> {
        let nodes = [self.node, self.before];
        let of = |link: LinkId| nodes.into_iter().flatten().find(|node| node.has(link));
        match event {
            Event::Attached(link) if of(link).is_some() => Ok(Vec::new()),
            Event::Delivered(link, delivery) if of(link).is_some_and(|node| node.answers == link) => {
                engine.settle(link, delivery.id, Settle::Accept);
                let told = self.on_answer(&delivery.payload).into_iter().collect();
                self.forget_the_silent(engine);
                Ok(told)
            }
            Event::Sent(link, number, outcome) if of(link).is_some() => {
                let why = match outcome {
                    // The answer says more.
                    Outcome::Accepted | Outcome::Untold => return Ok(Vec::new()),
                    Outcome::Rejected(Some(problem)) => Trouble::from_amqp(&problem.condition, &problem.description),
                    Outcome::Rejected(None) | Outcome::Released => Trouble::Throttled(String::new()),
                };
                Ok(self.found(number).map(|who| (who, Err(why))).into_iter().collect())
            }
            Event::Detached(link, problem) if of(link).is_some() => {
                engine.end(link.session);
                Ok(self.all_fail(link.session, problem))
            }
            Event::Ended(session, problem) if nodes.into_iter().flatten().any(|node| node.session == session) => {
                Ok(self.all_fail(session, problem))
            }
            other => Err(other),
        }
    }

    /// The links before are kept for what may be answered on them.
    fn forget_the_silent(&mut self, engine: &mut Engine) {
        let asked = &self.asked;
        let done = self.before.take_if(|before| asked.iter().all(|asked| asked.on != before.session));
        if let Some(done) = done {
            engine.end(done.session);
        }
    }

    fn on_answer(&mut self, payload: &[u8]) -> Option<Told<T>> {
        let answer = read_answer(payload)?;
        let id = self.asked.iter().find(|asked| name(asked.id) == answer.to)?.id;
        let who = self.found(id)?;
        let result = match answer.status {
            200..=299 => Ok(()),
            status => Err(Trouble::of_token(status, answer.description)),
        };
        Some((who, result))
    }

    fn found(&mut self, id: u64) -> Option<T> {
        let at = self.asked.iter().position(|asked| asked.id == id)?;
        self.asked.remove(at).map(|asked| asked.who)
    }

    /// Links are gone, and with them what was asked there.
    fn all_fail(&mut self, session: SessionId, problem: Option<Problem>) -> Vec<Told<T>> {
        for node in [&mut self.node, &mut self.before] {
            node.take_if(|node| node.session == session);
        }
        let (condition, description) = problem.map(|it| (it.condition, it.description)).unwrap_or_default();
        let why = Trouble::from_amqp(&condition, &description);
        let (gone, left) = self.asked.drain(..).partition::<Vec<_>, _>(|asked| asked.on == session);
        self.asked = left.into();
        gone.into_iter().map(|asked| (asked.who, Err(why.clone()))).collect()
    }
}

fn name(id: u64) -> String {
    format!("put-token-{id}")
}

impl Node {
    fn has(&self, link: LinkId) -> bool {
        self.requests == link || self.answers == link
    }

    fn attach(engine: &mut Engine, attempt: u64) -> Option<Node> {
        let session = engine.begin()?;
        let mut attach = |direction, which| {
            let (name, local) = (format!("cbs-{attempt}-{which}"), Some(REPLY_TO.into()));
            engine.attach(session, Attaching { name, address: NODE.into(), local, direction, properties: None })
        };
        let answers = attach(Direction::In(ANSWERS), "answers")?;
        let requests = attach(Direction::Out(2 * IDENTITIES_MAX), "requests")?;
        Some(Node { session, requests, answers })
    }
}
