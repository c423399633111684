//! Topics and the property bags in them.
//!
//! Written from the documentation and from captures, and on purpose not shared with the daemon: a mistake in one
//! encoder would hide behind the same mistake in the other.

use super::message::{Ack, C2d};
use super::options::BagStyle;
use crate::time::Timestamp;

/// The one filter under which a device may ask for its messages.
pub(super) fn c2d_filter(device: &str) -> String {
    format!("devices/{device}/messages/devicebound/#")
}

/// The filter under which a device listens for direct methods.
pub(super) const METHODS_FILTER: &str = "$iothub/methods/POST/#";

/// The topic of a direct method. Its number is hexadecimal.
pub(super) fn method_topic(name: &str, request: u64) -> String {
    format!("$iothub/methods/POST/{name}/?$rid={request:x}")
}

/// The status and the request's number in the topic of an answer to a direct method, or `None` where it is none. What
/// is no number of the hub's is no request.
pub(super) fn answered_method(topic: &str) -> Option<(i32, Option<u64>)> {
    let (status, rest) = topic.strip_prefix("$iothub/methods/res/")?.split_once('/')?;
    let query = rest.strip_prefix('?')?;
    let request = query.split('&').find_map(|pair| pair.strip_prefix("$rid="))?;
    Some((status.parse().ok()?, u64::from_str_radix(request, 16).ok()))
}

/// The filter under which a device hears the answers to its requests for its twin.
pub(super) const TWIN_FILTER: &str = "$iothub/twin/res/#";
/// The filter under which it hears of what is desired.
pub(super) const DESIRED_FILTER: &str = "$iothub/twin/PATCH/properties/desired/#";

/// What a device asks for of its twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TwinAsked {
    /// All of it.
    Get,
    /// To change what it has reported.
    Report,
}

impl TwinAsked {
    pub fn name(self) -> &'static str {
        match self {
            TwinAsked::Get => "GET",
            TwinAsked::Report => "PATCH reported",
        }
    }
}

/// What the topic of a request for the twin asks for, and the request's id; `None`: it is none.
pub(super) fn twin_asked(topic: &str) -> Option<(TwinAsked, &str)> {
    let (what, query) = topic.strip_prefix("$iothub/twin/")?.split_once("/?")?;
    let asked = match what {
        "GET" => TwinAsked::Get,
        "PATCH/properties/reported" => TwinAsked::Report,
        _ => return None,
    };
    let request = query.split('&').find_map(|pair| pair.strip_prefix("$rid="))?;
    (!request.is_empty()).then_some((asked, request))
}

/// The topic by which a device hears of what is desired.
pub(super) fn desired_topic(version: u64) -> String {
    format!("$iothub/twin/PATCH/properties/desired/?$version={version}")
}

/// The topic of a delivery.
pub(super) fn c2d_topic(device: &str, message: &C2d, expires: Timestamp, style: &BagStyle) -> Vec<u8> {
    if let Some(topic) = &message.topic {
        return topic.clone();
    }
    let mut topic = format!("devices/{device}/messages/devicebound/");
    match &message.bag {
        Some(bag) => topic.push_str(bag),
        None => topic.push_str(&bag(device, message, expires, style)),
    }
    topic.into_bytes()
}

fn bag(device: &str, message: &C2d, expires: Timestamp, style: &BagStyle) -> String {
    let bound = if style.lower_case_to { "devicebound" } else { "deviceBound" };
    let exp = (message.ttl.is_some() || style.always_exp).then(|| {
        let millis = expires.to_string();
        if style.seven_decimals {
            millis.replace('Z', "0000Z")
        } else {
            millis
        }
    });
    let system = [
        ("mid", message.message_id.clone()),
        ("cid", message.correlation_id.clone()),
        ("uid", message.user_id.clone()),
        ("to", Some(format!("/devices/{device}/messages/{bound}"))),
        ("exp", exp),
        ("ct", message.content_type.clone()),
        ("ce", message.content_encoding.clone()),
    ];
    let dollar = if style.raw_dollar { "$" } else { "%24" };
    let mut first: Vec<String> = system
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{dollar}.{key}={}", escape(&value?, style))))
        .collect();
    if message.ack != Ack::None {
        first.push(format!("iothub-ack={}", message.ack.as_str()));
    }
    let mut second: Vec<String> = message
        .properties
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{}={}", escape(name, style), escape(value, style)),
            None => escape(name, style),
        })
        .collect();
    if style.properties_first {
        std::mem::swap(&mut first, &mut second);
    }
    first.append(&mut second);
    let question = if style.leading_question { "?" } else { "" };
    let slash = if style.trailing_slash { "/" } else { "" };
    format!("{question}{}{slash}", first.join("&"))
}

