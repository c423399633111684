//! What is right or wrong only together with another key, or by the form in which it is written.

use fieldbridge::config::{Cut, Severity};

use super::wrong::{Bench, Case};
use super::{lines, Site};

/// A drop-in over the good configuration, and a part of each note that it makes, in order.
fn notes(text: &str) -> Vec<String> {
    let site = Site::good();
    site.write("conf.d/50-case.toml", text);
    let notes = site.loaded().notes;
    assert!(
        notes.iter().all(|note| note.severity != Severity::Error && !note.remedy().is_empty()),
        "{}",
        lines(&notes)
    );
    notes.iter().map(|note| format!("{}: {}", note.key, note.complaint)).collect()
}

const TEXTS: &[Case] = &[
    (
        "write = { register = 40001, type = 'string', count = 4, pad = 'blank' }\nidempotent = true",
        ".write.pad",
        "did you mean \"space\"?",
    ),
    (
        "write = { register = 40001, type = 'string', count = 4, encoding = 'iso-8859-1' }\nidempotent = true",
        ".write.encoding",
        "did you mean \"latin-1\"?",
    ),
    (
        "write = { register = 40001, pad = 'space' }\nidempotent = true",
        ".write.pad",
        "is for texts, and this point holds none",
    ),
    ("read = { register = 40001, encoding = 'utf-8' }", ".read.encoding", "is for texts"),
    ("read = { register = 40001, type = 'string', count = 4, pad = 'nul' }", ".read.pad", "is for what is written"),
    (
        "write = { register = 40001, type = 'string', count = 4 }\nread_back = { pad = 'nul' }\nidempotent = true",
        ".read_back.pad",
        "unknown key",
    ),
    (
        "write = { register = 40001, type = 'string', count = 4, encoding = 'latin-1' }\nvalue = '5 €'\nidempotent = true",
        ".value",
        "Latin-1, has, and '€' is none",
    ),
    (
        "write = { register = 40001 }\nverify = '1s'\nidempotent = true",
        ".verify",
        "is true or false; to say for how long it is looked for, write read_back = { within = \"1s\" }",
    ),
];

#[test]
fn how_a_text_lies_in_registers_and_for_how_long_a_write_is_looked_for_is_checked() {
    let bench = Bench::new();
    bench.each_makes_one_problem("profile.pump.command.c", TEXTS);
}

const PLACES: &[(&str, &str, &str)] = &[
    ("send = \"A{value:02X}\\r\\n\"", "[0, 1000]", "is 0 to 1000, and {value:02X} holds 0 to 255"),
    ("send = \"A{value:02X}\\r\\n\"", "[-5, 5]", "is -5 to 5, and {value:02X} holds 0 to 255"),
    ("send = \"A{value:03d}\\r\\n\"", "[0, 5000]", "is 0 to 5000, and {value:03d} holds -99 to 999"),
    ("send_hex = \"01 {value:u8}\"", "[0, 1000]", "is 0 to 1000, and {value:u8} holds 0 to 255"),
    ("send = \"A{value:05.1f} {value:03d}\\r\\n\"", "[0, 999.9]", "{value:03d} holds -99 to 999"),
];

#[test]
fn a_range_is_one_that_the_place_of_the_value_holds() {
    let bench = Bench::new();
    for (sends, range, told) in PLACES {
        let text = format!("[profile.scale.command.c]\n{sends}\nrange = {range}\nidempotent = true");
        bench.makes_one_problem(&text, "profile.scale.command.c.range", told);
    }
    for (sends, range) in [
        ("send = \"A{value:05.1f}\\r\\n\"", "[-99.9, 999.9]"),
        ("send = \"A{value}\\r\\n\"", "[0, 1e6]"),
        ("send_hex = \"01 {value:i16le} 0D 0A\"", "[-32768, 32767]"),
    ] {
        let text = format!("[profile.scale.command.c]\n{sends}\nrange = {range}\nidempotent = true");
        assert_eq!(notes(&text), [""; 0], "{sends}");
    }
}

