//! The device interface over HTTPS: one message a request, its lock token as ETag, and a request for each settlement.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    HeaderName, HeaderValue, AUTHORIZATION, CONNECTION, ETAG, IF_MATCH, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::auth::{is_version, Proof};
use super::message::Ack;
use super::queue::{LockToken, Queued};
use super::site::{empty, Answer, Site};
use super::state::{Now, Properties, State, Who, D2C_BYTES_MAX};
use super::topic::percent_decode;
use super::wire::{Effect, Settlement, Wire};
use super::{Fault, Options};
use crate::time::until;

/// System properties of telemetry: the header, and the name that they have over MQTT.
const SYSTEM: [(&str, &str); 7] = [
    ("iothub-messageid", "$.mid"),
    ("iothub-correlationid", "$.cid"),
    ("iothub-userid", "$.uid"),
    ("iothub-to", "$.to"),
    ("iothub-expiry", "$.exp"),
    ("iothub-contenttype", "$.ct"),
    ("iothub-contentencoding", "$.ce"),
];
const APPLICATION: &str = "iothub-app-";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Receive,
    Settle(String, Settlement),
    Event,
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    device: String,
    call: Call,
}

impl Asked {
    fn name(&self) -> String {
        let call = match &self.call {
            Call::Receive => "GET devicebound",
            Call::Settle(_, Settlement::Complete) => "DELETE devicebound",
            Call::Settle(_, Settlement::Reject) => "DELETE devicebound?reject",
            Call::Settle(_, Settlement::Abandon) => "POST devicebound/abandon",
            Call::Event => "POST events",
        };
        call.to_owned()
    }
}

fn understand(method: &Method, path: &str, query: &str) -> Result<Asked, StatusCode> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let is = |index: usize, word: &str| parts.get(index).is_some_and(|part| part.eq_ignore_ascii_case(word));
    if !is(0, "devices") || !is(2, "messages") || parts.len() < 4 {
        return Err(StatusCode::NOT_FOUND);
    }
    let device = percent_decode(parts[1]).ok_or(StatusCode::BAD_REQUEST)?;
    let names = || query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    if !names().any(|(name, value)| name == "api-version" && is_version(value)) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let lock = || percent_decode(parts[4]).ok_or(StatusCode::BAD_REQUEST);
    let is_reject = names().any(|(name, _)| name == "reject");
    let settlement = if is_reject { Settlement::Reject } else { Settlement::Complete };
    let call = match parts.len() {
        4 if is(3, "events") && method == Method::POST => Call::Event,
        4 if is(3, "devicebound") && method == Method::GET => Call::Receive,
        5 if is(3, "devicebound") && method == Method::DELETE => Call::Settle(lock()?, settlement),
        6 if is(3, "devicebound") && is(5, "abandon") && method == Method::POST => {
            Call::Settle(lock()?, Settlement::Abandon)
        }
        4 if is(3, "events") || is(3, "devicebound") => return Err(StatusCode::METHOD_NOT_ALLOWED),
        _ => return Err(StatusCode::NOT_FOUND),
    };
    Ok(Asked { device, call })
}

/// Answers a request. An error is a connection that ends without an answer.
pub(super) async fn answer(site: &Site, request: Request<Incoming>) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let asked = match understand(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(status) => return Ok(failed(status, "ArgumentInvalid")),
    };
    let body = match Limited::new(body, D2C_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<hyper::Error>() => return Err(io::ErrorKind::InvalidData.into()),
        Err(_) => return Ok(failed(StatusCode::PAYLOAD_TOO_LARGE, "MessageTooLarge")),
    };
    until(Instant::now() + site.shared.with(|state| state.throttle)).await;
    let who = Who { device: asked.device.clone(), connection: site.connection };
    site.shared.with(|state| {
        let answered = act(state, &who, &asked, &parts, &site.thumbprints, body, Now::read());
        let status = answered.as_ref().map_or(0, |answer| answer.status().as_u16());
        state.log(&who, Wire::Request { what: asked.name(), status });
        answered.ok_or(io::ErrorKind::ConnectionAborted.into())
    })
}

