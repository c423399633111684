//! The page for whoever opens the cabinet: one HTML document, which a browser shows with nothing else loaded. Pure.
//!
//! Invariants
//! - What came from the hub, from a peripheral or from the configuration is text: it is escaped, and steers nothing.
//! - It says everything without its script, which only has it say the same anew; no form, no link, nothing to be done.
//! - Style and script are the program's own, and the browser is told their digests: it takes no others.

use std::fmt::Write as _;

use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use ring::digest::{digest, SHA256};

use crate::command::outcome::State;
use crate::complaint::steers;
use crate::health::snapshot::{Attention, Bus, BusState, Device, LinkState, Snapshot, GOOD};
use crate::ledger::row::Record;
use crate::operate::text::status::{age, calls, value};

/// Its media type.
pub const KIND: &str = "text/html; charset=utf-8";

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Polls that are shown.
const POLLS_SHOWN_MAX: usize = 300;

/// What is shown.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The machine's name.
    pub machine: String,
    /// What the daemon says of itself.
    pub status: Snapshot,
    /// The last commands, newest first.
    pub last: Vec<Record>,
    /// The last of those that are in doubt, newest first.
    pub in_doubt: Vec<Record>,
    /// Why the ledger has not told these.
    pub untold: Option<String>,
}

/// What a browser may do with the page (Content Security Policy Level 3).
pub fn policy() -> String {
    let of = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        of(STYLE),
        of(SCRIPT)
    )
}

/// The document.
pub fn render(seen: &Seen) -> String {
    let (of, machine) = (&seen.status, escaped(&seen.machine));
    let wanted = &of.attention;
    let mut out = String::with_capacity(32 * 1024);
    let mark = if wanted.is_empty() { "✓" } else { "!" };
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{mark} fieldbridge {machine}</title>\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style>\
         <noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript></head>\n<body><h1>fieldbridge {machine}</h1>\n\
         <p id=\"note\" class=\"note\" role=\"alert\" hidden>The gateway does not answer: what stands here is old.</p>\n<main>"
    );
    verdict(&mut out, wanted);
    in_doubt(&mut out, seen);
    devices(&mut out, of);
    polls(&mut out, of);
    buses(&mut out, of);
    last(&mut out, seen);
    let up = humantime::format_duration(std::time::Duration::from_secs(of.uptime_seconds));
    let _ = write!(
        out,
        "</main>\n<footer><p>{} · hub {}: {} of {} devices connected · ledger: {} rows · on the way to the hub: {} events · \
         fieldbridge {}, up {up}</p></footer>\n<script>{SCRIPT}</script></body></html>\n",
        moment(Some(&of.clock.now)),
        escaped(&of.hub.host),
        of.hub.connected,
        of.hub.identities,
        of.ledger.rows,
        of.outbox.pending,
        escaped(&of.version),
    );
    out
}

fn verdict(out: &mut String, wanted: &[Attention]) {
    let (class, said) = match wanted.len() {
        0 => ("", "Everything works".to_owned()),
        1 => (" bad", "1 thing needs you".to_owned()),
        many => (" bad", format!("{many} things need you")),
    };
    let _ = write!(out, "<p class=\"verdict{class}\" role=\"status\">{said}</p>\n<ul>");
    for Attention { what, remedy } in wanted {
        let _ = write!(out, "<li><strong>{}</strong>", escaped(what));
        if !remedy.is_empty() {
            let _ = write!(out, "<p>{}</p>", escaped(remedy));
        }
        out.push_str("</li>");
    }
    out.push_str("</ul>\n");
}

fn in_doubt(out: &mut String, seen: &Seen) {
    if seen.in_doubt.is_empty() {
        return;
    }
    out.push_str("<h2>In doubt</h2>\n<ul>");
    for row in &seen.in_doubt {
        let number = row.row.number();
        let why = row.fault.as_ref().map(|fault| fault.message.as_str()).unwrap_or_default();
        let _ = write!(
            out,
            "<li><strong>{} {}</strong> <span class=\"quiet\">row {number}, {}</span><p>{}</p>\
             <p>Look whether the machine has done it; <code>fieldbridge ledger show {number}</code> has the whole story. Then \
             <code>sudo fieldbridge ledger resolve {number} --note \"…\"</code></p></li>",
            escaped(&row.device),
            asked(row),
            at(row),
            escaped(why),
        );
    }
    out.push_str("</ul>\n");
}

