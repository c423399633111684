//! The hub's rules for AMQP connections: whose tokens count on them, and which link has a device's messages. No I/O.
//!
//! - A device has one link to its messages. A second one, on whichever connection, ends the first.
//! - A token ends alone: the other devices of its connection go on.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use crate::demo::hub::auth::{self, Proof};
use crate::demo::hub::device::{Line, Receiver};
use crate::demo::hub::method::MethodCall;
use crate::demo::hub::side::{Order, Right, Which};
use crate::demo::hub::state::{Now, State, Who};
use crate::demo::hub::topic::percent_decode;
use crate::demo::hub::wire::{End, Wire};
use crate::demo::hub::{Cut, Fault};
use crate::time::Timestamp;

/// Most identities on a connection.
const TOKENS_MAX: usize = 999;

/// What a token leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::demo::hub) enum Shown {
    /// A status.
    Answered(u16),
    /// Nothing, by a fault.
    Ignored,
    /// The end of the connection, by a fault.
    Cut,
}

/// What a token is for.
enum Holder<'a> {
    Service(Right),
    Device(String, &'a str),
}

fn holder(token: &str) -> Option<Holder<'_>> {
    let fields = token.strip_prefix("SharedAccessSignature ")?;
    let resource = fields.split('&').find_map(|pair| pair.strip_prefix("sr="))?;
    let audience = percent_decode(resource)?;
    match audience.split_once("/devices/") {
        Some((_, device)) => Some(Holder::Device(device.to_owned(), token)),
        None if audience.contains("://") => Some(Holder::Service(Right::Read)),
        None => Some(Holder::Service(Right::Serve)),
    }
}

impl State {
    pub fn begin_amqp(&mut self, connection: u64) -> Arc<Line> {
        let side = self.sides.entry(connection).or_default();
        side.line.clone()
    }

    /// Forgets a connection. What was on its way over it is free again, unless locks outlive their connection.
    pub fn end_amqp(&mut self, connection: u64, end: &End, cut: Cut) {
        let Some(side) = self.sides.remove(&connection) else { return };
        side.line.reset.store(cut == Cut::Reset, Ordering::Relaxed);
        side.line.cut.cancel();
        let keeps = self.options.lock_outlives_connection;
        let mut over = Vec::new();
        for (id, device) in &mut self.devices {
            if device.receiver.as_ref().is_some_and(|receiver| receiver.connection == connection) {
                device.receiver = None;
                over.push(id.clone());
            }
            device.method_link.take_if(|link| link.connection == connection);
            if !keeps {
                device.queue.unlock(connection);
            }
        }
        self.unlock_feedback(connection);
        if over.is_empty() {
            over.push(String::new());
        }
        for device in over {
            self.log(&Who { device, connection }, Wire::Closed { end: end.clone() });
        }
    }

    /// What a token that was shown leads to.
    pub fn show_token(&mut self, connection: u64, token: &str, now: Now) -> Shown {
        let who = |device: &str| Who { device: device.to_owned(), connection };
        if let Some((_, code)) = self.refusal.filter(|(until, _)| now.mono < *until) {
            let status = if code == 5 { 401 } else { 503 };
            self.log(&who(""), Wire::Token { status, reason: "everything is refused for a while".into() });
            return Shown::Answered(status);
        }
        let mut right = Right::Serve;
        let (device, verdict) = match holder(token) {
            Some(Holder::Device(device, token)) => {
                if let Some(state) = self.devices.get_mut(&device) {
                    if state.take_fault(Fault::CutBeforeConnack) {
                        return Shown::Cut;
                    } else if state.take_fault(Fault::IgnoreToken) {
                        return Shown::Ignored;
                    }
                }
                let verdict = self.admit_token(connection, &device, token, now);
                (device, verdict)
            }
            Some(Holder::Service(asked)) => {
                right = asked;
                let verdict = auth::check_policy(&self.policies, token, asked, &self.options, now.wall);
                (String::new(), verdict)
            }
            None => (String::new(), self.admit_bearer(token)),
        };
        let (status, reason) = match verdict {
            Ok(expires) => {
                let side = self.sides.entry(connection).or_default();
                if device.is_empty() {
                    side.rights.insert(right, expires);
                } else {
                    side.tokens.insert(device.clone(), expires);
                }
                (200, String::new())
            }
            Err(reason) => (401, reason),
        };
        self.log(&who(&device), Wire::Token { status, reason });
        Shown::Answered(status)
    }

