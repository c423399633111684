//! What an exchange leads to, from the hub to the slave and back: writes that are read back, exceptions that are no
//! refusals. Proves G3 (a command that was not begun is sent again, and stands in the ledger each time), G11 (the bus
//! is free between two looks), G12 (an exchange that writes and reads is proof of its own) and the contract's table
//! "What an exchange leads to".

use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, Daemon, Site, PUMP};
use fieldbridge::demo::hub::C2d;
use serde_json::{json, Value as Json};

/// Two devices on one bus, whose writes are looked for as long as it takes.
const PATIENT: &str = r#"
[profile.pump.command.open]
write = { table = "holding", address = 3 }
read_back = { within = "10m" }
idempotent = false

[profile.pump.command.speed]
write = { table = "holding", address = 4, scale = 0.1 }
read_back = { table = "holding", address = 5, type = "i16", scale = 1, after = "50ms", within = "10m", tolerance = 0.5 }
idempotent = true

[profile.pump.command.exchange]
write = { table = "holding", address = 6, type = "u32" }
function = 23
read_back = { within = "10m" }
idempotent = false

[profile.pump.command.exchange-at-once]
write = { table = "holding", address = 6, type = "u32" }
function = 23
read_back = { within = "0ms" }
idempotent = false

[profile.pump.command.exchange-elsewhere]
write = { table = "holding", address = 4, scale = 0.1 }
function = 23
read_back = { address = 5, type = "i16", scale = 1, within = "0ms", tolerance = 0.5 }
idempotent = true

[profile.pump.command.exchange-bit]
write = { table = "holding", address = 9, bit = 2 }
function = 23
verify = true
idempotent = false

[profile.pump.command.exchange-steps]
steps = [
  { write = { table = "holding", address = 6 }, function = 23, verify = true },
  { write = { table = "holding", address = 7 }, value = 5, function = 23, read_back = { address = 8, within = "0ms" } },
]
"#;

struct Plant {
    hub: Hub,
    slave: Slave,
    site: Site,
    _daemon: Daemon,
}

fn plant() -> Plant {
    let (hub, slave) = (Hub::plain(&["pump", "valve"]), Slave::new());
    let device =
        |id| format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n");
    let bus = format!(
        "[bus.plant]\nkind = \"modbus-tcp\"\naddress = \"{}\"\nresponse_timeout = \"500ms\"\nretry_pause = \"10ms\"\n\
         unreachable_after = 0\n",
        slave.address()
    );
    let site = Site::at(&hub, &format!("{bus}{}{}{PUMP}{PATIENT}", device("pump"), device("valve")));
    let daemon = site.start();
    for id in ["pump", "valve"] {
        eventually("the device is subscribed", || hub.is_subscribed(id).then_some(()));
    }
    Plant { hub, slave, site, _daemon: daemon }
}

impl Plant {
    fn send(&self, id: &str, command: &str, value: impl Into<Json>) {
        let body = value.into().to_string();
        self.hub.send("pump", C2d::new(id, body).property("command", command)).unwrap();
    }

    /// Sends a command and gives the row that it ends in.
    fn run(&self, id: &str, command: &str, value: u16) -> Json {
        self.send(id, command, value);
        eventually("the command has ended", || {
            self.site.rows().into_iter().find(|row| row["messageId"] == id && !row["finishedAt"].is_null())
        })
    }

    /// The same, as state, code and attempts.
    fn end(&self, id: &str, command: &str, value: u16) -> (String, Json, Json) {
        let row = self.run(id, command, value);
        let code = row["error"].get("code").cloned().unwrap_or_default();
        (row["state"].as_str().unwrap().to_owned(), code, row["attempts"].clone())
    }
}

fn ends(state: &str, code: impl Into<Json>, attempts: u32) -> (String, Json, Json) {
    (state.to_owned(), code.into(), attempts.into())
}

