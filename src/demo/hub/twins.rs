//! What the back end asks for over HTTPS of a device: its twin, and direct methods.

use std::io;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH};
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::auth::{self, is_version};
use super::https::{busy, failed};
use super::method::{CallError, MethodCall, PAYLOAD_BYTES_MAX};
use super::side::Right;
use super::site::{empty, Answer, Site};
use super::state::{Now, State, Who};
use super::topic::percent_decode;
use super::twin::TwinError;
use super::wire::Wire;
use crate::time::until;

/// What stands around a payload in a request.
const AROUND_BYTES_MAX: usize = 4096;

/// What is asked for of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// A direct method.
    Method,
    /// Its twin.
    Get,
    /// To merge something into its twin, or to put it in the place of what is desired.
    Change { replaces: bool },
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Call::Method => "POST methods",
            Call::Get => "GET twin",
            Call::Change { replaces: false } => "PATCH twin",
            Call::Change { replaces: true } => "PUT twin",
        }
    }
}

/// The device that is asked for, and whether its methods are; `None`: the path is not of twins at all.
fn device(path: &str) -> Option<Result<(String, bool), StatusCode>> {
    let mut parts = path.trim_start_matches('/').split('/');
    parts.next().filter(|part| part.eq_ignore_ascii_case("twins"))?;
    let id = parts.next().and_then(percent_decode).filter(|id| !id.is_empty());
    let is_method = match (parts.next(), parts.next()) {
        (None, _) => Some(false),
        (Some(part), None) if part.eq_ignore_ascii_case("methods") => Some(true),
        _ => None,
    };
    Some(id.zip(is_method).ok_or(StatusCode::NOT_FOUND))
}

/// Whether a request is one that [`answer`] answers.
pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
    device(request.uri().path()).is_some()
}

/// Answers a request. An error is a connection that ends without an answer.
pub(super) async fn answer(site: &Site, request: Request<Incoming>) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let (device, call) = match understand(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default()) {
        Ok(asked) => asked,
        Err(status) => return Ok(failed(status, "ArgumentInvalid")),
    };
    let body = match Limited::new(body, PAYLOAD_BYTES_MAX + AROUND_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<hyper::Error>() => return Err(io::ErrorKind::InvalidData.into()),
        Err(_) => return Ok(told(&CallError::TooLarge(PAYLOAD_BYTES_MAX + AROUND_BYTES_MAX))),
    };
    until(Instant::now() + site.shared.with(|state| state.throttle)).await;
    let who = Who { device, connection: site.connection };
    if call != Call::Method {
        return Ok(site.shared.with(|state| {
            let answer = answer_twin(state, &who, call, &parts.headers, &body, Now::read());
            state.log(&who, Wire::Request { what: call.name().into(), status: answer.status().as_u16() });
            answer
        }));
    }
    let begun = site.shared.with(|state| match refuse(state, &parts.headers, Now::read()) {
        Some(refusal) => Err(Box::new(refusal)),
        None => {
            let call = MethodCall::parse(&body);
            let begun = call.and_then(|call| state.begin_call(&who.device, call, Now::read()));
            begun.map_err(|error| Box::new(told(&error)))
        }
    });
    let answer = match begun {
        Err(refusal) => *refusal,
        Ok(end) => match end.await.unwrap_or(Err(CallError::NoAnswer)) {
            Ok(answered) => with_json(StatusCode::OK, &answered.to_json()),
            Err(error) => told(&error),
        },
    };
    let status = answer.status().as_u16();
    site.shared.with(|state| state.log(&who, Wire::Request { what: call.name().into(), status }));
    Ok(answer)
}

/// Answers a request for a twin.
fn answer_twin(state: &mut State, who: &Who, call: Call, headers: &HeaderMap, body: &[u8], now: Now) -> Answer {
    if let Some(refusal) = refuse(state, headers, now) {
        return refusal;
    }
    let twin = match call {
        Call::Change { replaces } => {
            let etag = headers.get(IF_MATCH).and_then(|value| value.to_str().ok());
            let patch = serde_json::from_slice(body).map_err(|error| TwinError::Invalid(error.to_string()));
            patch.and_then(|patch: Json| state.update_twin(&who.device, &patch, (etag, replaces), now))
        }
        Call::Get | Call::Method => state.twin(&who.device),
    };
    match twin {
        Ok(twin) => {
            let mut answer = with_json(StatusCode::OK, &twin);
            let etag = format!("{}", twin["etag"]).parse().expect("letters and digits are good for a header");
            answer.headers_mut().insert(ETAG, etag);
            answer
        }
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).expect("a status of the table");
            failed(status, error.code())
        }
    }
}

fn understand(method: &Method, path: &str, query: &str) -> Result<(String, Call), StatusCode> {
    let (device, is_method) = device(path).unwrap_or(Err(StatusCode::NOT_FOUND))?;
    let has_version = query.split('&').filter_map(|pair| pair.strip_prefix("api-version=")).any(is_version);
    let call = match (method, is_method) {
        _ if !has_version => return Err(StatusCode::BAD_REQUEST),
        (&Method::POST, true) => Call::Method,
        (&Method::GET, false) => Call::Get,
        (&Method::PATCH, false) => Call::Change { replaces: false },
        (&Method::PUT, false) => Call::Change { replaces: true },
        _ => return Err(StatusCode::METHOD_NOT_ALLOWED),
    };
    Ok((device, call))
}

fn refuse(state: &State, headers: &HeaderMap, now: Now) -> Option<Answer> {
    if let Some(busy) = busy(state, now) {
        return Some(busy);
    }
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let shown = match token.starts_with("Bearer ") {
        true => state.admit_bearer(token),
        false => auth::check_policy(&state.policies, token, Right::Serve, &state.options, now.wall),
    };
    shown.is_err().then(|| failed(StatusCode::UNAUTHORIZED, "IotHubUnauthorizedAccess"))
}

fn told(error: &CallError) -> Answer {
    let status = StatusCode::from_u16(error.status()).expect("a status of the table");
    let mut answer = with_json(status, &error.body(Now::read().wall));
    answer.headers_mut().insert("iothub-errorcode", error.code().parse().expect("a word is good for a header"));
    answer
}

fn with_json(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = empty(status);
    *answer.body_mut() = Full::from(body.to_string());
    let kind = "application/json; charset=utf-8".parse().expect("it is good for a header");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_known_by_its_method_path_and_version() {
        let asked = |method, path: &str, query| understand(&method, path, query).map_err(|status| status.as_u16());
        let version = "api-version=2021-04-12";
        let of = |device: &str, call| Ok((device.to_owned(), call));
        assert_eq!(asked(Method::POST, "/twins/a%20b/methods", version), of("a b", Call::Method));
        assert_eq!(asked(Method::POST, "/Twins/d/Methods", version), of("d", Call::Method));
        assert_eq!(asked(Method::GET, "/twins/d", version), of("d", Call::Get));
        assert_eq!(asked(Method::PATCH, "/twins/d", version), of("d", Call::Change { replaces: false }));
        assert_eq!(asked(Method::PUT, "/twins/d", version), of("d", Call::Change { replaces: true }));
        assert_eq!(asked(Method::DELETE, "/twins/d", version), Err(405));
        assert_eq!(asked(Method::POST, "/twins/d/methods", ""), Err(400));
        assert_eq!(asked(Method::GET, "/twins/d/methods", version), Err(405));
        for wrong in ["/twins/", "/twins//methods", "/twins/d/modules/m", "/twins/d/methods/x", "/devices/d/methods"] {
            assert_eq!(asked(Method::POST, wrong, version), Err(404), "{wrong}");
        }
    }
}