fn devices(out: &mut String, of: &Snapshot) {
    let heads =
        ["Device", "Hub", "Peripheral", "Bus", "Received", "Calls", "Executed", "In doubt", "Waiting", "Trouble"];
    let rows = of.devices.iter().map(|device| {
        let mark = if matches!(device.hub, LinkState::Connected | LinkState::Held) { "good" } else { "bad" };
        let counts = [device.received, device.executed, device.in_doubt, device.pending].map(|count| count.to_string());
        let [received, executed, in_doubt, pending] = counts;
        [
            escaped(&device.id),
            marked(mark, device.hub.as_str()),
            presence(device),
            escaped(&device.bus),
            received,
            escaped(&calls(device)),
            executed,
            in_doubt,
            pending,
            escaped(device.last_error.as_deref().unwrap_or_default()),
        ]
    });
    table(out, "Devices", &heads, rows);
}

/// What polls came to last.
fn polls(out: &mut String, of: &Snapshot) {
    let all = of.devices.iter().flat_map(|device| device.polls.iter().map(move |(name, poll)| (device, name, poll)));
    let count = all.clone().count();
    if count == 0 {
        return;
    }
    let rows = all.take(POLLS_SHOWN_MAX).map(|(device, name, poll)| {
        let mark = if poll.quality == GOOD { "good" } else { "bad" };
        let what = format!("{} {name}", device.id);
        let read = format!("{} ago", age(poll.seconds_ago));
        [escaped(&what), escaped(&value(&poll.value)), marked(mark, &poll.quality), read]
    });
    table(out, "Values", &["Poll", "Value", "Quality", "Read"], rows);
    if count > POLLS_SHOWN_MAX {
        let more = count - POLLS_SHOWN_MAX;
        let _ = writeln!(out, "<p class=\"quiet\">{more} more: <code>fieldbridge status</code> shows them</p>");
    }
}

fn presence(device: &Device) -> String {
    let lock = match &device.locked {
        Some(lock) => {
            format!(" {}", marked("bad", &format!("locked: {}", lock.reason.as_deref().unwrap_or("no reason given"))))
        }
        None => String::new(),
    };
    let present = match (device.present, &device.away_since) {
        (Some(true), _) => marked("good", "answers"),
        (Some(false), Some(since)) => format!("{} since {}", marked("bad", "away"), moment(Some(since))),
        (Some(false), None) => marked("bad", "away"),
        (None, _) => marked("quiet", "not asked yet"),
    };
    present + &lock
}

fn buses(out: &mut String, of: &Snapshot) {
    let heads = ["Bus", "Kind", "State", "Exchanges", "Timeouts", "Trouble"];
    let rows = of.buses.iter().map(|bus: &Bus| {
        let mark = if bus.state == BusState::Opening { "bad" } else { "good" };
        [
            escaped(&bus.name),
            escaped(&bus.kind),
            marked(mark, bus.state.as_str()),
            bus.exchanges.to_string(),
            bus.timeouts.to_string(),
            escaped(bus.last_error.as_deref().unwrap_or_default()),
        ]
    });
    table(out, "Buses", &heads, rows);
}

fn last(out: &mut String, seen: &Seen) {
    if let Some(why) = &seen.untold {
        let _ = write!(
            out,
            "<h2>Last commands</h2>\n<p class=\"bad\">The ledger has not told them: {}</p>\n",
            escaped(why)
        );
        return;
    }
    let heads = ["Device", "Command", "State", "Time", "Result"];
    let rows = seen.last.iter().map(|row| {
        let mark = match row.state {
            State::Succeeded => "good",
            State::Accepted | State::Executing => "quiet",
            _ => "bad",
        };
        let result = match (&row.fault, &row.value) {
            (Some(fault), _) => format!("{}: {}", fault.code.as_str(), fault.message),
            (None, Some(value)) => value.to_string(),
            (None, None) => String::new(),
        };
        [escaped(&row.device), asked(row), marked(mark, row.state.as_str()), at(row), escaped(&result)]
    });
    table(out, "Last commands", &heads, rows);
}

