//! Direct methods at the hub: a back end that calls, waits for a while, and calls again under the same id until it
//! knows the end. The hub keeps nothing of a call, and gives what is answered to whoever still waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value as Json};
use tokio::time::{sleep, sleep_until, timeout, Instant};

use super::super::mqtt;
use super::super::scenario::Message;
use super::super::wire::Wire;
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
    /// The connection of MQTT's, or the pair of AMQP's links, that it goes over.
    over: u64,
    /// It waits for nothing but its answer.
    is_sent: bool,
    answer: Option<Answer>,
}

/// Where a device listens.
enum Listening {
    /// On a connection.
    Mqtt(u64),
    /// On a pair of links of a connection.
    Amqp(u64, Wire),
}

/// The calls of a hub.
#[derive(Default)]
pub struct Calls {
    /// Where each device listens.
    listening: BTreeMap<String, Listening>,
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
        self.lock().calls.listening.insert(device.to_owned(), Listening::Mqtt(connection));
    }

    /// A device has attached a pair of links for calls.
    pub(super) fn listens_by_amqp(&self, device: &str, pair: u64, wire: &Wire) {
        self.lock().calls.listening.insert(device.to_owned(), Listening::Amqp(pair, wire.clone()));
    }

    /// Whether a device's calls go over this pair of links.
    pub(super) fn is_called_over(&self, device: &str, pair: u64) -> bool {
        matches!(self.lock().calls.listening.get(device), Some(Listening::Amqp(own, _)) if *own == pair)
    }

    /// A pair of links has ended.
    pub(super) fn listens_no_more(&self, device: &str, pair: u64) {
        if self.is_called_over(device, pair) {
            self.lock().calls.listening.remove(device);
        }
    }

    /// The next call that is to go over a pair of links: its number, what it asks for, and its payload.
    pub(super) fn next_call(&self, pair: u64) -> Option<(u64, Message)> {
        let inner = self.lock();
        let next = inner.calls.tries.iter().find(|(_, one)| one.over == pair && !one.is_sent);
        next.map(|(request, one)| (*request, one.message.clone()))
    }

    /// It has gone out.
    pub(super) fn call_is_sent(&self, request: u64) {
        self.lock().calls.tries.entry(request).and_modify(|one| one.is_sent = true);
    }

    /// What is to be done when the gateway has read a call.
    pub(super) fn on_called(self: &Arc<Self>, value: u16, life: u64) -> impl FnOnce() + Send + 'static {
        // The wire is the hub's own.
        let hub = Arc::downgrade(self);
        move || {
            let Some(hub) = hub.upgrade() else { return };
            hub.lock().calls.received.entry(value).or_default().push((life, Instant::now()));
        }
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
        let (request, by_mqtt, on_the_way) = {
            let mut inner = self.lock();
            let (over, by_mqtt, wire) = match inner.calls.listening.get(&message.device)? {
                Listening::Amqp(pair, wire) => (*pair, false, wire.clone()),
                Listening::Mqtt(number) => {
                    let own = inner.connected.get(&message.device).filter(|(connection, _)| connection == number);
                    (*number, true, own?.1.clone())
                }
            };
            if wire.is_over() {
                return None;
            }
            inner.last += 1;
            let request = inner.last;
            let one = Try { message: message.clone(), over, is_sent: by_mqtt, answer: None };
            inner.calls.tries.insert(request, one);
            (request, by_mqtt.then_some(wire), self.sent_answer.clone())
        };
        match by_mqtt {
            Some(wire) => {
                let topic = format!("$iothub/methods/POST/{}/?$rid={request}", message.asks.command());
                let packet = mqtt::publish_once(&topic, payload(message).as_bytes());
                wire.send_and_tell(&packet, self.on_called(message.value, wire.life));
            }
            // Whoever has its links sends it when there is credit.
            None => self.sent.notify_waiters(),
        }
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
    pub(super) fn expect_answered(&self, request: u64, answer: &Answer) {
        let message = self.lock().calls.tries.get(&request).map(|one| one.message.clone());
        if let Some(message) = message.filter(|_| !answer.is_not_taken()) {
            self.witness.expect_answered(&message, answer.is_end());
        }
    }

    /// An answer has come over a connection of MQTT's, or a pair of AMQP's links.
    pub(super) fn is_answered(&self, over: u64, request: u64, answer: Answer) {
        if self.world.strikes("calls: an answer is lost", self.faults.lost_acks) {
            return;
        }
        let mut inner = self.lock();
        match inner.calls.tries.get_mut(&request) {
            Some(one) if one.over == over => one.answer = Some(answer),
            Some(_) => self.world.violate(format!("G6: an answer on another connection: {answer:?}")),
            None => self.world.count("calls: an answer comes too late"),
        }
        drop(inner);
        self.sent_answer.notify_waiters();
    }
}

/// What goes to the device.
pub(super) fn payload(message: &Message) -> String {
    json!({ "messageId": message.id, "value": message.value }).to_string()
}

/// The request that an answer of MQTT's is for, and what it says.
pub(super) fn read(topic: &str, body: &[u8]) -> Option<(u64, Answer)> {
    let (status, request) = topic.strip_prefix("$iothub/methods/res/")?.split_once("/?$rid=")?;
    let body = String::from_utf8(body.to_vec()).ok()?;
    Some((request.parse().ok()?, Answer { status: status.parse().ok()?, body }))
}