fn escape(text: &str, style: &BagStyle) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let kept =
            byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (style.old_escapes && b"!*'()".contains(&byte));
        if kept {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Escapes what is not unreserved, as tokens and topics want it.
pub(super) fn percent_encode(text: &str) -> String {
    escape(text, &BagStyle::default())
}

/// The text without its escapes; `None` where an escape is broken or the result is no UTF-8. A `+` is a plus.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The properties in a telemetry topic, or `None` where the topic is not the device's own.
pub(super) fn d2c_properties(device: &str, topic: &str) -> Option<Vec<(String, Option<String>)>> {
    let rest = topic.strip_prefix("devices/")?.strip_prefix(device)?;
    let rest = rest.strip_prefix("/messages/events")?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let bag = rest.trim_start_matches('/').trim_start_matches('?');
    let decoded = |text: &str| percent_decode(text).unwrap_or_else(|| text.to_owned());
    let pairs = bag.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (decoded(name), Some(decoded(value))),
        None => (decoded(pair), None),
    });
    Some(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(message: &C2d, style: &BagStyle) -> String {
        String::from_utf8(c2d_topic("foo", message, Timestamp(0), style)).unwrap()
    }

    #[test]
    fn the_default_bag_is_spelled_as_in_the_captures() {
        let message = C2d::new("0209afa7", "").ack(Ack::Full).property("a b", "c/d+é");
        assert_eq!(
            topic(&message, &BagStyle::default()),
            "devices/foo/messages/devicebound/%24.mid=0209afa7\
             &%24.to=%2Fdevices%2Ffoo%2Fmessages%2FdeviceBound&iothub-ack=full&a%20b=c%2Fd%2B%C3%A9"
        );
    }

    #[test]
    fn every_variant_of_the_bag_can_be_asked_for() {
        let mut message = C2d::new("m", "").property("empty", "").property("paren", "(*)");
        message.properties.push(("null".into(), None));
        let style = BagStyle {
            raw_dollar: true,
            leading_question: true,
            trailing_slash: true,
            properties_first: true,
            lower_case_to: true,
            always_exp: true,
            seven_decimals: true,
            old_escapes: true,
        };
        assert_eq!(
            topic(&message, &style),
            "devices/foo/messages/devicebound/?empty=&paren=(*)&null&$.mid=m\
             &$.to=%2Fdevices%2Ffoo%2Fmessages%2Fdevicebound&$.exp=1970-01-01T00%3A00%3A00.0000000Z/"
        );
    }

    #[test]
    fn an_answer_to_a_method_says_to_which_with_what_status() {
        assert_eq!(method_topic("reset", 26), "$iothub/methods/POST/reset/?$rid=1a");
        assert_eq!(answered_method("$iothub/methods/res/200/?$rid=1a"), Some((200, Some(26))));
        assert_eq!(answered_method("$iothub/methods/res/-1/?$rid=?"), Some((-1, None)));
        for wrong in ["$iothub/methods/res/ok/?$rid=1", "$iothub/methods/res/200/", "$iothub/twin/res/200/?$rid=1"] {
            assert_eq!(answered_method(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_request_for_the_twin_says_what_it_asks_for_and_its_id() {
        assert_eq!(twin_asked("$iothub/twin/GET/?$rid=1a"), Some((TwinAsked::Get, "1a")));
        assert_eq!(twin_asked("$iothub/twin/PATCH/properties/reported/?x=1&$rid=7"), Some((TwinAsked::Report, "7")));
        for wrong in ["GET/", "GET/?$rid=", "GET/?rid=1", "PATCH/properties/desired/?$rid=1", "PUT/?$rid=1", ""] {
            assert_eq!(twin_asked(&format!("$iothub/twin/{wrong}")), None, "{wrong}");
        }
    }

    #[test]
    fn telemetry_is_decoded_and_a_foreign_topic_is_not() {
        let found = d2c_properties("d", "devices/d/messages/events/%24.mid=a+b%2B&k&e=").unwrap();
        let pair = |n: &str, v: Option<&str>| (n.to_owned(), v.map(str::to_owned));
        assert_eq!(found, [pair("$.mid", Some("a+b+")), pair("k", None), pair("e", Some(""))]);
        assert_eq!(d2c_properties("d", "devices/d/messages/events"), Some(vec![]));
        assert_eq!(d2c_properties("d", "devices/d2/messages/events/"), None);
        assert_eq!(d2c_properties("d", "devices/d/messages/eventsx/"), None);
    }
}
