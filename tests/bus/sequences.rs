//! What is asked in a row, in one turn of the bus: a bit among others, a scale before its value, several writes. Proves
//! G3 (what was begun is not begun anew, and says how far it came), G12 (each has its own answer) and G13 (the first
//! write counts), and that nothing else comes between.

use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, pump, Daemon, Site};
use fieldbridge::demo::hub::C2d;
use serde_json::{json, Value as Json};

/// Two devices at one unit.
const DEVICES: [&str; 2] = ["pump", "pump-2"];

const COMMANDS: &str = r#"
[profile.pump.command.bit-3]
write = { table = "holding", address = 40, bit = 3 }
idempotent = false

[profile.pump.command.bit-4]
write = { table = "holding", address = 40, bit = 4 }
idempotent = false

[profile.pump.command.bit-verified]
write = { table = "holding", address = 40, bit = 15 }
values = { off = 0, on = 1 }
function = 16
verify = true
idempotent = false

[profile.pump.command.bit-masked]
write = { table = "holding", address = 40, bit = 0, order = "BADC" }
function = 22
verify = true
idempotent = false

[profile.pump.command.read-bit]
read = { table = "holding", address = 40, bit = 15 }
values = { off = 0, on = 1 }

[profile.pump.command.power]
write = { table = "holding", address = 50, type = "i16", scale_register = { address = 51 } }
range = [0, 5000]
verify = true
idempotent = false

[profile.pump.command.read-power]
read = { table = "holding", address = 50, type = "i16", scale_register = { register = 40052 } }

[profile.pump.command.start]
idempotent = false
steps = [
  { write = { table = "holding", address = 20 }, value = 7 },
  { write = { table = "holding", address = 21, scale = 0.1 }, range = [0, 50] },
  { write = { table = "holding", address = 22 }, values = { stop = 0, go = 9 }, value = "go" },
]

[[profile.pump.command.start-again.steps]]
write = { table = "holding", address = 20 }
value = 7
[[profile.pump.command.start-again.steps]]
write = { table = "holding", address = 20 }
value = 7
[profile.pump.command.start-again]
idempotent = true

[profile.pump.command.begin]
deadline = "400ms"
steps = [
  { write = { table = "holding", address = 20 }, value = 1 },
  { write = { table = "holding", address = 22 }, value = 2 },
]

[profile.pump.command.shown]
steps = [
  { write = { table = "holding", address = 20 }, verify = true },
  { write = { table = "holding", address = 30, bit = 2 }, value = true, read_back = { address = 31, within = "200ms" } },
]
"#;

struct Plant {
    hub: Hub,
    slave: Slave,
    site: Site,
    _daemon: Daemon,
}

impl Plant {
    fn new(timing: &str) -> Plant {
        let (hub, slave) = (Hub::plain(&DEVICES), Slave::new());
        let device = pump(slave.address(), "after-execution", &format!("retry_pause = \"10ms\"\n{timing}"));
        let second = "[device.pump-2]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n";
        let site = Site::at(&hub, &format!("{device}{COMMANDS}{second}"));
        let daemon = site.start();
        eventually("both are subscribed", || DEVICES.iter().all(|id| hub.is_subscribed(id)).then_some(()));
        Plant { hub, slave, site, _daemon: daemon }
    }

    fn send(&self, device: &str, id: &str, command: &str, value: &Json) {
        self.hub.send(device, C2d::new(id, value.to_string()).property("command", command)).unwrap();
    }

    fn ended(&self, id: &str) -> Json {
        eventually("the command has ended", || {
            self.site.rows().into_iter().find(|row| row["messageId"] == id && !row["finishedAt"].is_null())
        })
    }

    /// Sends a command and gives the row that it ends in.
    fn row(&self, command: &str, value: &Json) -> Json {
        let id = format!("m-{}", self.site.rows().len());
        self.send("pump", &id, command, value);
        self.ended(&id)
    }

