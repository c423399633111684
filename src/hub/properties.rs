//! What the properties of messages are written with, whatever transport brings them. Pure.

use std::borrow::Cow;

use crate::command::excerpt::truncated;
use crate::time::Timestamp;

/// Text as it came. Bytes that are no UTF-8 become `%XX` and not a replacement character: two ids must not become one
/// by being unreadable, or the second message would pass for a redelivery of the first.
pub(super) fn as_it_came(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        kept.push_str(chunk.valid());
        kept.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    Cow::Owned(kept)
}

/// Percent-encodes everything outside of RFC 3986's unreserved characters.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Reads an expiry: RFC 3339 with any number of decimals up to nine (.NET sends seven), in UTC or with an offset. `0`
/// and nothing mean no expiry.
///
/// # Errors
/// What can't be read, as it came.
pub(super) fn parse_expiry(text: &str) -> Result<Option<Timestamp>, String> {
    if matches!(text, "" | "0") {
        return Ok(None);
    }
    let unread = || truncated(text, 60).to_owned();
    let upper = text.to_ascii_uppercase();
    let (local, offset_minutes) = split_offset(&upper).ok_or_else(unread)?;
    let at = humantime::parse_rfc3339_weak(&format!("{local}Z")).map_err(|_| unread())?;
    let since = at.duration_since(std::time::UNIX_EPOCH).map_err(|_| unread())?;
    let millis = i64::try_from(since.as_millis()).map_err(|_| unread())?;
    Ok(Some(Timestamp(millis - offset_minutes * 60_000)))
}

/// Splits `2017-01-06T23:37:00-05:00` into its local time and its offset from UTC in minutes.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix('Z') {
        return Some((local, 0));
    }
    // Only a sign behind the time is one of an offset: the date has some, too.
    let at = text.rfind(['+', '-']).filter(|at| *at > "2017-01-06T".len());
    let Some(at) = at else { return Some((text, 0)) };
    let (local, offset) = text.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let two_digits = |text: &str, most: i64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| digits && *number <= most)
    };
    let minutes = two_digits(hours, 23)? * 60 + two_digits(minutes, 59)?;
    Some((local, if offset.starts_with('-') { -minutes } else { minutes }))
}
