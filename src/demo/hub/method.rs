//! Direct methods as the back end asks for them, and what becomes of them. No I/O.
//!
//! Names, limits and answers are those of the devguide's page on direct methods; the numbers of errors and their words
//! were seen in what users of the hub report.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{json, Value as Json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::time::Timestamp;

/// The largest payload of a call, and of its answer.
pub(super) const PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// Most calls under way.
pub(super) const CALLS_MAX: usize = 1024;
/// What no name of a method may hold, beside spaces and what is not printable ASCII.
const NAME_EXCLUDES: &str = "$()<>@,;:\\\"/[]?={}";
const TIMEOUT_MIN: Duration = Duration::from_secs(5);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// A direct method, called.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodCall {
    /// The method.
    pub name: String,
    /// What it is called with; `None` where the caller says nothing at all, not even null.
    pub payload: Option<Json>,
    /// How long the device may take. 5 s to 5 min for a back end; a test has any.
    pub response_timeout: Duration,
    /// How long a device may take to come that is not there: at most 5 min.
    pub connect_timeout: Duration,
}

impl MethodCall {
    /// A call as a back end makes it that says nothing of times: the device has to be there, and has 30 s.
    pub fn new(name: &str, payload: impl Into<Json>) -> Self {
        MethodCall {
            name: name.to_owned(),
            payload: Some(payload.into()),
            response_timeout: Duration::from_secs(30),
            connect_timeout: Duration::ZERO,
        }
    }

    /// How long the device may take.
    #[must_use]
    pub fn within(mut self, response_timeout: Duration) -> Self {
        self.response_timeout = response_timeout;
        self
    }

    /// How long the device may take to come.
    #[must_use]
    pub fn once_there_within(mut self, connect_timeout: Duration) -> Self {
        self.connect_timeout = connect_timeout;
        self
    }

    /// The payload as it goes to the device.
    pub(super) fn body(&self) -> Vec<u8> {
        self.payload.as_ref().map(Json::to_string).unwrap_or_default().into_bytes()
    }

    /// Whether it is one that the hub passes on.
    pub(super) fn check(&self) -> Result<(), CallError> {
        let is_fit = |byte: u8| byte.is_ascii_graphic() && !NAME_EXCLUDES.contains(char::from(byte));
        if self.name.is_empty() || !self.name.bytes().all(is_fit) {
            return Err(CallError::Invalid(format!("{:?} is no name of a method", self.name)));
        }
        match self.body().len() {
            bytes if bytes > PAYLOAD_BYTES_MAX => Err(CallError::TooLarge(bytes)),
            _ => Ok(()),
        }
    }

    /// The body of the REST call.
    pub(super) fn parse(body: &[u8]) -> Result<Self, CallError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Asked {
            method_name: String,
            #[serde(default)]
            response_timeout_in_seconds: Option<u64>,
            #[serde(default)]
            connect_timeout_in_seconds: Option<u64>,
            // Null is not the same as nothing.
            #[serde(default, deserialize_with = "present")]
            payload: Option<Json>,
        }
        fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Json>, D::Error> {
            Json::deserialize(from).map(Some)
        }
        let asked: Asked = serde_json::from_slice(body).map_err(|error| CallError::Invalid(error.to_string()))?;
        let response_timeout = asked.response_timeout_in_seconds.map_or(Duration::from_secs(30), Duration::from_secs);
        let connect_timeout = asked.connect_timeout_in_seconds.map_or(Duration::ZERO, Duration::from_secs);
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&response_timeout) {
            return Err(CallError::Invalid("responseTimeoutInSeconds is not between 5 and 300".into()));
        } else if connect_timeout > TIMEOUT_MAX {
            return Err(CallError::Invalid("connectTimeoutInSeconds is not between 0 and 300".into()));
        }
        Ok(MethodCall { name: asked.method_name, payload: asked.payload, response_timeout, connect_timeout })
    }
}

/// What a device answered.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodAnswer {
    /// What it means is between the device and its back end.
    pub status: i32,
    /// Null where the device gave nothing.
    pub payload: Json,
}

impl MethodAnswer {
    /// As the hub passes it on.
    pub fn to_json(&self) -> Json {
        json!({ "status": self.status, "payload": self.payload })
    }
}

/// Why a call has no answer of the device's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// What the back end asks for is not in order.
    #[error("{0}")]
    Invalid(String),
    /// The payload has so many bytes.
    #[error("the payload has {0} bytes and may have 131072")]
    TooLarge(usize),
    /// There is no such device.
    #[error("NotFound")]
    UnknownDevice,
    /// The device is not connected, or does not listen for methods.
    #[error("Timed out waiting for device to connect.")]
    NotOnline,
    /// It has not answered in time.
    #[error("Timed out waiting for the response from device.")]
    NoAnswer,
    /// It has answered with what is no JSON, or too long.
    #[error("The device has answered with what is no JSON, or too long.")]
    BadAnswer,
    /// Too many calls are under way.
    #[error("too many calls are under way")]
    TooMany,
}