    /// What a command that succeeds has written or read.
    fn value(&self, command: &str, value: &Json) -> Json {
        let row = self.row(command, value);
        assert_eq!(row["state"], "succeeded", "{row}");
        row["value"].clone()
    }

    /// The state, the code and the sentence of a command that doesn't.
    fn fault(&self, command: &str, value: &Json) -> (String, String, String) {
        let row = self.row(command, value);
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        (text(&row["state"]), text(&row["error"]["code"]), text(&row["error"]["message"]))
    }
}

#[test]
fn one_bit_is_written_and_read_among_others_that_stay_as_they_are() {
    let plant = Plant::new("");
    plant.slave.set_register(40, 0x5A5A);
    assert_eq!(plant.value("bit-verified", &json!("on")), "on");
    assert_eq!(plant.slave.register(40), 0xDA5A);
    assert_eq!(plant.value("read-bit", &Json::Null), "on");
    assert_eq!(plant.value("bit-4", &json!(false)), false);
    assert_eq!(plant.slave.register(40), 0xDA4A);
    assert_eq!(plant.value("bit-masked", &json!(true)), true);
    assert_eq!(plant.slave.register(40), 0xDB4A, "its lower byte is the first");
    assert_eq!(plant.value("bit-verified", &json!(0)), "off");
    assert_eq!(plant.slave.register(40), 0x5B4A);
    let asked: Vec<Vec<u8>> = plant.slave.asked();
    let expected: [&[u8]; 3] = [&[3, 0, 40, 0, 1], &[16, 0, 40, 0, 1, 2, 0xDA, 0x5A], &[3, 0, 40, 0, 1]];
    assert_eq!(asked[..3], expected);
    assert!(asked.contains(&vec![22, 0, 40, 0xFE, 0xFF, 0x01, 0x00]), "{asked:?}");
    assert_eq!(plant.fault("bit-4", &json!(2)).1, "bad-value");
    assert_eq!(plant.fault("bit-verified", &json!("auto")).1, "out-of-range");
}

#[test]
fn what_can_not_be_read_is_not_written_and_that_is_no_doubt() {
    let plant = Plant::new("retries = 1");
    plant.slave.set_unreadable(Some(2));
    let (state, code, message) = plant.fault("bit-3", &json!(true));
    assert_eq!((&*state, &*code), ("failed", "exception"));
    assert!(message.starts_with("nothing was written, as what stands there could not be read"), "{message}");
    plant.slave.set_unreadable(Some(6));
    assert_eq!(plant.fault("bit-3", &json!(true)).0, "failed");
    plant.slave.set_unreadable(None);
    assert!(plant.slave.writes().is_empty() && plant.slave.other_writes().is_empty());
}

#[test]
fn nothing_comes_between_what_is_asked_in_a_row() {
    let plant = Plant::new("");
    let ids = || (0..12).map(|n| format!("m-{n}"));
    for (n, id) in ids().enumerate() {
        // Every bit ends as it was written last, whoever wrote its neighbours meanwhile.
        let (command, value) = match n % 3 {
            0 => ("start", json!(2.5)),
            _ => (["bit-3", "bit-4"][n % 2], json!(n >= 6)),
        };
        for device in DEVICES {
            plant.send(device, &format!("{device}-{id}"), command, &value);
        }
    }
    for id in DEVICES.iter().flat_map(|device| ids().map(move |id| format!("{device}-{id}"))) {
        assert_eq!(plant.ended(&id)["state"], "succeeded");
    }
    assert_eq!(plant.slave.register(40), 0b1_1000);
    let asked = plant.slave.asked();
    let head = |pdu: &[u8]| (pdu[0], pdu[2]);
    for (at, pdu) in asked.iter().enumerate() {
        let behind: Vec<_> = asked[at + 1..].iter().take(2).map(|pdu| head(pdu)).collect();
        match head(pdu) {
            (3, 40) => assert_eq!(behind[0], (6, 40)),
            (6, 20) => assert_eq!(behind, [(6, 21), (6, 22)]),
            _ => {}
        }
    }
    assert_eq!(asked.len(), 2 * (4 * 3 + 8 * 2), "each once: {asked:?}");
}