    fn admit_token(&mut self, connection: u64, id: &str, token: &str, now: Now) -> Result<Timestamp, String> {
        if self.devices.get_mut(id).is_some_and(|device| device.take_fault(Fault::RefuseToken)) {
            return Err("a fault".into());
        }
        let side = self.sides.entry(connection).or_default();
        if side.tokens.len() >= TOKENS_MAX && !side.tokens.contains_key(id) {
            return Err("too many tokens on this connection".into());
        }
        let expires = self.admit(id, &Proof { token, thumbprints: &[] }, now)?;
        expires.ok_or_else(|| "a token of a device with a certificate".into())
    }

    /// Whether a bearer token counts for the back end.
    pub fn admit_bearer(&self, token: &str) -> Result<Timestamp, String> {
        let shown = token.strip_prefix("Bearer ").ok_or("no token")?;
        let known = self.options.bearer.as_deref();
        known.filter(|known| *known == shown).map(|_| Timestamp(i64::MAX)).ok_or_else(|| "an unknown bearer".into())
    }

    /// Credentials shown in SASL: `{device}@sas.{hub}` or `{policy}@sas.root.{hub}`, and a token.
    pub fn show_plain(&mut self, connection: u64, user: &str, token: &str, now: Now) -> bool {
        let name = self.options.host.split('.').next().unwrap_or_default().to_owned();
        let root = format!("@sas.root.{name}");
        let named = match holder(token) {
            Some(Holder::Service(Right::Serve)) => user.ends_with(&root),
            Some(Holder::Service(Right::Read)) => false,
            Some(Holder::Device(device, _)) => user == format!("{device}@sas.{name}"),
            None => false,
        };
        named && self.show_token(connection, token, now) == Shown::Answered(200)
    }

    /// Whether a connection may have a device's links.
    pub fn may_be(&self, connection: u64, device: &str, thumbprints: &[String], now: Now) -> bool {
        let is_enabled = self.devices.get(device).is_some_and(|device| device.enabled);
        let side = self.sides.get(&connection);
        let has_token = side.and_then(|side| side.tokens.get(device)).is_some_and(|at| !self.is_over(*at, now));
        is_enabled && (has_token || self.admit(device, &Proof { token: "", thumbprints }, now).is_ok())
    }

    /// Whether a connection may have links of the back end's.
    pub fn may(&self, right: Right, connection: u64, now: Now) -> bool {
        let expires = self.sides.get(&connection).and_then(|side| side.rights.get(&right));
        expires.is_some_and(|at| !self.is_over(*at, now))
    }

    fn is_over(&self, expires: Timestamp, now: Now) -> bool {
        expires.plus(self.options.token_grace) <= now.wall
    }

    /// Takes out the devices whose tokens are over, and the back end's rights that are.
    pub fn take_expired(&mut self, connection: u64, now: Now) -> (Vec<String>, Vec<Right>) {
        let grace = self.options.token_grace;
        let is_over = |at: &Timestamp| at.plus(grace) <= now.wall;
        let Some(side) = self.sides.get_mut(&connection) else { return (vec![], vec![]) };
        if !std::mem::take(&mut side.has_expired) {
            return (vec![], vec![]);
        }
        let over: Vec<String> = side.tokens.iter().filter(|(_, at)| is_over(at)).map(|(id, _)| id.clone()).collect();
        side.tokens.retain(|_, at| !is_over(at));
        let rights: Vec<Right> = side.rights.iter().filter(|(_, at)| is_over(at)).map(|(right, _)| *right).collect();
        side.rights.retain(|_, at| !is_over(at));
        (over, rights)
    }