/// The answer, or none where a fault cuts the connection.
fn act(
    state: &mut State,
    who: &Who,
    asked: &Asked,
    parts: &Parts,
    thumbprints: &[String],
    body: Bytes,
    now: Now,
) -> Option<Answer> {
    if let Some(refusal) = refuse(state, who, &parts.headers, thumbprints, now) {
        return Some(refusal);
    }
    match &asked.call {
        Call::Receive => receive(state, who, now),
        Call::Settle(lock, settlement) => settle(state, who, lock, *settlement, &parts.headers, now),
        Call::Event => {
            let stored = state.store(who, 0, properties(&parts.headers), body.to_vec(), now);
            stored.then(|| empty(StatusCode::NO_CONTENT))
        }
    }
}

/// The answer to everything, while everything is refused.
pub(super) fn busy(state: &State, now: Now) -> Option<Answer> {
    let (_, code) = state.refusal.filter(|(until, _)| now.mono < *until)?;
    if code == 3 {
        return Some(failed(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"));
    }
    let mut answer = failed(StatusCode::TOO_MANY_REQUESTS, "ThrottlingException");
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    Some(answer)
}

fn refuse(state: &mut State, who: &Who, headers: &HeaderMap, thumbprints: &[String], now: Now) -> Option<Answer> {
    if let Some(busy) = busy(state, now) {
        return Some(busy);
    }
    let Some(device) = state.devices.get_mut(&who.device) else {
        return Some(failed(StatusCode::NOT_FOUND, "DeviceNotFound"));
    };
    let is_fault = device.take_fault(Fault::RefuseToken);
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_fault && state.admit(&who.device, &Proof { token, thumbprints }, now).is_ok() {
        return None;
    }
    let mut answer = failed(StatusCode::UNAUTHORIZED, "IotHubUnauthorizedAccess");
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("SharedAccessSignature"));
    Some(answer)
}

fn receive(state: &mut State, who: &Who, now: Now) -> Option<Answer> {
    let device = state.devices.get_mut(&who.device)?;
    device.is_kept = true;
    if !device.queue.has_free(now.mono) {
        return Some(empty(StatusCode::NO_CONTENT));
    } else if device.take_fault(Fault::CutBeforePublish) {
        return None;
    }
    let (lost, last) = (device.take_fault(Fault::CutInFrame), device.take_fault(Fault::CutAfterPublish));
    let (queued, token) = state.lock_next(who, now)?;
    if lost {
        return None;
    }
    let mut answer = delivery(&who.device, &queued, token, &state.options);
    if last {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Some(answer)
}

fn delivery(device: &str, queued: &Queued, token: LockToken, options: &Options) -> Answer {
    let message = &queued.message;
    let has_expiry = message.ttl.is_some() || options.bag.always_exp;
    let ack = (message.ack != Ack::None).then(|| message.ack.as_str().to_owned());
    let known = [
        ("iothub-messageid", message.message_id.clone()),
        ("iothub-correlationid", message.correlation_id.clone()),
        ("iothub-userid", message.user_id.clone()),
        ("iothub-to", Some(format!("/devices/{device}/messages/deviceBound"))),
        ("iothub-expiry", has_expiry.then(|| queued.expires.to_string())),
        ("iothub-ack", ack),
        ("iothub-contenttype", message.content_type.clone()),
        ("iothub-contentencoding", message.content_encoding.clone()),
        ("iothub-sequencenumber", Some(queued.seq.to_string())),
        ("iothub-enqueuedtime", Some(queued.enqueued.to_string())),
        ("iothub-deliverycount", Some(queued.deliveries.to_string())),
        (ETAG.as_str(), Some(if options.bare_etag { token.to_string() } else { format!("\"{token}\"") })),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let own = message.properties.iter();
    let own = own.map(|(name, value)| (format!("{APPLICATION}{name}"), value.clone().unwrap_or_default()));
    let mut answer = Answer::new(Full::from(message.body.clone()));
    for (name, value) in known.chain(own) {
        // What can't stand in a header is left out.
        let value = HeaderValue::from_bytes(value.as_bytes());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            answer.headers_mut().append(name, value);
        }
    }
    answer
}

fn settle(
    state: &mut State,
    who: &Who,
    lock: &str,
    settlement: Settlement,
    headers: &HeaderMap,
    now: Now,
) -> Option<Answer> {
    let lost = || failed(StatusCode::PRECONDITION_FAILED, "DeviceMessageLockLost");
    let matched = headers.get(IF_MATCH).and_then(|value| value.to_str().ok()).unwrap_or(lock);
    let Some(token) = LockToken::parse(lock) else { return Some(lost()) };
    let is_matched = matched == "*" || LockToken::parse(matched.trim_matches('"')) == Some(token);
    if !is_matched {
        return Some(lost());
    }
    let device = state.devices.get_mut(&who.device)?;
    let cut = device.take_fault(Fault::CutAfterSettlement);
    if device.take_fault(Fault::LoseSettlement) {
        state.log(who, Wire::Settled { seq: None, settlement, effect: Effect::Lost });
        return None;
    }
    let effect = state.dispose(who, token, settlement, now);
    let is_done = effect == Effect::from(settlement);
    (!cut).then(|| if is_done { empty(StatusCode::NO_CONTENT) } else { lost() })
}

/// The properties of telemetry, under the names that they have over MQTT. A header's name has no case.
fn properties(headers: &HeaderMap) -> Properties {
    let text = |value: &HeaderValue| Some(String::from_utf8_lossy(value.as_bytes()).into_owned());
    let known = SYSTEM.iter().filter_map(|(header, name)| Some(((*name).to_owned(), text(headers.get(*header)?))));
    let own = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(APPLICATION)?;
        Some((name.to_owned(), text(value)))
    });
    known.chain(own).collect()
}

