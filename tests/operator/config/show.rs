//! `config show`: what is shown is what is in force, with where it comes from, and no secret. It proves none of the
//! guarantees.

use std::process::Command;

use fieldbridge::config::show::show;
use serde_json::json;

use super::reference::{self, site};
use super::{Site, GOOD, KEY};

/// The configuration of a site, without what depends on its folder.
fn loaded(site: &Site) -> String {
    format!("{:#?}", site.loaded().config).replace(&site.path("").display().to_string(), "FOLDER/")
}

fn shown(site: &Site, environment: &[(&str, &str)], origin: bool) -> String {
    let pairs = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    show(&site.path("fieldbridge.toml"), pairs).to_toml(origin)
}

#[test]
fn what_is_shown_loads_as_what_it_was_made_of() {
    for text in [reference::REFERENCE, &reference::with_everything()] {
        let site = site(text);
        let before = loaded(&site);
        for origin in [false, true] {
            site.write("fieldbridge.toml", shown(&site, &[], origin));
            assert_eq!(loaded(&site), before);
        }
    }
    let site = Site::good();
    let pump = "bus = 'plant'\nunit = 9\nprofile = 'pump'\nkey_file = 'keys/good.key'";
    let more = "[profile.pump.command.set-speed]\nrange = [5, 6.5]";
    site.write("conf.d/10.toml", format!("[bus.line-a]\nretries = 3\n[device.\"Pump.9\"]\n{pump}\n{more}"));
    let before = loaded(&site);
    let whole = shown(&site, &[], true);
    std::fs::remove_dir_all(site.path("conf.d")).unwrap();
    site.write("fieldbridge.toml", whole);
    assert_eq!(loaded(&site), before);
}

#[test]
fn the_defaults_that_are_shown_are_those_in_force() {
    let site = site(reference::REFERENCE);
    let before = loaded(&site);
    let text = shown(&site, &[], false);
    let with_defaults: String = text.lines().map(|line| format!("{}\n", line.trim_start_matches('#'))).collect();
    assert!(with_defaults.lines().count() == text.lines().count() && with_defaults.len() > text.len() - 500);
    assert!(text.lines().filter(|line| line.starts_with('#')).count() > 50, "{text}");
    site.write("fieldbridge.toml", with_defaults);
    assert_eq!(loaded(&site), before);
}

#[test]
fn what_lies_beside_the_ledger_is_shown_where_it_is() {
    let site = Site::good();
    site.write("conf.d/10-ledger.toml", "[ledger]\npath = 'state/ledger.db'\n");
    let shown = shown(&site, &[], false);
    assert!(shown.contains("#path = \"state/telemetry.db\""), "{shown}");
    assert_eq!(site.loaded().config.telemetry.path, site.path("state/telemetry.db"));
}

