//! Proves G1, G2 and G7 on a machine whose every file system is read-only but for the folders of state and runtime: the
//! daemon needs no other place, not even for temporary files. It needs root, for a mount namespace.

use crate::support::disk::with_mounts;
use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::{eventually, pump, Daemon, Site};
use fieldbridge::demo::hub::{Ack, Auth, C2d, Options};
use serde_json::json;

/// Everything but the site's folder becomes read-only; a place that can be written all the same ends the test.
fn everything_read_only_but(site: &Site) -> Vec<String> {
    let folder = site.path("").canonicalize().expect("it is there");
    with_mounts(&format!(
        "mount --bind {0} {0}; \
         findmnt -rno TARGET | sort -u | while read -r place; do \
             [ \"$place\" = {0} ] || mount -o remount,bind,ro \"$place\"; \
         done; \
         for place in / /tmp /var/tmp /dev/shm /run; do \
             if touch \"$place/fieldbridge-was-here\" 2>/dev/null; then echo \"$place can be written\" >&2; exit 9; fi; \
         done; cd /",
        folder.display()
    ))
}

fn start(site: &Site) -> Daemon {
    let wrapper = everything_read_only_but(site);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let daemon = site.spawn(&wrapper, &[]);
    daemon.wait_until_ready();
    daemon
}

#[test]
fn a_read_only_machine_with_a_folder_for_the_state_is_enough() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let head = format!("host = \"{}\"\naddress = \"{}\"\nca_file = \"hub-ca.pem\"\n", hub.host(), hub.addr());
    let site = Site::with_hub(&head, &pump(slave.address(), "after-accept", ""));
    hub.ca_file(&site.path("")).expect("the certificate can be written");
    hub.add_device("pump", Auth::Key((0..32).collect()));
    let send = |value: u16, command: &str| {
        let body = json!({ "command": command, "value": value }).to_string();
        hub.send("pump", C2d::new(format!("{command} {value}"), body).ack(Ack::Full)).expect("the hub takes it");
    };
    let done = |count: usize| {
        eventually("every command completed", || (hub.queue_len("pump") == 0).then_some(()));
        eventually("every command done", || (slave.writes().len() == count).then_some(()));
        site.settled();
    };

    let daemon = start(&site);
    eventually("a connection", || (site.status()["hub"]["connected"] == 1).then_some(()));
    (0..20).for_each(|value| send(value, "pulse"));
    done(20);
    (0..20).for_each(|value| send(value, "set-verified"));
    done(40);
    assert!(site.command(&["exec", "pump", "set", "99"]).status.success());
    daemon.kill();

    // The log that the killed one has left is moved into the file.
    send(100, "pulse");
    let daemon = start(&site);
    done(42);
    // With the one of the operator.
    assert_eq!(site.rows().iter().filter(|row| row["state"] == "succeeded").count(), 42);
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    assert!(daemon.terminate().success());
    assert!(!site.path("ledger.db-wal").exists(), "it was closed in order");
}
