//! A message from the headers and the body of an answer. Pure.
//!
//! Invariants
//! - Any headers and any body give a [`Message`]; what can't be understood is kept as it came.
//! - Nothing is decoded: no client of the vendor's decodes a header, so no sender counts on it.

use std::borrow::Cow;

use crate::command::Message;
use crate::hub::properties::{as_it_came, parse_expiry};
use crate::time::Timestamp;

/// What each header of the hub's begins with.
const PREFIX: &str = "iothub-";

/// Whether a header is one of a message's: an answer without any is none of the hub's.
pub fn is_of_the_hub(name: &[u8]) -> bool {
    name.split_at_checked(PREFIX.len()).is_some_and(|(start, _)| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
}

/// Reads a C2D message. The first of two equal headers counts.
pub fn message_of<'a>(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>, body: Vec<u8>) -> Message {
    let mut message = Message { body, ..Message::default() };
    let mut has_expiry = false;
    for (name, value) in headers {
        // The hub sends the header of a property that a message does not have, empty.
        let value = as_it_came(value.trim_ascii());
        if value.is_empty() {
            continue;
        }
        match &*String::from_utf8_lossy(name).to_ascii_lowercase() {
            "iothub-messageid" => keep(&mut message.id, value),
            "iothub-correlationid" => keep(&mut message.correlation_id, value),
            "iothub-app-command" => keep(&mut message.command, value),
            // The first is the name in the events of devices, the second what the clients look for in a message.
            "iothub-contentencoding" | "contentencoding" => keep(&mut message.content_encoding, value),
            "iothub-expiry" if !has_expiry => {
                has_expiry = true;
                match time_of(&value) {
                    Ok(at) => message.expires_at = at,
                    Err(unread) => message.unread_expiry = Some(unread),
                }
            }
            "iothub-sequencenumber" => first(&mut message.sequence_number, value.parse().ok()),
            "iothub-enqueuedtime" => first(&mut message.enqueued_at, time_of(&value).ok().flatten()),
            "iothub-deliverycount" => first(&mut message.delivery_count, value.parse().ok()),
            _ => {}
        }
    }
    message
}

fn keep(place: &mut Option<String>, value: Cow<'_, str>) {
    if place.is_none() {
        *place = Some(value.into_owned());
    }
}

fn first<T>(place: &mut Option<T>, value: Option<T>) {
    if place.is_none() {
        *place = value;
    }
}

/// Longest lock that is worked with, in bytes: the hub's are UUIDs, and one that fits into no request could never be
/// told of.
const LOCK_BYTES_MAX: usize = 512;

/// The lock that an ETag names: in quotes, as it should be, or without. `None`: there is none in it.
pub fn lock_of(etag: &str) -> Option<&str> {
    let tag = etag.trim_ascii();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let bare = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    (!bare.is_empty() && bare != "\"" && bare.len() <= LOCK_BYTES_MAX).then_some(bare)
}

/// Reads a time. RFC 3339, as by MQTT; that of HTTP (RFC 9110, 5.6.7); and `12/22/2017 12:14:12 AM`, as the tests of
/// `az` have it from the hub: .NET's form in the hub's own culture, always UTC. `0` and nothing mean none.
///
/// # Errors
/// What can't be read, as it came.
fn time_of(text: &str) -> Result<Option<Timestamp>, String> {
    let rewritten = time_of_http(text).or_else(|| time_of_dotnet(text));
    parse_expiry(rewritten.as_deref().unwrap_or(text)).map_err(|_| crate::command::excerpt::truncated(text, 60).into())
}

/// `Fri, 22 Dec 2017 00:14:12 GMT`, in RFC 3339.
fn time_of_http(text: &str) -> Option<String> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = text.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, clock, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? + 1;
    let (day, year) = (number(day)?, number(year)?);
    Some(format!("{year:04}-{month:02}-{day:02}T{clock}Z"))
}

