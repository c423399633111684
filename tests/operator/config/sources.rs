//! Where values come from, and which of them stands.

use std::fs;
use std::time::Duration;

use fieldbridge::config::{BusKind, Endpoint, TransportKind};

use super::{file_of, lines, Site, KEY};

#[test]
fn a_later_file_overrides_key_by_key_and_arrays_are_replaced() {
    let site = Site::good();
    site.write("conf.d/20-b.toml", "[bus.line-a]\nretries = 4\nturnaround = '5ms'");
    site.write(
        "conf.d/10-a.toml",
        "[bus.line-a]\nretries = 3\nresponse_timeout = '9ms'\n[profile.pump.command.set-speed]\nrange = [5, 6]",
    );
    let config = site.loaded().config;
    let bus = &config.buses["line-a"];
    assert_eq!(bus.retries, 4);
    assert_eq!(bus.turnaround, Duration::from_millis(5));
    assert_eq!(bus.response_timeout, Duration::from_millis(9));
    assert!(matches!(&bus.kind, BusKind::ModbusRtu(Endpoint::Serial(port)) if port.baud == 19_200));
    assert_eq!(config.devices["pump-7"].commands["set-speed"].range, Some((5.0, 6.0)));
    assert!(config.devices["pump-7"].commands["set-speed"].idempotent);
}

#[test]
fn names_keep_their_case_and_their_dots() {
    let site = Site::good();
    let device = |id: &str, unit: u8| {
        format!("[device.{id}]\nbus = 'plant'\nunit = {unit}\nprofile = 'pump'\nkey_file = 'keys/good.key'\n")
    };
    site.write("conf.d/10.toml", device("\"Pump.7\"", 1));
    site.write("conf.d/20.toml", device("PUMP-7", 2));
    site.write("conf.d/30.toml", "[device.\"Pump.7\"]\nunit = 3");
    site.write("conf.d/40.toml", "[device.\"a:b[0]\"]\nunit = 9\nbus = 'no'");
    let problems = site.problems();
    assert!(problems.iter().all(|p| p.key.starts_with("device.\"a:b[0]\"")), "{}", lines(&problems));
    fs::remove_file(site.path("conf.d/40.toml")).unwrap();

    let devices = site.loaded().config.devices;
    let ids: Vec<&str> = devices.keys().map(String::as_str).collect();
    assert_eq!(ids, ["PUMP-7", "Pump.7", "pump-7", "pump-8", "scale"]);
    assert_eq!(devices["Pump.7"].unit, 3);
    assert_eq!(devices["Pump.7"].id, "Pump.7");
}

#[test]
fn a_quoted_key_at_the_top_is_no_path() {
    let site = Site::good();
    site.write("conf.d/10.toml", "\"hub.host\" = 'other.azure-devices.net'");
    let problems = site.problems();
    assert_eq!(problems[0].key, "\"hub.host\"", "{}", lines(&problems));
}

#[test]
fn a_device_may_be_put_together_from_several_files_and_a_problem_names_the_right_one() {
    let site = Site::good();
    site.write("conf.d/10.toml", "[device.new]\nbus = 'plant'\nprofile = 'pump'\nkey_file = 'keys/good.key'");
    site.write("conf.d/20.toml", "[device.new]\nunit = 300");
    let problems = site.problems();
    assert_eq!(file_of(&problems[0]), "20.toml", "{}", lines(&problems));
    site.write("conf.d/20.toml", "[device.new]\nsettle = 'after-accept'");
    let problems = site.problems();
    assert_eq!(problems[0].key, "device.new.unit");
    assert_eq!(file_of(&problems[0]), "10.toml", "the table begins there: {}", lines(&problems));
}

#[test]
fn only_toml_files_in_the_drop_in_folder_count() {
    let site = Site::good();
    for name in ["10.toml~", "20.toml.dpkg-old", ".30.toml", "README"] {
        site.write(&format!("conf.d/{name}"), "not [toml");
    }
    site.loaded();
}

#[test]
fn a_missing_or_unreadable_main_file_is_a_problem_and_never_a_default() {
    let site = Site::empty();
    assert!(lines(&site.problems()).contains("fieldbridge.toml: there is no such file"));
    fs::create_dir(site.path("fieldbridge.toml")).unwrap();
    assert!(lines(&site.problems()).contains("is a folder"));
    assert!(fieldbridge::config::load(std::path::Path::new(""), []).is_err());
    assert!(fieldbridge::config::load(std::path::Path::new("/"), []).is_err());
    let problems = fieldbridge::config::load(std::path::Path::new("/dev/null"), []).unwrap_err();
    assert!(lines(&problems).contains("not a regular file"), "{}", lines(&problems));
}

