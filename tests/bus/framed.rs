//! Instruments that speak in frames, as a configuration declares them: a DCON module, a sensor with STX, ETX and BCC, a
//! pump with a length byte and a CRC.
//!
//! Proves G12 in frames as in lines, and G3 and G8 at them: a frame with a wrong checksum is no answer, what comes
//! before a start is nobody's, and what began before a request does not answer it.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use crate::peers::{patient, rtu, Peer, Pty, Running, PATIENCE, SHORT};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::config::{load, Device};
use fieldbridge::peripheral::exchange::{Answer, Refusal};
use serde_json::{json, Value as Json};
use tokio::task::{JoinHandle, JoinSet};

/// An instrument at its line, and what is known of it.
struct Instrument {
    running: Running,
    pty: Pty,
    device: Device,
}

/// What one of them says and is told, byte by byte. Sums are computed apart from the code under test.
struct Manual {
    keys: &'static str,
    /// A command that must not be repeated, and what is heard then.
    command: (&'static str, Json),
    heard: Vec<u8>,
    /// What confirms it, what says no, and what the bus takes that for.
    yes: Vec<u8>,
    no: Vec<u8>,
    refusal: &'static str,
    /// Another request, what is heard then, its answer, and the value in it.
    reading: &'static str,
    asked: Vec<u8>,
    told: Vec<u8>,
    value: Json,
    /// A whole frame that is no answer to any of the two.
    foreign: Vec<u8>,
    /// The byte of an answer that its checksum covers, and what stands before a frame.
    covered: usize,
    noise: Vec<u8>,
}

const MODULE: &str = r##"
[bus.line.frame]
end = "\r"
checksum = { kind = "sum8", as = "hex" }
[profile.it.command.set]
send = "#01{value:+07.3f}"
expect = "^>$"
refuse = '^\?(01)$'
range = [0, 10]
idempotent = false
[profile.it.command.read]
send = "$016"
expect = "^!01([0-9A-F]{4})$"
result = "hex"
idempotent = true
"##;

const SENSOR: &str = r#"
[bus.line.frame]
start = "\u0002"
end = "\u0003"
checksum = { kind = "xor8", as = "hex" }
[profile.it.command.set]
send = "W{value:03d}"
expect = "^A$"
refuse = "^N(.*)"
idempotent = false
[profile.it.command.read]
send = "R"
expect = "^V([+-][0-9.]+)$"
result = "number"
idempotent = true
"#;

const PUMP: &str = r#"
[bus.line.frame]
start = [0xAA, 0x55]
length = { at = 2, size = 1, adds = 5 }
checksum = { kind = "crc16-modbus", as = "binary-le", covers = "frame" }
[profile.it.command.set]
send_hex = "04 01 53 {value:u16be}"
expect_hex = "02 01 06"
refuse = '^\x03\x01\x15(.)'
idempotent = false
[profile.it.command.read]
send_hex = "02 01 52"
expect_hex = "04 01 ?? {value:i16be}"
idempotent = true
"#;

fn module(text: &str) -> Vec<u8> {
    let sum: u32 = text.bytes().map(u32::from).sum();
    format!("{text}{:02X}\r", sum % 256).into_bytes()
}

fn sensor(text: &str) -> Vec<u8> {
    let sum = text.bytes().fold(0, |sum, byte| sum ^ byte);
    format!("\u{2}{text}{sum:02X}\u{3}").into_bytes()
}

fn pump(payload: &[u8]) -> Vec<u8> {
    rtu(&[&[0xAA, 0x55], payload].concat())
}

fn manuals() -> [Manual; 3] {
    [
        Manual {
            keys: MODULE,
            command: ("set", json!(5)),
            heard: module("#01+05.000"),
            yes: module(">"),
            no: module("?01"),
            refusal: "01",
            reading: "read",
            asked: module("$016"),
            told: module("!0100FF"),
            value: json!(255),
            foreign: module("!02AAAA"),
            covered: 0,
            noise: Vec::new(),
        },
        Manual {
            keys: SENSOR,
            command: ("set", json!(42)),
            heard: sensor("W042"),
            yes: sensor("A"),
            no: sensor("N7"),
            refusal: "7",
            reading: "read",
            asked: sensor("R"),
            told: sensor("V+12.5"),
            value: json!(12.5),
            foreign: sensor("Z1"),
            covered: 1,
            noise: b"\0\xFF\x02x".to_vec(),
        },
        Manual {
            keys: PUMP,
            command: ("set", json!(300)),
            heard: pump(&[4, 1, 0x53, 1, 44]),
            yes: pump(&[2, 1, 6]),
            no: pump(&[3, 1, 0x15, b'7']),
            refusal: "7",
            reading: "read",
            asked: pump(&[2, 1, 0x52]),
            told: pump(&[4, 1, 0, 0xFF, 0xFE]),
            value: json!(-2),
            foreign: pump(&[2, 9, 6]),
            covered: 4,
            noise: vec![0, 0x55, 0xAA, 0x54, 0xAA],
        },
    ]
}

impl Instrument {
    fn new(keys: &str) -> Instrument {
        let pty = Pty::new();
        let folder = tempfile::tempdir().unwrap();
        let device = declared(folder.path(), &pty.path(), keys);
        let (config, device) = device;
        Instrument { running: Running::with_timeout(config, SHORT), pty, device }
    }