/// An error, as the hub words it.
pub(super) fn failed(status: StatusCode, code: &str) -> Answer {
    let said = json!({
        "Message": format!("ErrorCode:{code};{}", status.canonical_reason().unwrap_or_default()),
        "ExceptionMessage": "",
    });
    let mut answer = empty(status);
    *answer.body_mut() = Full::from(said.to_string());
    answer.headers_mut().insert("iothub-errorcode", code.parse().expect("a word is good for a header"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "api-version=2021-04-12";

    #[test]
    fn every_call_is_known_by_its_method_and_path() {
        let call = |method, path: &str, query| understand(&method, path, query).map(|asked| asked.call);
        let token = "1f0c";
        let complete = Ok(Call::Settle(token.into(), Settlement::Complete));
        let reject = Ok(Call::Settle(token.into(), Settlement::Reject));
        let abandon = Ok(Call::Settle(token.into(), Settlement::Abandon));
        assert_eq!(call(Method::GET, "/devices/d/messages/deviceBound", VERSION), Ok(Call::Receive));
        assert_eq!(call(Method::POST, "/devices/d/messages/events", VERSION), Ok(Call::Event));
        assert_eq!(call(Method::DELETE, "/devices/d/messages/devicebound/1f0c", VERSION), complete);
        let rejecting = "api-version=2021-04-12&reject";
        assert_eq!(call(Method::DELETE, "/devices/d/messages/devicebound/1f0c", rejecting), reject);
        assert_eq!(call(Method::POST, "/devices/d/messages/devicebound/1f0c/abandon", VERSION), abandon);
    }

    #[test]
    fn what_is_no_call_has_its_status() {
        let status = |method, path: &str, query| understand(&method, path, query).unwrap_err().as_u16();
        assert_eq!(status(Method::GET, "/devices/d/messages/devicebound", ""), 400);
        assert_eq!(status(Method::GET, "/devices/d/messages/devicebound", "api-version=1"), 400);
        assert_eq!(status(Method::PUT, "/devices/d/messages/devicebound", VERSION), 405);
        assert_eq!(status(Method::GET, "/devices/d/messages", VERSION), 404);
        assert_eq!(status(Method::GET, "/", VERSION), 404);
        let asked = understand(&Method::GET, "/devices/a%20b/messages/devicebound", VERSION).unwrap();
        assert_eq!(asked.device, "a b");
    }
}