const PORTS: &[Case] = &[
    ("[bus.scale-port]\nport = 'tcp://10.0.0.13:4001'", "bus.scale-port.port", "write address = \"10.0.0.13:4001\""),
    ("[bus.line-a]\nport = 'socket://plc:4001/?x=1'", "bus.line-a.port", "address = \"plc:4001\" in the place of port"),
    ("[bus.line-a]\nport = 'COM3'", "bus.line-a.port", "COM3 is what Windows calls a port; write its path"),
    ("[bus.line-a]\nport = '\\\\.\\COM12'", "bus.line-a.port", "/dev/serial/by-id"),
    (
        "[bus.a]\nkind = 'serial'\naddress = 'PLC:4001'\n[bus.b]\nkind = 'serial'\naddress = 'plc:4001'",
        "bus.b.address",
        "is the address of bus \"a\" too",
    ),
    (
        "[bus.a]\nkind = 'modbus-rtu'\naddress = '[FE80::0:1]:4001'\n[bus.b]\nkind = 'modbus-rtu'\n\
         address = '[fe80::1]:4001'",
        "bus.b.address",
        "is the address of bus \"a\" too",
    ),
    ("[bus.scale-port.frame]\nidle = '6s'", "bus.scale-port.frame.idle", "2ms to 5s"),
    ("[bus.scale-port.frame]\nidle = '1ms'", "bus.scale-port.frame.idle", "2ms to 5s"),
    (
        "[bus.scale-port.frame]\nstart = [0x10, 2]\nend = [0x11, 3]\nescape = 0x10",
        "bus.scale-port.frame.escape",
        "two of which the escape is the first",
    ),
    (
        "[bus.scale-port.frame]\nstart = 2\nend = [0x10, 3]\nescape = 0x10",
        "bus.scale-port.frame.escape",
        "two of which the escape is the first",
    ),
];

#[test]
fn a_port_an_address_and_a_frame_are_what_they_are_however_they_are_written() {
    let bench = Bench::new();
    for (text, key, fragment) in PORTS {
        bench.makes_one_problem(text, key, fragment);
    }
    let long = |bytes: usize, baud: u32| {
        format!("[bus.scale-port]\nbaud = {baud}\nwake = [{}]", vec!["0x55"; bytes].join(", "))
    };
    bench.makes_one_problem(&long(1025, 9600), "bus.scale-port.wake", "longer than 1024 bytes");
    bench.makes_one_problem(&long(1024, 300), "bus.scale-port.wake", "takes 38s at 300 baud, and may take 10s");
    assert_eq!(notes(&long(528, 2400)), [""; 0]);
    let doubled = "[bus.scale-port.frame]\nstart = [0x10, 2]\nend = [0x10, 3]\nescape = 0x10";
    assert_eq!(notes(doubled), [""; 0]);
    let site = Site::good();
    site.write("conf.d/50-case.toml", "[bus.scale-port.frame]\nidle = '5s'");
    let kind = &site.loaded().config.buses["scale-port"].kind;
    assert!(matches!(kind, fieldbridge::config::BusKind::Serial { cut: Cut::Frame(_), .. }), "{kind:?}");
}

#[test]
fn without_tls_a_proxy_is_one_on_this_machine() {
    let plain = |proxy: &str| format!("[hub]\ntls = false\naddress = '127.0.0.1:1883'\nproxy = '{proxy}'");
    for proxy in ["http://127.0.0.1:3128", "http://localhost:3128", "http://[::1]:3128"] {
        let told = notes(&plain(proxy));
        let [note] = &told[..] else { panic!("{proxy}: {told:?}") };
        assert!(note.starts_with("hub.tls: without TLS the proxy on this machine can read"), "{note}");
    }
    let bench = Bench::new();
    bench.makes_one_problem(&plain("http://10.0.0.9:3128"), "hub.tls", "or name a proxy on this machine");
}

#[test]
fn a_device_that_needs_one_request_at_a_time_has_it_whatever_its_bus_says_and_that_is_noted() {
    for (quirk, most) in [("transaction-id", 1), ("length", 1), ("unit-id", 1), ("echo", 4)] {
        let site = Site::good();
        let text = format!(
            "[bus.lone]\nkind = 'modbus-tcp'\naddress = '10.0.0.14'\nmax_in_flight = 4\n[device.d]\nbus = 'lone'\n\
             unit = 9\nprofile = 'pump'\nkey_file = 'keys/good.key'\nquirks = ['{quirk}']"
        );
        site.write("conf.d/50-case.toml", text);
        let loaded = site.loaded();
        assert_eq!(loaded.config.buses["lone"].max_in_flight, most, "{quirk}");
        let told = lines(&loaded.notes);
        assert_eq!(told.contains("device.d.quirks") && told.contains("one request at a time"), most == 1, "{told}");
    }
}

#[test]
fn an_expression_that_wants_the_end_of_a_reply_is_warned_of_where_that_is_cut_off() {
    let tare = |keys: &str| notes(&format!("[profile.scale.command.tare]\n{keys}"));
    for (keys, key) in
        [(r"expect = '^OK\r\n$'", "expect"), ("expect = \"^OK\\n\"", "expect"), (r"refuse = '^ERR\r'", "refuse")]
    {
        let told = tare(keys);
        let [note] = &told[..] else { panic!("{keys}: {told:?}") };
        assert!(
            note.starts_with("device.scale.profile") && note.contains(&format!("`{key}` of its command")),
            "{note}"
        );
    }
    for keys in [r"expect = '^OK\r?\n?$'", "until = '^END'\nexpect = '^A 1\\nB'", "expect = '^OK$'"] {
        assert_eq!(tare(keys), [""; 0], "{keys}");
    }
}