/// `12/22/2017 12:14:12 AM`, or with the hours of a whole day, in RFC 3339.
fn time_of_dotnet(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split(' ').collect();
    let (date, clock, half) = match words[..] {
        [date, clock] => (date, clock, None),
        [date, clock, half] => (date, clock, Some(half)),
        _ => return None,
    };
    let date: Vec<u32> = date.split('/').map(number).collect::<Option<_>>()?;
    let clock: Vec<u32> = clock.split(':').map(number).collect::<Option<_>>()?;
    let ([month, day, year], [hour, minute, second]) = (&date[..], &clock[..]) else { return None };
    let hour = match half {
        None => *hour,
        Some(_) if !(1..=12).contains(hour) => return None,
        Some("AM") => hour % 12,
        Some("PM") => hour % 12 + 12,
        Some(_) => return None,
    };
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

fn number(text: &str) -> Option<u32> {
    let is_short = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &[(&str, &str)]) -> Message {
        message_of(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())), b"body".into())
    }

    #[test]
    fn a_message_of_the_hub_is_read() {
        let read = message(&[
            ("ETag", "\"3f4a\""),
            ("iothub-messageid", "m-1"),
            ("iothub-correlationid", "c-1"),
            ("iothub-sequencenumber", "17"),
            ("iothub-to", "/devices/pump/messages/deviceBound"),
            ("iothub-expiry", "12/22/2017 12:14:12 AM"),
            ("iothub-userid", ""),
            ("iothub-enqueuedtime", "2017-12-21T23:14:12.5Z"),
            ("iothub-deliverycount", "2"),
            ("iothub-ack", "full"),
            ("ContentEncoding", "utf-16"),
            ("iothub-app-command", "open"),
            ("iothub-app-note", "x"),
        ]);
        assert_eq!((read.id.as_deref(), read.correlation_id.as_deref()), (Some("m-1"), Some("c-1")));
        assert_eq!((read.command.as_deref(), read.content_encoding.as_deref()), (Some("open"), Some("utf-16")));
        assert_eq!((read.sequence_number, read.delivery_count), (Some(17), Some(2)));
        assert_eq!(read.expires_at.unwrap().to_string(), "2017-12-22T00:14:12.000Z");
        assert_eq!(read.enqueued_at.unwrap().to_string(), "2017-12-21T23:14:12.500Z");
        assert_eq!((&read.body[..], read.malformed), (&b"body"[..], None));
    }

    #[test]
    fn a_header_that_is_empty_is_a_property_that_is_not_there() {
        let read = message(&[
            ("iothub-messageid", ""),
            ("iothub-correlationid", " "),
            ("iothub-expiry", ""),
            ("iothub-app-command", ""),
            ("iothub-sequencenumber", ""),
        ]);
        assert_eq!(read, Message { body: b"body".into(), ..Message::default() });
    }

    #[test]
    fn case_does_not_matter_and_the_first_of_two_counts_and_nothing_is_decoded() {
        let read = message(&[
            ("IoTHub-MessageId", "a%20b"),
            ("iothub-messageid", "c"),
            ("IOTHUB-APP-Command", "open"),
            ("iothub-app-command", "close"),
            ("iothub-expiry", "soon"),
            ("iothub-expiry", "2017-12-21T23:14:12Z"),
        ]);
        assert_eq!((read.id.as_deref(), read.command.as_deref()), (Some("a%20b"), Some("open")));
        assert_eq!((read.expires_at, read.unread_expiry.as_deref()), (None, Some("soon")));
        let read = message_of([(&b"iothub-messageid"[..], &b"a\xff"[..])], Vec::new());
        assert_eq!(read.id.as_deref(), Some("a%FF"), "unreadable ids stay apart");
    }

    #[test]
    fn a_time_is_read_in_each_form_that_the_hub_may_write_it_in() {
        for (text, time) in [
            ("2026-11-29T11:20:00.1234567Z", "2026-11-29T11:20:00.123Z"),
            ("Sun, 29 Nov 2026 11:20:00 GMT", "2026-11-29T11:20:00.000Z"),
            ("11/29/2026 11:20:00 AM", "2026-11-29T11:20:00.000Z"),
            ("1/9/2026 1:02:03 PM", "2026-01-09T13:02:03.000Z"),
            ("1/9/2026 12:02:03 PM", "2026-01-09T12:02:03.000Z"),
            ("01/09/2026 23:02:03", "2026-01-09T23:02:03.000Z"),
        ] {
            assert_eq!(time_of(text).unwrap().unwrap().to_string(), time, "{text}");
        }
        for text in [
            "soon",
            "29/11/2026 11:20:00 AM",
            "11/29/2026 13:20:00 PM",
            "11/29/2026 00:20:00 AM",
            "11/29/2026 11:20:00 XM",
            "1/1/0001 12:00:00 AM",
            "+1/1/2026 12:00:00 AM",
            "Sun, 29 Nob 2026 11:20:00 GMT",
            "Sun, 29 Nov 2026 11:20:00 CET",
        ] {
            assert_eq!(time_of(text), Err(text.to_owned()));
        }
        assert_eq!((time_of("0"), time_of("")), (Ok(None), Ok(None)));
    }

    #[test]
    fn a_lock_is_found_with_quotes_and_without() {
        for (etag, lock) in [
            ("\"3f4a-1\"", Some("3f4a-1")),
            ("3f4a-1", Some("3f4a-1")),
            (" W/\"3f4a-1\" ", Some("3f4a-1")),
            ("", None),
            ("\"\"", None),
            ("\"", None),
        ] {
            assert_eq!(lock_of(etag), lock, "{etag}");
        }
        let longest = "x".repeat(LOCK_BYTES_MAX);
        assert_eq!(lock_of(&longest), Some(longest.as_str()));
        assert_eq!(lock_of(&(longest + "x")), None, "no request could tell of it");
    }
}
