//! What the back end sends: messages to devices, each addressed by itself.

use std::time::Duration;

use super::message::{id_text, Received};
use crate::demo::hub::message::{Ack, C2d, SendError};
use crate::demo::hub::state::{Now, State};
use crate::demo::hub::topic::percent_decode;

/// Sends a message on, or gives the condition and the description with which it is rejected.
pub(super) fn send(state: &mut State, received: &Received, now: Now) -> Result<(), (&'static str, String)> {
    let to = received.properties.to.as_deref().unwrap_or_default();
    let device = addressee(to).ok_or_else(|| argument(format!("ErrorCode:ArgumentInvalid;to is {to:?}")))?;
    let message = message(received, now).map_err(argument)?;
    state.send(&device, message, now).map(drop).map_err(|error| {
        let (condition, code) = match error {
            SendError::UnknownDevice => ("amqp:not-found", "404001;ErrorCode:DeviceNotFound"),
            SendError::QueueFull => {
                ("amqp:resource-limit-exceeded", "403004;ErrorCode:DeviceMaximumQueueDepthExceeded")
            }
            SendError::TooLarge(_) => ("amqp:link:message-size-exceeded", "413001;ErrorCode:MessageTooLarge"),
            SendError::TtlTooLong | SendError::TopicTooLong => {
                ("com.microsoft:argument-error", "400004;ErrorCode:ArgumentInvalid")
            }
        };
        (condition, format!("{code};{error}"))
    })
}

fn argument(why: String) -> (&'static str, String) {
    ("com.microsoft:argument-error", why)
}

/// The device in `/devices/{id}/messages/devicebound`.
fn addressee(to: &str) -> Option<String> {
    let (id, rest) = to.trim_start_matches('/').strip_prefix("devices/")?.split_once('/')?;
    rest.eq_ignore_ascii_case("messages/devicebound").then(|| percent_decode(id)).flatten()
}

fn message(received: &Received, now: Now) -> Result<C2d, String> {
    let properties = &received.properties;
    let ack = match received.application("iothub-ack").map(str::to_ascii_lowercase).as_deref() {
        None | Some("none") => Ack::None,
        Some("positive") => Ack::Positive,
        Some("negative") => Ack::Negative,
        Some("full") => Ack::Full,
        Some(other) => return Err(format!("ErrorCode:ArgumentInvalid;iothub-ack is {other:?}")),
    };
    let life = |expires: i64| Duration::from_millis(u64::try_from(expires - now.wall.0).unwrap_or(0));
    let own = received.application.iter().filter(|(name, _)| name != "iothub-ack");
    Ok(C2d {
        message_id: properties.message_id.as_ref().map(id_text),
        correlation_id: properties.correlation_id.as_ref().map(id_text),
        user_id: properties.user_id.as_ref().map(|id| String::from_utf8_lossy(id).into_owned()),
        content_type: properties.content_type.as_ref().map(|symbol| symbol.0.clone()),
        content_encoding: properties.content_encoding.as_ref().map(|symbol| symbol.0.clone()),
        properties: own.cloned().collect(),
        body: received.body.clone(),
        ack,
        ttl: properties.absolute_expiry_time.as_ref().map(|at| life(at.milliseconds())),
        ..C2d::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addressee_is_taken_from_the_path_and_decoded() {
        assert_eq!(addressee("/devices/a%20b/messages/devicebound").as_deref(), Some("a b"));
        assert_eq!(addressee("/devices/d/messages/deviceBound").as_deref(), Some("d"));
        for wrong in ["/devices/d/messages/events", "/devices/d", "d", ""] {
            assert_eq!(addressee(wrong), None, "{wrong}");
        }
    }
}
