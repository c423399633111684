//! What the value of each key looks like.

use crate::config::keys::{self, Section};
use crate::config::{bus, TransportKind, ENCODINGS, ORDERS, PADS, TABLES, TYPES};
use crate::peripheral::checksum;
use crate::peripheral::quirks::Quirk;

/// What a value looks like, with what can be said of it without another key.
pub(in crate::config) enum Shape {
    /// Text of at least one character: names, paths, addresses, regular expressions.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number, both limits included.
    Integer(i64, i64),
    /// A number.
    Number,
    /// Two numbers.
    Pair,
    /// Text such as `30s`.
    Duration,
    /// Text such as `64MiB`.
    Size,
    /// One of these words.
    Word(Vec<&'static str>),
    /// One of these numbers.
    OneOf(&'static [i64]),
    /// Any of these words.
    Words(Vec<&'static str>),
    /// Any texts.
    Texts,
    /// A text, a byte or an array of bytes.
    Bytes,
    /// Unit ids, each once.
    Units,
    /// What a command writes.
    Value,
    /// A table of names and what they stand for.
    Names,
    /// A table.
    Table(Section),
    /// Tables by names of the user's own.
    Tables(Section),
    /// A list of tables.
    List(Section),
}

impl Shape {
    /// Whether its value is a string in any case.
    pub(in crate::config) fn is_text(&self) -> bool {
        matches!(self, Shape::Text | Shape::Duration | Shape::Size | Shape::Word(_))
    }
}

/// What a key of a section holds; `None` for one that nobody has said it of.
pub(in crate::config) fn shape(section: Section, key: &str) -> Option<Shape> {
    of_one(section, key).or_else(|| of_table(key)).or_else(|| of_any(key))
}

/// Keys that hold another thing in some sections.
fn of_one(section: Section, key: &str) -> Option<Shape> {
    use Shape::{Integer, Tables, Text, Word};
    let shape = match section.title {
        title if title == keys::ROOT.title => match key {
            "bus" => Tables(keys::BUS),
            "device" => Tables(keys::DEVICE),
            "profile" => Tables(keys::PROFILE),
            name => return Section::of_table(name).map(Shape::Table),
        },
        title if title == keys::PROFILE.title && key == "command" => Tables(keys::COMMAND),
        title if title == keys::PROFILE.title && key == "poll" => Tables(keys::POLL),
        title if title == keys::MESSAGE.title && key == "value" => Text,
        title if title == keys::CHECKSUM.title && key == "kind" => {
            Word(checksum::KINDS.iter().map(|(name, _)| *name).collect())
        }
        title if [keys::POINT, keys::READ_BACK, keys::SCALE_REGISTER].iter().any(|point| point.title == title) => {
            match key {
                "address" => Integer(0, 65_535),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(shape)
}

/// Keys that hold tables.
fn of_table(key: &str) -> Option<Shape> {
    let section = match key {
        "addresses" => keys::ADDRESSES,
        "rs485" => keys::RS485,
        "frame" => keys::FRAME,
        "length" => keys::LENGTH,
        "checksum" => keys::CHECKSUM,
        "message" => keys::MESSAGE,
        "read" | "write" => keys::POINT,
        "read_back" => keys::READ_BACK,
        "scale_register" => keys::SCALE_REGISTER,
        "steps" => return Some(Shape::List(keys::STEP)),
        "values" => return Some(Shape::Names),
        _ => return None,
    };
    Some(Shape::Table(section))
}

/// Keys that hold the same in every section.
fn of_any(key: &str) -> Option<Shape> {
    use Shape::{Boolean, Bytes, Duration, Integer, Number, OneOf, Pair, Size, Text, Texts, Units, Value, Word, Words};
    let shape = match key {
        "host" | "id_scope" | "registration_id" | "listen" | "address" | "gateway" | "proxy" | "api_version"
        | "mqtt" | "mqtt-ws" | "amqp" | "amqp-ws" | "https" => Text,
        "socket"
        | "path"
        | "port"
        | "ca_file"
        | "key_file"
        | "secondary_key_file"
        | "connection_string_file"
        | "cert_file"
        | "cert_key_file"
        | "proxy_credentials_file" => Text,
        "bus" | "profile" | "default_command" | "command" | "delimiter" => Text,
        "send" | "send_hex" | "expect" | "expect_hex" | "refuse" | "until" | "pattern" | "events" | "desired" => Text,
        "tls" | "low_latency" | "rts_on_send" | "numbers_as_text" | "idempotent" | "verify" | "latest_wins"
        | "newest_first" => Boolean,
        "keepalive" | "token_lifetime" | "poll_interval" | "retention" => Duration,
        "response_timeout" | "retry_pause" | "turnaround" | "late_window" | "connect_pause" | "idle_close"
        | "probe_interval" | "wake_after" | "delay_before" | "delay_after" | "idle" => Duration,
        "timeout" | "deadline" | "method_timeout" | "min_interval" | "after" | "within" => Duration,
        "every" | "max_silence" | "batch_delay" => Duration,
        "max_size" | "batch_size" => Size,
        "daily_messages" => Integer(0, 1_000_000_000),
        "start" | "end" | "escape" | "wake" => Bytes,
        "connect_rate" => Integer(1, 1000),
        "baud" => Integer(50, 4_000_000),
        "data_bits" => Integer(5, 8),
        "stop_bits" | "size" => Integer(1, 2),
        "retries" => Integer(0, 10),
        "max_in_flight" => Integer(1, 16),
        "unreachable_after" => Integer(0, 100),
        "fixed" => Integer(1, 4096),
        "at" | "unit" => Integer(0, 255),
        "adds" => Integer(-65_535, 4096),
        "register" => Integer(1, 465_536),
        "bit" => Integer(0, 15),
        "count" => Integer(1, 2000),
        "unavailable" => Integer(i64::MIN, i64::MAX),
        "function" => OneOf(&[5, 6, 15, 16, 22, 23]),
        "scale" | "offset" | "tolerance" | "deadband" => Number,
        "range" => Pair,
        "units" => Units,
        "hosts" => Texts,
        "value" => Value,
        "quirks" => Words(Quirk::ALL.map(Quirk::as_str).to_vec()),
        _ => return word(key).map(Word),
    };
    Some(shape)
}

/// The words that a key chooses from.
fn word(key: &str) -> Option<Vec<&'static str>> {
    let words = match key {
        "transport" => TransportKind::ALL.map(TransportKind::as_str).to_vec(),
        "kind" => bus::KINDS.map(|(name, _)| name).to_vec(),
        "parity" => vec!["none", "even", "odd"],
        "echo" => vec!["none", "strip"],
        "as" => vec!["binary-le", "binary-be", "hex"],
        "covers" => vec!["payload", "frame"],
        "settle" => vec!["after-execution", "after-accept"],
        "on_unreachable" => vec!["fail", "hold", "mirror"],
        "report" => vec!["always", "change"],
        "result" => vec!["text", "number", "hex"],
        "table" => TABLES.map(|(name, _)| name).to_vec(),
        "type" => TYPES.map(|(name, _)| name).to_vec(),
        "order" => ORDERS.map(|(name, _)| name).to_vec(),
        "word_order" | "byte_order" => vec!["big", "little"],
        "pad" => PADS.map(|(name, _)| name).to_vec(),
        "encoding" => ENCODINGS.map(|(name, _)| name).to_vec(),
        _ => return None,
    };
    Some(words)
}
