//! Direct methods on their way: a call waits for its device, then for the answer. No I/O; the time is an argument.
//!
//! - Nothing is queued for a device that is away beyond the caller's own patience, and nothing comes twice.
//! - Over MQTT a device listens once it has subscribed on its present connection. Whether a subscription of an earlier
//!   one would do is not known; a client that asks for it each time is right either way.
//! - Requests are numbered anew on each connection: the worst case, since a stale answer hits another call.
//! - A device that leaves with a call answers it no more, and the caller waits his time out. What the hub says then is
//!   not known.
//! - An answer to a call that is over, or that went over another connection, is passed over.

use std::future::Future;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::oneshot;

use super::method::{Answered, CallError, MethodAnswer, MethodCall, Pending, CALLS_MAX, PAYLOAD_BYTES_MAX};
use super::options::Fault;
use super::state::{Now, State, Who};
use super::wire::Wire;
use super::SimHub;

impl State {
    /// Begins a call. Its end comes through what is given back.
    ///
    /// # Errors
    /// The hub does not take the call, or the device is not there and the caller has no patience.
    pub fn begin_call(
        &mut self,
        id: &str,
        call: MethodCall,
        now: Now,
    ) -> Result<oneshot::Receiver<Answered>, CallError> {
        call.check()?;
        let device = self.devices.get(id).ok_or(CallError::UnknownDevice)?;
        if !device.hears_methods() && call.connect_timeout == Duration::ZERO {
            return Err(CallError::NotOnline);
        } else if self.calls.pending.len() >= CALLS_MAX {
            return Err(CallError::TooMany);
        }
        let patience = if device.hears_methods() { call.response_timeout } else { call.connect_timeout };
        let until = now.mono + patience;
        let (reply, end) = oneshot::channel();
        self.calls.last += 1;
        let pending = Pending { device: id.to_owned(), call, until, sent: None, reply };
        self.calls.pending.insert(self.calls.last, pending);
        self.wake(id);
        Ok(end)
    }

    /// The next call for a device, with its number on this connection.
    pub fn next_call(&mut self, who: &Who, now: Now) -> Option<(u64, MethodCall)> {
        let pending = self.calls.pending.values_mut();
        let mut waiting = pending.filter(|pending| pending.device == who.device && pending.sent.is_none());
        let next = waiting.next()?;
        let number = self.devices.get_mut(&who.device)?.number_call();
        next.sent = Some((who.connection, number));
        next.until = now.mono + next.call.response_timeout;
        let call = next.call.clone();
        self.log(who, Wire::Called { request: number, method: call.name.clone() });
        Some((number, call))
    }

    /// Whether a device has calls that it was not told of.
    pub fn has_call(&self, id: &str) -> bool {
        self.calls.pending.values().any(|pending| pending.device == id && pending.sent.is_none())
    }

    /// A device's answer to a call.
    pub fn answer_call(&mut self, who: &Who, number: Option<u64>, status: i32, body: &[u8]) {
        let sent = number.map(|number| (who.connection, number));
        let is_meant = |pending: &Pending| {
            let is_sent = pending.sent.is_some() && pending.sent == sent;
            pending.device == who.device && is_sent && !pending.reply.is_closed()
        };
        let found = self.calls.pending.iter().find(|(_, pending)| is_meant(pending)).map(|(key, _)| *key);
        self.log(who, Wire::Answered { request: number, status, known: found.is_some() });
        let (Some(key), Some(device)) = (found, self.devices.get_mut(&who.device)) else { return };
        if device.take_fault(Fault::LoseMethodAnswer) {
            return;
        }
        let Some(pending) = self.calls.pending.remove(&key) else { return };
        let payload = match body {
            [] => Ok(Json::Null),
            body if body.len() > PAYLOAD_BYTES_MAX => Err(CallError::BadAnswer),
            body => serde_json::from_slice(body).map_err(|_| CallError::BadAnswer),
        };
        // A caller that has gone away hears nothing.
        let _ = pending.reply.send(payload.map(|payload| MethodAnswer { status, payload }));
    }

    /// Ends the calls whose time is over, and forgets those whose caller has gone.
    pub fn end_calls(&mut self, now: Now) {
        let is_over = |pending: &Pending| pending.until <= now.mono || pending.reply.is_closed();
        let over: Vec<u64> = self.calls.pending.iter().filter(|(_, p)| is_over(p)).map(|(key, _)| *key).collect();
        for pending in over.into_iter().filter_map(|key| self.calls.pending.remove(&key)) {
            let why = if pending.sent.is_some() { CallError::NoAnswer } else { CallError::NotOnline };
            let _ = pending.reply.send(Err(why));
        }
    }
}

impl SimHub {
    /// Calls a direct method of a device's, and waits for the answer.
    ///
    /// # Errors
    /// The device has not answered, or the hub does not take the call.
    pub async fn call(&self, device: &str, call: MethodCall) -> Result<MethodAnswer, CallError> {
        self.calling(device, call).await
    }

    /// The same for who waits elsewhere: the call is made when this returns.
    ///
    /// # Errors
    /// The same, once it is waited for.
    pub fn calling(&self, device: &str, call: MethodCall) -> impl Future<Output = Answered> + Send + 'static {
        let begun = self.shared.with(|state| state.begin_call(device, call, Now::read()));
        // A hub that stops answers nobody.
        async move { begun?.await.unwrap_or(Err(CallError::NoAnswer)) }
    }

    /// Whether a device is connected and listens for direct methods.
    pub fn hears_methods(&self, device: &str) -> bool {
        self.look(|state| state.devices.get(device).is_some_and(|device| device.hears_methods()))
    }
}
