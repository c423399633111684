//! Wall time as the machine's own time zone has it, beside UTC: the journal shows that one, and a person's watch.

use std::time::Duration;

use super::Timestamp;

/// By how many seconds local time is ahead of UTC at a moment; `None` where the system can't tell.
#[allow(unsafe_code)] // No safe library of ours knows time zones; it is one call that fills a structure of plain numbers.
#[allow(clippy::useless_conversion)] // The offset has 32 bits on a machine of 32.
pub fn offset(at: Timestamp) -> Option<i64> {
    let seconds = libc::time_t::try_from(at.as_secs()).ok()?;
    // SAFETY: all its fields are numbers or a pointer, for which zero is a value. The call reads the one, writes to the
    // other, and keeps neither; the text that a field then points to is not looked at.
    let filled = unsafe {
        let mut fields: libc::tm = std::mem::zeroed();
        let answer = libc::localtime_r(&raw const seconds, &raw mut fields);
        (!answer.is_null()).then_some(fields)
    };
    filled.map(|fields| i64::from(fields.tm_gmtoff))
}

/// A time as the local clock shows it, to the second, and by how much that is ahead of UTC:
/// `2026-11-30 12:00:00+01:00`.
pub fn shown(at: Timestamp, offset: i64) -> String {
    let local = at.plus_signed(offset).to_string();
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs() / 60);
    let time = local.get(..19).unwrap_or(&local).replace('T', " ");
    format!("{time}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// A time as a person says it: so long ago (`2h`), RFC 3339, or by the local clock (`2026-11-30 10:00`, `10:00` of
/// today).
///
/// # Errors
/// What to write.
pub fn said(text: &str, now: Timestamp, offset: impl Fn(Timestamp) -> Option<i64>) -> Result<Timestamp, String> {
    let text = text.trim();
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now.minus(ago));
    }
    let wrong = || {
        format!("{text:?} is no time; write how long ago (2h, 7d), 2026-11-30T10:00:00Z, or by the local clock \"2026-11-30 10:00\"")
    };
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return timestamp(time).ok_or_else(wrong);
    }
    if let Some((date_and_time, ahead)) = with_offset(text) {
        return utc(&date_and_time).map(|at| at.plus_signed(-ahead)).ok_or_else(wrong);
    }
    let today = |now: Timestamp| shown(now, offset(now).unwrap_or(0)).get(..10).map(str::to_owned);
    let text = match text.contains('-') {
        true => text.to_owned(),
        false => format!("{} {text}", today(now).unwrap_or_default()),
    };
    let as_if_utc = utc(&text).ok_or_else(wrong)?;
    // The offset of the moment itself is wanted, which may be another an hour later.
    let ahead = |at: Timestamp| offset(at).unwrap_or(0);
    let near = as_if_utc.plus_signed(-ahead(as_if_utc));
    Ok(as_if_utc.plus_signed(-ahead(near)))
}

/// Date and time before an offset such as `+01:00`, and that in seconds.
fn with_offset(text: &str) -> Option<(String, i64)> {
    let at = text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at) && text.contains(':'))?;
    let (before, offset) = text.split_at(at);
    let (sign, rest) = (offset.chars().next()?, offset.get(1..)?);
    let (hours, minutes) = rest.split_once(':')?;
    let is_time = before.contains('-') && before.contains(':') && hours.len() == 2 && minutes.len() == 2;
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
    match sign {
        '+' if is_time => Some((before.to_owned(), seconds)),
        '-' if is_time => Some((before.to_owned(), -seconds)),
        _ => None,
    }
}

/// A date, or a date and a time to the minute or the second, as if it were of UTC.
fn utc(text: &str) -> Option<Timestamp> {
    let text = text.replace(' ', "T");
    let whole = match text.matches(':').count() {
        0 if !text.contains('T') => format!("{text}T00:00:00Z"),
        1 => format!("{text}:00Z"),
        _ => format!("{text}Z"),
    };
    timestamp(humantime::parse_rfc3339(&whole).ok()?)
}

fn timestamp(time: std::time::SystemTime) -> Option<Timestamp> {
    let since: Duration = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp(0).plus(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_796_036_400_000); // 2026-11-30T11:00:00Z

    #[test]
    fn a_time_is_shown_by_the_local_clock_with_what_it_is_ahead() {
        assert_eq!(shown(NOW, 3600), "2026-11-30 12:00:00+01:00");
        assert_eq!(shown(NOW, -12_600), "2026-11-30 07:30:00-03:30");
        assert_eq!(shown(NOW, 0), "2026-11-30 11:00:00+00:00");
        assert!(offset(NOW).is_some_and(|ahead| ahead.abs() <= 15 * 3600), "the system knows one");
    }

    #[test]
    fn a_person_may_say_a_time_by_its_age_with_its_zone_or_by_the_local_clock() {
        // Summer time until 25 October, 01:00 UTC.
        let berlin = |at: Timestamp| Some(if at.as_secs() < 1_792_890_000 { 7200 } else { 3600 });
        for (text, utc) in [
            ("2h", "2026-11-30T09:00:00.000Z"),
            ("7d", "2026-11-23T11:00:00.000Z"),
            ("2026-11-30T10:00:00Z", "2026-11-30T10:00:00.000Z"),
            ("2026-11-30T10:00:00.5Z", "2026-11-30T10:00:00.500Z"),
            ("2026-11-30T10:00:00+02:00", "2026-11-30T08:00:00.000Z"),
            ("2026-11-30T10:00-03:30", "2026-11-30T13:30:00.000Z"),
            ("2026-11-30 10:00", "2026-11-30T09:00:00.000Z"),
            ("2026-11-30T10:00:30", "2026-11-30T09:00:30.000Z"),
            ("2026-10-25 01:30", "2026-10-24T23:30:00.000Z"),
            ("2026-10-26", "2026-10-25T23:00:00.000Z"),
            ("10:15", "2026-11-30T09:15:00.000Z"),
        ] {
            assert_eq!(said(text, NOW, berlin).map(|at| at.to_string()), Ok(utc.to_owned()), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "25:00", "2026-11-30T10:00:00+1", "é+01:00"] {
            assert!(said(text, NOW, berlin).is_err_and(|why| why.contains("is no time; write")), "{text}");
        }
    }
}
