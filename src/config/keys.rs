//! Every key that the configuration knows, as data: the walker refuses what is not here, and a test holds
//! `fieldbridge.reference.toml` to these lists in both directions.

use strsim::normalized_damerau_levenshtein;

use super::words::{self, plain};
use crate::complaint::Complaint;

/// A kind of table and the keys it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// How messages and the reference name it, e.g. `[device.ID]`.
    pub title: &'static str,
    /// Its keys.
    pub keys: &'static [&'static str],
}

impl Section {
    /// The section of a table at the top that has its name from this program, such as `[hub]`.
    pub(super) fn of_table(name: &str) -> Option<Section> {
        let is_it =
            |section: &Section| section.title.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) == Some(name);
        SECTIONS.into_iter().find(is_it)
    }
}

/// The top of the configuration.
pub const ROOT: Section = Section {
    title: "the configuration",
    keys: &["hub", "provisioning", "admin", "ledger", "telemetry", "metrics", "web", "bus", "device", "profile"],
};

/// `[hub]`
pub const HUB: Section = Section {
    title: "[hub]",
    keys: &[
        "host",
        "transport",
        "address",
        "addresses",
        "gateway",
        "proxy",
        "proxy_credentials_file",
        "ca_file",
        "tls",
        "keepalive",
        "connect_rate",
        "api_version",
        "token_lifetime",
        "poll_interval",
    ],
};

/// `hub.addresses`
pub const ADDRESSES: Section =
    Section { title: "hub.addresses", keys: &["mqtt", "mqtt-ws", "amqp", "amqp-ws", "https"] };

/// `[provisioning]`
pub const PROVISIONING: Section =
    Section { title: "[provisioning]", keys: &["id_scope", "host", "address", "ca_file"] };

/// `[admin]`
pub const ADMIN: Section = Section { title: "[admin]", keys: &["socket"] };

/// `[ledger]`
pub const LEDGER: Section = Section { title: "[ledger]", keys: &["path", "retention"] };

/// `[telemetry]`
pub const TELEMETRY: Section = Section {
    title: "[telemetry]",
    keys: &["path", "max_size", "batch_size", "batch_delay", "newest_first", "daily_messages"],
};

/// `[metrics]`
pub const METRICS: Section = Section { title: "[metrics]", keys: &["listen", "hosts"] };

/// `[web]`
pub const WEB: Section = Section { title: "[web]", keys: &["listen", "hosts"] };

/// Where a bus with characters is.
const PORT: &[&str] = &["port", "address", "baud", "parity", "data_bits", "stop_bits", "rs485", "low_latency"];
/// What stands around a payload, and before it.
const TEXT: &[&str] = &["delimiter", "frame", "wake", "wake_after"];
const TIMES: &[&str] =
    &["response_timeout", "retries", "retry_pause", "turnaround", "late_window", "connect_pause", "idle_close"];
const AWAY: &[&str] = &["unreachable_after", "probe_interval"];

/// `[bus.NAME]` with `kind = "modbus-rtu"`
pub const MODBUS_RTU: Section = Section {
    title: "[bus.NAME] of kind \"modbus-rtu\"",
    keys: &joined::<19>(&[&["kind"], PORT, TIMES, AWAY, &["echo"]]),
};

/// `[bus.NAME]` with `kind = "modbus-ascii"`: the same keys, for it is the same line in another framing.
pub const MODBUS_ASCII: Section = Section { title: "[bus.NAME] of kind \"modbus-ascii\"", keys: MODBUS_RTU.keys };

/// `[bus.NAME]` with `kind = "modbus-tcp"`
pub const MODBUS_TCP: Section = Section {
    title: "[bus.NAME] of kind \"modbus-tcp\"",
    keys: &joined::<12>(&[&["kind", "address"], TIMES, &["max_in_flight"], AWAY]),
};

/// `[bus.NAME]` with `kind = "serial"`
pub const SERIAL: Section =
    Section { title: "[bus.NAME] of kind \"serial\"", keys: &joined::<22>(&[&["kind"], PORT, TEXT, TIMES, AWAY]) };

/// The table that `rs485` of a bus holds.
pub const RS485: Section = Section { title: "rs485", keys: &["rts_on_send", "delay_before", "delay_after"] };