impl CallError {
    /// The status of the REST call.
    pub fn status(&self) -> u16 {
        match self {
            CallError::Invalid(_) => 400,
            CallError::UnknownDevice | CallError::NotOnline => 404,
            CallError::TooLarge(_) => 413,
            CallError::TooMany => 429,
            CallError::BadAnswer => 502,
            CallError::NoAnswer => 504,
        }
    }

    /// The hub's number for it, where one was seen.
    pub fn number(&self) -> Option<u32> {
        match self {
            CallError::UnknownDevice => Some(404_001),
            CallError::NotOnline => Some(404_103),
            CallError::NoAnswer => Some(504_101),
            _ => None,
        }
    }

    /// The word in the header `iothub-errorcode`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            CallError::Invalid(_) => "ArgumentInvalid",
            CallError::TooLarge(_) => "RequestEntityTooLarge",
            CallError::UnknownDevice => "DeviceNotFound",
            CallError::NotOnline => "DeviceNotOnline",
            CallError::NoAnswer => "GatewayTimeout",
            CallError::BadAnswer => "BadDeviceResponse",
            CallError::TooMany => "ThrottlingException",
        }
    }

    /// The body of the answer to the REST call: what the hub means stands as JSON in a text.
    pub(super) fn body(&self, now: Timestamp) -> Json {
        let message = match self.number() {
            Some(number) => {
                let tracking = format!("{:016x}-G:0-TimeStamp:{now}", fastrand::u64(..));
                let (said, at) = (self.to_string(), now.to_string());
                json!({"errorCode": number, "trackingId": tracking, "message": said, "info": {}, "timestampUtc": at})
                    .to_string()
            }
            None => format!("ErrorCode:{};{self}", self.code()),
        };
        json!({ "Message": message, "ExceptionMessage": "" })
    }
}

/// How a call ends.
pub type Answered = Result<MethodAnswer, CallError>;

/// The calls under way, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub(super) pending: BTreeMap<u64, Pending>,
    pub(super) last: u64,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) device: String,
    pub(super) call: MethodCall,
    /// Until when the device has to come, or once it has the call, to answer.
    pub(super) until: Instant,
    /// The connection that it went over, and its number there.
    pub(super) sent: Option<(u64, u64)>,
    pub(super) reply: oneshot::Sender<Answered>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &Json) -> Result<MethodCall, CallError> {
        MethodCall::parse(body.to_string().as_bytes()).and_then(|call| call.check().map(|()| call))
    }

    #[test]
    fn what_the_back_end_leaves_out_is_as_documented() {
        let call = parse(&json!({"methodName": "reset"})).unwrap();
        assert_eq!((call.payload, call.response_timeout.as_secs(), call.connect_timeout.as_secs()), (None, 30, 0));
        let all = json!({"methodName": "set-speed", "responseTimeoutInSeconds": 5, "connectTimeoutInSeconds": 300,
            "payload": null});
        let call = parse(&all).unwrap();
        assert_eq!(call.body(), b"null");
        assert_eq!((call.response_timeout.as_secs(), call.connect_timeout.as_secs()), (5, 300));
    }

    #[test]
    fn names_times_and_payloads_have_their_limits() {
        let named = |name: &str| parse(&json!({ "methodName": name })).map_err(|error| error.status());
        assert!(named("set-speed_2.x").is_ok());
        for wrong in ["", "set speed", "a/b", "a?b", "ü", "a$", "a\n"] {
            assert_eq!(named(wrong), Err(400), "{wrong:?}");
        }
        for (key, value) in [("responseTimeoutInSeconds", 4), ("responseTimeoutInSeconds", 301)] {
            assert_eq!(parse(&json!({"methodName": "m", key: value})).unwrap_err().status(), 400);
        }
        assert_eq!(parse(&json!({"methodName": "m", "connectTimeoutInSeconds": 301})).unwrap_err().status(), 400);
        assert_eq!(parse(&json!({"payload": 1})).unwrap_err().status(), 400);
        let long = json!({"methodName": "m", "payload": "x".repeat(PAYLOAD_BYTES_MAX)});
        assert_eq!(parse(&long), Err(CallError::TooLarge(PAYLOAD_BYTES_MAX + 2)));
    }

    #[test]
    fn an_error_says_what_the_hub_says() {
        let body = CallError::NotOnline.body(Timestamp(0));
        let inner: Json = serde_json::from_str(body["Message"].as_str().unwrap()).unwrap();
        assert_eq!(inner["errorCode"], 404_103);
        assert_eq!(inner["message"], "Timed out waiting for device to connect.");
        let body = CallError::Invalid("no".into()).body(Timestamp(0));
        assert_eq!(body["Message"], "ErrorCode:ArgumentInvalid;no");
    }
}
