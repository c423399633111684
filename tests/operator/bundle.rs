//! `support-bundle`: everything that somebody elsewhere needs, and no secret, with a daemon and without. It proves none
//! of the guarantees.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;

use crate::support::broker::Broker;
use crate::support::slave::Slave;
use crate::support::{self, pump};

/// What must not leave the machine: each stands in a file that the configuration names, or in the configuration.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const SECOND_KEY: &str = "HxweHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE=";
const STRING_KEY: &str = "b25seSBpbiB0aGUgY29ubmVjdGlvbiBzdHJpbmcgIQ==";
const PASTED_KEY: &str = "cGFzdGVkIGludG8gdGhlIGNvbmZpZ3VyYXRpb24gISE=";
const PASSWORD: &str = "hush-\"quoted\"";
const PRIVATE_LINE: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
const OF_NO_FILE: &str = "bm9ib2R5IGtub3dzIHRoaXMgb25lLCBub3QgZXZlbiB1cw==";

const SECRETS: [&str; 7] = [KEY, SECOND_KEY, STRING_KEY, PASTED_KEY, PASSWORD, PRIVATE_LINE, OF_NO_FILE];

const CONFIG: &str = r#"
[hub]
host = "contoso.azure-devices.net"
proxy = "http://proxy.plant:3128"
proxy_credentials_file = "keys/proxy"

[admin]
socket = "admin.sock"

[ledger]
path = "ledger.db"

[bus.plant]
kind = "modbus-tcp"
address = "127.0.0.1:1"

[device.pump-7]
bus = "plant"
unit = 7
profile = "pump"
key_file = "keys/first"
secondary_key_file = "keys/second"
key = "cGFzdGVkIGludG8gdGhlIGNvbmZpZ3VyYXRpb24gISE="

[device.pump-8]
bus = "plant"
unit = 8
profile = "pump"
connection_string_file = "keys/string"

[device.pump-9]
bus = "plant"
unit = 9
profile = "pump"
cert_file = "keys/cert.pem"
cert_key_file = "keys/private.pem"

[profile.pump.command.read-speed]
read = { table = "holding", address = 0 }
"#;

/// A folder with a configuration and its secrets, and programs of a system that says every one of them.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.path("keys")).unwrap();
        let string = format!("HostName=contoso.azure-devices.net;DeviceId=pump-8;SharedAccessKey={STRING_KEY}");
        let private = format!("-----BEGIN PRIVATE KEY-----\n{PRIVATE_LINE}\n-----END PRIVATE KEY-----\n");
        for (name, text) in [
            ("fieldbridge.toml", CONFIG),
            ("keys/first", KEY),
            ("keys/second", &format!("{SECOND_KEY}\n")),
            ("keys/string", &string),
            ("keys/private.pem", &private),
            ("keys/cert.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
            ("keys/proxy", &format!("gate:{PASSWORD}")),
            // What somebody has put there by mistake.
            ("provisioning.json", &format!("{{\"devices\":{{\"pump-7\":{{\"assignedHub\":\"h.example\"}}}}}} {KEY}")),
        ] {
            std::fs::write(place.path(name), text).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a program in the place of the system's. What it prints has `$*`, its arguments, in it.
    fn system_says(&self, program: &str, text: &str) {
        std::fs::create_dir_all(self.path("bin")).unwrap();
        let path = self.path("bin").join(program);
        std::fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\necho \"$0 $*\"\ncat <<'END'\n{text}\nEND\n"))
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs it where the system has only these programs, and `sh` and `cat` for them.
    fn bundle(&self, args: &[&str]) -> Output {
        let path = format!("{}:/nowhere", self.path("bin").display());
        bundle(&self.path("fieldbridge.toml"), self.0.path(), args, &path)
    }
}

fn bundle(config: &Path, folder: &Path, args: &[&str], path: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldbridge"));
    command.arg("support-bundle").args(args).arg("--config").arg(config);
    command.current_dir(folder).env("PATH", path).output().unwrap()
}

