//! The files that are shipped: they load, and the reference names every key that the code knows, and no other.

use std::collections::{BTreeMap, BTreeSet};

use config::{FileFormat, Format, Map, Value, ValueKind};
use fieldbridge::config::keys;
use regex_lite::Regex;

use super::{lines, Site, CERTIFICATE, KEY, PRIVATE_KEY};

/// A device's second key.
const OTHER_KEY: &str = "HxweHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE=";

const REFERENCE: &str = include_str!("../../../config/fieldbridge.reference.toml");
const INSTALLED: &str = include_str!("../../../config/fieldbridge.toml");

/// The reference with its commented defaults in force.
fn with_defaults() -> String {
    let commented = Regex::new(r"(?m)^#([a-z0-9_-]+ = )").unwrap();
    commented.replace_all(REFERENCE, "$1").into_owned()
}

/// The reference with its commented examples in force, too.
fn with_everything() -> String {
    let commented = Regex::new(r"(?m)^# ([a-z0-9_-]+ = )").unwrap();
    // The head of the file explains the convention with a key that is none.
    let (head, body) = REFERENCE.split_at(REFERENCE.find("\n[hub]").unwrap());
    assert!(!head.contains("\n["));
    let body = commented.replace_all(body, "$1");
    let defaults = Regex::new(r"(?m)^#([a-z0-9_-]+ = )").unwrap();
    defaults.replace_all(&body, "$1").into_owned()
}

/// A site with the files that a configuration refers to.
fn site(text: &str) -> Site {
    let site = Site::empty();
    site.write("fieldbridge.toml", text);
    let named = Regex::new(r#"(?m)^#? ?(\w+_file) = "(.+)""#).unwrap();
    let device = Regex::new(r"(?m)^\[device\.(.+)\]").unwrap();
    for table in text.split("\n[") {
        let table = format!("[{table}");
        let id = device.captures(&table).map_or("", |found| found.get(1).unwrap().as_str());
        for found in named.captures_iter(&table) {
            let string = format!("HostName=contoso.azure-devices.net;DeviceId={id};SharedAccessKey={KEY}");
            let content = match &found[1] {
                "key_file" => KEY,
                "connection_string_file" => &string,
                "cert_key_file" => PRIVATE_KEY,
                "secondary_key_file" => OTHER_KEY,
                "proxy_credentials_file" => "user:password",
                _ => CERTIFICATE,
            };
            site.write(&found[2], content);
        }
    }
    site
}

#[test]
fn the_reference_loads_without_problems_or_notes() {
    for text in [REFERENCE, &with_defaults(), &with_everything()] {
        assert_eq!(lines(&site(text).loaded().notes), "");
    }
}

#[test]
fn the_defaults_that_the_reference_tells_are_the_defaults() {
    assert_ne!(with_defaults(), REFERENCE);
    let (plain, told) = (site(REFERENCE), site(&with_defaults()));
    let [plain_text, told_text] = [&plain, &told].map(|site| {
        // Paths are relative to each one's folder.
        let folder = site.path("").display().to_string();
        format!("{:#?}", site.loaded().config).replace(&folder, "FOLDER/")
    });
    assert_eq!(told_text, plain_text);
}

#[test]
fn the_reference_names_every_key_that_the_code_knows_and_no_other() {
    let tree = FileFormat::Toml.parse(None, &with_everything()).unwrap();
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut see = |section: keys::Section, table: &Map<String, Value>| {
        found.entry(section.title).or_default().extend(table.keys().cloned());
    };
    see(keys::ROOT, &tree);
    for (section, key) in [(keys::HUB, "hub"), (keys::ADMIN, "admin"), (keys::LEDGER, "ledger")] {
        see(section, table(&tree[key]));
    }
    see(keys::ADDRESSES, table(&table(&tree["hub"])["addresses"]));
    for bus in table(&tree["bus"]).values().map(table) {
        let section = match bus["kind"].to_string().as_str() {
            "modbus-rtu" => keys::MODBUS_RTU,
            "modbus-ascii" => keys::MODBUS_ASCII,
            "modbus-tcp" => keys::MODBUS_TCP,
            _ => keys::SERIAL,
        };
        see(section, bus);
        if let Some(rs485) = bus.get("rs485") {
            see(keys::RS485, table(rs485));
        }
        if let Some(frame) = bus.get("frame").map(table) {
            see(keys::FRAME, frame);
            for (section, key) in [(keys::LENGTH, "length"), (keys::CHECKSUM, "checksum")] {
                frame.get(key).into_iter().for_each(|value| see(section, table(value)));
            }
        }
    }
    for device in table(&tree["device"]).values() {
        see(keys::DEVICE, table(device));
    }
    for profile in table(&tree["profile"]).values().map(table) {
        see(keys::PROFILE, profile);
        if let Some(message) = profile.get("message") {
            see(keys::MESSAGE, table(message));
        }
        for command in table(&profile["command"]).values().map(table) {
            see(keys::COMMAND, command);
            for point in ["read", "write"].iter().filter_map(|key| command.get(*key)) {
                see(keys::POINT, table(point));
            }
            if let Some(point) = command.get("read_back") {
                see(keys::READ_BACK, table(point));
            }
        }
    }
    for section in keys::SECTIONS {
        let known: BTreeSet<String> = section.keys.iter().map(ToString::to_string).collect();
        assert_eq!(found.remove(section.title), Some(known), "{}", section.title);
    }
    assert!(found.is_empty(), "{found:?}");
}

fn table(value: &Value) -> &Map<String, Value> {
    match &value.kind {
        ValueKind::Table(table) => table,
        other => panic!("no table: {other}"),
    }
}

#[test]
fn the_examples_load_without_problems_or_notes() {
    for text in [
        include_str!("../../../config/examples/one-rtu-bus.toml"),
        include_str!("../../../config/examples/two-buses.toml"),
        include_str!("../../../config/examples/modbus-tcp.toml"),
        include_str!("../../../config/examples/line-protocol.toml"),
    ] {
        let loaded = site(text).loaded();
        assert_eq!(lines(&loaded.notes), "", "{text}");
        assert!(!loaded.config.devices.is_empty(), "{text}");
    }
}

#[test]
fn every_example_is_tested() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 4);
}