#[test]
fn a_drop_in_folder_that_is_none_is_a_problem() {
    let site = Site::good();
    site.write("conf.d", "");
    assert!(lines(&site.problems()).contains("conf.d: a part of its path is a file"));
}

#[test]
fn a_drop_in_that_can_not_be_read_is_a_problem() {
    let site = Site::good();
    fs::create_dir_all(site.path("conf.d/10.toml")).unwrap();
    assert!(lines(&site.problems()).contains("10.toml: is a folder"));
    fs::remove_dir(site.path("conf.d/10.toml")).unwrap();
    std::os::unix::fs::symlink("nowhere", site.path("conf.d/10.toml")).unwrap();
    assert!(lines(&site.problems()).contains("10.toml: there is no such file"));
}

#[test]
fn the_size_and_the_number_of_files_are_bounded() {
    let site = Site::good();
    site.write("conf.d/10.toml", "#".repeat((1 << 20) + 1));
    assert!(lines(&site.problems()).contains("larger than 1 MiB"));
    site.write("conf.d/10.toml", "#".repeat(1 << 20));
    site.loaded();
    for i in 0..16 {
        fs::hard_link(site.path("conf.d/10.toml"), site.path(&format!("conf.d/20-{i}.toml"))).unwrap();
    }
    assert!(lines(&site.problems()).contains("larger than 16 MiB"));
    site.write("conf.d/10.toml", "");
    for i in 0..1000 {
        site.write(&format!("conf.d/30-{i}.toml"), "");
    }
    assert!(lines(&site.problems()).contains("more than 1000 files"));
}

#[test]
fn a_syntax_error_has_its_line_and_column_and_hides_nothing_elsewhere() {
    let site = Site::good();
    site.write("fieldbridge.toml", "[hub]\nhost = \"contoso.azure-devices.net\nkeepalive = \"1s\"\n");
    site.write("conf.d/10.toml", "[ledger]\nretention = '1d'");
    site.write("conf.d/20.toml", b"[hub]\n# \xff\n".as_slice());
    site.write("conf.d/30.toml", "[hub]\nkeepalive = '60s'\nkeepalive = '61s'\n");
    site.write("conf.d/40.toml", "[hub]\nconnect_rate = 99999999999999999999\n");
    let problems = site.problems();
    let text = lines(&problems);
    assert_eq!(problems.len(), 5, "{text}");
    for fragment in [
        "fieldbridge.toml:2:34: the quote that closes",
        "10.toml:2:1: ledger.retention: ",
        "20.toml:2:3: this is not UTF-8",
        "30.toml:3:1: this key stands here for the second time",
        "40.toml:2:16: this number is too large",
    ] {
        assert!(text.contains(fragment), "{fragment}:\n{text}");
    }
}

#[test]
fn paths_are_relative_to_the_main_file_wherever_they_stand() {
    let site = Site::good();
    site.write("conf.d/10.toml", "[ledger]\npath = 'state/ledger.db'\n[admin]\nsocket = '/tmp/a.sock'");
    let config = site.loaded().config;
    assert_eq!(config.ledger.path, site.path("state/ledger.db"));
    assert_eq!(config.admin_socket.to_str(), Some("/tmp/a.sock"));
}

#[test]
fn a_file_that_anybody_can_change_is_noted() {
    let site = Site::good();
    site.chmod("fieldbridge.toml", 0o606);
    let notes = lines(&site.loaded().notes);
    assert!(notes.ends_with("fieldbridge.toml:1:1: anybody on this machine can change this file; `chmod o-w` it"));
}

