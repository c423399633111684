//! How values lie in coils and registers, from the hub to the slave and back: orders, types, names, what stands for
//! nothing, and the function that writes.

use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::{eventually, pump, Daemon, Site};
use fieldbridge::demo::hub::C2d;
use serde_json::{json, Value as Json};

struct Plant {
    hub: Hub,
    slave: Slave,
    site: Site,
    _daemon: Daemon,
}

/// A device with these commands beside its usual ones.
fn plant(commands: &str) -> Plant {
    let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
    let device = pump(slave.address(), "after-execution", "response_timeout = \"500ms\"\nretry_pause = \"10ms\"");
    let site = Site::at(&hub, &format!("{device}{commands}"));
    let daemon = site.start();
    eventually("the device is subscribed", || hub.is_subscribed("pump").then_some(()));
    Plant { hub, slave, site, _daemon: daemon }
}

impl Plant {
    /// Sends a command and gives the row that it ends in, without what doesn't change.
    fn row(&self, command: &str, value: &Json) -> Json {
        let id = format!("m-{}", self.site.rows().len());
        self.hub.send("pump", C2d::new(&id, value.to_string()).property("command", command)).unwrap();
        eventually("the command has ended", || {
            self.site.rows().into_iter().find(|row| row["messageId"] == id && !row["finishedAt"].is_null())
        })
    }

    /// What a command that succeeds has written or read.
    fn value(&self, command: &str, value: &Json) -> Json {
        let row = self.row(command, value);
        assert_eq!(row["state"], "succeeded", "{row}");
        row["value"].clone()
    }

    /// The code and the sentence of a command that doesn't.
    fn fault(&self, command: &str, value: &Json) -> (String, String) {
        let row = self.row(command, value);
        assert_ne!(row["state"], "succeeded", "{row}");
        let text = |key: &str| row["error"][key].as_str().unwrap_or_default().to_owned();
        (text("code"), text("message"))
    }

    fn set_registers(&self, address: u16, words: &[u16]) {
        (address..).zip(words).for_each(|(address, word)| self.slave.set_register(address, *word));
    }
}

#[test]
fn an_order_by_its_letters_is_how_registers_are_written_read_and_read_back() {
    let (order, registers): ([&str; 4], [[u16; 2]; 4]) =
        (["ABCD", "CDAB", "BADC", "DCBA"], [[0x1234, 0x5678], [0x5678, 0x1234], [0x3412, 0x7856], [0x7856, 0x3412]]);
    let commands: String = order
        .iter()
        .map(|order| {
            format!(
                "[profile.pump.command.write-{order}]\nidempotent = false\nverify = true\n\
                 write = {{ table = \"holding\", address = 20, type = \"u32\", order = \"{order}\" }}\n\
                 [profile.pump.command.read-{order}]\n\
                 read = {{ table = \"holding\", address = 20, type = \"u32\", order = \"{order}\" }}\n\
                 [profile.pump.command.shown-{order}]\nidempotent = false\nread_back = {{ address = 30, type = \"i32\" }}\n\
                 write = {{ table = \"holding\", address = 20, type = \"u32\", order = \"{order}\" }}\n"
            )
        })
        .collect();
    let plant = plant(&commands);
    for (order, words) in order.iter().zip(registers) {
        assert_eq!(plant.value(&format!("write-{order}"), &json!(0x1234_5678)), 0x1234_5678);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let asked = [&[16, 0, 20, 0, 2, 4], &bytes[..]].concat();
        assert_eq!(plant.slave.other_writes().last(), Some(&asked), "{order}");
        assert_eq!(plant.value(&format!("read-{order}"), &Json::Null), 0x1234_5678, "{order}");
        plant.set_registers(30, &words);
        assert_eq!(plant.value(&format!("shown-{order}"), &json!(0x1234_5678)), 0x1234_5678, "{order}");
    }
}

#[test]
fn decimal_digits_are_written_and_read_and_what_is_none_is_a_bad_reply_that_names_the_registers() {
    let plant = plant(
        r#"
[profile.pump.command.dose]
write = { table = "holding", address = 20, type = "bcd16", scale = 0.1 }
verify = true
idempotent = false

[profile.pump.command.count]
write = { table = "holding", address = 21, type = "bcd32", order = "CDAB" }
read_back = { address = 30, type = "u32" }
idempotent = false

[profile.pump.command.read-all]
read = { table = "holding", address = 21, type = "bcd32", order = "CDAB", count = 2 }
"#,
    );
    assert_eq!(plant.value("dose", &json!(123.4)), 123.4);
    assert_eq!(plant.slave.writes(), [(20, 0x1234)]);
    // It shows as a plain number, the little register first.
    plant.set_registers(30, &[0x614E, 0x00BC]);
    assert_eq!(plant.value("count", &json!(12_345_678)), 12_345_678);
    assert_eq!(plant.slave.other_writes(), [[16, 0, 21, 0, 2, 4, 0x56, 0x78, 0x12, 0x34]]);
    plant.set_registers(23, &[0x0042, 0x9900]);
    assert_eq!(plant.value("read-all", &Json::Null), json!([12_345_678, 99_000_042]));
    plant.set_registers(23, &[0x00F2, 0x9900]);
    let (code, message) = plant.fault("read-all", &Json::Null);
    assert_eq!(code, "bad-reply");
    assert!(message.contains("the registers at addresses 23 to 24 hold 0x00F2 0x9900"), "{message}");
    for (command, value) in [("dose", json!(1000)), ("dose", json!(-0.1)), ("count", json!(100_000_000))] {
        assert_eq!(plant.fault(command, &value).0, "out-of-range", "{value}");
    }
    assert_eq!((plant.slave.writes().len(), plant.slave.other_writes().len()), (1, 1));
}

