//! How a hub speaks HTTPS: one message a request, locked for its receiver, whatever becomes of the connection.

use std::sync::Arc;

use std::time::Duration;

use tokio::time::{sleep, Instant};

use super::super::http::{self, Request};
use super::super::scenario::{Message, Over};
use super::super::wire::{End, Wire};
use super::{at_or_never, cut, Event, Hub, Said, State};

/// Serves one connection to its end.
pub(super) async fn serve(hub: Arc<Hub>, wire: Wire) {
    watch_settlements(&hub, &wire);
    let mut reader = http::Reader::new(wire.clone());
    let mut serving = Serving { ends_at: hub.end_of_a_connection(), hub, wire };
    loop {
        tokio::select! {
            biased;
            () = at_or_never(serving.ends_at.map(|(at, _)| at)) => {
                let (_, how) = serving.ends_at.take().expect("it was waited for");
                serving.hub.world.count(how);
                cut(&serving.wire, how);
            }
            request = reader.next() => match request {
                Some(request) => serving.on_request(&request).await,
                None => return serving.wire.cut(End::Closed),
            },
        }
        if serving.wire.is_over() {
            return;
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Poll,
    /// Of what is locked under this.
    Settle(u64, Said),
    /// Under a lock that the hub never gave out.
    Knock,
    Event,
}

/// Whom a request is of, and what it asks for.
fn understood(request: &Request) -> (&str, Call) {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    assert!(request.query.starts_with("api-version="), "{request:?}");
    let (device, call) = match (request.method.as_str(), &path[..]) {
        ("GET", ["devices", device, "messages", "devicebound"]) => (device, Call::Poll),
        ("POST", ["devices", device, "messages", "events"]) => (device, Call::Event),
        ("DELETE", ["devices", device, "messages", "devicebound", lock]) => {
            let said = if request.query.ends_with("&reject") { Said::Reject } else { Said::Complete };
            (device, number_of(request, lock).map_or(Call::Knock, |lock| Call::Settle(lock, said)))
        }
        ("POST", ["devices", device, "messages", "devicebound", lock, "abandon"]) => {
            (device, Call::Settle(number_of(request, lock).expect("a lock of the hub's"), Said::Abandon))
        }
        _ => panic!("a hub knows no {request:?}"),
    };
    (device, call)
}

/// The number of a lock, if it is the hub's.
fn number_of(request: &Request, lock: &str) -> Option<u64> {
    assert_eq!(request.header("if-match"), Some(lock));
    lock.strip_prefix("lock-").and_then(|number| number.parse().ok())
}

/// Looks at each settlement when the gateway writes it: what it stands on must be durable by then (G1).
fn watch_settlements(hub: &Arc<Hub>, wire: &Wire) {
    let mut splitter = http::Splitter::default();
    // The wire is the hub's own.
    let hub = Arc::downgrade(hub);
    wire.overhear(move |bytes| {
        let Some(hub) = hub.upgrade() else { return };
        for request in splitter.take(bytes) {
            if let (_, Call::Settle(lock, Said::Complete | Said::Reject)) = understood(&request) {
                hub.expect_settled(lock);
            }
        }
    });
}

struct Serving {
    hub: Arc<Hub>,
    wire: Wire,
    ends_at: Option<(Instant, &'static str)>,
}

impl Serving {
    fn strikes(&self, fault: &'static str, permille: u64) -> bool {
        self.hub.world.strikes(fault, permille)
    }

    fn answer(&self, status: u16, headers: &[(&str, String)], body: &[u8]) {
        self.wire.send(&http::answer(status, headers, body, self.hub.world.chance(200)));
    }

    /// An error, as the hub words it.
    fn fail(&self, status: u16, code: &str, headers: &[(&str, String)]) {
        self.answer(status, headers, format!("{{\"Message\":\"ErrorCode:{code};by the dice\"}}").as_bytes());
    }

    async fn on_request(&mut self, request: &Request) {
        let refusals = self.hub.faults.refusals;
        let is_slow = self.strikes("https: answers late or never", refusals / 4);
        let slowness = if is_slow { self.hub.world.time(1_000, 70_000) } else { self.hub.world.time(0, 40) };
        let (device, call) = understood(request);
        // A message is locked when it is asked for, or soon after: a hub hands nothing out for whoever is long gone.
        let (before, after) = match call {
            Call::Poll => (slowness.min(Duration::from_millis(40)), slowness),
            _ => (slowness, Duration::ZERO),
        };
        sleep(before).await;
        let token = request.header("authorization").unwrap_or_default();
        if self.hub.judge_token(self.wire.life, device, token).is_none() || self.strikes("https: 401", refusals / 4) {
            return self.fail(401, "IotHubUnauthorizedAccess", &[]);
        }
        if self.strikes("https: 429", refusals / 4) {
            let seconds = self.hub.world.pick(0..20).to_string();
            return self.fail(429, "ThrottlingException", &[("retry-after", seconds)]);
        }
        if self.strikes("https: 503", refusals / 4) {
            return self.fail(503, "ServiceUnavailable", &[]);
        }
        match call {
            Call::Poll => {
                self.on_poll(device, request.header("host").unwrap_or_default(), after - before.min(after)).await
            }
            Call::Settle(lock, said) => self.on_settlement(lock, said),
            Call::Knock => match self.hub.world.pick(0..4) {
                0 => self.fail(404, "DeviceMessageNotFound", &[]),
                // No document says what a hub makes of it.
                1 => self.fail(400, "ArgumentInvalid", &[]),
                _ => self.fail(412, "DeviceMessageLockLost", &[]),
            },
            Call::Event => self.on_event(device, request),
        }
        if self.strikes("https: closes between requests", self.hub.faults.cuts / 3) {
            self.ends_at = Some((Instant::now() + self.hub.world.time(0, 10_000), "https: closed"));
        }
    }

    async fn on_poll(&mut self, device: &str, host: &str, slowness: Duration) {
        let (world, lost) = (&self.hub.world, self.hub.faults.lost_acks);
        let Some((_, index)) = self.hub.next_for(device, host, None).filter(|(at, _)| *at <= Instant::now()) else {
            return self.answer(204, &[], b"");
        };
        let (lock, again) = self.hub.lock_out(index, self.wire.life, Over::Https);
        if again {
            world.count("https: delivers again when a lock has run out");
        }
        world.note(format_args!("{device} gets no. {index} under {lock}"));
        let answer = self.message(device, index, lock);
        sleep(slowness).await;
        if self.strikes("https: the answer to a poll is lost", lost) {
            return self.wire.cut(End::Reset);
        }
        if self.strikes("https: an answer is cut in the middle", lost / 2) {
            self.wire.send(&answer[..world.pick(0..answer.len() as u64) as usize]);
            return self.wire.cut(End::Closed);
        }
        self.wire.send_and_tell(&answer, self.hub.on_read(lock));
    }

    fn message(&self, device: &str, index: usize, lock: u64) -> Vec<u8> {
        let world = &self.hub.world;
        let inner = self.hub.lock();
        let sent = &inner.sent[index];
        let etag = if world.chance(500) { format!("\"lock-{lock}\"") } else { format!("lock-{lock}") };
        let mut headers = vec![
            ("etag", etag),
            ("iothub-to", format!("/devices/{device}/messages/deviceBound")),
            ("iothub-sequencenumber", (index + 1).to_string()),
            ("iothub-enqueuedtime", sent.enqueued_at.to_string()),
            ("iothub-deliverycount", sent.given_back.to_string()),
            ("iothub-expiry", sent.message.expires_at().map(|at| at.to_string()).unwrap_or_default()),
        ];
        headers.extend(sent.message.id.clone().map(|id| ("iothub-messageid", id)));
        http::answer(200, &headers, &sent.message.body, world.chance(200))
    }

    fn on_settlement(&self, lock: u64, said: Said) {
        let lost = self.hub.faults.lost_acks;
        if self.strikes("https: a settlement is lost", lost / 2) {
            return self.wire.cut(End::Reset);
        }
        self.hub.expect_in_order(lock, self.wire.life, said);
        let is_told = self.hub.settle(lock, said);
        if self.strikes("https: the answer to a settlement is lost", lost / 2) {
            return self.wire.cut(End::Reset);
        }
        match is_told {
            true => self.answer(204, &[], b""),
            false if self.hub.world.chance(300) => self.fail(404, "DeviceMessageNotFound", &[]),
            false => self.fail(412, "DeviceMessageLockLost", &[]),
        }
    }

    fn on_event(&self, device: &str, request: &Request) {
        let lost = self.hub.faults.lost_acks;
        let event = Event {
            id: request.header("iothub-messageid").unwrap_or_default().to_owned(),
            correlation: request.header("iothub-correlationid").map(str::to_owned),
            body: String::from_utf8(request.body.clone()).expect("an event is UTF-8"),
        };
        self.hub.comes_by_https(device, &event);
        if self.strikes("https: an event is lost on its way", lost / 2) {
            return self.wire.cut(End::Reset);
        }
        if self.strikes("https: rejects an event", lost / 2) {
            return self.fail(400, "ArgumentInvalid", &[]);
        }
        self.hub.has_event(device, event);
        if self.strikes("https: the answer to an event is lost", lost / 2) {
            return self.wire.cut(End::Reset);
        }
        self.answer(204, &[], b"");
    }
}

impl Hub {
    /// Something is said of what is locked under this, by a life of the process: it was given to that one (G6), it is
    /// the oldest that this one has (G5).
    fn expect_in_order(&self, lock: u64, life: u64, said: Said) {
        let inner = self.lock();
        let Some(of) = inner.locks.get(&lock).filter(|of| of.life == life && of.is_read) else {
            return self.world.violate(format!("G6: {said:?} under {lock}, which this process does not have"));
        };
        let Message { device, hub, .. } = &inner.sent[of.index].message;
        // What another transport has left, or what was left at another hub, is settled by nobody any more.
        let holds = |number: u64, of: &super::Lock| {
            if of.over != Over::Https {
                return false;
            }
            let sent = &inner.sent[of.index];
            let is_locked = matches!(sent.state, State::Delivered(by, until) if by == number && until > Instant::now());
            is_locked
                && of.is_read
                && of.life == life
                && of.said.is_none()
                && (&sent.message.device, &sent.message.hub) == (device, hub)
        };
        let older = inner.locks.range(..lock).find(|(number, of)| holds(**number, of));
        if let Some((number, _)) = older.filter(|_| said != Said::Abandon) {
            self.world.violate(format!("G5: {device}: {said:?} under {lock} before the one under {number}"));
        }
    }
}
