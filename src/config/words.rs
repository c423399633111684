//! Other programs' words for what the configuration calls otherwise. Pure.

use crate::complaint::Complaint;
use regex_lite::Regex;

/// A key of ours, the names that it has elsewhere, and what is to be said beside it.
type Alias = (&'static str, &'static [&'static str], &'static str);

const KEYS: &[Alias] = &[
    (
        "unit",
        &[
            "slave_id",
            "slaveid",
            "slave",
            "slave_address",
            "slave_addr",
            "node",
            "node_id",
            "station",
            "station_id",
            "device_address",
            "modbus_id",
            "modbus_address",
            "unit_id",
            "unitid",
            "server_id",
            "device_id",
            "id",
        ],
        "",
    ),
    ("baud", &["baudrate", "baud_rate", "speed", "bps", "bitrate", "bit_rate"], ""),
    ("data_bits", &["bytesize", "byte_size", "databits", "word_length", "character_size", "bits"], ""),
    ("stop_bits", &["stopbits", "stopbit", "stop"], ""),
    (
        "parity",
        &["mode", "framing", "frame", "line_settings", "serial_mode", "serial_settings"],
        " Write data_bits, parity and stop_bits, each on a line of its own",
    ),
    ("port", &["tty", "serial_port", "serialport", "device", "dev", "com", "com_port", "path", "file", "usb"], ""),
    ("address", &["host", "ip", "ip_address", "hostname", "url", "endpoint", "server", "tcp_address"], " As HOST:PORT"),
    ("address", &["tcp_port"], " As HOST:PORT"),
    ("kind", &["type", "protocol", "driver", "transport"], ""),
    (
        "order",
        &["endianness", "endian", "swap", "data_order", "register_order", "format_order"],
        " It is ABCD, CDAB, BADC or DCBA",
    ),
    ("word_order", &["word_swap", "swap_words", "wordorder"], ""),
    ("byte_order", &["byteorder", "byte_swap", "swap_bytes"], ""),
    ("pad", &["padding", "pad_char", "fill", "fill_char", "filler"], " It is nul or space"),
    ("encoding", &["charset", "codepage", "code_page", "character_set", "text_encoding"], " It is utf-8 or latin-1"),
    ("type", &["datatype", "data_type", "format", "kind", "value_type"], ""),
    ("scale", &["factor", "multiplier", "gain", "resolution", "scaling", "multiply", "divisor"], ""),
    ("offset", &["bias", "add", "shift"], ""),
    ("count", &["length", "quantity", "size", "number", "len", "registers", "words"], ""),
    ("range", &["min", "max", "minimum", "maximum", "limit", "limits", "bounds"], " As range = [0, 100]"),
    (
        "table",
        &["function", "function_code", "functioncode", "fc", "register_type", "object_type", "area", "space"],
        " It is coil, discrete, holding or input; the function that writes stands beside write, as function = 16",
    ),
    (
        "function",
        &["function_code", "functioncode", "fc", "write_function", "write_fc", "modbus_function"],
        " It is 5, 6, 15, 16, 22 or 23",
    ),
    ("steps", &["sequence", "writes", "actions", "commands", "script", "batch"], " As steps = [ { write = { … }, value = 1 }, … ]"),
    ("bit", &["bit_number", "bit_index", "bit_offset", "bit_position", "bitmask", "bit_mask", "mask", "sub_element"], ""),
    (
        "scale_register",
        &["sf", "scale_factor", "scalefactor", "scale_factor_register", "sunssf", "exponent", "exponent_register"],
        " It is where the power of ten stands, as scale_register = { address = 5 }; a scale that is always the same is scale",
    ),
    ("delimiter", &["terminator", "termination", "eol", "newline", "line_ending", "line_end", "end", "suffix"], ""),
    (
        "rs485",
        &["rs485_mode", "rs_485", "rts", "rts_mode", "rts_toggle", "rts_control", "half_duplex", "direction_control"],
        " As rs485 = { rts_on_send = true }",
    ),
    (
        "max_in_flight",
        &[
            "pipelining",
            "pipeline",
            "max_outstanding",
            "outstanding",
            "concurrency",
            "max_parallel",
            "parallel",
            "max_pending",
        ],
        " It is a number from 1 to 16",
    ),
    (
        "low_latency",
        &["latency", "latency_timer", "latencytimer", "lowlatency", "async_low_latency", "ftdi_latency"],
        " It is true or false",
    ),
    ("response_timeout", &["read_timeout", "reply_timeout", "answer_timeout"], ""),
    ("retries", &["retry", "attempts", "tries", "max_retries", "retry_count"], ""),
    ("turnaround", &["delay", "pause", "gap", "inter_frame_delay", "wait"], ""),
    ("connect_pause", &["connect_delay", "connection_delay", "delay_after_connect", "warm_up", "warmup"], ""),
    (
        "unreachable_after",
        &[
            "offline_after",
            "max_failures",
            "failure_threshold",
            "fail_count",
            "max_errors",
            "dead_after",
            "error_limit",
        ],
        " It is a number of requests",
    ),
    (
        "probe_interval",
        &["reconnect_interval", "retry_interval", "recovery_interval", "backoff", "dead_time", "offline_interval"],
        " As a duration, such as 10s",
    ),
    (
        "every",
        &[
            "interval",
            "period",
            "poll_interval",
            "scan_interval",
            "scan_rate",
            "sample_interval",
            "sampling_interval",
            "update_interval",
            "scan_time",
            "cycle",
            "rate",
            "frequency",
        ],
        " As a duration, such as 10s",
    ),
    ("report", &["report_mode", "publish", "on_change", "trigger", "mode"], " It is \"always\" or \"change\""),
    ("deadband", &["hysteresis", "threshold", "delta", "cov", "min_change", "dead_band"], ""),
    (
        "max_silence",
        &["heartbeat", "max_interval", "force_interval", "forced_interval", "keepalive", "max_age"],
        " As a duration, such as 1h",
    ),
    ("poll", &["telemetry", "readings", "sensors", "measurements", "points", "tags"], ""),
    ("telemetry", &["d2c", "upstream", "store_and_forward", "northbound"], ""),
    ("max_size", &["max_bytes", "size_limit", "max_disk", "limit", "retention"], " As a size, such as 64MiB"),
    ("batch_size", &["max_batch", "batch_bytes", "max_message_size", "message_size"], " As a size, such as 4KiB"),
    (
        "batch_delay",
        &["linger", "flush_interval", "batch_interval", "batching_interval", "publish_interval", "max_delay"],
        " As a duration, such as 10s",
    ),
    ("newest_first", &["latest_first", "lifo", "order"], " It is true or false"),
    ("daily_messages", &["daily_quota", "daily_limit", "max_messages", "messages_per_day", "quota"], ""),
    ("on_unreachable", &["when_unreachable", "on_offline", "when_offline", "if_offline", "on_away"], ""),
    (
        "method_timeout",
        &["call_timeout", "direct_method_timeout", "invoke_timeout"],
        "",
    ),
    ("idle_close", &["idle_timeout", "disconnect_after", "close_after", "inactivity_timeout", "keep_open"], ""),
    (
        "key_file",
        &[
            "key",
            "sas_key",
            "primary_key",
            "device_key",
            "symmetric_key",
            "shared_access_key",
            "sharedaccesskey",
            "secret",
            "password",
            "token",
            "keyfile",
        ],
        " Put the key into a file that only fieldbridge can read, and name the file",
    ),
    (
        "connection_string_file",
        &["connection_string", "connectionstring", "connstr", "connection"],
        " Put the string into a file that only fieldbridge can read, and name the file",
    ),
    (
        "registration_id",
        &["registration", "reg_id", "dps_registration_id", "dps_id", "enrollment", "enrollment_id"],
        "",
    ),
    ("id_scope", &["scope", "idscope", "dps_scope", "scope_id"], ""),
    ("provisioning", &["dps", "device_provisioning", "device_provisioning_service", "enrollment", "enrolment"], ""),
    ("cert_file", &["certificate", "cert", "client_cert", "client_certificate", "x509", "certfile"], ""),
    ("cert_key_file", &["private_key", "client_key", "keyfile", "private_key_file"], ""),
    ("host", &["hostname", "host_name", "hub", "hub_name", "iothub", "iothub_hostname", "url", "server", "name"], ""),
    ("ca_file", &["ca", "cafile", "ca_cert", "ca_certificate", "root_ca", "trust", "trust_file", "cacert"], ""),
    ("idempotent", &["repeatable", "retryable", "safe", "repeat"], ""),
    (
        "unavailable",
        &[
            "null_value",
            "nan",
            "nan_value",
            "error_value",
            "unsupported_value",
            "not_available",
            "na",
            "invalid",
            "none",
        ],
        " It is what the registers hold then, such as 0x8000",
    ),
    ("verify", &["readback", "confirm", "check"], ""),
    (
        "min_interval",
        &["minimum_interval", "cooldown", "cool_down", "debounce", "rate_limit", "min_gap", "min_pause", "spacing"],
        " As a duration, such as 30s",
    ),
    (
        "latest_wins",
        &["last_wins", "newest_wins", "latest_only", "newest_only", "coalesce", "supersede", "overwrite"],
        " It is true or false",
    ),
    (
        "desired",
        &["desired_property", "twin", "twin_property", "set_point", "setpoint", "property"],
        " It is the name of a desired property, such as \"speed\"",
    ),
    ("expect", &["response", "reply", "regex", "match", "answer", "pattern_ok", "ok", "success"], ""),
    ("refuse", &["error", "reject", "nak", "failure", "fail"], ""),
    ("send", &["request", "text", "query", "cmd", "transmit", "tx"], ""),
    (
        "events",
        &["event", "unsolicited", "urc", "notifications", "notify", "alarms", "spontaneous", "watch", "listen"],
        " It is a regular expression, such as \"^ALARM\"",
    ),
    ("profile", &["template", "model", "driver"], ""),
    ("bus", &["line", "interface", "connection", "port", "channel"], ""),
    ("socket", &["path", "file", "listen"], ""),
    (
        "listen",
        &["bind", "address", "addr", "port", "endpoint", "socket", "listen_address", "bind_address", "listen_addr", "url"],
        " As \"127.0.0.1:PORT\" or \"unix:PATH\"",
    ),
    (
        "hosts",
        &["host", "names", "name", "allowed_hosts", "host_names", "server_name", "server_names", "virtual_hosts", "domains"],
        " As hosts = [\"gateway.plant\"]",
    ),
    ("web", &["http", "webserver", "web_server", "web_ui", "webui", "ui", "gui", "dashboard", "page", "html"], ""),
    ("metrics", &["prometheus", "openmetrics", "monitoring", "exporter", "statistics", "stats"], ""),
    ("path", &["file", "database", "db"], ""),
    ("retention", &["keep", "ttl", "max_age", "history"], ""),
];

/// The key of a section that somebody meant who knows another program, and what is to be said beside it.
pub(super) fn meant(key: &str, section: &[&'static str]) -> Option<(&'static str, &'static str)> {
    let key = plain(key);
    let found = KEYS.iter().find(|(known, names, _)| section.contains(known) && names.contains(&key.as_str()));
    found.map(|(known, _, hint)| (*known, *hint))
}

/// Whether a key is another program's name for one of ours.
pub(super) fn is_known(key: &str) -> bool {
    let key = plain(key);
    KEYS.iter().any(|(_, names, _)| names.contains(&key.as_str()))
}

/// Letter case and the choice of separator are the commonest slips; they count for nothing.
pub(super) fn plain(name: &str) -> String {
    name.to_lowercase().replace(['-', '.', ' '], "_")
}

/// `8N1` and its like: what the three signs are in the configuration.
pub(super) fn framing(text: &str) -> Option<Complaint> {
    let parts = Regex::new(r"^([5-8])\s*[-/,]?\s*([NEOneo])\s*[-/,]?\s*([12])$").ok()?.captures(text)?;
    let parity = match &parts[2].to_lowercase()[..] {
        "n" => "none",
        "e" => "even",
        _ => "odd",
    };
    Some(Complaint::new(
        "these are three settings in one",
        format!(
            "write data_bits = {}, parity = \"{parity}\" and stop_bits = {}, each on a line of its own",
            &parts[1], &parts[3]
        ),
    ))
}

/// Words for a key's value that the configuration writes otherwise: the key, its word, and the others' words.
const VALUES: &[(&str, &str, &[&str])] = &[
    ("parity", "none", &["n", "no", "0", "off", "false"]),
    ("parity", "even", &["e", "2"]),
    ("parity", "odd", &["o", "1"]),
    ("kind", "modbus-rtu", &["rtu", "modbusrtu", "serial-rtu", "rs485", "rs-485", "modbus_serial"]),
    ("kind", "modbus-tcp", &["tcp", "modbustcp", "ethernet", "ip", "modbus-ip"]),
    ("kind", "modbus-ascii", &["modbusascii", "mb-ascii", "ascii-modbus", "serial-ascii"]),
    ("kind", "serial", &["text", "rs232", "rs-232", "uart", "tty", "line"]),
    ("table", "coil", &["0x", "do", "digital-output", "output", "fc1", "fc5", "coil-status"]),
    ("table", "discrete", &["1x", "di", "digital-input", "contact", "fc2", "input-status"]),
    ("table", "holding", &["4x", "hr", "ao", "analog-output", "register", "fc3", "fc6", "fc16", "holding_register"]),
    ("table", "input", &["3x", "ir", "ai", "analog-input", "fc4", "input_register"]),
    ("type", "bool", &["bit", "boolean", "flag"]),
    ("type", "u16", &["uint", "uint16", "word", "ushort", "unsigned", "uint_16", "u_int16", "uint16_t"]),
    ("type", "i16", &["int", "int16", "short", "s16", "sint16", "integer", "signed", "int16_t"]),
    ("type", "u32", &["uint32", "dword", "ulong", "udint", "uint32_t", "unsigned32"]),
    ("type", "i32", &["int32", "long", "dint", "s32", "sint32", "int32_t"]),
    ("type", "u64", &["uint64", "qword", "ulint", "uint64_t", "lword"]),
    ("type", "i64", &["int64", "lint", "s64", "longlong", "int64_t"]),
    ("type", "f32", &["float", "float32", "real", "single", "f", "ieee754", "float_32"]),
    ("type", "f64", &["double", "float64", "lreal", "float_64"]),
    ("type", "bcd16", &["bcd", "bcd4", "bcd_16", "16-bit-bcd", "packed-bcd"]),
    ("type", "bcd32", &["bcd8", "lbcd", "bcd_32", "32-bit-bcd", "dbcd"]),
    ("type", "string", &["text", "str", "ascii", "char", "utf8", "utf-8"]),
    ("order", "ABCD", &["big", "big-endian", "be", "ab", "1234", "normal", "none"]),
    ("order", "CDAB", &["little-endian-byte-swap", "word-swap", "swap-words", "swapped-words", "3412"]),
    ("order", "BADC", &["big-endian-byte-swap", "byte-swap", "swap-bytes", "swapped-bytes", "ba", "2143"]),
    ("order", "DCBA", &["little", "little-endian", "le", "4321"]),
    ("word_order", "big", &["msw", "msw_first", "high", "high_first", "be", "normal", "false"]),
    ("word_order", "little", &["lsw", "lsw_first", "low", "low_first", "le", "swap", "swapped", "reverse", "true"]),
    ("byte_order", "big", &["msb", "msb_first", "be", "network", "false"]),
    ("byte_order", "little", &["lsb", "lsb_first", "le", "swap", "swapped", "intel", "true"]),
    ("pad", "nul", &["null", "zero", "zeros", "0", "none"]),
    ("pad", "space", &["spaces", "blank", "blanks"]),
    ("encoding", "utf-8", &["utf8", "ascii", "us-ascii", "unicode"]),
    ("encoding", "latin-1", &["latin1", "iso-8859-1", "iso8859-1", "windows-1252", "ansi", "l1"]),
    ("settle", "after-accept", &["early", "at-receipt", "on-receipt", "receipt"]),
    ("settle", "after-execution", &["late", "done", "after-done", "end"]),
];

/// How registers and bytes lie, by the letters that manuals have for it: ours, and those for 32 bits and for 64.
const LETTERS: [(&str, &str, &str); 4] = [
    ("ABCD", "abcd", "abcdefgh"),
    ("CDAB", "cdab", "ghefcdab"),
    ("BADC", "badc", "badcfehg"),
    ("DCBA", "dcba", "hgfedcba"),
];

/// The order that a word of other programs has in it, such as `FLOAT32 CD AB`.
fn order(word: &str) -> Option<&'static str> {
    let letters: String = word.chars().filter(char::is_ascii_alphabetic).collect();
    // Four letters of eight may stand for an order that we don't have.
    let is_of_eight = letters.contains("ef") || letters.contains("fe");
    let is_it = |four: &str, eight: &str| letters.contains(if is_of_eight { eight } else { four });
    LETTERS.iter().find(|(_, four, eight)| is_it(four, eight)).map(|(ours, ..)| *ours)
}

/// What is said of a word that a key doesn't take, if it is another program's.
pub(super) fn instead(key: &str, word: &str) -> Option<Complaint> {
    if key == "parity" {
        if let Some(told) = framing(word.trim()) {
            return Some(told);
        }
    }
    let word = word.trim().to_lowercase();
    if matches!(key, "order" | "word_order" | "byte_order" | "type") {
        if let Some(order) = order(&word) {
            return Some(match key {
                "order" => Complaint::new(
                    format!("{word:?} is not what it is called here"),
                    format!("did you mean {order:?}? So it is called for 64 bits, too"),
                ),
                "type" => Complaint::new(
                    format!("{order} says how registers and bytes lie"),
                    format!("write it by itself: order = {order:?}"),
                ),
                _ => Complaint::new(
                    format!("{order} says how registers and bytes lie, both"),
                    format!("write order = {order:?} in place of word_order and byte_order"),
                ),
            });
        }
    }
    if key == "kind" && matches!(word.as_str(), "modbus" | "mb") {
        return Some(Complaint::new(
            "\"modbus\" is three kinds of bus",
            "write \"modbus-rtu\", \"modbus-ascii\" or \"modbus-tcp\"",
        ));
    }
    if key == "kind" && word == "ascii" {
        return Some(Complaint::new(
            "\"ascii\" is two kinds of bus",
            "write \"modbus-ascii\" for Modbus frames that begin with a colon, or \"serial\" for lines of text",
        ));
    }
    let is_it = |names: &[&str]| names.iter().any(|name| plain(name) == plain(&word));
    let (_, ours, _) = VALUES.iter().find(|(of, _, names)| *of == key && is_it(names))?;
    Some(Complaint::new(format!("{word:?} is not what it is called here"), format!("did you mean {ours:?}?")))
}

/// What is said of a number where a word is wanted.
pub(super) fn of_number(key: &str, number: i64) -> String {
    let table = match number {
        1 | 5 | 15 => "coil",
        2 => "discrete",
        3 | 6 | 16 => "holding",
        4 => "input",
        _ => "",
    };
    match (key, table) {
        ("table", table) if !table.is_empty() => format!("for function code {number} write {table:?}"),
        _ => "write text, in quotes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    #[test]
    fn other_programs_words_lead_to_ours() {
        for (section, written, ours) in [
            (keys::DEVICE, "slave_id", "unit"),
            (keys::DEVICE, "Slave-ID", "unit"),
            (keys::MODBUS_RTU, "baudrate", "baud"),
            (keys::MODBUS_RTU, "tty", "port"),
            (keys::MODBUS_TCP, "host", "address"),
            (keys::POINT, "function_code", "table"),
            (keys::COMMAND, "function_code", "function"),
            (keys::POINT, "datatype", "type"),
            (keys::POINT, "endianness", "order"),
            (keys::READ_BACK, "swap", "order"),
            (keys::POINT, "padding", "pad"),
            (keys::READ_BACK, "charset", "encoding"),
            (keys::POINT, "word_swap", "word_order"),
            (keys::SERIAL, "terminator", "delimiter"),
            (keys::COMMAND, "nan_value", "unavailable"),
            (keys::DEVICE, "connection_string", "connection_string_file"),
            (keys::DEVICE, "dps_id", "registration_id"),
            (keys::PROVISIONING, "scope", "id_scope"),
            (keys::ROOT, "dps", "provisioning"),
            (keys::METRICS, "bind", "listen"),
            (keys::WEB, "allowed_hosts", "hosts"),
            (keys::ROOT, "prometheus", "metrics"),
            (keys::ROOT, "d2c", "telemetry"),
            (keys::PROFILE, "telemetry", "poll"),
            (keys::POLL, "interval", "every"),
            (keys::POLL, "heartbeat", "max_silence"),
            (keys::TELEMETRY, "linger", "batch_delay"),
        ] {
            assert_eq!(meant(written, section.keys).map(|(known, _)| known), Some(ours), "{written}");
        }
        assert_eq!(meant("colour", keys::DEVICE.keys), None);
        for (key, written, told) in [
            ("parity", "E", "\"even\""),
            ("parity", "8N1", "data_bits = 8, parity = \"none\" and stop_bits = 1"),
            ("parity", "7e2", "data_bits = 7, parity = \"even\" and stop_bits = 2"),
            ("word_order", "CDAB", "order = \"CDAB\" in place of word_order and byte_order"),
            ("byte_order", "badc", "order = \"BADC\" in place of word_order and byte_order"),
            ("order", "cdab", "did you mean \"CDAB\"?"),
            ("order", "CD AB", "did you mean \"CDAB\"?"),
            ("order", "GHEFCDAB", "did you mean \"CDAB\"?"),
            ("order", "HGFEDCBA", "did you mean \"DCBA\"?"),
            ("order", "little-endian", "did you mean \"DCBA\"?"),
            ("order", "byte swap", "did you mean \"BADC\"?"),
            ("type", "u64 GHEFCDAB", "order = \"CDAB\""),
            ("type", "float", "\"f32\""),
            ("type", "FLOAT32 CDAB", "order = \"CDAB\""),
            ("type", "double", "\"f64\""),
            ("type", "word", "\"u16\""),
            ("kind", "rtu", "\"modbus-rtu\""),
            ("kind", "modbus", "\"modbus-rtu\", \"modbus-ascii\" or \"modbus-tcp\""),
            ("kind", "modbusascii", "\"modbus-ascii\""),
            ("kind", "ASCII", "\"modbus-ascii\" for Modbus"),
            ("table", "4x", "\"holding\""),
            ("encoding", "ISO-8859-1", "\"latin-1\""),
            ("pad", "zero", "\"nul\""),
        ] {
            let found = instead(key, written).map(|why| why.to_string()).unwrap_or_default();
            assert!(found.contains(told), "{key} = {written}: {found}");
        }
        assert_eq!(instead("parity", "evne"), None);
        assert_eq!(instead("order", "EFGHABCD"), None, "the two halves of 64 bits are not turned round by any");
    }
}
