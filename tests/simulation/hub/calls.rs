//! Direct methods at the hub: a back end that calls, waits for a while, and calls again under the same id until it
//! knows the end. The hub keeps nothing of a call, and gives what is answered to whoever still waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value as Json};
use tokio::time::{sleep, sleep_until, timeout, Instant};

use super::super::mqtt;
use super::super::scenario::Message;
use super::Hub;

/// How long a caller waits in peace: longer than any command takes.
const PATIENCE: Duration = Duration::from_secs(900);

/// An answer, as its caller got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// Whether it says how the command has ended.
    pub fn is_end(&self) -> bool {
        self.status != 202 && !self.is_not_taken()
    }

    /// Whether nothing was done, and nothing is recorded.
    pub fn is_not_taken(&self) -> bool {
        let body: Json = serde_json::from_str(&self.body).unwrap_or_default();
        self.status == 503 && body["error"]["code"] == "not-taken"
    }
}

/// A call under way.
struct Try {
    message: Message,
    /// The connection that it went over.
    connection: u64,
    answer: Option<Answer>,
}

/// The calls of a hub.
#[derive(Default)]
pub struct Calls {
    /// The connection on which each device listens.
    listening: BTreeMap<String, u64>,
    /// By request id: none is used twice, so that a stale answer is known.
    tries: BTreeMap<u64, Try>,
    /// What each call was answered, by the value that it asks for.
    answers: BTreeMap<u16, Vec<Answer>>,
    /// In which lives of the process, and when, the gateway had read each whole.
    received: BTreeMap<u16, Vec<(u64, Instant)>>,
    /// Callers who do not know the end yet.
    waiting: usize,
}

impl Calls {
    /// What each call was answered.
    pub fn answers(&self, value: u16) -> &[Answer] {
        self.answers.get(&value).map_or(&[], Vec::as_slice)
    }

    /// When the gateway had read each call, and in which life of the process.
    pub fn received(&self, value: u16) -> &[(u64, Instant)] {
        self.received.get(&value).map_or(&[], Vec::as_slice)
    }
}

impl Hub {
    /// The back end calls at these times.
    pub fn calls(self: &Arc<Self>, calls: &[(Duration, Message)]) {
        let began = Instant::now();
        self.lock().calls.waiting = calls.len();
        for (at, message) in calls.iter().cloned() {
            tokio::spawn(self.clone().calls_until_it_knows(began + at, message));
        }
    }

    /// Whether every caller knows the end.
    pub fn callers_know(&self) -> bool {
        self.lock().calls.waiting == 0
    }

    /// What calls were answered.
    pub fn look_at_calls<T>(&self, look: impl FnOnce(&Calls) -> T) -> T {
        look(&self.lock().calls)
    }

    /// A device has subscribed to calls on a connection.
    pub(super) fn listens(&self, device: &str, connection: u64) {
        self.lock().calls.listening.insert(device.to_owned(), connection);
    }

    async fn calls_until_it_knows(self: Arc<Self>, at: Instant, message: Message) {
        sleep_until(at).await;
        let world = self.world.clone();
        let mut dice = world.dice(&format!("call {}", message.value));
        let mut is_known = false;
        loop {
            let is_peace = world.faults_are_over();
            // Half of them have none.
            let patience = [500, 40_000][dice.usize(..2)];
            let patience = if is_peace { PATIENCE } else { Duration::from_millis(dice.u64(20..patience)) };
            let answer = self.call(&message, patience).await;
            world.note(format_args!("{message:?} is called for, and answered {answer:?}"));
            match &answer {
                None => world.count("calls: nobody answers"),
                Some(answer) if answer.is_not_taken() => world.count("calls: not taken"),
                Some(answer) if answer.status == 202 => world.count("calls: promised"),
                Some(_) if is_known => world.count("calls: the end again"),
                Some(_) => world.count("calls: the end"),
            }
            if let Some(answer) = answer {
                is_known |= answer.is_end();
                self.lock().calls.answers.entry(message.value).or_default().push(answer);
            }
            // In peace the end must be told, and told again as it was.
            if is_known && is_peace {
                break;
            }
            let longest = if dice.u8(..4) == 0 { 60_000 } else { 3_000 };
            let pause = Duration::from_millis(dice.u64(10..longest));
            // The longest schedules take days.
            let pause = if is_known && !is_peace { pause * 20 } else { pause };
            let _ = timeout(pause, async {
                while !world.faults_are_over() {
                    sleep(Duration::from_secs(1)).await;
                }
                sleep(Duration::from_secs(1)).await;
            })
            .await;
        }
        self.lock().calls.waiting -= 1;
    }