#[test]
fn a_write_that_shows_late_is_found_and_the_bus_is_free_between_the_looks() {
    let plant = plant();
    plant.slave.set_mood(Mood::Lying);
    plant.send("m-1", "open", 7);
    // The write, and some looks.
    plant.slave.wait_for_requests(4);
    for _ in 0..3 {
        let read = plant.site.command(&["exec", "valve", "read"]);
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
    let rows = plant.site.rows();
    assert!(rows.iter().all(|row| row["messageId"] != "m-1" || row["finishedAt"].is_null()), "{rows:?}");
    plant.slave.set_register(3, 7);
    let row = plant.site.wait_for_row("m-1", "succeeded");
    assert_eq!((&row["value"], &row["attempts"]), (&json!(7), &json!(1)));
}

#[test]
fn a_write_that_shows_elsewhere_may_be_off_by_the_tolerance() {
    let plant = plant();
    plant.slave.set_register(5, 11);
    plant.send("m-1", "speed", json!(12.3));
    plant.slave.wait_for_requests(3);
    assert!(plant.site.rows().iter().all(|row| row["finishedAt"].is_null()));
    plant.slave.set_register(5, 12);
    let row = plant.site.wait_for_row("m-1", "succeeded");
    assert_eq!((&row["value"], &plant.slave.writes()), (&json!(12.3), &vec![(4, 123)]));
}

#[test]
fn a_write_whose_answer_was_bad_or_missing_is_read_back_and_not_repeated() {
    let plant = plant();
    let cases = [Mood::Garbling, Mood::Mute, Mood::HangUp, Mood::Refusing(5)];
    for (n, mood) in (1..).zip(cases) {
        for (command, address) in [("set-verified", 1), ("pulse-verified", 3)] {
            plant.slave.next_mood(mood);
            // Exception 5: it has begun, and takes its time.
            if mood == Mood::Refusing(5) {
                plant.slave.set_register(address, n);
            }
            let id = format!("{command}-{n}");
            assert_eq!(plant.end(&id, command, n), ends("succeeded", Json::Null, 1), "{mood:?}");
            let writes = usize::from(mood != Mood::Refusing(5));
            assert_eq!(plant.slave.count(address, n), writes, "{mood:?} {command}");
        }
    }
}

#[test]
fn what_nobody_confirms_and_does_not_show_is_in_doubt_or_repeated_and_never_a_definite_no() {
    let plant = plant();
    plant.slave.next_mood(Mood::Deaf);
    assert_eq!(plant.end("m-1", "pulse-verified", 1), ends("in_doubt", "timeout", 1));
    plant.slave.next_mood(Mood::Refusing(11));
    assert_eq!(plant.end("m-2", "pulse-verified", 2), ends("in_doubt", "exception", 1));
    plant.slave.next_mood(Mood::Refusing(5));
    assert_eq!(plant.end("m-3", "pulse", 3), ends("in_doubt", "exception", 1));
    plant.slave.next_mood(Mood::Refusing(5));
    assert_eq!(plant.end("m-4", "set", 4), ends("failed", "exception", 1));
    plant.slave.next_mood(Mood::Deaf);
    assert_eq!(plant.end("m-5", "set-verified", 5), ends("succeeded", Json::Null, 2));
    // Confirmed, and another value stands there.
    plant.slave.next_mood(Mood::Lying);
    assert_eq!(plant.end("m-6", "pulse-verified", 6), ends("failed", "verify-mismatch", 1));
    plant.slave.set_mood(Mood::Refusing(10));
    assert_eq!(plant.end("m-7", "pulse", 7), ends("failed", "bus-unavailable", 1));
    assert_eq!(plant.end("m-8", "set", 8), ends("failed", "bus-unavailable", 3));
    assert_eq!(plant.site.wait_for_row("m-7", "failed")["error"]["modbusException"], 10);
    plant.slave.set_mood(Mood::Refusing(2));
    assert_eq!(plant.end("m-9", "pulse", 9), ends("failed", "exception", 1));
    assert_eq!(plant.slave.writes(), [(1, 5)]);
}

#[test]
fn a_gateways_word_for_silence_is_repeated_as_silence_is_and_only_where_that_is_safe() {
    let plant = plant();
    for (n, (command, refusals), expected) in [
        (1, ("set", 1), ends("succeeded", Json::Null, 2)),
        (2, ("set", 3), ends("failed", "exception", 3)),
        (3, ("pulse", 1), ends("in_doubt", "exception", 1)),
    ] {
        (0..refusals).for_each(|_| plant.slave.next_mood(Mood::Refusing(11)));
        assert_eq!(plant.end(&format!("m-{n}"), command, n), expected);
    }
    let row = plant.site.wait_for_row("m-3", "in_doubt");
    let told = row["error"]["message"].as_str().unwrap();
    assert!(told.contains("exception 11: gateway target device failed to respond"), "{told}");
    assert_eq!(plant.slave.writes(), [(0, 1)]);
}

#[test]
fn a_command_that_the_peripheral_was_too_busy_to_begin_is_sent_again_and_recorded_each_time() {
    let plant = plant();
    for (command, address) in [("pulse", 2), ("set", 0)] {
        (0..2).for_each(|_| plant.slave.next_mood(Mood::Refusing(6)));
        let id = format!("{command}-1");
        assert_eq!(plant.end(&id, command, 1), ends("succeeded", Json::Null, 3));
        assert_eq!(plant.slave.count(address, 1), 1);
        (0..3).for_each(|_| plant.slave.next_mood(Mood::Refusing(6)));
        let id = format!("{command}-2");
        assert_eq!(plant.end(&id, command, 2), ends("failed", "exception", 3));
        assert_eq!(plant.slave.count(address, 2), 0);
    }
    let output = plant.site.command(&["ledger", "show", "pump", "pulse-1", "--json"]);
    let row: Json = serde_json::from_slice(&output.stdout).unwrap();
    let begun = row["history"].as_array().unwrap().iter().filter(|entry| entry["event"] == "executing").count();
    assert_eq!(begun, 3, "{row}");
}

/// What the slave was asked for from there on, as function and last byte of the address.
fn asked_from(plant: &Plant, before: usize) -> Vec<(u8, u8)> {
    plant.slave.asked().split_off(before).into_iter().map(|pdu| (pdu[0], pdu[2])).collect()
}

#[test]
fn a_write_and_its_read_back_in_one_exchange_are_proof_and_need_no_other() {
    let plant = plant();
    let row = plant.run("m-1", "exchange", 0xBEEF);
    assert_eq!((&row["state"], &row["value"], &row["attempts"]), (&json!("succeeded"), &json!(0xBEEF), &json!(1)));
    plant.slave.set_register(5, 12);
    plant.send("m-2", "exchange-elsewhere", json!(12.3));
    assert_eq!(plant.site.wait_for_row("m-2", "succeeded")["value"], 12.3);
    plant.slave.set_register(9, 0xFF00);
    plant.send("m-3", "exchange-bit", true);
    plant.site.wait_for_row("m-3", "succeeded");
    assert_eq!(plant.slave.register(9), 0xFF04);
    plant.slave.set_register(8, 5);
    plant.send("m-4", "exchange-steps", 3);
    assert_eq!(plant.site.wait_for_row("m-4", "succeeded")["value"], 3);
    // What is read stands before what is written; a bit is written over what was read before.
    let asked = plant.slave.asked();
    assert_eq!(asked[0], [23, 0, 6, 0, 2, 0, 6, 0, 2, 4, 0, 0, 0xBE, 0xEF]);
    let expected = [(23, 6), (23, 5), (3, 9), (23, 9), (23, 6), (23, 8)];
    assert_eq!(asked_from(&plant, 0), expected);
}

#[test]
fn what_an_exchange_shows_otherwise_is_looked_at_again_and_may_show_in_time() {
    let plant = plant();
    plant.slave.set_mood(Mood::Lying);
    plant.send("m-1", "exchange", 7);
    plant.slave.wait_for_requests(3);
    assert!(plant.site.rows().iter().all(|row| row["finishedAt"].is_null()));
    plant.slave.set_register(7, 7);
    let row = plant.site.wait_for_row("m-1", "succeeded");
    assert_eq!((&row["value"], &row["attempts"]), (&json!(7), &json!(1)));
    assert!(asked_from(&plant, 1).iter().all(|one| *one == (3, 6)), "it is written once");

    let before = plant.slave.asked().len();
    let row = plant.run("m-2", "exchange-at-once", 8);
    assert_eq!((&row["state"], &row["error"]["code"]), (&json!("failed"), &json!("verify-mismatch")), "{row}");
    assert_eq!(row["error"]["message"], "read back 7 where 8 was to stand");
    assert_eq!(asked_from(&plant, before), [(23, 6), (3, 6)]);

    plant.slave.set_mood(Mood::Good);
    plant.slave.set_register(8, 6);
    let row = plant.run("m-3", "exchange-steps", 9);
    assert_eq!((&row["state"], &row["error"]["code"]), (&json!("failed"), &json!("verify-mismatch")), "{row}");
    assert!(row["error"]["message"].as_str().unwrap().starts_with("step 2 of 2: read back 6"), "{row}");
}

#[test]
fn an_exchange_without_a_good_answer_is_read_back_and_what_is_refused_or_not_begun_ends_as_ever() {
    let plant = plant();
    for (n, mood) in (1..).zip([Mood::Mute, Mood::Garbling, Mood::HangUp]) {
        plant.slave.next_mood(mood);
        assert_eq!(plant.end(&format!("m-{n}"), "exchange-at-once", n), ends("succeeded", Json::Null, 1), "{mood:?}");
        assert_eq!(plant.slave.count(7, n), 1, "{mood:?}");
    }
    for (n, (mood, expected)) in (4..).zip([
        (Mood::Deaf, ends("in_doubt", "timeout", 1)),
        (Mood::Refusing(2), ends("failed", "exception", 1)),
        (Mood::Refusing(6), ends("succeeded", Json::Null, 2)),
    ]) {
        plant.slave.next_mood(mood);
        assert_eq!(plant.end(&format!("m-{n}"), "exchange-at-once", n), expected, "{mood:?}");
    }
}
