//! A direct method, called: the request, and what the hub's answer to it means. A back end has methods by HTTPS only.
//!
//! Sources: "Understand and invoke direct methods from IoT Hub" (Microsoft), its REST reference for the service, and
//! what users of the hub show of its errors.
//!
//! Invariants
//! - A call is made once. Where nobody knows whether the device has it, that is said, and nothing is tried again.
//! - What does not come from the hub is never taken for a device's answer.

use std::time::Duration;

use serde_json::{json, Value as Json};
use tokio::time::timeout;

use super::connection::account;
use super::who::Who;
use super::{within, BackendError, Place};
use crate::complaint::said;
use crate::config::TransportKind;
use crate::hub::dial::Network;
use crate::hub::properties::percent_encoded;
use crate::hub::trouble::Trouble;
use crate::hub::way;
use crate::net::http::{Answer, Connection, Fault, Method, Request};

/// The times that the hub lets a device have.
pub const TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// See [`TIMEOUT_MIN`].
pub const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// The largest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// The version of the hub's interface.
const API_VERSION: &str = "2021-04-12";
/// How long the connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How much longer than the device the hub may take to answer.
const SLACK: Duration = Duration::from_secs(30);
/// Largest answer that is read: a payload, and what the hub makes of it.
const ANSWER_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;
/// How much of what the hub says is shown.
const SAID_BYTES_MAX: usize = 200;
/// The hub's number for a device that is not there.
const NOT_ONLINE: u64 = 404_103;

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Device id at the hub.
    pub device: String,
    /// The method: of a gateway's device, the command.
    pub method: String,
    /// What it is called with, if anything.
    pub payload: Option<Json>,
    /// How long the device may take: [`TIMEOUT_MIN`] to [`TIMEOUT_MAX`], in whole seconds.
    pub timeout: Duration,
}

/// What the device answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// What it means is between the device and its back end; a gateway's are like those of HTTP.
    pub status: i64,
    /// Null where it gave nothing.
    pub payload: Json,
}

impl Answered {
    /// As the hub passes it on.
    pub fn to_json(&self) -> Json {
        json!({ "status": self.status, "payload": self.payload })
    }

    /// Whether the device has done it, or is about to.
    pub fn is_success(&self) -> bool {
        matches!(self.status, 200 | 202)
    }
}

/// Why a call has no answer of the device's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was done.
    #[error(transparent)]
    Undone(#[from] BackendError),
    /// Nobody knows whether the device has done it.
    #[error("nobody knows whether the device has done it: {0}")]
    Unknown(String),
    /// The device has answered with what nobody can read.
    #[error("{0}")]
    Garbled(String),
}

impl Call {
    /// Whether the payload has an id by which a gateway knows the call again.
    pub fn has_id(&self) -> bool {
        self.payload.as_ref().is_some_and(|payload| payload.get("messageId").is_some_and(Json::is_string))
    }

    fn request(&self, host: &str, token: &str) -> Result<Request, BackendError> {
        let mut body = json!({ "methodName": self.method, "responseTimeoutInSeconds": self.timeout.as_secs() });
        if let Some(payload) = &self.payload {
            body["payload"] = payload.clone();
        }
        let target = format!("/twins/{}/methods?api-version={API_VERSION}", percent_encoded(&self.device));
        let request = Request::new(Method::POST, &target, host, body.to_string()).map_err(BackendError::Nobody)?;
        Ok(request.with("authorization", token).with("content-type", "application/json; charset=utf-8"))
    }

    /// What the answer to it means. Pure.
    fn judge(&self, answer: &Answer) -> Result<Answered, CallError> {
        if answer.is_page() || !answer.is_whole {
            return Err(CallError::Unknown(format!(
                "something else answers in the hub's place (HTTP {}); check the hub's name and `--address`",
                answer.status
            )));
        }
        let beside = Beside::read(answer);
        let device = said(&self.device, SAID_BYTES_MAX);
        match answer.status {
            200 => answered(&answer.body).ok_or_else(|| {
                CallError::Unknown("the answer is not what a hub says; check the hub's name and `--address`".into())
            }),
            404 if beside.number == Some(NOT_ONLINE) || beside.code == "DeviceNotOnline" => {
                Err(BackendError::Unreachable(format!(
                    "{device} is not connected, or does not take direct methods now, so nothing was done; a message waits for it: \
                     `fieldbridge send`"
                ))
                .into())
            }
            404 => {
                let why = format!("the hub has no device {device}{}; check its id, which has its case", beside.text);
                Err(BackendError::Refused(why).into())
            }
            401 | 403 | 408 | 429 | 503 => {
                Err(BackendError::from(Trouble::of_token(answer.status.into(), beside.bare())).into())
            }
            502 => Err(CallError::Garbled(format!("{device} has answered with what is no JSON, or too long"))),
            504 => Err(CallError::Unknown(format!("it did not answer within {} s", self.timeout.as_secs()))),
            500..=599 => Err(CallError::Unknown(format!("the hub answers with HTTP {}{}", answer.status, beside.text))),
            status => Err(BackendError::Refused(format!(
                "the hub does not take the call (HTTP {status}{}); check the method's name and its payload",
                beside.text
            ))
            .into()),
        }
    }
}