/// A command with its value.
fn asked(row: &Record) -> String {
    let value = row.requested.as_ref().map(|value| format!(" {value}")).unwrap_or_default();
    escaped(&format!("{}{value}", row.command.as_deref().unwrap_or("(no command)")))
}

fn at(row: &Record) -> String {
    moment(row.received_at.known().map(|at| at.to_string()).as_deref())
}

/// A time of RFC 3339, in UTC, for a person: to the second.
fn moment(rfc: Option<&str>) -> String {
    let Some(rfc) = rfc.filter(|rfc| !rfc.is_empty()) else { return "at a time that is not known".into() };
    let plain = rfc.split('.').next().unwrap_or(rfc).replace('T', " ");
    format!("<time datetime=\"{}\">{} UTC</time>", escaped(rfc), escaped(plain.trim_end_matches('Z')))
}

/// A word that is good, bad, or neither. Its colour is not all that says so.
fn marked(class: &str, word: &str) -> String {
    format!("<span class=\"{class}\">{}</span>", escaped(word))
}

/// Cells are HTML already; one without a word has none.
fn table<const N: usize>(out: &mut String, title: &str, heads: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
    let _ = write!(out, "<h2>{title}</h2>\n<table><thead><tr>");
    for head in heads {
        let _ = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead><tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (head, cell) in heads.iter().zip(row) {
            let _ = match cell.is_empty() {
                true => write!(out, "<td></td>"),
                false => write!(out, "<td data-head=\"{head}\"><div>{cell}</div></td>"),
            };
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table>\n");
}

/// Text as it stands in HTML, also within quotes: on one line, and nothing in it is markup.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if steers(c) => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::health::snapshot::{Clock, Configuration, Ledger, Lock, Poll};

    fn well() -> Seen {
        let device =
            |id: &str| Device { id: id.into(), bus: "line".into(), hub: LinkState::Connected, ..Device::default() };
        let bus = Bus { name: "line".into(), kind: "modbus-rtu".into(), state: BusState::Open, ..Bus::default() };
        let status = Snapshot {
            clock: Clock { ok: true, now: "2026-11-30T10:00:00.123Z".into(), last_error: None },
            configuration: Configuration { ok: true, ..Configuration::default() },
            ledger: Ledger { ok: true, rows: 7, ..Ledger::default() },
            devices: ["pump-1", "pump-2", "pump-3", "pump-4", "pump-5"].map(device).into(),
            buses: vec![bus],
            ..Snapshot::default()
        };
        Seen { machine: "gw-7".into(), status, ..Seen::default() }
    }

    #[test]
    fn what_others_have_written_is_text_wherever_it_stands() {
        let hostile = "</main><script>alert(1)</script>\" onload='x' &amp; \u{202e}\u{1b}[2J";
        let mut seen = well();
        seen.machine = hostile.into();
        seen.status.hub.host = hostile.into();
        seen.untold = Some(hostile.into());
        seen.status.devices[0] = Device {
            id: hostile.into(),
            bus: hostile.into(),
            last_error: Some(hostile.into()),
            away_since: Some(hostile.into()),
            present: Some(false),
            locked: Some(Lock { reason: Some(hostile.into()), ..Lock::default() }),
            calls: [(hostile.to_owned(), 1)].into(),
            polls: [(hostile.to_owned(), Poll { value: hostile.into(), quality: hostile.into(), ..Poll::default() })]
                .into(),
            ..Device::default()
        };
        seen.status.buses[0].last_error = Some(hostile.into());
        let page = render(&seen);
        assert_eq!(page.matches("<script>").count(), 1, "{page}");
        assert!(
            !page.contains("alert(1)</script>") && !page.contains(" onload='") && !page.contains('\u{1b}'),
            "{page}"
        );
        assert!(
            page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot; onload=&#39;x&#39; &amp;amp;   [2J"),
            "{page}"
        );
        assert_eq!((page.matches("<main>").count(), page.matches("</main>").count()), (1, 1));
    }

    #[test]
    fn it_says_first_whether_anything_needs_a_person_and_what_to_do() {
        let mut seen = well();
        let page = render(&seen);
        assert!(page.contains("Everything works") && page.contains("<title>✓ "), "{page}");
        let attention = |what: &str, remedy: &str| Attention { what: what.into(), remedy: remedy.into() };
        seen.status.attention = vec![
            attention("the ledger can't be written", "free some space"),
            attention("pump-1 & pump-2 are away", ""),
        ];
        let page = render(&seen);
        assert!(page.contains("2 things need you") && page.contains("<title>! "), "{page}");
        assert!(page.contains("<strong>the ledger can&#39;t be written</strong><p>free some space</p></li>"), "{page}");
        assert!(page.contains("<strong>pump-1 &amp; pump-2 are away</strong></li>"), "{page}");
    }

    #[test]
    fn what_polls_have_read_stands_with_its_quality_and_age_and_no_more_than_a_browser_bears() {
        let mut seen = well();
        assert!(!render(&seen).contains("<h2>Values</h2>"));
        let poll =
            |value: Json, quality: &str, seconds_ago| Poll { value, quality: quality.into(), at: None, seconds_ago };
        seen.status.devices[0].polls = [
            ("level".to_owned(), poll(Json::Null, "timeout", 600)),
            ("speed".to_owned(), poll(42.5.into(), "good", 3)),
        ]
        .into();
        let page = render(&seen);
        let row = |cells: &[&str]| cells.iter().map(|cell| format!("<div>{cell}</div></td>")).collect::<Vec<_>>();
        for cells in [
            row(&["pump-1 speed", "42.5", "<span class=\"good\">good</span>", "3 s ago"]),
            row(&["pump-1 level", "-", "<span class=\"bad\">timeout</span>", "10 min ago"]),
        ] {
            assert!(cells.iter().all(|cell| page.contains(cell)), "{cells:?} in {page}");
        }
        let many = |n: usize| (format!("p{n:03}"), poll(1.into(), "good", 1));
        seen.status.devices[0].polls = (0..POLLS_SHOWN_MAX + 7).map(many).collect();
        let page = render(&seen);
        assert!(page.contains("7 more: ") && page.matches("1 s ago").count() == POLLS_SHOWN_MAX, "{page}");
    }

    #[test]
    fn a_browser_is_told_to_take_this_style_and_this_script_and_nothing_else() {
        let (page, policy) = (render(&well()), policy());
        for (open, close, of) in [("<style>", "</style>", "style-src"), ("<script>", "</script>", "script-src")] {
            let text = page.split(open).nth(1).and_then(|rest| rest.split(close).next()).expect("it is there");
            let digest = STANDARD.encode(digest(&SHA256, text.as_bytes()));
            assert!(policy.contains(&format!("{of} 'sha256-{digest}'")), "{policy}");
        }
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        for outside in ["http://", "https://", "<img", "<form", "<a ", " style=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("<noscript><meta http-equiv=\"refresh\""));
    }

    /// Web Content Accessibility Guidelines 2.2, 1.4.3, and its definitions of contrast ratio and relative luminance.
    #[test]
    fn each_text_stands_out_from_its_ground_in_light_and_dark() {
        let luminance = |colour: &str| {
            let part = |at: usize| f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("a colour")) / 255.0;
            let linear = |part: f64| if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) };
            0.2126 * linear(part(1)) + 0.7152 * linear(part(3)) + 0.0722 * linear(part(5))
        };
        let themes: Vec<&str> =
            STYLE.split(":root{").skip(1).map(|rest| rest.split('}').next().expect("it ends")).collect();
        assert_eq!(themes.len(), 2);
        for theme in themes {
            let colour = |name: &str| {
                let found = theme.split(';').find_map(|pair| pair.strip_prefix(&format!("--{name}:")));
                found.unwrap_or_else(|| panic!("{name} has no colour"))
            };
            for (text, ground) in [
                ("text", "ground"),
                ("text", "raised"),
                ("quiet", "ground"),
                ("quiet", "raised"),
                ("good", "ground"),
                ("good", "raised"),
                ("bad", "ground"),
                ("bad", "raised"),
                ("onmark", "good"),
                ("onmark", "bad"),
            ] {
                let (one, other) = (luminance(colour(text)), luminance(colour(ground)));
                let ratio = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                assert!(ratio >= 4.5, "{text} on {ground}: {ratio:.1}");
            }
        }
    }
}