/// `[bus.NAME.frame]`
pub const FRAME: Section =
    Section { title: "[bus.NAME.frame]", keys: &["start", "end", "escape", "fixed", "length", "idle", "checksum"] };

/// The table that `length` of a frame holds.
pub const LENGTH: Section = Section { title: "length", keys: &["at", "size", "byte_order", "adds"] };

/// The table that `checksum` of a frame holds.
pub const CHECKSUM: Section = Section { title: "checksum", keys: &["kind", "as", "covers"] };

/// `[bus.NAME]` whose kind is missing or wrong: the keys of every kind.
pub const BUS: Section = Section {
    title: "[bus.NAME]",
    keys: &joined::<24>(&[&["kind"], PORT, TEXT, TIMES, &["max_in_flight"], AWAY, &["echo"]]),
};

/// `[device.ID]`
pub const DEVICE: Section = Section {
    title: "[device.ID]",
    keys: &[
        "bus",
        "unit",
        "response_timeout",
        "retries",
        "turnaround",
        "quirks",
        "on_unreachable",
        "profile",
        "transport",
        "registration_id",
        "key_file",
        "secondary_key_file",
        "connection_string_file",
        "cert_file",
        "cert_key_file",
        "settle",
        "method_timeout",
        "default_command",
        "events",
    ],
};

/// `[profile.NAME]`
pub const PROFILE: Section = Section { title: "[profile.NAME]", keys: &["message", "command", "poll"] };

/// `[profile.NAME.message]`
pub const MESSAGE: Section =
    Section { title: "[profile.NAME.message]", keys: &["command", "value", "numbers_as_text"] };

/// `[profile.NAME.command.NAME]`
pub const COMMAND: Section = Section {
    title: "[profile.NAME.command.NAME]",
    keys: &[
        "read",
        "write",
        "steps",
        "function",
        "send",
        "send_hex",
        "expect",
        "expect_hex",
        "refuse",
        "until",
        "result",
        "value",
        "values",
        "unavailable",
        "pattern",
        "range",
        "idempotent",
        "verify",
        "read_back",
        "timeout",
        "deadline",
        "min_interval",
        "latest_wins",
        "desired",
    ],
};

/// `[profile.NAME.poll.NAME]`
pub const POLL: Section = Section {
    title: "[profile.NAME.poll.NAME]",
    keys: &[
        "read",
        "send",
        "send_hex",
        "expect",
        "expect_hex",
        "refuse",
        "until",
        "result",
        "values",
        "unavailable",
        "every",
        "report",
        "deadband",
        "max_silence",
    ],
};

/// One of the tables that `steps` holds.
pub const STEP: Section = Section {
    title: "steps",
    keys: &["write", "function", "value", "values", "unavailable", "range", "verify", "read_back"],
};

/// Where a value stands, and how it lies there.
const PLACE: &[&str] = &[
    "table",
    "address",
    "register",
    "type",
    "bit",
    "count",
    "order",
    "word_order",
    "byte_order",
    "scale",
    "offset",
    "scale_register",
    "encoding",
];

/// The table that `read` and `write` hold.
pub const POINT: Section = Section { title: "read and write", keys: &joined::<14>(&[PLACE, &["pad"]]) };

/// The table that `scale_register` holds.
pub const SCALE_REGISTER: Section = Section { title: "scale_register", keys: &["table", "address", "register"] };

/// The table that `read_back` holds.
pub const READ_BACK: Section =
    Section { title: "read_back", keys: &joined::<17>(&[PLACE, &["units", "after", "within", "tolerance"]]) };

/// Every section, in the order of the reference file. [`BUS`] is left out: it is the union of the kinds.
pub const SECTIONS: [Section; 26] = [
    ROOT,
    HUB,
    ADDRESSES,
    PROVISIONING,
    ADMIN,
    LEDGER,
    TELEMETRY,
    METRICS,
    WEB,
    MODBUS_RTU,
    MODBUS_ASCII,
    MODBUS_TCP,
    SERIAL,
    RS485,
    FRAME,
    LENGTH,
    CHECKSUM,
    DEVICE,
    PROFILE,
    MESSAGE,
    COMMAND,
    POLL,
    STEP,
    POINT,
    SCALE_REGISTER,
    READ_BACK,
];

