//! `add device` puts a device into `conf.d` that the whole configuration is good with, or changes nothing. It proves
//! none of the guarantees.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const CONFIG: &str = r#"
[hub]
host = "contoso.azure-devices.net"

[bus.plant]
kind = "modbus-tcp"
address = "10.0.0.12:502"

[device.pump-7]
bus = "plant"
unit = 7
profile = "pump"
key_file = "pump-7.key"

[profile.pump.command.read-speed]
read = { table = "holding", address = 0 }
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new(config: &str) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("fieldbridge.toml", config);
        place.write("pump-7.key", KEY);
        place
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.0.path().join(name)).ok()
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldbridge"));
        command.args(args).arg("--config").arg(self.0.path().join("fieldbridge.toml")).current_dir(self.0.path());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert!(!said(&output).contains(KEY), "the key was shown");
        output
    }

    /// What `conf.d` and `keys` hold, hidden files too.
    fn names(&self) -> Vec<String> {
        let of = |folder: &str| {
            let entries = std::fs::read_dir(self.0.path().join(folder)).into_iter().flatten();
            entries.map(move |entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        [of("conf.d"), of("keys")].concat()
    }
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn a_second_device_is_added_beside_the_first_with_its_key_in_a_file_of_its_own() {
    let place = Place::new(CONFIG);
    let output = place.run(&["add", "device", "Pump.8", "--unit", "8", "--profile", "pump", "--key-file", "-"], KEY);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = place.read("conf.d/Pump.8.toml").unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let wanted =
        ["[device.\"Pump.8\"]", "bus = \"plant\"", "unit = 8", "profile = \"pump\"", "key_file = \"keys/Pump.8.key\""];
    assert_eq!(lines, wanted);
    assert_eq!(place.read("keys/Pump.8.key").as_deref(), Some(&*format!("{KEY}\n")));
    let mode = std::fs::metadata(place.0.path().join("keys/Pump.8.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0);
    assert!(said(&output).contains("fieldbridge reload --config "), "{}", said(&output));
    assert_eq!(place.names(), ["Pump.8.toml", "Pump.8.key"]);
    let check = place.run(&["check"], "");
    assert!(check.status.success() && said(&check).contains("2 devices"), "{}", said(&check));
    // What is there is left alone.
    for id in ["Pump.8", "pump-7"] {
        let again =
            place.run(&["add", "device", id, "--unit", "9", "--profile", "pump", "--key-file", "pump-7.key"], "");
        assert_eq!(again.status.code(), Some(1));
        assert!(said(&again).contains("configured already") && said(&again).contains(".toml:"), "{}", said(&again));
    }
    assert_eq!(place.read("conf.d/Pump.8.toml"), Some(text));
}

#[test]
fn what_the_configuration_is_not_good_with_is_told_as_check_does_and_leaves_nothing_behind() {
    let place = Place::new(CONFIG);
    for (args, told) in [
        (&["--bus", "plant", "--unit", "8", "--profile", "pumpe", "--key-file", "-"][..], "did you mean \"pump\"?"),
        (&["--bus", "line", "--unit", "8", "--profile", "pump", "--key-file", "-"], "no bus is called \"line\""),
        (&["--unit", "8", "--profile", "pump", "--key-file", "nowhere.key"], "nowhere.key"),
    ] {
        let output = place.run(&[&["add", "device", "pump-8"][..], args].concat(), KEY);
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        assert!(said(&output).contains(told) && said(&output).contains("conf.d/pump-8.toml:"), "{}", said(&output));
        assert_eq!(place.names(), [""; 0]);
    }
    let output = place.run(&["add", "device", "pump-8", "--profile", "pump", "--key-file", "-"], KEY);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--unit is missing"), "{}", said(&output));
    // Nothing is added to what has errors itself.
    let place = Place::new(&CONFIG.replace("unit = 7", "unit = 700"));
    let output = place.run(&["add", "device", "pump-8", "--unit", "8", "--profile", "pump", "--key-file", "-"], KEY);
    assert_eq!(output.status.code(), Some(78));
    assert!(said(&output).contains("700 is out of range") && place.names().is_empty(), "{}", said(&output));
}

#[test]
fn a_device_on_a_line_of_text_has_no_unit_and_a_certificate_is_named_where_it_is() {
    let text = "[bus.scale]\nkind = \"serial\"\naddress = \"10.0.0.13:4001\"\n[profile.scale.command.tare]\n\
                send = \"T\\r\\n\"\nidempotent = false\n";
    let place = Place::new(&format!("{CONFIG}{text}"));
    let args = ["add", "device", "scale-1", "--bus", "scale", "--profile", "scale", "--key-file", "pump-7.key"];
    let output = place.run(&args, "");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = place.read("conf.d/scale-1.toml").unwrap();
    assert!(!text.contains("unit") && text.contains("key_file = \"pump-7.key\""), "{text}");
    let output = place.run(&["add", "device", "x", "--cert-file", "a.pem"], "");
    assert_eq!(output.status.code(), Some(2));
}