#[test]
fn a_power_of_ten_that_stands_at_the_peripheral_scales_what_is_written_read_and_read_back() {
    let plant = Plant::new("");
    for (exponent, written, told) in [(-1_i16, 2305, json!(230.5)), (0, 231, json!(231)), (1, 23, json!(230.0))] {
        plant.slave.set_register(51, exponent.cast_unsigned());
        assert_eq!(plant.value("power", &json!(230.53)), told, "10^{exponent}");
        assert_eq!(plant.slave.register(50), written);
        assert_eq!(plant.value("read-power", &Json::Null), told);
    }
    let count = plant.slave.writes().len();
    plant.slave.set_register(51, 0x8000);
    for command in ["power", "read-power"] {
        let value = if command == "power" { json!(1) } else { Json::Null };
        let (state, code, message) = plant.fault(command, &value);
        assert_eq!((&*state, &*code), ("failed", "bad-reply"), "{command}");
        assert!(message.contains("address 51 holds 0x8000"), "{message}");
    }
    plant.slave.set_register(51, -2_i16 as u16);
    let (state, code, message) = plant.fault("power", &json!(400));
    assert_eq!((&*state, &*code), ("failed", "out-of-range"));
    assert!(message.contains("to 327.67") && message.contains("10^-2"), "{message}");
    assert_eq!(plant.fault("power", &json!(5001)).0, "rejected");
    assert_eq!(plant.slave.writes().len(), count, "nothing of these was written");
}