#[test]
fn names_stand_for_the_values_of_registers_and_coils_both_ways_and_nothing_else_is_written() {
    let plant = plant(
        r#"
[profile.pump.command.mode]
write = { table = "holding", address = 20, scale = 0.5 }
values = { off = 0, eco = 1.5, auto = 2 }
verify = true
idempotent = false

[profile.pump.command.read-mode]
read = { table = "holding", address = 20, scale = 0.5, count = 2 }
values = { off = 0, eco = 1.5, auto = 2 }

[profile.pump.command.gate]
write = { table = "coil", address = 7 }
values = { shut = 0, open = 1 }
verify = true
idempotent = false

[profile.pump.command.read-gate]
read = { table = "coil", address = 7 }
values = { shut = 0, open = 1 }
"#,
    );
    for (given, word, name) in [(json!("eco"), 3, "eco"), (json!(2), 4, "auto"), (json!(0.0), 0, "off")] {
        assert_eq!(plant.value("mode", &given), name);
        assert_eq!(plant.slave.writes().last(), Some(&(20, word)), "{given}");
    }
    plant.set_registers(20, &[3, 9]);
    assert_eq!(plant.value("read-mode", &Json::Null), json!(["eco", 4.5]));
    for (given, on, name) in [(json!("open"), 0xFF, "open"), (json!(0), 0, "shut")] {
        assert_eq!(plant.value("gate", &given), name);
        assert_eq!(plant.slave.other_writes().last().unwrap()[..], [5, 0, 7, on, 0], "{given}");
        assert_eq!(plant.value("read-gate", &Json::Null), name);
    }
    let others =
        [("mode", json!("ECO")), ("mode", json!(1)), ("mode", json!(true)), ("gate", json!(true)), ("gate", json!(2))];
    for (command, value) in others {
        let (code, message) = plant.fault(command, &value);
        assert_eq!(code, "out-of-range", "{command} {value}");
        assert!(message.contains("expected one of"), "{message}");
    }
    assert_eq!((plant.slave.writes().len(), plant.slave.other_writes().len()), (3, 2));
}