    /// One call. `None`: no answer came in time, or the device is not there.
    async fn call(self: &Arc<Self>, message: &Message, patience: Duration) -> Option<Answer> {
        let (request, wire, on_the_way) = {
            let mut inner = self.lock();
            let number = *inner.calls.listening.get(&message.device)?;
            let (connection, wire) = inner.connected.get(&message.device).cloned()?;
            if connection != number || wire.is_over() {
                return None;
            }
            inner.last += 1;
            let request = inner.last;
            let one = Try { message: message.clone(), connection, answer: None };
            inner.calls.tries.insert(request, one);
            (request, wire, self.sent_answer.clone())
        };
        let payload = json!({ "messageId": message.id, "value": message.value }).to_string();
        let topic = format!("$iothub/methods/POST/{}/?$rid={request}", message.asks.command());
        // The wire is the hub's own.
        let (hub, value, life) = (Arc::downgrade(self), message.value, wire.life);
        wire.send_and_tell(&mqtt::publish_once(&topic, payload.as_bytes()), move || {
            let Some(hub) = hub.upgrade() else { return };
            hub.lock().calls.received.entry(value).or_default().push((life, Instant::now()));
        });
        let answered = async {
            loop {
                let told = on_the_way.notified();
                let answer = self.lock().calls.tries.get(&request).and_then(|one| one.answer.clone());
                match answer {
                    Some(answer) => return answer,
                    None => told.await,
                }
            }
        };
        let answer = timeout(patience, answered).await.ok();
        self.lock().calls.tries.remove(&request);
        answer
    }

    /// The gateway is about to answer a call: what that says must be durable (G1).
    pub(super) fn expect_answered(&self, topic: &str, body: &[u8]) {
        let Some((request, answer)) = read(topic, body) else {
            return self.world.violate(format!("an answer that none can read: {topic}"));
        };
        let message = self.lock().calls.tries.get(&request).map(|one| one.message.clone());
        if let Some(message) = message.filter(|_| !answer.is_not_taken()) {
            self.witness.expect_answered(&message, answer.is_end());
        }
    }

    /// An answer has come over a connection.
    pub(super) fn is_answered(&self, connection: u64, topic: &str, body: &[u8]) {
        let Some((request, answer)) = read(topic, body) else { return };
        if self.world.strikes("calls: an answer is lost", self.faults.lost_acks) {
            return;
        }
        let mut inner = self.lock();
        match inner.calls.tries.get_mut(&request) {
            Some(one) if one.connection == connection => one.answer = Some(answer),
            Some(_) => self.world.violate(format!("G6: an answer on another connection: {topic}")),
            None => self.world.count("calls: an answer comes too late"),
        }
        drop(inner);
        self.sent_answer.notify_waiters();
    }
}

/// The request that an answer is for, and what it says.
fn read(topic: &str, body: &[u8]) -> Option<(u64, Answer)> {
    let (status, request) = topic.strip_prefix("$iothub/methods/res/")?.split_once("/?$rid=")?;
    let body = String::from_utf8(body.to_vec()).ok()?;
    Some((request.parse().ok()?, Answer { status: status.parse().ok()?, body }))
}
