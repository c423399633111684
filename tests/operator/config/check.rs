//! What is reported together, what is only noted, and what is never shown.

use std::collections::BTreeSet;

use fieldbridge::config::Severity;

use super::{file_of, lines, Site, KEY};

/// A drop-in over the good configuration; the key and a part of the message of the one note that it makes.
type Case = (&'static str, &'static str, &'static str);

fn each_makes_one_note(cases: &[Case]) {
    let site = Site::good();
    for (text, key, fragment) in cases {
        site.write("conf.d/50-case.toml", text);
        let notes = site.loaded().notes;
        let [note] = notes.as_slice() else {
            panic!("{text}: not one note:\n{}", lines(&notes));
        };
        assert_eq!(note.key, *key, "{text}: {note}");
        assert!(note.complaint.to_string().contains(fragment), "{text}: {note}");
        assert!(note.severity != Severity::Error && !note.remedy().is_empty(), "{text}: {note}");
        assert!(note.place.is_some(), "{text}: {note}");
    }
}

#[test]
fn a_good_configuration_has_neither_problems_nor_notes() {
    assert_eq!(lines(&Site::good().loaded().notes), "");
}

#[test]
fn every_error_is_reported_at_once() {
    let site = Site::good();
    let text = r#"
        [hub]
        keepalive = "1s"
        [bus.line-a]
        baud = "19200"
        [device.pump-7]
        bus = "line-b"
        unti = 7
        [profile.pump.command.start]
        write = { table = "coil", address = 1 }
    "#;
    site.write("conf.d/10.toml", text);
    site.write("conf.d/20.toml", "[hub\n");
    site.write("conf.d/30.toml", "[ledger]\nretention = 7\n");
    let problems = site.problems();
    let found: Vec<(&str, &str)> = problems.iter().map(|p| (file_of(p), p.key.as_str())).collect();
    // `start` lacks `idempotent` and `line-b` is unknown, but both may stand in the file that can't be read.
    let expected = [
        ("10.toml", "hub.keepalive"),
        ("10.toml", "bus.line-a.baud"),
        ("10.toml", "device.pump-7.unti"),
        ("20.toml", ""),
        ("30.toml", "ledger.retention"),
    ];
    assert_eq!(found, expected, "{}", lines(&problems));

    site.write("conf.d/20.toml", "");
    let problems = site.problems();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    let expected = [
        "hub.keepalive",
        "bus.line-a.baud",
        "profile.pump.command.start.idempotent",
        "device.pump-7.unti",
        "device.pump-7.bus",
        "ledger.retention",
    ];
    assert_eq!(keys, expected, "{}", lines(&problems));
}

#[test]
fn what_is_wrong_with_a_bus_does_not_hide_what_is_wrong_with_its_devices() {
    let site = Site::good();
    let text = "[bus.line-a]\nbaud = 'fast'\n[device.pump-7]\nunit = 256\nprofile = 'scale'";
    site.write("conf.d/50-case.toml", text);
    let problems = site.problems();
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    let expected = ["bus.line-a.baud", "device.pump-7.unit", "device.pump-7.profile"];
    assert_eq!(keys, expected, "{}", lines(&problems));
}

#[test]
fn what_is_wrong_with_a_point_does_not_hide_what_is_wrong_beside_it() {
    let site = Site::good();
    let text = "[profile.pump.command.c]\nwrite = { table = 'input', address = -1 }\nexpect = 'x'\nrange = [2, 1]";
    site.write("conf.d/50-case.toml", text);
    let problems = site.problems();
    let keys: BTreeSet<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    let prefix = "profile.pump.command.c.";
    let keys: Vec<&str> = keys.into_iter().filter_map(|k| k.strip_prefix(prefix)).collect();
    let expected = ["expect", "idempotent", "range", "write.address", "write.table"];
    assert_eq!(keys, expected, "{}", lines(&problems));
}

#[test]
fn an_interval_that_no_deadline_outlasts_is_noted() {
    each_makes_one_note(&[(
        "[profile.pump.command.c]\nread = { register = 40001 }\nmin_interval = '31s'",
        "profile.pump.command.c.min_interval",
        "is longer than the deadline, 30s",
    )]);
}

#[test]
fn set_points_of_a_device_that_has_no_twin_are_noted() {
    each_makes_one_note(&[(
        "[device.pump-7]\ntransport = 'https'\n[profile.pump.command.c]\nwrite = { register = 40001 }\n\
         idempotent = true\ndesired = 'speed'",
        "device.pump-7.profile",
        "nothing of the device's twin comes or goes",
    )]);
}

#[test]
fn a_patience_of_callers_where_no_call_can_come_is_noted() {
    each_makes_one_note(&[(
        "[device.pump-7]\ntransport = 'https'\nmethod_timeout = '10s'",
        "device.pump-7.method_timeout",
        "no direct method comes over HTTPS",
    )]);
}

#[test]
fn events_that_take_every_line_or_that_a_closed_port_does_not_hear_are_noted() {
    each_makes_one_note(&[
        ("[device.scale]\nevents = '.*'", "device.scale.events", "matches every line"),
        (
            "[bus.scale-port]\nidle_close = '5s'\n[device.scale]\nevents = '^ALARM'",
            "device.scale.events",
            "is not heard while the bus is closed, which it is 5s after each command",
        ),
    ]);
}

#[test]
fn what_is_suspicious_is_noted() {
    each_makes_one_note(&[
        ("[hub]\nhost = 'contoso'", "hub.host", "no domain"),
        ("[bus.line-a]\nparity = 'none'", "bus.line-a.parity", "2 stop bits"),
        ("[bus.line-a]\nkind = 'modbus-ascii'\nparity = 'none'", "bus.line-a.parity", "2 stop bits"),
        ("[hub]\nhost = 'contoso.azure-devices.com'", "hub.host", "did you mean \"contoso.azure-devices.net\"?"),
        ("[hub]\nhost = 'contoso.azuredevices.net'", "hub.host", "did you mean \"contoso.azure-devices.net\"?"),
        (
            "[profile.pump.command.c]\nwrite = { register = 40001, type = 'bool' }\nidempotent = true",
            "profile.pump.command.c.write.type",
            "its other 15 bits",
        ),
        (
            "[profile.pump.command.c]\nread = { register = 40001 }\ntimeout = '5s'\ndeadline = '2s'",
            "profile.pump.command.c.deadline",
            "is shorter than the timeout",
        ),
        (
            "[bus.scale-port]\nresponse_timeout = '40s'",
            "profile.scale.command.tare.deadline",
            "response_timeout of bus \"scale-port\"",
        ),
        (
            "[device.scale]\nresponse_timeout = '40s'",
            "profile.scale.command.tare.deadline",
            "response_timeout of device \"scale\"",
        ),
        ("[bus.line-a]\nbaud = 19201", "bus.line-a.baud", "unusual"),
        ("[device.pump-7]\nunit = 248", "device.pump-7.unit", "reserved"),
        ("[device.pump-7]\nunit = 255", "device.pump-7.unit", "reserved"),
        ("[bus.line-a]\nport = 'ttyUSB0'", "bus.line-a.port", "/dev"),
        ("[bus.idle]\nkind = 'modbus-tcp'\naddress = 'a'", "bus.idle", "opened all the same"),
        ("[profile.idle.command.c]\nread = { register = 1 }", "profile.idle", "no device has this profile"),
        (
            "[device.pump-8]\nbus = 'line-a'\nunit = 7\n\
             [device.pump-9]\nbus = 'plant'\nunit = 1\nprofile = 'pump'\nkey_file = 'keys/good.key'",
            "device.pump-8.unit",
            "\"pump-7\"",
        ),
        (
            "[profile.pump.command.c]\n\
             read = { table = 'holding', address = 40001 }",
            "profile.pump.command.c.read.address",
            "register = 40001",
        ),
        (
            "[profile.scale.command.c]\nsend = \"L {Value}\\r\\n\"\nidempotent = true",
            "profile.scale.command.c.send",
            "{Value}",
        ),
        ("[profile.scale.command.c]\nsend = 'T'\nidempotent = true", "device.scale.profile", "without an end"),
        (
            "[profile.scale.command.c]\nsend = \"20 \u{b0}C\\r\\n\"\nidempotent = true",
            "profile.scale.command.c.send",
            "the bytes C2 B0",
        ),
        ("[bus.scale-port]\ndelimiter = \"\\n\\r\"", "bus.scale-port.delimiter", "\"\\r\\n\""),
        (
            "[profile.scale.command.c]\nsend = \"L {value}\\r\\n\"\nidempotent = true",
            "profile.scale.command.c.send",
            "takes numbers, true and false",
        ),
        (
            "[profile.scale.command.c]\nsend = \"OPEN\\r\\n\"\nexpect = 'OPEN'\nidempotent = true",
            "profile.scale.command.c.expect",
            "an echo confirms nothing",
        ),
    ]);
}

#[test]
fn what_can_hardly_stand_in_a_frame_is_noted() {
    each_makes_one_note(&[
        (
            "[bus.scale-port.frame]\nlength = { at = 0, adds = 1 }\n[profile.scale.command.tare]\nsend = \"\\u0003T\"",
            "device.scale.profile",
            "a frame of 2 bytes on bus \"scale-port\", and by its length 4",
        ),
        (
            "[bus.scale-port.frame]\nstart = 'T'\nfixed = 4",
            "device.scale.profile",
            "begins as every frame on bus \"scale-port\" does",
        ),
        (
            "[profile.scale.command.c]\nsend_hex = \"06 0A\"\nexpect_hex = '06 ??'\nidempotent = true",
            "profile.scale.command.c.expect_hex",
            "an echo confirms nothing",
        ),
    ]);
}

#[test]
fn a_line_that_says_what_it_takes_is_not_noted() {
    let site = Site::good();
    for keys in ["range = [0, 9]", "pattern = '[A-Z]+'", "values = { off = 0, on = 'ON' }", "value = 'AUTO'"] {
        let text = format!("[profile.scale.command.c]\nsend = \"L {{value}}\\r\\n\"\nidempotent = true\n{keys}");
        site.write("conf.d/50-case.toml", text);
        assert_eq!(lines(&site.loaded().notes), "", "{keys}");
    }
    let text = "[profile.pump.command.mode]\nwrite = { table = 'holding', address = 9 }\nidempotent = true\n\
                values = { off = 0, On = 1 }\n\
                [profile.scale.command.c]\nsend = \"R\\r\\n\"\nidempotent = true\nuntil = '^END'\nresult = 'hex'";
    site.write("conf.d/50-case.toml", text);
    assert_eq!(lines(&site.loaded().notes), "");
}

#[test]
fn two_buses_to_one_address_are_noted_and_no_error() {
    let site = Site::good();
    let text = "[bus.plant-2]\nkind = 'modbus-tcp'\naddress = '10.0.0.12'\n[device.pump-8]\nbus = 'plant-2'\n\
                [device.pump-7]\nbus = 'plant'";
    site.write("conf.d/50-case.toml", text);
    let notes = lines(&site.loaded().notes);
    assert!(notes.contains("bus.plant-2.address: is the address of bus \"plant\" too"), "{notes}");
}

#[test]
fn a_configuration_without_devices_is_noted_and_no_error() {
    let site = Site::empty();
    site.write("fieldbridge.toml", "[hub]\nhost = 'contoso.azure-devices.net'");
    let notes = lines(&site.loaded().notes);
    assert!(notes.contains("no devices are configured"), "{notes}");
}

#[test]
fn an_exposed_key_is_noted() {
    let site = Site::good();
    site.chmod("keys/good.key", 0o644);
    let notes = site.loaded().notes;
    assert_eq!(notes.len(), 3, "one for each device:\n{}", lines(&notes));
    assert!(notes[0].complaint.to_string().contains("chmod 0640"), "{}", notes[0]);
}

#[test]
fn what_stands_in_a_key_file_is_checked_and_never_shown() {
    let site = Site::good();
    for (text, fragment) in [
        ("", "is empty"),
        ("hush hush", "words"),
        ("HostName=h;DeviceId=d;SharedAccessKey=hush", "connection_string_file"),
    ] {
        site.write("keys/good.key", text);
        let problems = lines(&site.problems());
        assert!(problems.contains("keys/good.key: "), "{problems}");
        assert!(problems.contains(fragment), "{problems}");
        assert!(!problems.contains("hush"), "{problems}");
    }
    site.write("keys/good.key", [0xff, 0x00, 0x80]);
    assert!(lines(&site.problems()).contains("not text"));
    site.write("keys/good.key", format!("\n {KEY}\n"));
    site.loaded();
}

#[test]
fn a_key_written_in_the_place_of_its_file_is_never_shown() {
    let site = Site::good();
    site.write("conf.d/50-case.toml", format!("[device.pump-7]\nkey_file = '{KEY}'"));
    let problems = lines(&site.problems());
    assert!(problems.contains("holds the secret itself"), "{problems}");
    assert!(!problems.contains(KEY), "{problems}");
}

#[test]
fn a_connection_string_must_be_this_devices_at_this_hub() {
    let site = Site::good();
    let main = super::GOOD.replacen("key_file = \"keys/good.key\"", "connection_string_file = \"keys/string\"", 1);
    site.write("fieldbridge.toml", main);
    let string = |host: &str, device: &str| format!("HostName={host};DeviceId={device};SharedAccessKey={KEY}\n");
    site.write("keys/string", string("Contoso.azure-devices.net", "pump-7"));
    site.loaded();
    for (host, device, fragment) in [
        ("other.azure-devices.net", "pump-7", "is for the hub \"other.azure-devices.net\""),
        ("contoso.azure-devices.net", "Pump-7", "is for the device \"Pump-7\""),
    ] {
        site.write("keys/string", string(host, device));
        let problems = lines(&site.problems());
        assert!(problems.contains(fragment) && !problems.contains(KEY), "{problems}");
    }
}
