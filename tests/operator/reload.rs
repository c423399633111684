//! A new configuration for a daemon that runs, against the hub simulator and a counting slave. Proves G2, G3, G5 and
//! G11 through reloads: a bad file changes nothing, a good one touches only what it changes, and nothing is lost or
//! repeated.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, signal, Daemon, Site, PUMP};
use fieldbridge::demo::hub::{Auth, C2d, Status, Wire};
use serde_json::Value as Json;

fn bus(slave: &Slave) -> String {
    format!("[bus.plant]\nkind = \"modbus-tcp\"\naddress = \"{}\"\nresponse_timeout = \"20s\"\n", slave.address())
}

fn device(id: &str, more: &str) -> String {
    format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n{more}\n")
}

fn site(hub: &Hub, more: &str) -> Site {
    let site = Site::at(hub, &format!("{more}{PUMP}"));
    std::fs::create_dir(site.path("conf.d")).unwrap();
    site
}

/// A site with the pump on its bus, and a hub that knows these devices.
fn pump_site(devices: &[&str]) -> (Hub, Slave, Site) {
    let (hub, slave) = (Hub::plain(devices), Slave::new());
    let site = site(&hub, &(bus(&slave) + &device("pump", "")));
    (hub, slave, site)
}

/// The same with its daemon, whose pump is connected.
fn running(devices: &[&str]) -> (Hub, Slave, Site, Daemon) {
    let (hub, slave, site) = pump_site(devices);
    let daemon = site.start();
    connected(&hub, "pump");
    (hub, slave, site, daemon)
}

/// Has the slave hold the first of these commands until it is in a good mood again.
fn hold(hub: &Hub, slave: &Slave, device: &str, values: &[u16]) {
    slave.set_mood(Mood::Held);
    values.iter().for_each(|value| send(hub, device, &format!("m-{value}"), "pulse", *value));
    slave.wait_for_write(values[0]);
}