/// The members of an archive, as `tar` unpacks them, by their names in its one folder.
fn members(archive: &Path) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let tar = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let inner: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(inner.len(), 1, "{inner:?}");
    let entries = std::fs::read_dir(&inner[0]).unwrap().map(|entry| entry.unwrap());
    let read = |entry: std::fs::DirEntry| {
        let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
        (entry.file_name().into_string().unwrap(), text)
    };
    entries.map(read).collect()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn no_member_holds_a_key_or_a_password_whatever_the_system_has_written_down() {
    let place = Place::new();
    let json = Json::from(PASSWORD).to_string();
    let known = &SECRETS[..6];
    let all = format!("{} {json} {OF_NO_FILE_IN_A_STRING}", known.join(" tty "));
    for program in ["journalctl", "systemctl", "dmesg", "df", "timedatectl"] {
        place.system_says(program, &format!("{all}\nEnvironment=TOKEN=anything\nttyUSB0 {all}"));
    }
    let output = place.bundle(&["--output", "it.tar.gz"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let archive = place.path("it.tar.gz");
    assert_eq!(std::fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let members = members(&archive);
    let secrets = SECRETS.iter().map(ToString::to_string).chain([json[1..json.len() - 1].to_owned()]);
    for secret in secrets {
        for (name, text) in &members {
            assert!(!text.contains(&secret), "{name} holds {secret}: {text}");
        }
        assert!(!said(&output).contains(&secret));
    }
    // What they said is there, without that.
    for name in ["journal.txt", "unit.txt", "unit-files.txt", "disk.txt", "inodes.txt", "clock.txt", "kernel.txt"] {
        assert!(members[name].contains("[hidden] tty [hidden]"), "{name}: {}", members[name]);
    }
    assert!(!members["unit.txt"].contains("TOKEN=anything") && !members["unit-files.txt"].contains("TOKEN=anything"));
    let assigned = &members["provisioning.json"];
    assert!(assigned.contains("h.example") && assigned.ends_with("[hidden]"), "{assigned}");
    assert!(members["config.toml"].contains("key_file = \"keys/first\""), "{}", members["config.toml"]);
    assert!(members["config.toml"].contains("fieldbridge.toml:"), "{}", members["config.toml"]);
}

const OF_NO_FILE_IN_A_STRING: &str =
    "HostName=h;SharedAccessKey=bm9ib2R5IGtub3dzIHRoaXMgb25lLCBub3QgZXZlbiB1cw==;DeviceId=d";

#[test]
fn without_a_daemon_a_ledger_or_a_system_it_is_written_all_the_same_and_says_what_is_missing() {
    let place = Place::new();
    let output = place.bundle(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let written = String::from_utf8_lossy(&output.stdout);
    let name = written.trim().strip_prefix("wrote ").unwrap();
    assert!(name.starts_with("fieldbridge-support-2") && name.ends_with("Z.tar.gz"), "{name}");
    let members = members(&place.path(name));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for text in [&told, &members["README.txt"]] {
        assert!(
            text.contains("journalctl is not installed") && text.contains("timedatectl is not installed"),
            "{text}"
        );
        assert!(text.contains("exit status: 75"), "{text}");
    }
    assert!(members["version.txt"].contains(env!("CARGO_PKG_VERSION")));
    let check: Json = serde_json::from_str(&members["check.json"]).unwrap();
    assert_eq!(check["ok"], false);
    assert!(members["system.txt"].contains("MemTotal"));
    assert!(members["serial.txt"].contains("/dev/serial/by-id"));
    // It is never in the way of what is there.
    let again = place.bundle(&["--output", name]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("--output"), "{}", said(&again));
}

#[test]
fn beside_a_daemon_it_has_what_that_sees_and_the_journal_since_then() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = support::Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "m-1", r#"{"command":"set","value":7}"#);
    site.wait_for_row("m-1", "succeeded");
    let place = Place::new();
    place.system_says("journalctl", "a line of the journal");
    let path = format!("{}:/usr/bin:/bin", place.path("bin").display());
    let args = ["--since", "30m", "--output", "it.tar.gz"];
    let output = bundle(&site.path("fieldbridge.toml"), place.0.path(), &args, &path);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let members = members(&place.path("it.tar.gz"));
    let status: Json = serde_json::from_str(&members["status.json"]).unwrap();
    assert!(!status["devices"].as_array().unwrap().is_empty(), "{status}");
    assert!(members["ledger-last.jsonl"].contains("m-1"), "{}", members["ledger-last.jsonl"]);
    assert_eq!(members["ledger-in-doubt.jsonl"], "");
    assert!(members["journal.txt"].contains("--since=-1800s"), "{}", members["journal.txt"]);
    drop(daemon);
}

#[test]
fn a_journal_of_gigabytes_is_cut_to_its_end() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("bin")).unwrap();
    let path = place.path("bin").join("journalctl");
    let script = "#!/bin/sh\nPATH=/usr/bin:/bin\nyes 'an old line of the journal' | head -c 60000000\necho; echo the last line\n";
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = place.bundle(&["--output", "it.tar.gz"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let members = members(&place.path("it.tar.gz"));
    assert!(members["journal.txt"].ends_with("the last line\n"));
    let total: usize = members.values().map(String::len).sum();
    assert!(total <= 20 << 20, "{total}");
    assert!(members["README.txt"].contains("only its last"), "{}", members["README.txt"]);
}
