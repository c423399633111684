//! The provisioning service over HTTPS.

use std::io;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};

use super::{Asked, Reply};
use crate::demo::hub::auth::Proof;
use crate::demo::hub::site::{empty, Answer, Site};
use crate::demo::hub::state::{Now, Who};
use crate::demo::hub::topic::percent_decode;
use crate::demo::hub::wire::Wire;

/// What a registration is called in the wire log, over either protocol.
pub(super) const REGISTER: &str = "PUT register";
pub(super) const LOOK: &str = "GET operation";
/// Most bytes that a registration says of itself.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// `/{idScope}/registrations/{registrationId}/register` or `…/operations/{operationId}`: scope, id, what is asked.
fn understand(method: &Method, path: &str) -> Option<(String, String, Asked)> {
    let parts: Option<Vec<String>> = path.trim_start_matches('/').split('/').map(percent_decode).collect();
    let parts = parts?;
    let asked = match (parts.get(3)?.as_str(), parts.len()) {
        ("register", 4) if method == Method::PUT => Asked::Register,
        ("operations", 5) if method == Method::GET => Asked::Look { operation: parts[4].clone() },
        _ => return None,
    };
    (parts[1] == "registrations").then(|| (parts[0].clone(), parts[2].clone(), asked))
}

/// Whether a request is for this service, and not for the hub.
pub(in crate::demo::hub) fn is_meant(request: &Request<Incoming>) -> bool {
    request.uri().path().split('/').nth(2) == Some("registrations")
}

/// Answers a request. An error is a connection that ends without an answer.
pub(in crate::demo::hub) async fn answer(site: &Site, request: Request<Incoming>) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let Some((scope, id, asked)) = understand(&parts.method, parts.uri.path()) else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    let has_version = parts.uri.query().unwrap_or_default().split('&').any(|pair| pair.starts_with("api-version=20"));
    if Limited::new(body, BODY_BYTES_MAX).collect().await.is_err() || !has_version {
        return Ok(empty(StatusCode::BAD_REQUEST));
    }
    let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let proof = Proof { token, thumbprints: &site.thumbprints };
    let who = Who { device: id.clone(), connection: site.connection };
    let reply = site.shared.with(|state| {
        let reply = match state.knows_registrant(&scope, &id, &proof, Now::read()) {
            Ok(()) => state.provision(&id, &asked),
            Err(why) => {
                state.log(&who, Wire::Refused { code: 5, reason: why });
                Reply::failed(401, 401_002, "Unauthorized")
            }
        };
        let what = if asked == Asked::Register { REGISTER } else { LOOK };
        state.log(&who, Wire::Request { what: what.to_owned(), status: reply.status });
        reply
    });
    let mut answer = empty(StatusCode::from_u16(reply.status).expect("it is one of HTTP's"));
    *answer.body_mut() = Full::from(reply.body.to_string());
    answer.headers_mut().insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().expect("it is text"));
    if let Some(seconds) = reply.retry_after {
        answer.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_known_by_its_method_and_path() {
        let is = |method, path: &str| understand(&method, path);
        let own = |text: &str| text.to_owned();
        let look = Asked::Look { operation: own("5.1") };
        assert_eq!(
            is(Method::PUT, "/0ne1/registrations/a%3Ab/register"),
            Some((own("0ne1"), own("a:b"), Asked::Register))
        );
        assert_eq!(is(Method::GET, "/0ne1/registrations/a/operations/5.1"), Some((own("0ne1"), own("a"), look)));
        for (method, path) in [
            (Method::GET, "/0ne1/registrations/a/register"),
            (Method::PUT, "/0ne1/registrations/a"),
            (Method::PUT, "/0ne1/devices/a/register"),
            (Method::GET, "/0ne1/registrations/a/operations"),
        ] {
            assert_eq!(is(method, path), None, "{path}");
        }
    }
}