/// Has the daemon take up what stands in the files, and returns what it says has changed.
fn reload(site: &Site) -> Json {
    let output = site.command(&["reload", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn connected(hub: &Hub, device: &str) {
    eventually("the device is subscribed", || hub.is_subscribed(device).then_some(()));
}

/// How often a device has connected.
fn connections(hub: &Hub, device: &str) -> usize {
    hub.wire().iter().filter(|event| event.device == device && matches!(event.what, Wire::Connected { .. })).count()
}

fn send(hub: &Hub, device: &str, id: &str, command: &str, value: u16) {
    let body = value.to_string();
    hub.send(device, C2d::new(id, body).property("command", command).ack(fieldbridge::demo::hub::Ack::Full)).unwrap();
}

/// Waits until so many messages are completed, and says that each was.
fn completed(hub: &Hub, count: usize) {
    let feedback = eventually("feedback", || Some(hub.feedback()).filter(|feedback| feedback.len() >= count));
    assert!(feedback.iter().all(|record| record.status == Status::Success), "{feedback:?}");
    assert_eq!(feedback.len(), count);
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let (hub, slave, site, daemon) = running(&["pump"]);
    for (bad, says) in [
        ("[bus.plant]\nkind = \"modbus-tpc\"\n", "bus.plant.kind"),
        ("[device.pump]\nkey_file = \"no-such.key\"\n", "device.pump.key_file"),
        ("[device.pump\n", "bad.toml"),
        ("[admin]\nsocket = \"/proc/no-such/admin.sock\"\n", "admin"),
    ] {
        site.write("conf.d/bad.toml", bad);
        // The command itself must be able to read where the socket is.
        if bad.starts_with("[admin]") || says == "bad.toml" {
            signal(daemon.pid(), "HUP");
        } else {
            let output = site.command(&["reload"]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{said}");
            assert!(said.contains(says), "{said}");
        }
        daemon.told("RELOADING=1\nMONOTONIC_USEC=");
        daemon.told("READY=1");
        if bad.contains("tpc") {
            daemon.told("THE NEW CONFIGURATION HAS ERRORS");
        }
        std::fs::remove_file(site.path("conf.d/bad.toml")).unwrap();
        let refused = site.status()["configuration"].clone();
        assert_eq!(refused["ok"], false);
        assert!(refused["lastError"].as_str().unwrap().contains(says), "{refused}");
        assert!(daemon.log().contains("changes nothing"));
    }
    send(&hub, "pump", "m-1", "pulse", 7);
    completed(&hub, 1);
    assert_eq!(reload(&site)["summary"], "nothing has changed");
    assert_eq!(site.status()["configuration"]["ok"], true);
    assert_eq!((slave.writes(), connections(&hub, "pump")), (vec![(2, 7)], 1));
}

#[test]
fn a_device_that_is_added_connects_and_one_that_is_removed_finishes_and_leaves() {
    let (hub, slave, site, mut daemon) = running(&["pump", "valve"]);
    site.write("conf.d/valve.toml", &device("valve", ""));
    let changes = reload(&site);
    assert_eq!(changes["devices"]["added"], serde_json::json!(["valve"]), "{changes}");
    connected(&hub, "valve");
    hold(&hub, &slave, "valve", &[1, 2]);
    std::fs::remove_file(site.path("conf.d/valve.toml")).unwrap();
    let changes = reload(&site);
    assert_eq!(changes["devices"]["removed"], serde_json::json!(["valve"]), "{changes}");
    assert!(hub.is_connected("valve"), "its command is still in hand");
    slave.set_mood(Mood::Good);
    eventually("it leaves", || (!hub.is_connected("valve")).then_some(()));
    completed(&hub, 1);
    eventually("its result is told", || (hub.telemetry().len() == 1).then_some(()));
    assert_eq!((slave.writes(), hub.queue_len("valve")), (vec![(2, 1)], 1), "the second was not begun, and stays");
    assert!(site.status()["devices"].as_array().unwrap().iter().all(|device| device["id"] == "pump"));
    let (gone, known) = (site.command(&["exec", "valve", "read"]), site.command(&["exec", "pump", "read"]));
    assert_eq!((gone.status.code(), known.status.code()), (Some(1), Some(0)));
    // It comes back, and gets what waits for it.
    site.write("conf.d/valve.toml", &device("valve", ""));
    reload(&site);
    completed(&hub, 2);
    assert_eq!((slave.writes(), connections(&hub, "pump")), (vec![(2, 1), (2, 2)], 1));
    assert!(daemon.is_running());
}

#[test]
fn a_device_that_comes_back_before_its_command_has_ended_waits_for_that() {
    let (hub, slave, site) = pump_site(&["pump", "valve"]);
    site.write("conf.d/valve.toml", &device("valve", "settle = \"after-accept\""));
    let _daemon = site.start();
    connected(&hub, "valve");
    slave.set_mood(Mood::Held);
    for (id, value) in [("m-1", 1), ("m-2", 2), ("m-3", 3)] {
        send(&hub, "valve", id, "pulse", value);
    }
    completed(&hub, 3);
    slave.wait_for_write(1);
    let file = site.path("conf.d/valve.toml");
    for _ in 0..3 {
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(reload(&site)["devices"]["removed"], serde_json::json!(["valve"]));
        site.write("conf.d/valve.toml", &text);
        assert_eq!(reload(&site)["devices"]["added"], serde_json::json!(["valve"]));
    }
    assert_eq!(slave.writes(), [(2, 1)]);
    slave.set_mood(Mood::Good);
    // Accepted commands are the gateway's own: they are run by whoever comes after.
    for id in ["m-1", "m-2", "m-3"] {
        site.wait_for_row(id, "succeeded");
    }
    connected(&hub, "valve");
    assert_eq!(slave.writes(), [(2, 1), (2, 2), (2, 3)]);
    site.settled();
    // A new connection may publish one again that the last one has published, under the same id (G7).
    let events: BTreeSet<String> =
        hub.telemetry().iter().filter_map(|event| event.property("$.mid").map(str::to_owned)).collect();
    assert_eq!((events.len(), connections(&hub, "valve")), (3, 2));
}

#[test]
fn a_changed_profile_holds_for_the_next_command_and_drops_no_connection() {
    let (hub, slave, site, _daemon) = running(&["pump"]);
    site.write("conf.d/range.toml", "[profile.pump.command.pulse]\nrange = [0, 10]\nidempotent = false\n");
    assert_eq!(reload(&site)["devices"]["changed"], serde_json::json!(["pump"]));
    send(&hub, "pump", "m-1", "pulse", 11);
    send(&hub, "pump", "m-2", "pulse", 10);
    completed(&hub, 2);
    assert_eq!(site.wait_for_row("m-1", "rejected")["error"]["code"], "out-of-range");
    assert_eq!((slave.writes(), connections(&hub, "pump")), (vec![(2, 10)], 1));
}

#[test]
fn a_changed_bus_is_opened_anew_after_the_exchange_in_hand_and_no_hub_connection_drops() {
    let (hub, old, new) = (Hub::plain(&["pump", "valve"]), Slave::new(), Slave::new());
    let site = site(&hub, &(bus(&old) + &device("pump", "") + &device("valve", "")));
    let _daemon = site.start();
    connected(&hub, "pump");
    connected(&hub, "valve");
    old.set_mood(Mood::Held);
    send(&hub, "pump", "m-1", "pulse", 1);
    old.wait_for_write(1);
    // It waits for the bus.
    send(&hub, "valve", "m-2", "pulse", 2);
    site.write("conf.d/bus.toml", &format!("[bus.plant]\naddress = \"{}\"\n", new.address()));
    let changes = reload(&site);
    assert_eq!(changes["buses"]["changed"], serde_json::json!(["plant"]), "{changes}");
    old.set_mood(Mood::Good);
    completed(&hub, 2);
    send(&hub, "pump", "m-3", "pulse", 3);
    completed(&hub, 3);
    assert_eq!((old.writes(), new.writes()), (vec![(2, 1)], vec![(2, 2), (2, 3)]));
    assert_eq!((connections(&hub, "pump"), connections(&hub, "valve")), (1, 1));
}

#[test]
fn a_command_is_looked_for_on_the_bus_that_it_was_sent_on_though_another_kind_has_its_name() {
    let (hub, slave, site) = pump_site(&["pump", "scale"]);
    let read_back = "read_back = { within = \"60s\" }";
    site.write("conf.d/late.toml", &format!("[profile.pump.command.pulse]\nidempotent = false\n{read_back}\n"));
    let _daemon = site.start();
    connected(&hub, "pump");
    slave.set_take_up(Duration::from_secs(2));
    send(&hub, "pump", "m-1", "pulse", 1);
    slave.wait_for_write(1);
    // The pump leaves, and its bus is a text line from now on.
    let main = std::fs::read_to_string(site.path("fieldbridge.toml")).unwrap();
    let kept = main.replace(&device("pump", ""), "").replace("kind = \"modbus-tcp\"", "kind = \"serial\"");
    site.write("fieldbridge.toml", &kept);
    site.write(
        "conf.d/scale.toml",
        "[device.scale]\nbus = \"plant\"\nprofile = \"scale\"\nkey_file = \"device.key\"\n\
         [profile.scale.command.zero]\nsend = \"Z\"\nidempotent = true\n",
    );
    let changes = reload(&site);
    assert_eq!(changes["buses"]["changed"], serde_json::json!(["plant"]), "{changes}");
    assert_eq!(site.wait_for_row("m-1", "succeeded")["attempts"], 1);
    assert_eq!(slave.writes(), [(2, 1)]);
    connected(&hub, "scale");
    let status = site.status();
    assert_eq!(status["buses"][0]["kind"], "serial", "{status}");
    assert_eq!(status["buses"].as_array().unwrap().len(), 1);
}

#[test]
fn a_bus_that_is_renamed_goes_on_with_its_devices() {
    let (hub, slave, site, _daemon) = running(&["pump"]);
    hold(&hub, &slave, "pump", &[1]);
    site.configure("[bus.plant]", "[bus.line-a]");
    site.configure("bus = \"plant\"", "bus = \"line-a\"");
    let changes = reload(&site);
    assert_eq!(changes["buses"]["added"], serde_json::json!(["line-a"]), "{changes}");
    assert_eq!(changes["buses"]["removed"], serde_json::json!(["plant"]), "{changes}");
    slave.set_mood(Mood::Good);
    send(&hub, "pump", "m-2", "pulse", 2);
    completed(&hub, 2);
    assert_eq!((slave.writes(), connections(&hub, "pump")), (vec![(2, 1), (2, 2)], 1));
    let status = site.status();
    assert_eq!((&status["buses"][0]["name"], &status["devices"][0]["bus"]), (&"line-a".into(), &"line-a".into()));
    assert_eq!(status["buses"].as_array().unwrap().len(), 1);
}

#[test]
fn a_changed_key_ends_its_own_connection_only_and_what_is_in_hand_is_settled_first() {
    let (hub, slave) = (Hub::plain(&["pump", "valve"]), Slave::new());
    let site = site(
        &hub,
        &(bus(&slave) + &device("pump", "") + &device("valve", "key_file = \"valve.key\"")).replacen(
            "key_file = \"device.key\"\nkey_file",
            "key_file",
            2,
        ),
    );
    let key = std::fs::read_to_string(site.path("device.key")).unwrap();
    site.write("valve.key", &key);
    let _daemon = site.start();
    connected(&hub, "pump");
    connected(&hub, "valve");
    hold(&hub, &slave, "valve", &[1]);
    hub.add_device("valve", Auth::Key(vec![9; 32]));
    site.write("valve.key", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n");
    assert_eq!(reload(&site)["devices"]["changed"], serde_json::json!(["valve"]));
    slave.set_mood(Mood::Good);
    eventually("it connects with the new key", || (connections(&hub, "valve") == 2).then_some(()));
    connected(&hub, "valve");
    assert_eq!((slave.writes(), connections(&hub, "pump")), (vec![(2, 1)], 1));
}

#[test]
fn what_kept_a_device_from_connecting_is_mended_at_once() {
    let (hub, _slave, site) = pump_site(&[]);
    hub.add_device("pump", Auth::Key(vec![9; 32]));
    let _daemon = site.start();
    eventually("it is refused, and waits", || site.device_status("pump")["lastError"].as_str().map(drop));
    site.write("device.key", "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n");
    reload(&site);
    connected(&hub, "pump");
}

#[test]
fn the_admin_socket_moves_and_the_ledger_does_not() {
    let (_hub, _slave, site) = pump_site(&["pump"]);
    let daemon = site.start();
    let (old, new) = (site.path("admin.sock"), site.path("other.sock"));
    site.configure(&old.display().to_string(), &new.display().to_string());
    site.configure("ledger.db", "other.db");
    signal(daemon.pid(), "HUP");
    daemon.told("RELOADING=1");
    daemon.told("READY=1");
    assert!(!old.exists());
    assert_eq!(site.status()["configuration"]["ok"], true);
    assert!(daemon.log().contains("ledger.path is taken up at the next start only"), "{}", daemon.log());
    assert!(!site.path("other.db").exists());
}

/// Commands flow while the configuration changes all the time.
#[test]
fn nothing_is_lost_or_repeated_through_many_reloads() {
    const ROUNDS: u16 = 30;
    let seed =
        std::env::var("FIELDBRIDGE_SEED").map_or_else(|_| fastrand::u64(..1_000_000_000), |seed| seed.parse().unwrap());
    println!("FIELDBRIDGE_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let devices = ["pump", "valve", "fan"];
    let (hub, slave) = (Hub::plain(&devices), Slave::new());
    slave.set_weather(seed, vec![(40, Mood::Slow(Duration::from_millis(20)))]);
    let site = site(&hub, &bus(&slave));
    for id in devices {
        site.write(&format!("conf.d/{id}.toml"), &device(id, ""));
    }
    let daemon = site.start();
    devices.iter().for_each(|id| connected(&hub, id));
    let mut sent = 0;
    for round in 0..ROUNDS {
        for id in devices {
            sent += 1;
            let command = *dice.choice(["pulse", "pulse-verified", "set"]).as_ref().unwrap();
            send(&hub, id, &format!("m-{sent}"), command, sent);
        }
        let id = devices[dice.usize(..devices.len())];
        let file = format!("conf.d/{id}.toml");
        match dice.u8(..5) {
            0 => std::fs::remove_file(site.path(&file)).unwrap(),
            1 => drop(site.write(&file, &device(id, "settle = \"after-accept\""))),
            2 => drop(site.write("conf.d/bus.toml", &format!("[bus.plant]\nretries = {}\n", round % 5))),
            3 => drop(site.write("conf.d/hub.toml", &format!("[hub]\nkeepalive = \"{}s\"\n", 30 + round))),
            _ => drop(site.write("conf.d/bad.toml", "[device.nobody]\n")),
        }
        match dice.bool() {
            true => signal(daemon.pid(), "HUP"),
            false => drop(site.command(&["reload"])),
        }
        let _ = std::fs::remove_file(site.path("conf.d/bad.toml"));
        std::thread::sleep(Duration::from_millis(dice.u64(..60)));
        site.write(&file, &device(id, ""));
        // What is removed comes back: the hub keeps its messages meanwhile.
        signal(daemon.pid(), "HUP");
    }
    reload(&site);
    completed(&hub, usize::from(sent));
    site.settled();
    let mut done: Vec<u16> = slave.writes().into_iter().map(|(_, value)| value).collect();
    done.sort_unstable();
    let all: Vec<u16> = (1..=sent).collect();
    // A `set` may be done twice: its device left in the middle of it.
    let rows = site.rows();
    assert!(rows.iter().all(|row| row["state"] == "succeeded"), "{rows:?}");
    for row in rows.iter().filter(|row| row["command"] != "set") {
        let value = row["value"].as_u64().unwrap() as u16;
        assert_eq!(done.iter().filter(|one| **one == value).count(), 1, "{row}");
    }
    done.dedup();
    assert_eq!(done, all);
}

#[test]
fn a_device_that_is_to_be_settled_after_accept_keeps_the_order_of_what_waits() {
    let (hub, slave, site, _daemon) = running(&["pump"]);
    hold(&hub, &slave, "pump", &[1, 2]);
    eventually("both are in the gateway", || (site.device_status("pump")["pending"] == 2).then_some(()));
    site.write("conf.d/settle.toml", "[device.pump]\nsettle = \"after-accept\"\n");
    reload(&site);
    send(&hub, "pump", "m-3", "pulse", 3);
    eventually("the third as well", || (site.device_status("pump")["pending"] == 3).then_some(()));
    assert!(site.rows().iter().all(|row| row["messageId"] == "m-1"), "{:?}", site.rows());
    slave.set_mood(Mood::Good);
    completed(&hub, 3);
    for id in ["m-1", "m-2", "m-3"] {
        site.wait_for_row(id, "succeeded");
    }
    assert_eq!((slave.writes(), connections(&hub, "pump")), (vec![(2, 1), (2, 2), (2, 3)], 1));
}

#[test]
fn a_command_that_was_interrupted_is_not_repeated_because_it_is_called_idempotent_by_now() {
    let (hub, slave, site, daemon) = running(&["pump"]);
    hold(&hub, &slave, "pump", &[1]);
    daemon.kill();
    slave.set_mood(Mood::Good);
    site.write("conf.d/bold.toml", "[profile.pump.command.pulse]\nidempotent = true\n");
    let _daemon = site.start();
    site.wait_for_row("m-1", "in_doubt");
    completed(&hub, 1);
    assert_eq!(slave.writes(), [(2, 1)]);
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let (hub, _slave, site, _daemon) = running(&["pump", "other"]);
    let dry = || {
        let output = site.command(&["reload", "--dry-run", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Json>(&output.stdout).unwrap()
    };
    assert_eq!(dry()["summary"], "a reload would tell: nothing has changed");
    site.write("conf.d/other.toml", &device("other", "response_timeout = \"3s\""));
    for _ in 0..2 {
        let document = dry();
        assert_eq!((&document["devices"]["added"][0], &document["dryRun"]), (&Json::from("other"), &true.into()));
        assert_eq!(document["summary"], "a reload would tell: devices added: other");
    }
    let status = site.status();
    assert_eq!(status["hub"]["identities"], 1, "nothing was taken up: {status}");
    assert_eq!(status["configuration"]["changedFiles"].as_array().map(Vec::len), Some(1), "{status}");
    site.write("conf.d/other.toml", &device("other", "unti = 3"));
    let output = site.command(&["reload", "--dry-run"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("device.other.unti"));
    assert_eq!(site.status()["configuration"]["ok"], true, "nothing was refused");
    drop(hub);
}
