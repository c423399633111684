//! `fieldbridge lock` and `unlock`: whoever has hands in a machine is not surprised by it, whatever becomes of the
//! daemon meanwhile.

use serde_json::{json, Value as Json};

use super::{idle_site, json_of, says, status, stderr, stdout, user_name, Plant};
use crate::support::Site;

/// What `status --json` says of the pump's lock.
fn lock_of(site: &Site) -> Json {
    site.device_status("pump")["locked"].clone()
}

/// A set is refused since the pump is locked, and a read is not.
fn is_locked(site: &Site) {
    says(&site.command(&["exec", "pump", "set", "9"]), 1, "rejected", "(locked-out)");
    says(&site.command(&["exec", "pump", "read"]), 0, "succeeded", "");
}

#[test]
fn a_locked_device_is_read_and_not_written_until_it_is_unlocked() {
    let mut plant = Plant::start();
    assert_eq!(lock_of(&plant.site), Json::Null);
    let output = plant.site.command(&["lock", "pump", "--reason", "new\nseal"]);
    says(&output, 0, "pump is locked: nothing is written to it until `fieldbridge unlock pump`", "");
    let lock = lock_of(&plant.site);
    assert_eq!((&lock["by"], &lock["reason"]), (&json!(user_name()), &json!("new seal")));
    assert!(lock["since"].is_null() || lock["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{lock}");
    let shown = stdout(&plant.site.command(&["status"]));
    assert!(shown.contains("pump is LOCKED") && shown.contains(&format!("by {}: new seal", user_name())), "{shown}");
    is_locked(&plant.site);
    let output = plant.site.command(&["exec", "pump", "pulse", "9", "--json"]);
    assert_eq!((status(&output), &json_of(&output)["error"]["code"]), (1, &json!("locked-out")));
    says(&plant.site.command(&["exec", "pump", "set", "5", "--override"]), 0, "succeeded: 5", "");
    assert!(plant.daemon.log().contains("goes past the lock"));
    plant.client.deliver(1, "m-1", r#"{"command":"pulse","value":7}"#);
    let (pubacks, events) = plant.client.collect(1, 1);
    assert_eq!((pubacks, &events[0].1["status"]), (vec![1], &json!("rejected")));
    assert_eq!(events[0].1["error"]["code"], "locked-out");
    let why = events[0].1["error"]["message"].as_str().expect("a sentence");
    assert!(why.contains("new seal") && why.contains("send it again"), "{why}");
    assert_eq!(plant.slave.writes(), [(0, 5)]);

    says(&plant.site.command(&["lock", "pump"]), 1, "", "pump is locked already");
    says(&plant.site.command(&["lock", "pumpe"]), 1, "", "no device is called \"pumpe\"");
    says(&plant.site.command(&["unlock", "pumpe"]), 1, "", "pumpe is not locked");
    says(&plant.site.command(&["unlock", "pump"]), 0, "pump is unlocked", "");
    says(&plant.site.command(&["unlock", "pump"]), 1, "", "pump is not locked");
    assert_eq!(lock_of(&plant.site), Json::Null);
    plant.deliver(2, "m-2", "pulse", 8);
    assert_eq!(plant.slave.writes(), [(0, 5), (2, 8)]);
}

#[test]
fn a_lock_holds_over_a_crash_and_over_reloads_that_take_its_device_away() {
    let plant = Plant::start();
    let locked = json_of(&plant.site.command(&["lock", "pump", "--json"]));
    assert_eq!((&locked["device"], &locked["locked"]["by"]), (&json!("pump"), &json!(user_name())));
    let Plant { daemon, site, .. } = plant;
    daemon.kill();
    let daemon = site.start();
    assert_eq!(lock_of(&site), locked["locked"]);
    says(&site.command(&["exec", "pump", "set", "9"]), 1, "rejected", "(locked-out)");
    site.configure("[device.pump]", "[device.other]");
    says(&site.command(&["reload"]), 0, "devices removed: pump", "");
    says(&site.command(&["lock", "pump"]), 1, "", "pump is locked already");
    site.configure("[device.other]", "[device.pump]");
    says(&site.command(&["reload"]), 0, "devices added: pump", "");
    assert_eq!(lock_of(&site), locked["locked"]);
    says(&site.command(&["exec", "pump", "set", "9"]), 1, "rejected", "(locked-out)");
    assert!(daemon.terminate().success());

    // No command of the ledger's changes that.
    let before = std::fs::read(site.path("locks")).expect("it is there");
    for args in [&["ledger", "new"][..], &["ledger", "new", "--trust"]] {
        assert_eq!(status(&site.command(args)), 0);
    }
    assert_eq!(std::fs::read(site.path("locks")).expect("it is there"), before);
    let _daemon = site.start();
    is_locked_out(&site);
    says(&site.command(&["unlock", "pump", "--json"]), 0, r#"{"device":"pump","locked":null}"#, "");
}

fn is_locked_out(site: &Site) {
    says(&site.command(&["exec", "pump", "set", "9"]), 1, "rejected", "(locked-out)");
}

#[test]
fn without_a_daemon_the_file_is_written_and_the_next_daemon_finds_it_so() {
    let site = idle_site();
    says(&site.command(&["lock", "pumpe"]), 1, "", "no device is called \"pumpe\"");
    says(&site.command(&["unlock", "pump"]), 1, "", "pump is not locked");
    assert!(!site.path("locks").exists() && !site.path("ledger.db").exists());
    let output = site.command(&["lock", "pump", "--reason", "seal"]);
    says(&output, 0, "pump is locked: nothing is written to it, once the daemon runs again, until", "");
    says(&site.command(&["lock", "pump"]), 1, "", "pump is locked already");
    let daemon = site.start();
    assert_eq!((&lock_of(&site)["by"], &lock_of(&site)["reason"]), (&json!(user_name()), &json!("seal")));
    is_locked_out(&site);
    assert!(daemon.log().contains("is locked"));
    // A daemon that can't be reached is not passed by.
    let before = std::fs::read(site.path("locks")).expect("it is there");
    std::fs::rename(site.path("admin.sock"), site.path("away.sock")).expect("it is there");
    for verb in ["lock", "unlock"] {
        says(&site.command(&[verb, "pump"]), 75, "", "a daemon runs, but");
    }
    assert_eq!(std::fs::read(site.path("locks")).expect("it is there"), before);
    daemon.kill();
    says(&site.command(&["unlock", "pump"]), 0, "pump is unlocked", "");
    let daemon = site.start();
    assert_eq!(lock_of(&site), Json::Null);
    assert!(daemon.terminate().success());
    // Hands do not wait for a configuration to be good.
    site.configure("unit = 1", "unit = 300");
    says(&site.command(&["lock", "pump"]), 0, "pump is locked", "has errors");
}

#[test]
fn a_file_of_locks_that_is_damaged_locks_every_device_and_says_what_to_do() {
    let site = idle_site();
    site.write("locks", "{\"locks\": {\"pump");
    for verb in ["lock", "unlock"] {
        says(&site.command(&[verb, "pump"]), 1, "", "move");
    }
    let daemon = site.start();
    let lock = lock_of(&site);
    assert_eq!((&lock["since"], &lock["by"]), (&Json::Null, &Json::Null));
    assert!(
        lock["reason"].as_str().is_some_and(|why| why.contains("can't be read") && why.contains("aside")),
        "{lock}"
    );
    is_locked_out(&site);
    for verb in ["lock", "unlock"] {
        let output = site.command(&[verb, "pump"]);
        assert!(status(&output) == 1 && stderr(&output).contains("nobody works on a machine"), "{}", stderr(&output));
    }
    let shown = stdout(&site.command(&["status"]));
    assert!(shown.contains("pump is LOCKED: the file of the locks"), "{shown}");
    assert!(daemon.terminate().success());
    std::fs::remove_file(site.path("locks")).expect("it is there");
    let _daemon = site.start();
    assert_eq!(lock_of(&site), Json::Null);
}