#[test]
fn the_environment_overrides_files_and_is_parsed_as_the_type_expected() {
    let site = Site::good();
    site.write("conf.d/10.toml", "[hub]\nkeepalive = '61s'");
    let loaded = site.load_with(&[
        ("PATH", "/bin"),
        ("FIELDBRIDGE_LOG", "debug"),
        ("FIELDBRIDGE__HUB__HOST", "Other.azure-devices.net"),
        ("FIELDBRIDGE__HUB__KEEPALIVE", "62s"),
        ("FIELDBRIDGE__HUB__CONNECT_RATE", "7"),
        ("FIELDBRIDGE__HUB__TLS", "false"),
        ("FIELDBRIDGE__HUB__ADDRESS", "localhost"),
        ("FIELDBRIDGE__DEVICE__PUMP_7__UNIT", "17"),
        ("FIELDBRIDGE__PROFILE__PUMP__COMMAND__SET_SPEED__RANGE", "[1, 2.5]"),
        ("FIELDBRIDGE__PROFILE__PUMP__COMMAND__SET_SPEED__VALUE", "2"),
        ("FIELDBRIDGE__PROFILE__PUMP__COMMAND__SET_SPEED__WRITE__SCALE", "0.5"),
    ]);
    let config = loaded.unwrap_or_else(|problems| panic!("{}", lines(&problems))).config;
    assert_eq!(config.hub.host, "other.azure-devices.net");
    assert_eq!(config.hub.keepalive, Duration::from_secs(62));
    assert_eq!(config.hub.connect_rate, 7);
    assert!(!config.hub.tls);
    assert_eq!(config.hub.address(TransportKind::Mqtt), "localhost:1883");
    assert_eq!(config.devices["pump-7"].unit, 17);
    let command = &config.devices["pump-7"].commands["set-speed"];
    assert_eq!(command.range, Some((1.0, 2.5)));
    assert_eq!(command.fixed, Some(2.into()));
}

#[test]
fn a_problem_in_the_environment_is_named_as_one() {
    let site = Site::good();
    let problems = site
        .load_with(&[
            ("FIELDBRIDGE__HUB__CONNECT_RATE", "many"),
            ("FIELDBRIDGE__HUB__HOTS", "x"),
            ("FIELDBRIDGE__BUS__LINE_A", "x"),
            ("FIELDBRIDGE____X", "x"),
        ])
        .unwrap_err();
    let text = lines(&problems);
    for fragment in [
        "environment: hub.connect_rate: expected an integer, found \"many\"",
        "environment: hub.hots: unknown key; did you mean \"host\"?",
        "environment: bus.line-a: expected a table, found a string",
        "environment: FIELDBRIDGE____X: has an empty part",
    ] {
        assert!(text.contains(fragment), "{fragment}:\n{text}");
    }
}

#[test]
fn the_environment_alone_can_complete_the_installed_file() {
    let site = Site::empty();
    site.write("fieldbridge.toml", include_str!("../../../config/fieldbridge.toml"));
    site.write("d.key", KEY);
    let loaded = site.load_with(&[
        ("FIELDBRIDGE__HUB__HOST", "contoso.azure-devices.net"),
        ("FIELDBRIDGE__BUS__PLANT__KIND", "modbus-tcp"),
        ("FIELDBRIDGE__BUS__PLANT__ADDRESS", "10.0.0.1"),
        ("FIELDBRIDGE__DEVICE__d-1__BUS", "plant"),
        ("FIELDBRIDGE__DEVICE__d-1__UNIT", "0"),
        ("FIELDBRIDGE__DEVICE__d-1__PROFILE", "p"),
        ("FIELDBRIDGE__DEVICE__d-1__KEY_FILE", "d.key"),
        ("FIELDBRIDGE__PROFILE__P__COMMAND__GET__READ__REGISTER", "40001"),
    ]);
    let config = loaded.unwrap_or_else(|problems| panic!("{}", lines(&problems))).config;
    assert_eq!(config.devices["d-1"].commands["get"].name, "get");
}

#[test]
fn no_damage_to_a_file_makes_it_panic() {
    let site = Site::good();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let words: Vec<&str> = super::GOOD.split_inclusive([' ', '\n', '.', '"']).collect();
    for round in 0..300 {
        let mut damaged = words.clone();
        for _ in 0..random.usize(1..4) {
            let (from, to) = (random.usize(..words.len()), random.usize(..words.len()));
            match random.u8(..3) {
                0 => damaged[to] = words[from],
                1 => damaged[to] = "",
                _ => damaged[to] = ["-1", "'\\u0000'", "[[", "1e999", "{}", "nan"][random.usize(..6)],
            }
        }
        let text = damaged.concat();
        site.write("fieldbridge.toml", &text);
        let result = std::panic::catch_unwind(|| site.load());
        assert!(result.is_ok(), "seed {seed}, round {round}:\n{text}");
    }
}
