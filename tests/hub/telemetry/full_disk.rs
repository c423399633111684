//! The disk of telemetry is full: commands go on, `status` says so, nothing grows, and with space again it recovers.

use std::path::Path;

use serde_json::Value as Json;

use super::{at, of_kind, sampled, samples};
use crate::support::disk::SmallDisk;
use crate::support::eventually;
use crate::support::hub::Hub;
use crate::support::slave::Slave;

/// What is read ten times a second: about ten kilobytes each second.
const MANY: &str =
    "[profile.pump.poll.many]\nread = { table = \"holding\", address = 100, count = 125 }\nevery = \"100ms\"\n";

/// Bytes of all that lies in a folder.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |found| found.len())).sum()
}

#[test]
fn on_a_full_disk_commands_go_on_and_nothing_grows_and_with_space_again_all_that_waited_is_told() {
    let (mut hub, slave, disk) = (Hub::plain(&["pump"]), Slave::new(), SmallDisk::new("40m"));
    let site = at(&hub, &slave, "batch_delay = \"100ms\"", MANY);
    let (beside, small) = (site.path("telemetry.db"), disk.path().join("telemetry.db"));
    site.configure(&beside.display().to_string(), &small.display().to_string());
    let daemon = site.start();
    let telemetry = || site.status()["telemetry"].clone();
    sampled(&hub, "a value", |sample| sample["quality"]["many"] == "good");
    // Less than what is left to the ledger, wherever that lies.
    disk.fill_but(8 << 20);
    hub.unplug();
    let said = eventually("status says that it can't be kept", || {
        let telemetry = telemetry();
        (telemetry["ok"] == false).then(|| telemetry["lastError"].as_str().unwrap_or_default().to_owned())
    });
    assert!(said.contains("telemetry.db") && said.contains("free some space"), "{said}");
    let shown = site.command(&["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("telemetry can't be kept") && shown.contains("telemetry NOT WRITABLE"), "{shown}");
    // What is read meanwhile waits in memory; the disk has no more of it, and commands go on.
    let (before, read) = (bytes_in(disk.path()), telemetry()["samples"].as_u64().expect("a count"));
    assert!(site.command(&["exec", "pump", "set", "7"]).status.success());
    eventually("twenty more are read", || (telemetry()["samples"].as_u64()? >= read + 20).then_some(()));
    assert!(site.command(&["exec", "pump", "set", "8"]).status.success());
    assert_eq!((bytes_in(disk.path()), slave.writes()), (before, vec![(0, 7), (0, 8)]));
    disk.clear();
    eventually("it can be kept again", || (telemetry()["ok"] == true).then_some(()));
    assert!(telemetry()["lastError"].is_null());
    hub.plug_in();
    let read = telemetry()["samples"].as_u64().expect("a count");
    eventually("all that waited is there", || (samples(&hub).len() as u64 >= read).then_some(()));
    let times: Vec<Json> = samples(&hub).iter().map(|sample| sample["ts"].clone()).collect();
    assert!(times.iter().map(|time| time.as_str().unwrap_or_default()).is_sorted(), "{times:?}");
    assert_eq!((telemetry()["lost"].as_u64(), of_kind(&hub, "telemetry-gap").len()), (Some(0), 0));
    assert!(daemon.terminate().success());
}