#[test]
fn what_stands_for_no_value_is_read_as_null_and_does_not_confirm() {
    let plant = plant(
        r#"
[profile.pump.command.read-levels]
read = { table = "holding", address = 20, type = "i16", scale = 0.1, count = 3 }
unavailable = 0x8000

[profile.pump.command.read-total]
read = { table = "holding", address = 24, type = "u64" }
unavailable = -1

[profile.pump.command.level]
write = { table = "holding", address = 20, type = "i16", scale = 0.1 }
read_back = { address = 30, within = "200ms" }
unavailable = 0x8000
idempotent = false
"#,
    );
    plant.set_registers(20, &[215, 0x8000, 0x8001]);
    assert_eq!(plant.value("read-levels", &Json::Null), json!([21.5, null, -3276.7]));
    plant.set_registers(24, &[0xFFFF; 4]);
    assert_eq!(plant.value("read-total", &Json::Null), Json::Null);
    let output = plant.site.command(&["exec", "pump", "read-total"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "succeeded: null", "it is said, and not left out");
    plant.set_registers(30, &[0x8000]);
    let row = plant.row("level", &json!(1.5));
    assert_eq!((&row["state"], &row["error"]["code"]), (&json!("in_doubt"), &json!("bad-reply")), "{row}");
    let message = row["error"]["message"].as_str().unwrap();
    assert!(message.contains("confirmed, but") && message.contains("stands 0x8000, which says"), "{message}");
    assert_eq!(plant.fault("level", &json!(-3276.8)).0, "out-of-range");
    assert_eq!(plant.slave.writes(), [(20, 15)]);
    plant.set_registers(30, &[25]);
    assert_eq!(plant.value("level", &json!(2.5)), 2.5);
}

#[test]
fn one_coil_or_register_is_written_by_the_function_that_the_profile_names() {
    let plant = plant(
        r#"
[profile.pump.command.speed]
write = { table = "holding", address = 20 }
function = 16
verify = true
idempotent = false

[profile.pump.command.speed-alone]
write = { table = "holding", address = 20 }
function = 6
idempotent = false

[profile.pump.command.relay]
write = { table = "coil", address = 9 }
function = 15
verify = true
idempotent = false

[profile.pump.command.relay-alone]
write = { table = "coil", address = 9 }
function = 5
verify = true
idempotent = false
"#,
    );
    assert_eq!(plant.value("speed", &json!(1500)), 1500);
    assert_eq!(plant.value("speed-alone", &json!(1600)), 1600);
    assert_eq!(plant.value("relay", &json!(true)), true);
    assert_eq!(plant.value("relay-alone", &json!(false)), false);
    assert_eq!(plant.slave.writes(), [(20, 1600)]);
    let asked: [&[u8]; 3] = [&[16, 0, 20, 0, 1, 2, 0x05, 0xDC], &[15, 0, 9, 0, 1, 1, 1], &[5, 0, 9, 0, 0]];
    assert_eq!(plant.slave.other_writes(), asked);
}

/// Eight bytes in four registers.
fn text_registers(text: &[u8; 8]) -> Vec<u16> {
    text.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

#[test]
fn a_text_is_filled_up_and_encoded_as_the_profile_says_and_read_without_what_fills_it_up() {
    let plant = plant(
        r#"
[profile.pump.command.label]
write = { table = "holding", address = 20, type = "string", count = 4 }
verify = true
idempotent = false

[profile.pump.command.old-label]
write = { table = "holding", address = 20, type = "string", count = 4, pad = "space", encoding = "latin-1" }
verify = true
idempotent = false

[profile.pump.command.read-label]
read = { table = "holding", address = 20, type = "string", count = 4 }

[profile.pump.command.read-old-label]
read = { table = "holding", address = 20, type = "string", count = 4, encoding = "latin-1" }
"#,
    );
    for (command, text, bytes) in [
        ("label", "Tür", b"T\xC3\xBCr\0\0\0\0"),
        ("old-label", "Tür", b"T\xFCr     "),
        ("old-label", "Öfen 1-3", b"\xD6fen 1-3"),
    ] {
        assert_eq!(plant.value(command, &json!(text)), text);
        let asked = [&[16, 0, 20, 0, 4, 8], &bytes[..]].concat();
        assert_eq!(plant.slave.other_writes().last(), Some(&asked), "{command} {text}");
    }
    for (bytes, read, as_latin_1) in [
        (b"ABC     ", "ABC", "ABC"),
        (b"ABC \0XY\0", "ABC", "ABC"),
        (b"  A B  \0", "  A B", "  A B"),
        (b"Ger\xE4t\0\0\0", "Gerät", "Gerät"),
        (b"Ger\xC3\xA4t\0\0", "Gerät", "Ger\u{C3}\u{A4}t"),
        (b"        ", "", ""),
    ] {
        plant.set_registers(20, &text_registers(bytes));
        assert_eq!(plant.value("read-label", &Json::Null), read, "{bytes:02x?}");
        assert_eq!(plant.value("read-old-label", &Json::Null), as_latin_1, "{bytes:02x?}");
    }
    let writes = plant.slave.other_writes().len();
    for (command, value, code, told) in [
        ("old-label", "10 €", "bad-value", "'€' is none"),
        ("label", "ÄÖÜäöü", "out-of-range", "at most 8 bytes, got 12"),
        ("label", "A\u{0}B", "bad-value", "control"),
    ] {
        let (found, message) = plant.fault(command, &json!(value));
        assert!(found == code && message.contains(told), "{value}: {found}, {message}");
    }
    assert_eq!(plant.slave.other_writes().len(), writes);
}

#[test]
fn a_text_that_the_peripheral_keeps_with_other_bytes_behind_it_is_confirmed_and_another_text_is_not() {
    let plant = plant(
        r#"
[profile.pump.command.label]
write = { table = "holding", address = 20, type = "string", count = 4 }
read_back = { address = 30, within = "100ms" }
idempotent = false
"#,
    );
    for (shown, is_confirmed) in [
        (b"ABC\0\0\0\0\0", true),
        (b"ABC     ", true),
        (b"ABC\0EFGH", true),
        (b"ABCD\0\0\0\0", false),
        (b" ABC\0\0\0\0", false),
        (b"abc\0\0\0\0\0", false),
    ] {
        plant.set_registers(30, &text_registers(shown));
        let row = plant.row("label", &json!("ABC"));
        let state = if is_confirmed { "succeeded" } else { "failed" };
        assert_eq!(row["state"], state, "{shown:02x?}: {row}");
        assert!(is_confirmed || row["error"]["code"] == "verify-mismatch", "{row}");
    }
}