#[test]
fn steps_are_written_in_a_row_and_what_is_told_is_what_the_message_asked_for() {
    let plant = Plant::new("");
    let row = plant.row("start", &json!(4.24));
    assert_eq!((&row["state"], &row["value"], &row["requested"]), (&json!("succeeded"), &json!(4.2), &json!(4.24)));
    assert_eq!(plant.slave.writes(), [(20, 7), (21, 42), (22, 9)]);
    let row = plant.row("start-again", &Json::Null);
    assert_eq!((&row["state"], &row["value"], &row["requested"]), (&json!("succeeded"), &Json::Null, &Json::Null));
    for (value, code) in [(json!(50.1), "out-of-range"), (json!("much"), "bad-value"), (Json::Null, "bad-value")] {
        assert_eq!(plant.fault("start", &value).1, code, "{value}");
    }
    let (state, code, message) = plant.fault("begin", &json!(5));
    assert_eq!((&*state, &*code), ("rejected", "bad-value"));
    assert!(message.contains("takes no value"), "{message}");
    assert_eq!(plant.slave.writes().len(), 5);
    let output = plant.site.command(&["exec", "pump", "start", "1"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "succeeded: 1.0");
}

#[test]
fn a_step_that_fails_says_which_it_was_and_what_was_done_before() {
    let plant = Plant::new("response_timeout = \"300ms\"\nretries = 1");
    for (moods, state, code, told) in [
        (vec![Mood::Refusing(2)], "failed", "exception", "step 1 of 3: "),
        (vec![Mood::Good, Mood::Refusing(4)], "failed", "exception", "step 2 of 3: "),
        (vec![Mood::Good, Mood::Good, Mood::Refusing(6)], "failed", "exception", "step 3 of 3: "),
        (vec![Mood::Deaf], "in_doubt", "timeout", "; steps 2 to 3 were not sent"),
        (vec![Mood::Good, Mood::Mute], "in_doubt", "timeout", "; step 1 was done; step 3 was not sent"),
        (vec![Mood::Good, Mood::Good, Mood::HangUp], "in_doubt", "timeout", "; steps 1 to 2 were done"),
    ] {
        let before = plant.slave.asked().len();
        moods.iter().for_each(|mood| plant.slave.next_mood(*mood));
        let (is, by, message) = plant.fault("start", &json!(1));
        assert_eq!((&*is, &*by), (state, code), "{message}");
        assert!(message.contains(told), "{told}: {message}");
        assert_eq!(plant.slave.asked().len() - before, moods.len(), "nothing behind it is sent, and nothing twice");
    }
}

#[test]
fn what_may_be_repeated_begins_anew_with_its_first_step() {
    let plant = Plant::new("response_timeout = \"300ms\"\nretries = 2");
    for moods in [[Mood::Good, Mood::Deaf], [Mood::Mute, Mood::Good], [Mood::Good, Mood::Refusing(6)]] {
        let before = plant.slave.asked().len();
        let ends = if moods[0] == Mood::Mute { 1 } else { 2 };
        moods.iter().take(ends).for_each(|mood| plant.slave.next_mood(*mood));
        let row = plant.row("start-again", &Json::Null);
        assert_eq!((&row["state"], &row["attempts"]), (&json!("succeeded"), &json!(2)), "{moods:?}: {row}");
        assert_eq!(plant.slave.asked().len() - before, ends + 2, "{moods:?}");
    }
}

#[test]
fn a_lock_between_two_steps_keeps_the_rest_back_and_does_not_call_done_what_is_not() {
    let plant = Plant::new("response_timeout = \"20s\"");
    for (command, id, word) in [("start", "m-1", 7), ("begin", "m-2", 1)] {
        plant.slave.set_mood(Mood::Held);
        plant.send("pump", id, command, &if command == "start" { json!(3) } else { Json::Null });
        plant.slave.wait_for_write(word);
        let locked = plant.site.command(&["lock", "pump", "--reason", "hands in it"]);
        assert!(locked.status.success(), "{}", String::from_utf8_lossy(&locked.stderr));
        plant.slave.let_one_go();
        let row = plant.ended(id);
        assert_eq!((&row["state"], &row["error"]["code"]), (&json!("failed"), &json!("locked-out")), "{row}");
        let message = row["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("step 2 of ") && message.contains("; step 1 was done"), "{message}");
        assert!(message.contains("hands in it"), "{message}");
        assert!(plant.site.command(&["unlock", "pump"]).status.success());
        plant.slave.set_mood(Mood::Good);
    }
    assert_eq!(plant.slave.writes(), [(20, 7), (20, 1)]);
}

#[test]
fn a_deadline_that_passes_between_two_steps_does_not_part_them() {
    let plant = Plant::new("response_timeout = \"20s\"");
    plant.slave.next_mood(Mood::Slow(std::time::Duration::from_millis(600)));
    let row = plant.row("begin", &Json::Null);
    assert_eq!(row["state"], "succeeded", "{row}");
    assert_eq!(plant.slave.writes(), [(20, 1), (22, 2)]);
}

#[test]
fn a_new_configuration_of_the_bus_waits_until_what_is_asked_in_a_row_is_done() {
    let plant = Plant::new("response_timeout = \"20s\"");
    let elsewhere = Slave::new();
    plant.slave.set_mood(Mood::Held);
    plant.send("pump", "first", "start", &json!(3));
    plant.slave.wait_for_write(7);
    plant.site.configure(plant.slave.address(), elsewhere.address());
    let reloaded = plant.site.command(&["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    plant.slave.set_mood(Mood::Good);
    assert_eq!(plant.ended("first")["state"], "succeeded");
    assert_eq!(plant.slave.writes(), [(20, 7), (21, 30), (22, 9)]);
    assert!(elsewhere.asked().is_empty());
    assert_eq!(plant.value("start", &json!(1)), 1.0);
    assert_eq!(elsewhere.writes().len(), 3);
}

#[test]
fn what_is_read_back_of_steps_must_show_everywhere() {
    let plant = Plant::new("retries = 0");
    plant.slave.set_register(31, 0x0004);
    assert_eq!(plant.value("shown", &json!(5)), 5);
    plant.slave.set_register(31, 0xFFFB);
    let (state, code, message) = plant.fault("shown", &json!(6));
    assert_eq!((&*state, &*code), ("failed", "verify-mismatch"));
    assert!(message.contains("step 2 of 2: read back false where true was to stand"), "{message}");
}