#[test]
fn each_value_tells_where_it_comes_from() {
    let site = Site::good();
    site.write("conf.d/10-line.toml", "# A slow line.\n[bus.line-a]\nretries = 4\n");
    let environment = [("FIELDBRIDGE__HUB__CONNECT_RATE", "7"), ("FIELDBRIDGE__HUB__KEEPALIVE", "90s")];
    let text = shown(&site, &environment, true);
    let line = |begin: &str| {
        let found: Vec<&str> = text.lines().filter(|line| line.starts_with(begin)).collect();
        let line = found.first().unwrap_or_else(|| panic!("{begin}: {text}"));
        line.split_once("  # ")
            .map_or_else(|| panic!("{line}"), |(value, origin)| (value.trim_end().to_owned(), origin.to_owned()))
    };
    let main = site.path("fieldbridge.toml").display().to_string();
    let number = 1 + GOOD.lines().position(|line| line.starts_with("host = ")).unwrap();
    assert_eq!(line("host = "), ("host = \"contoso.azure-devices.net\"".into(), format!("{main}:{number}")));
    let drop_in = site.path("conf.d/10-line.toml").display().to_string();
    assert_eq!(line("retries = "), ("retries = 4".into(), format!("{drop_in}:3")));
    assert_eq!(line("connect_rate"), ("connect_rate = 7".into(), "environment".into()));
    assert_eq!(line("keepalive"), ("keepalive = \"90s\"".into(), "environment".into()));
    assert_eq!(line("#tls"), ("#tls = true".into(), "default".into()));
    assert_eq!(line("#path"), ("#path = \"/var/lib/fieldbridge/ledger.db\"".into(), "default".into()));
    // A kind of bus has defaults of its own.
    let line_of_text = text.split_once("[bus.scale-port]").unwrap().1;
    assert!(line_of_text.contains("#response_timeout = \"1s\""), "{text}");
    assert!(text.contains("#response_timeout = \"500ms\""), "{text}");

    let pairs = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let document = show(&site.path("fieldbridge.toml"), pairs).to_json();
    let of = |key: &str| {
        document.as_array().unwrap().iter().find(|entry| entry["key"] == key).unwrap_or_else(|| panic!("{key}")).clone()
    };
    let retries = json!({ "key": "bus.line-a.retries", "value": 4, "file": drop_in, "line": 3 });
    assert_eq!(of("bus.line-a.retries"), retries);
    assert_eq!(of("hub.tls"), json!({ "key": "hub.tls", "value": true, "file": null, "line": null }));
}

#[test]
fn no_secret_is_shown_wherever_it_was_pasted() {
    let string = format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}");
    for (table, line) in [
        ("device.pump-7", format!("key = \"{KEY}\"")),
        ("device.pump-7", "password = \"hush\"".to_owned()),
        ("device.pump-7", format!("secondary_key_file = \"{KEY}\"")),
        ("device.pump-7", format!("connection_string_file = \"{string}\"")),
        ("device.pump-7", format!("connection_string = \"{string}\"")),
        ("device.pump-7.more", "token = [\"hush\"]".to_owned()),
        ("device.pump-7", "credentials = { user = \"me\", password = \"hush\" }".to_owned()),
        ("hub", "proxy = \"http://me:hush@proxy:3128\"".to_owned()),
        ("hub", "proxy_credentials_file = \"keys/hushed\"".to_owned()),
    ] {
        let site = Site::good();
        site.write("keys/hushed", "me:hush");
        site.write("conf.d/10.toml", format!("[{table}]\n{line}\n"));
        let file = show(&site.path("fieldbridge.toml"), []);
        for text in [file.to_toml(true), file.to_toml(false), file.to_json().to_string()] {
            assert!(!text.contains(KEY) && !text.replace("hushed", "").contains("hush"), "{line}: {text}");
            assert!(text.contains("keys/good.key"), "{text}");
        }
        let key = line.split(" = ").next().unwrap();
        assert!(shown(&site, &[], false).contains(key), "{line}");
    }
    let site = Site::good();
    let text = shown(&site, &[("FIELDBRIDGE__DEVICE__PUMP_7__KEY", KEY)], true);
    assert!(!text.contains(KEY) && text.contains("key = \"…\""), "{text}");
}

#[test]
fn what_can_be_read_is_shown_beside_what_cannot_with_exit_status_78() {
    let site = Site::good();
    site.write("conf.d/10.toml", "[bus.line-a]\nretries = = 4\n");
    let main = site.path("fieldbridge.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldbridge"));
    let output = command.args(["config", "show", "--origin", "--config"]).arg(&main).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let (said, shown) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("10.toml:2:"), "{said}");
    assert!(shown.contains("host = \"contoso.azure-devices.net\"") && shown.contains("[device.pump-7]"), "{shown}");
    // What `check` refuses is shown, too.
    site.write("conf.d/10.toml", "[bus.line-a]\nretries = 400\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldbridge"));
    let output = command.args(["config", "show", "--config"]).arg(&main).output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("retries = 400"));
}
