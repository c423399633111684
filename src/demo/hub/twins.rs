//! What the back end asks for over HTTPS of a device's twin: of all that only direct methods.

use std::io;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::time::Instant;

use super::auth::{self, is_version};
use super::https::{busy, failed};
use super::method::{CallError, MethodCall, PAYLOAD_BYTES_MAX};
use super::side::Right;
use super::site::{empty, Answer, Site};
use super::state::{Now, State, Who};
use super::topic::percent_decode;
use super::wire::Wire;
use crate::time::until;

/// What stands around a payload in a request.
const AROUND_BYTES_MAX: usize = 4096;

/// The device whose methods are asked for; `None`: the path is not of twins at all.
fn device(path: &str) -> Option<Result<String, StatusCode>> {
    let mut parts = path.trim_start_matches('/').split('/');
    parts.next().filter(|part| part.eq_ignore_ascii_case("twins"))?;
    let id = parts.next().and_then(percent_decode).filter(|id| !id.is_empty());
    let is_method = parts.next().is_some_and(|part| part.eq_ignore_ascii_case("methods")) && parts.next().is_none();
    Some(id.filter(|_| is_method).ok_or(StatusCode::NOT_FOUND))
}

/// Whether a request is one that [`answer`] answers.
pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
    device(request.uri().path()).is_some()
}

/// Answers a request. An error is a connection that ends without an answer.
pub(super) async fn answer(site: &Site, request: Request<Incoming>) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let device = match understand(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default()) {
        Ok(device) => device,
        Err(status) => return Ok(failed(status, "ArgumentInvalid")),
    };
    let body = match Limited::new(body, PAYLOAD_BYTES_MAX + AROUND_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<hyper::Error>() => return Err(io::ErrorKind::InvalidData.into()),
        Err(_) => return Ok(told(&CallError::TooLarge(PAYLOAD_BYTES_MAX + AROUND_BYTES_MAX))),
    };
    until(Instant::now() + site.shared.with(|state| state.throttle)).await;
    let who = Who { device, connection: site.connection };
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
    site.shared.with(|state| state.log(&who, Wire::Request { what: "POST methods".into(), status }));
    Ok(answer)
}

fn understand(method: &Method, path: &str, query: &str) -> Result<String, StatusCode> {
    let device = device(path).unwrap_or(Err(StatusCode::NOT_FOUND))?;
    let has_version = query.split('&').filter_map(|pair| pair.strip_prefix("api-version=")).any(is_version);
    match (method, has_version) {
        (_, false) => Err(StatusCode::BAD_REQUEST),
        (&Method::POST, true) => Ok(device),
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
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
        assert_eq!(asked(Method::POST, "/twins/a%20b/methods", version), Ok("a b".to_owned()));
        assert_eq!(asked(Method::POST, "/Twins/d/Methods", version), Ok("d".to_owned()));
        assert_eq!(asked(Method::POST, "/twins/d/methods", ""), Err(400));
        assert_eq!(asked(Method::GET, "/twins/d/methods", version), Err(405));
        for wrong in ["/twins/d", "/twins//methods", "/twins/d/methods/x", "/devices/d/methods"] {
            assert_eq!(asked(Method::POST, wrong, version), Err(404), "{wrong}");
        }
    }
}