    /// Wakes the connections on which a token is over.
    pub fn tick_amqp(&mut self, now: Now) {
        let grace = self.options.token_grace;
        for side in self.sides.values_mut() {
            let mut all = side.tokens.values().chain(side.rights.values());
            if all.any(|at| at.plus(grace) <= now.wall) {
                side.has_expired = true;
                side.line.wake.notify_one();
            }
        }
    }

    /// Gives a device's messages to a link. Whoever had them is told that they were taken away.
    pub fn attach_receiver(&mut self, who: &Who, link: u64, now: Now) {
        self.end(&who.device, End::Kicked, Cut::Fin, now);
        let Some(side) = self.sides.get(&who.connection) else { return };
        let line = side.line.clone();
        let Some(device) = self.devices.get_mut(&who.device) else { return };
        device.is_kept = true;
        device.receiver = Some(Receiver { connection: who.connection, link, line });
    }

    /// Whether a link is the one that a device's messages go to.
    pub fn is_receiver(&self, who: &Who, link: u64) -> bool {
        let receiver = self.devices.get(&who.device).and_then(|device| device.receiver.as_ref());
        receiver.is_some_and(|receiver| receiver.connection == who.connection && receiver.link == link)
    }

    /// A link to a device's messages is gone.
    pub fn detach_receiver(&mut self, who: &Who, link: u64) {
        let keeps = self.options.lock_outlives_connection;
        if !self.is_receiver(who, link) {
            return;
        }
        let Some(device) = self.devices.get_mut(&who.device) else { return };
        device.receiver = None;
        if !keeps {
            device.queue.unlock(who.connection);
        }
    }

    /// Gives a device's direct methods to a link. One that had them before gets no more.
    pub fn attach_methods(&mut self, who: &Who, link: u64) {
        let Some(side) = self.sides.get(&who.connection) else { return };
        let line = side.line.clone();
        let Some(device) = self.devices.get_mut(&who.device) else { return };
        device.method_link = Some(Receiver { connection: who.connection, link, line });
    }

    /// A link to a device's direct methods is gone.
    pub fn detach_methods(&mut self, who: &Who, link: u64) {
        let Some(device) = self.devices.get_mut(&who.device) else { return };
        device.method_link.take_if(|own| own.connection == who.connection && own.link == link);
    }

    /// The next call for a device, if it goes over this link, with its number on the connection.
    pub fn next_amqp_call(&mut self, who: &Who, link: u64, now: Now) -> Option<(u64, MethodCall)> {
        let own = self.devices.get(&who.device)?.method_link.as_ref()?;
        let is_own = own.connection == who.connection && own.link == link;
        is_own.then(|| self.next_call(who, now)).flatten()
    }

    /// Has a device's link detached, with a condition, and says whether there was one.
    pub fn order_detach(&mut self, id: &str, condition: &str) -> bool {
        let Some(receiver) = self.devices.get_mut(id).and_then(|device| device.receiver.take()) else { return false };
        let keeps = self.options.lock_outlives_connection;
        if let Some(device) = self.devices.get_mut(id).filter(|_| !keeps) {
            device.queue.unlock(receiver.connection);
        }
        if let Some(side) = self.sides.get_mut(&receiver.connection) {
            side.orders.push_back(Order { which: Which::Link(receiver.link), condition: condition.to_owned() });
            side.line.wake.notify_one();
        }
        true
    }

    /// Has the links of all connections detached that have this address, with a condition.
    pub fn order_detach_of(&mut self, address: &str, condition: &str) {
        for side in self.sides.values_mut() {
            let which = Which::Address(address.to_owned());
            side.orders.push_back(Order { which, condition: condition.to_owned() });
            side.line.wake.notify_one();
        }
    }
}