#[test]
fn every_profile_that_is_shipped_loads_as_a_drop_in() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/profiles");
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let name = Regex::new(r"\[profile\.([a-z0-9-]+)\.").unwrap().captures(&text).unwrap()[1].to_owned();
        let (kind, unit) = if text.contains("send = ") { ("serial", "") } else { ("modbus-rtu", "unit = 1\n") };
        let site = site(&format!(
            "[hub]\nhost = \"contoso.azure-devices.net\"\n\
             [bus.line]\nkind = \"{kind}\"\nport = \"/dev/test/line\"\nbaud = 9600\n\
             [device.it]\nbus = \"line\"\nprofile = \"{name}\"\nkey_file = \"it.key\"\n{unit}"
        ));
        site.write("conf.d/profile.toml", &text);
        let loaded = site.loaded();
        assert_eq!(lines(&loaded.notes), "", "{name}");
        let commands = text.matches("\n[profile.").count();
        assert_eq!(loaded.config.devices["it"].commands.len(), commands, "{name}");
        found += 1;
    }
    assert!(found > 0);
}

#[test]
fn the_installed_file_is_refused_until_the_hub_is_filled_in_and_says_so() {
    let problems = site(INSTALLED).problems();
    assert_eq!(problems.len(), 1, "{}", lines(&problems));
    assert_eq!(problems[0].key, "hub.host");
    assert!(problems[0].complaint.to_string().contains("not filled in yet; put the host name"), "{}", problems[0]);
    assert!(problems[0].complaint.to_string().ends_with("then `systemctl restart fieldbridge`"), "{}", problems[0]);

    // What it shows as comments is a whole configuration.
    let commented = Regex::new(r"(?m)^# (\[|[a-z_]+ = )").unwrap();
    let whole = commented.replace_all(INSTALLED, "$1");
    let whole = whole.replace("host = \"\"", "host = \"contoso.azure-devices.net\"");
    let site = site(&whole);
    site.write("keys/pump-7.key", KEY);
    let loaded = site.loaded();
    assert_eq!(lines(&loaded.notes), "");
    assert_eq!(loaded.config.devices.len(), 1);
}