/// A device's answer, as the hub passes it on.
fn answered(body: &[u8]) -> Option<Answered> {
    let json: Json = serde_json::from_slice(body).ok()?;
    let status = json.get("status")?.as_i64()?;
    Some(Answered { status, payload: json.get("payload").cloned().unwrap_or_default() })
}

/// What the hub says beside a status.
struct Beside {
    number: Option<u64>,
    code: String,
    /// To follow it in a sentence.
    text: String,
}

impl Beside {
    fn read(answer: &Answer) -> Beside {
        let outer: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = outer.get("Message").and_then(Json::as_str).unwrap_or_default();
        // What the hub means stands as JSON in this text, or the text is it.
        let inner: Json = serde_json::from_str(message).unwrap_or_default();
        let told = inner.get("message").and_then(Json::as_str).unwrap_or(message);
        let told = said(told, SAID_BYTES_MAX);
        Beside {
            number: inner.get("errorCode").and_then(Json::as_u64),
            code: answer.header("iothub-errorcode").unwrap_or_default().to_owned(),
            text: if told.is_empty() { told } else { format!(": {told}") },
        }
    }

    fn bare(&self) -> String {
        self.text.trim_start_matches(": ").to_owned()
    }
}

/// Calls a device's method, and waits for its answer.
///
/// # Errors
/// Nothing was done; or nobody knows whether it was.
pub async fn call(who: &Who, place: &Place, call: &Call) -> Result<Answered, CallError> {
    let place = Place { transport: TransportKind::Https, ..place.clone() };
    let account = account(who.host(), &place)?;
    let request = call.request(who.host(), &who.proof().await?.token)?;
    let mut connection = within(CONNECT_LIMIT, async {
        let stream = way::open(&Network, &account).await?;
        Connection::over(stream).await.map_err(|fault| Trouble::from(fault).into())
    })
    .await?;
    let patience = call.timeout + SLACK;
    let asked = timeout(patience, connection.ask(&request, ANSWER_BYTES_MAX)).await;
    let unknown = |fault| match fault {
        Fault::Unanswered(why) | Fault::Cut(why) => CallError::Unknown(format!("the connection broke: {why}")),
        Fault::Garbled(why) => CallError::Unknown(format!("what answers is not HTTP: {why}; check `--address`")),
    };
    let slow = |_| CallError::Unknown(format!("the hub did not answer within {} s", patience.as_secs()));
    let answer = asked.map_err(slow)?.map_err(unknown)?;
    call.judge(&answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::{HeaderMap, HeaderValue};

    fn reset() -> Call {
        Call { device: "pump 7".into(), method: "reset".into(), payload: None, timeout: TIMEOUT_MIN }
    }

    fn judged(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Result<Answered, CallError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        reset().judge(&Answer { status, headers: map, body: body.to_owned().into(), is_whole: true })
    }

    #[test]
    fn a_call_is_asked_for_at_the_devices_twin() {
        let request = reset().request("h.example", "hush").unwrap();
        assert_eq!(request.target(), "/twins/pump%207/methods");
        assert!(!format!("{request:?}").contains("hush"));
    }

    #[test]
    fn an_answer_of_the_devices_is_passed_on_whatever_its_status() {
        let answered = judged(200, &[], r#"{"status":404,"payload":{"error":1}}"#).unwrap();
        assert_eq!((answered.status, answered.is_success()), (404, false));
        assert_eq!(judged(200, &[], r#"{"status":202}"#).unwrap(), Answered { status: 202, payload: Json::Null });
        assert!(matches!(judged(200, &[], "{}"), Err(CallError::Unknown(_))));
        let page = judged(200, &[("content-type", "text/html")], r#"{"status":200}"#);
        assert!(matches!(page, Err(CallError::Unknown(_))), "a portal's page is no answer");
    }

    #[test]
    fn what_was_not_done_is_told_from_what_nobody_knows() {
        let inner = |number: u32, text: &str| json!({"errorCode": number, "message": text}).to_string();
        let body = |number, text| json!({"Message": inner(number, text), "ExceptionMessage": ""}).to_string();
        let undone = |status, body: &str| match judged(status, &[], body) {
            Err(CallError::Undone(error)) => error,
            other => panic!("{status}: {other:?}"),
        };
        let away = undone(404, &body(404_103, "Timed out waiting for device to connect."));
        assert!(matches!(&away, BackendError::Unreachable(why) if why.contains("`fieldbridge send`")), "{away}");
        let nobody = undone(404, &body(404_001, "NotFound"));
        assert!(
            matches!(&nobody, BackendError::Refused(why) if why.contains("no device pump 7: NotFound")),
            "{nobody}"
        );
        let no = undone(401, r#"{"Message":"ErrorCode:IotHubUnauthorizedAccess;Unauthorized"}"#);
        assert!(matches!(&no, BackendError::Refused(why) if why.contains("ServiceConnect")), "{no}");
        assert!(matches!(undone(400, ""), BackendError::Refused(_)));
        assert!(matches!(undone(429, ""), BackendError::Unreachable(_)));
        assert!(matches!(judged(504, &[], &body(504_101, "x")), Err(CallError::Unknown(_))));
        assert!(matches!(judged(500, &[], ""), Err(CallError::Unknown(_))));
        assert!(matches!(judged(502, &[], ""), Err(CallError::Garbled(_))));
    }
}