/// Several lists as one, of `N` keys.
const fn joined<const N: usize>(lists: &[&[&'static str]]) -> [&'static str; N] {
    let mut keys = [""; N];
    let (mut filled, mut list) = (0, 0);
    while list < lists.len() {
        let mut at = 0;
        while at < lists[list].len() {
            keys[filled] = lists[list][at];
            (filled, at) = (filled + 1, at + 1);
        }
        list += 1;
    }
    assert!(filled == N, "N is how many keys the lists have together");
    keys
}

/// The candidate that somebody who wrote `name` most likely meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = plain(name);
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let known = plain(candidate);
        let score = if known == wanted {
            1.0
        } else {
            normalized_damerau_levenshtein(&wanted, &known).max(likeness(&wanted, &known))
        };
        if score >= 0.55 && best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// How near two names are in meaning that are far apart in edits: one holds the other (`baudrate` and `baud`), or
/// the other's letters in their order (`uint16` and `u16`).
fn likeness(a: &str, b: &str) -> f64 {
    let (long, short) = if a.len() > b.len() { (a, b) } else { (b, a) };
    if short.len() < 3 {
        return 0.0;
    }
    if long.contains(short) {
        return 0.7;
    }
    let mut rest = long.chars();
    if short.chars().all(|c| rest.any(|other| other == c)) {
        return 0.6;
    }
    0.0
}

/// Keys that mean another thing in each section: that one knows it says nothing of where it was meant to stand.
const OF_NO_ONE: [&str; 14] = [
    "port", "address", "host", "kind", "type", "path", "value", "count", "table", "range", "timeout", "command",
    "read", "write",
];

/// What to say of a key that a section doesn't know.
pub(super) fn unknown_key(key: &str, section: &Section) -> Complaint {
    if *section == HUB && plain(key) == "port" {
        return Complaint::new("unknown key", "write the port behind the name, in address, as HOST:PORT");
    }
    if let Some((known, hint)) = words::meant(key, section.keys) {
        return Complaint::new("unknown key", format!("did you mean {known:?}?{hint}"));
    }
    if let Some(known) = nearest(key, section.keys.iter().copied()) {
        return Complaint::new("unknown key", format!("did you mean {known:?}?"));
    }
    let owner = SECTIONS.iter().find(|other| other.keys.contains(&key) && **other != ROOT);
    match owner.filter(|_| !OF_NO_ONE.contains(&key)) {
        Some(other) => Complaint::new(format!("unknown key, which belongs to {}", other.title), "move it there"),
        None => Complaint::new("unknown key", format!("{} knows {}", section.title, section.keys.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        for (written, section, meant) in [
            ("hosts", HUB, Some("host")),
            ("keep-alive", HUB, Some("keepalive")),
            ("baudrate", BUS, Some("baud")),
            ("timeout", MODBUS_RTU, Some("response_timeout")),
            ("uint", DEVICE, Some("unit")),
            ("Key-File", DEVICE, Some("key_file")),
            ("devices", ROOT, Some("device")),
            ("buses", ROOT, Some("bus")),
            ("colour", DEVICE, None),
            ("bandwidth", HUB, None),
        ] {
            assert_eq!(nearest(written, section.keys.iter().copied()), meant, "{written}");
        }
    }

    #[test]
    fn a_key_of_another_section_is_sent_there() {
        assert_eq!(
            unknown_key("baud", &HUB).to_string(),
            "unknown key, which belongs to [bus.NAME] of kind \"modbus-rtu\"; move it there"
        );
        for (key, section) in [("port", HUB), ("timeout", HUB), ("address", ADMIN), ("kind", LEDGER)] {
            let why = unknown_key(key, &section).to_string();
            assert!(!why.contains("[bus") && !why.contains("[profile"), "{key}: {why}");
        }
        assert!(unknown_key("port", &HUB).remedy.contains("in address, as HOST:PORT"));
        assert!(unknown_key("colour", &ADMIN).remedy.ends_with("[admin] knows socket"));
    }

    #[test]
    fn the_union_of_the_kinds_of_bus_is_complete() {
        for kind in [MODBUS_RTU, MODBUS_ASCII, MODBUS_TCP, SERIAL] {
            assert!(kind.keys.iter().all(|key| BUS.keys.contains(key)));
        }
        assert!(BUS
            .keys
            .iter()
            .all(|key| { [MODBUS_RTU, MODBUS_ASCII, MODBUS_TCP, SERIAL].iter().any(|kind| kind.keys.contains(key)) }));
    }
}