    /// A call of a command, as it is configured.
    fn call(&self, name: &str, value: &Json, timeout: Duration) -> Call {
        let value = Some(value).filter(|value| !value.is_null());
        let prepared = self.device.commands[name].prepare(value).unwrap();
        Call { timeout: Some(timeout), ..Call::new(0, prepared.request) }
    }

    fn set(&self, manual: &Manual, timeout: Duration) -> Call {
        self.call(manual.command.0, &manual.command.1, timeout)
    }

    async fn begins(&mut self, call: Call, heard: &[u8]) -> JoinHandle<Wire> {
        let asking = self.running.call_meanwhile(call);
        self.pty.peer.hear(heard).await;
        asking
    }
}

/// What is left of a configuration with one device: its kind of bus, and itself.
fn declared(folder: &Path, port: &Path, keys: &str) -> (fieldbridge::config::BusKind, Device) {
    use std::os::unix::fs::PermissionsExt as _;
    let text = format!(
        "[hub]\nhost = \"contoso.azure-devices.net\"\n\
         [bus.line]\nkind = \"serial\"\nport = \"{}\"\nbaud = 115200\n\
         [device.it]\nbus = \"line\"\nprofile = \"it\"\nkey_file = \"it.key\"\n{keys}",
        port.display()
    );
    std::fs::write(folder.join("fieldbridge.toml"), text).unwrap();
    std::fs::write(folder.join("it.key"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    std::fs::set_permissions(folder.join("it.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let loaded = load(&folder.join("fieldbridge.toml"), []).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
    let mut config = loaded.config;
    (config.buses.remove("line").unwrap().kind, config.devices.remove("it").unwrap())
}

/// Plays a scene with each of them at the same time.
async fn each<F: Future<Output = ()> + Send + 'static>(scene: fn(Manual) -> F) {
    let mut scenes = JoinSet::new();
    for manual in manuals() {
        scenes.spawn(scene(manual));
    }
    while let Some(played) = scenes.join_next().await {
        played.unwrap();
    }
}

fn is_yes(wire: &Wire) -> bool {
    matches!(wire, Wire::Answered(_))
}

fn is_bad(wire: &Wire, told: &str) -> bool {
    matches!(wire, Wire::BadReply(why) if why.contains(told))
}

#[tokio::test]
async fn what_is_declared_is_sent_and_understood() {
    each(|manual| async move {
        let mut it = Instrument::new(manual.keys);
        let asking = it.begins(it.set(&manual, PATIENCE), &manual.heard).await;
        it.pty.peer.say(&manual.yes).await;
        assert!(is_yes(&patient(asking).await.unwrap()), "{}", manual.keys);

        let asking = it.begins(it.set(&manual, PATIENCE), &manual.heard).await;
        it.pty.peer.say(&manual.no).await;
        let refused = Wire::Refused(Refusal::Text(manual.refusal.into()));
        assert_eq!(patient(asking).await.unwrap(), refused, "{}", manual.keys);

        let call = it.call(manual.reading, &Json::Null, PATIENCE);
        let asking = it.begins(call, &manual.asked).await;
        for byte in &manual.told {
            it.pty.peer.say(&[*byte]).await;
        }
        let Wire::Answered(answer) = patient(asking).await.unwrap() else { panic!("{}", manual.keys) };
        let command = &it.device.commands[manual.reading];
        let prepared = command.prepare(None).unwrap();
        assert_eq!(command.interpret(&prepared, &answer).unwrap(), Some(manual.value), "{}", manual.keys);
    })
    .await;
}

#[tokio::test]
async fn a_frame_with_a_wrong_checksum_neither_confirms_nor_refuses() {
    each(|manual| async move {
        let mut it = Instrument::new(manual.keys);
        for answer in [&manual.yes, &manual.no] {
            let asking = it.begins(it.set(&manual, SHORT), &manual.heard).await;
            let mut broken = answer.clone();
            let last = broken.len() - 1 - usize::from(!manual.keys.contains("length"));
            broken[last] = if broken[last] == b'0' { b'1' } else { b'0' };
            it.pty.peer.say(&broken).await;
            let wire = patient(asking).await.unwrap();
            assert!(is_bad(&wire, "a frame with the checksum"), "{wire:?} {}", manual.keys);
        }
        // A bit of what the checksum covers.
        let asking = it.begins(it.set(&manual, SHORT), &manual.heard).await;
        let mut broken = manual.yes.clone();
        broken[manual.covered] ^= 0x20;
        it.pty.peer.say(&broken).await;
        let wire = patient(asking).await.unwrap();
        assert!(matches!(wire, Wire::BadReply(_)), "{wire:?} {}", manual.keys);
    })
    .await;
}

#[tokio::test]
async fn noise_and_what_is_foreign_before_an_answer_are_nobodys() {
    each(|manual| async move {
        let mut it = Instrument::new(manual.keys);
        let asking = it.begins(it.set(&manual, PATIENCE), &manual.heard).await;
        it.pty.peer.say(&[&manual.foreign[..], &manual.noise, &manual.yes].concat()).await;
        assert!(is_yes(&patient(asking).await.unwrap()), "{}", manual.keys);
        // Nothing but these.
        let asking = it.begins(it.set(&manual, SHORT), &manual.heard).await;
        it.pty.peer.say(&[&manual.foreign[..], &manual.noise].concat()).await;
        let wire = patient(asking).await.unwrap();
        assert!(matches!(wire, Wire::BadReply(_)), "{wire:?} {}", manual.keys);
    })
    .await;
}

#[tokio::test]
async fn the_echo_of_a_frame_confirms_nothing() {
    each(|manual| async move {
        let mut it = Instrument::new(manual.keys);
        let asking = it.begins(it.set(&manual, SHORT), &manual.heard).await;
        it.pty.peer.say(&manual.heard).await;
        let wire = patient(asking).await.unwrap();
        assert!(is_bad(&wire, "only the echo"), "{wire:?} {}", manual.keys);
        // Its own echo, and the answer behind it.
        let asking = it.begins(it.set(&manual, PATIENCE), &manual.heard).await;
        it.pty.peer.say(&[&manual.heard[..], &manual.yes].concat()).await;
        assert!(is_yes(&patient(asking).await.unwrap()), "{}", manual.keys);
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_began_before_the_request_does_not_answer_it() {
    each(|manual| async move {
        let mut it = Instrument::new(manual.keys);
        it.running.until("open").await;
        // So late that the line has been quiet, and the request goes out at once.
        tokio::time::sleep(Duration::from_millis(400)).await;
        for half in [1, manual.yes.len() / 2, manual.yes.len() - 1] {
            it.pty.peer.say(&manual.yes[..half]).await;
            it.pty.peer.hear_nothing().await;
            let asking = it.begins(it.set(&manual, SHORT), &manual.heard).await;
            it.pty.peer.say(&manual.yes[half..]).await;
            let wire = patient(asking).await.unwrap();
            assert!(!matches!(wire, Wire::Answered(_) | Wire::Refused(_)), "{half}: {wire:?} {}", manual.keys);
        }
    })
    .await;
}

#[tokio::test]
async fn half_a_frame_answers_nothing_and_its_rest_is_not_the_next_ones() {
    each(|manual| async move {
        let mut it = Instrument::new(manual.keys);
        let asking = it.begins(it.set(&manual, SHORT), &manual.heard).await;
        let (first, rest) = manual.yes.split_at(manual.yes.len() - 1);
        it.pty.peer.say(first).await;
        let wire = patient(asking).await.unwrap();
        assert!(matches!(wire, Wire::BadReply(_)), "{wire:?} {}", manual.keys);
        let call = it.call(manual.reading, &Json::Null, PATIENCE);
        let next = it.running.call_meanwhile(call);
        it.pty.peer.say(rest).await;
        it.pty.peer.hear(&manual.asked).await;
        it.pty.peer.say(&manual.told).await;
        assert!(is_yes(&patient(next).await.unwrap()), "{}", manual.keys);
    })
    .await;
}

#[tokio::test]
async fn a_late_frame_is_never_another_commands() {
    each(|manual| async move {
        let mut it = Instrument::new(manual.keys);
        let asking = it.begins(it.set(&manual, SHORT), &manual.heard).await;
        assert!(matches!(patient(asking).await.unwrap(), Wire::NoAnswer(_)), "{}", manual.keys);
        // The same command of somebody else, who must not take this for his.
        let next = it.running.call_meanwhile(it.set(&manual, PATIENCE));
        it.pty.peer.hear_nothing().await;
        it.pty.peer.say(&manual.yes).await;
        it.pty.peer.hear(&manual.heard).await;
        it.pty.peer.say(&manual.no).await;
        let refused = Wire::Refused(Refusal::Text(manual.refusal.into()));
        assert_eq!(patient(next).await.unwrap(), refused, "{}", manual.keys);
    })
    .await;
}

#[tokio::test]
async fn silence_ends_a_frame_that_says_nothing_of_its_end() {
    let keys = "[bus.line.frame]\nidle = \"50ms\"\nchecksum = { kind = \"xor8\" }\n\
                [profile.it.command.read]\nsend_hex = \"52\"\nexpect_hex = \"56 {value:u16le}\"\nidempotent = true\n";
    let mut it = Instrument::new(keys);
    let call = |it: &Instrument| it.call("read", &Json::Null, Duration::from_millis(500));
    let asking = it.begins(call(&it), &[0x52, 0x52]).await;
    it.pty.peer.say(&[0x56, 1]).await;
    it.pty.peer.say(&[2, 0x55]).await;
    assert_eq!(patient(asking).await.unwrap(), Wire::Answered(Answer::Value(json!(513))));
    // What goes on is longer than the answer.
    let asking = it.begins(call(&it), &[0x52, 0x52]).await;
    it.pty.peer.say(&[0x56, 1, 2, 0x55, 0, 0]).await;
    let wire = patient(asking).await.unwrap();
    assert!(matches!(wire, Wire::BadReply(_)), "{wire:?}");
}

#[tokio::test]
async fn any_bytes_end_in_an_outcome() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for manual in manuals() {
        let mut it = Instrument::new(manual.keys);
        let mut turn = it.running.bus.turn().await.unwrap();
        for _ in 0..10 {
            let pieces = [&manual.foreign[..], &manual.noise, &manual.no[..1], &[0xFF; 5], b"0", &manual.told[1..]];
            let bytes: Vec<u8> = (0..rng.usize(1..200)).flat_map(|_| pieces[rng.usize(..6)].to_vec()).collect();
            let call = it.set(&manual, Duration::from_millis(20));
            let exchange = tokio::spawn(async move { (turn.exchange(&call).await, turn) });
            it.pty.peer.hear(&manual.heard).await;
            it.pty.peer.say(&bytes).await;
            let (wire, held) = patient(exchange).await.unwrap();
            turn = held;
            assert!(matches!(wire, Wire::BadReply(_) | Wire::NoAnswer(_)), "{wire:?}");
        }
    }
}
