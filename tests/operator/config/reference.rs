//! The files that are shipped: they load, and the reference names every key that the code knows, and no other.

use std::collections::{BTreeMap, BTreeSet};

use config::{FileFormat, Format, Map, Value, ValueKind};
use fieldbridge::config::shipped::Shipped;
use fieldbridge::config::{keys, load};
use regex_lite::Regex;

use super::{lines, Site, CERTIFICATE, KEY, PRIVATE_KEY};
use crate::support::profiles;

/// A device's second key.
const OTHER_KEY: &str = "HxweHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE=";

pub(super) const REFERENCE: &str = include_str!("../../../config/fieldbridge.reference.toml");
pub(super) const INSTALLED: &str = include_str!("../../../config/fieldbridge.toml");

/// The reference with its commented defaults in force.
pub(super) fn with_defaults() -> String {
    let commented = Regex::new(r"(?m)^#([a-z0-9_-]+ = )").unwrap();
    commented.replace_all(REFERENCE, "$1").into_owned()
}

/// The reference with its commented examples in force, too.
pub(super) fn with_everything() -> String {
    let commented = Regex::new(r"(?m)^# ([a-z0-9_-]+ = )").unwrap();
    // The head of the file explains the convention with a key that is none.
    let (head, body) = REFERENCE.split_at(REFERENCE.find("\n[hub]").unwrap());
    assert!(!head.contains("\n["));
    let body = commented.replace_all(body, "$1");
    let defaults = Regex::new(r"(?m)^#([a-z0-9_-]+ = )").unwrap();
    defaults.replace_all(&body, "$1").into_owned()
}

/// A site with the files that a configuration refers to.
pub(super) fn site(text: &str) -> Site {
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
    let [admin, ledger] = [(keys::ADMIN, "admin"), (keys::LEDGER, "ledger")];
    for (section, key) in [(keys::HUB, "hub"), admin, ledger, (keys::METRICS, "metrics"), (keys::WEB, "web")] {
        see(section, table(&tree[key]));
    }
    see(keys::PROVISIONING, table(&tree["provisioning"]));
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
            for (section, key) in [(keys::POINT, "read"), (keys::POINT, "write"), (keys::READ_BACK, "read_back")] {
                let Some(point) = command.get(key).map(table) else { continue };
                see(section, point);
                let scale = point.get("scale_register");
                scale.into_iter().for_each(|scale| see(keys::SCALE_REGISTER, table(scale)));
            }
            if let Some(ValueKind::Array(steps)) = command.get("steps").map(|steps| &steps.kind) {
                steps.iter().for_each(|step| see(keys::STEP, table(step)));
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

/// The profiles that are shipped, and the environment in which they are found.
fn shipped() -> (Shipped, Vec<(String, String)>) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/config/profiles");
    let environment = vec![("FIELDBRIDGE_PROFILES".to_owned(), folder.to_owned())];
    (Shipped::of(&environment), environment)
}

/// A site with a device of this profile, on such a bus.
fn of_profile(name: &str, bus: &str, unit: &str) -> Site {
    let site = site(&format!(
        "[hub]\nhost = \"contoso.azure-devices.net\"\n{bus}\n\
         [device.it]\nbus = \"line\"\nprofile = \"{name}\"\nkey_file = \"it.key\"\n{unit}"
    ));
    site.write("it.key", KEY);
    site
}

const RTU: &str = "[bus.line]\nkind = \"modbus-rtu\"\nport = \"/dev/test/line\"\nbaud = 9600\n";

#[test]
fn every_profile_that_is_shipped_is_found_by_its_name_and_is_good_on_the_bus_that_it_shows() {
    let (shipped, environment) = shipped();
    let all = shipped.list();
    assert_eq!(all.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>(), profiles::names());
    for entry in all {
        let text = profiles::text(&entry.name);
        let bus = profiles::bus(&entry.name).join("\n");
        let unit = if profiles::speaks_text(&entry.name) { "" } else { "unit = 1\n" };
        let site = of_profile(&entry.name, &bus, unit);
        let loaded = load(&site.path("fieldbridge.toml"), environment.clone())
            .unwrap_or_else(|problems| panic!("{}: {}", entry.name, lines(&problems)));
        assert_eq!(lines(&loaded.notes), "", "{}", entry.name);
        let commands = text.matches(&format!("\n[profile.{}.command.", entry.name)).count();
        assert_eq!(loaded.config.devices["it"].commands.len(), commands, "{}", entry.name);
        assert!(loaded.files.contains(&entry.path));
        assert!(entry.about.len() > 20 && entry.about.len() < 120, "{entry:?}");
        // Whoever uses it can look up where it comes from.
        assert!(text.contains("\n# From: "), "{}", entry.name);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{}", entry.name);
    }
}

#[test]
fn a_profile_of_ones_own_stands_before_one_that_is_shipped() {
    let (_, environment) = shipped();
    let site = of_profile("waveshare-relays", RTU, "unit = 1\n");
    site.write(
        "conf.d/relays.toml",
        "[profile.waveshare-relays.command.only]\nwrite = { table = \"coil\", address = 9 }\nidempotent = true\n",
    );
    let loaded = load(&site.path("fieldbridge.toml"), environment).unwrap();
    assert_eq!(loaded.config.devices["it"].commands.keys().collect::<Vec<_>>(), ["only"]);
}

#[test]
fn a_shipped_file_adds_its_profile_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let environment = vec![("FIELDBRIDGE_PROFILES".to_owned(), folder.path().display().to_string())];
    let of = |text: &str| {
        std::fs::write(folder.path().join("it.toml"), text).unwrap();
        let site = of_profile("it", RTU, "unit = 1\n");
        load(&site.path("fieldbridge.toml"), environment.clone()).map_err(|problems| lines(&problems))
    };
    let good = "[profile.it.command.c]\nread = { table = \"input\", address = 1 }\n";
    assert!(of(good).is_ok());
    for bad in [
        format!("{good}[profile.other.command.c]\nread = {{ table = \"input\", address = 1 }}\n"),
        format!("{good}[hub]\nhost = \"elsewhere.azure-devices.net\"\n"),
        good.replace("profile.it", "profile.other"),
        String::new(),
    ] {
        let said = of(&bad).unwrap_err();
        assert!(said.contains("holds [profile.it] and nothing else"), "{said}");
        assert!(said.contains("it.toml"), "{said}");
    }
    assert!(of("[profile.it.command.c]\nread = { table = \"input\", adress = 1 }\n").unwrap_err().contains("address"));
    let site = of_profile("itt", RTU, "unit = 1\n");
    let said = lines(&load(&site.path("fieldbridge.toml"), environment.clone()).unwrap_err());
    assert!(said.contains("did you mean \"it\"?"), "{said}");
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
