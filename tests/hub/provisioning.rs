//! Devices that are assigned to their hub by the Device Provisioning Service: at first, over restarts without it, and
//! to another hub when theirs does not let them in any more. Proves G2 and G15 over such a move.

use base64::prelude::{Engine as _, BASE64_STANDARD};
use fieldbridge::demo::hub::{Ack, Auth, C2d, Enrollment, Options, Outcome, Status};
use serde_json::Value as Json;

use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::{self, eventually, Site};

/// The site's device key.
fn key() -> Auth {
    Auth::Key((0..32).collect())
}

/// A service that assigns the device `pump` to a hub, which has it.
fn service(hub: &Hub) -> Hub {
    let service = Hub::start(Options::default());
    assign(&service, hub);
    service
}

fn assign(service: &Hub, hub: &Hub) {
    hub.add_device("pump", key());
    service.enroll("pump", Enrollment { hub: Some(hub.host()), ..Enrollment::new(key()) });
}

/// A site that knows the service, and no hub; `device` is said of the device in the place of its key's file.
fn site(service: &Hub, hubs: &[&Hub], slave: &Slave, device: &str) -> Site {
    let more = support::pump(slave.address(), "after-execution", "").replace("key_file = \"device.key\"", device);
    let provisioning = format!(
        "[provisioning]\nid_scope = \"0ne00000000\"\nhost = \"{}\"\naddress = \"{}\"\nca_file = \"service-ca.pem\"\n",
        service.host(),
        service.https_addr()
    );
    let site = Site::with_hub("ca_file = \"hub-ca.pem\"\n", &format!("{provisioning}{more}"));
    site.write("service-ca.pem", &service.ca_pem());
    site.write("hub-ca.pem", &hubs.iter().map(|hub| hub.ca_pem()).collect::<String>());
    site
}

fn is_at(hub: &Hub, site: &Site) {
    eventually("the device is at its hub", || hub.is_subscribed("pump").then_some(()));
    eventually("status says so", || {
        let device = site.device_status("pump");
        (device["hub"] == "connected" && device["hubHost"] == hub.host().as_str()).then_some(())
    });
}

fn pulse(hub: &Hub, id: &str) -> Status {
    let before = hub.feedback().len();
    hub.send("pump", C2d::new(id, "7").property("command", "pulse").ack(Ack::Full)).unwrap();
    eventually("feedback", || hub.feedback().get(before).cloned()).status
}

fn remembered(site: &Site) -> Json {
    let text = std::fs::read_to_string(site.path("provisioning.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_device_comes_to_the_hub_that_it_is_assigned_to_and_after_a_restart_without_the_service_too() {
    let (hub, slave) = (Hub::found_by_its_name(), Slave::new());
    let mut service = service(&hub);
    let site = site(&service, &[&hub], &slave, "key_file = \"device.key\"");
    let daemon = site.start();
    is_at(&hub, &site);
    assert_eq!(pulse(&hub, "m-1"), Status::Success);
    assert_eq!(slave.writes(), [(2, 7)]);
    assert_eq!(remembered(&site)["devices"]["pump"]["assignedHub"], hub.host().as_str());
    assert_eq!(site.status()["hub"]["host"], hub.host().as_str());
    daemon.terminate();
    service.unplug();
    let _daemon = site.start();
    is_at(&hub, &site);
    assert_eq!(pulse(&hub, "m-2"), Status::Success);
    assert_eq!(service.registrations("pump"), 1);
}

#[test]
fn by_each_transport_a_device_comes_to_the_hub_that_it_is_assigned_to() {
    let (hub, slave) = (Hub::found_by_its_name(), Slave::new());
    let service = service(&hub);
    for transport in ["mqtt-ws", "amqp", "amqp-ws", "https"] {
        let site = site(&service, &[&hub], &slave, &format!("key_file = \"device.key\"\ntransport = \"{transport}\""));
        let daemon = site.start();
        eventually(transport, || {
            let device = site.device_status("pump");
            let is_there = device["hub"] == "connected" && device["transport"] == transport;
            (is_there && device["hubHost"] == hub.host().as_str()).then_some(())
        });
        daemon.terminate();
    }
}

#[test]
fn a_certificate_and_a_second_key_register_too() {
    let (hub, slave) = (Hub::found_by_its_name(), Slave::new());
    let service = service(&hub);
    let certificate = service.enroll_cert("pump").unwrap();
    let thumbprints = Auth::Thumbprints(vec![certificate.thumbprint.clone()]);
    hub.add_device("pump", thumbprints.clone());
    service.enroll("pump", Enrollment { hub: Some(hub.host()), ..Enrollment::new(thumbprints) });
    let with_certificate =
        site(&service, &[&hub], &slave, "cert_file = \"pump.pem\"\ncert_key_file = \"pump-key.pem\"");
    with_certificate.write("pump.pem", &certificate.cert_pem);
    with_certificate.write("pump-key.pem", &certificate.key_pem);
    let daemon = with_certificate.start();
    is_at(&hub, &with_certificate);
    daemon.terminate();

    assign(&service, &hub);
    let keys = "key_file = \"first.key\"\nsecondary_key_file = \"device.key\"";
    let with_keys = site(&service, &[&hub], &slave, keys);
    with_keys.write("first.key", &BASE64_STANDARD.encode([9; 32]));
    let _daemon = with_keys.start();
    is_at(&hub, &with_keys);
}

#[test]
fn a_device_that_its_hub_refuses_is_assigned_anew_and_what_it_did_is_not_done_again() {
    let (old, new, slave) = (Hub::found_by_its_name(), Hub::found_by_its_name(), Slave::new());
    let service = service(&old);
    let site = site(&service, &[&old, &new], &slave, "key_file = \"device.key\"");
    let daemon = site.start();
    is_at(&old, &site);
    assert_eq!(pulse(&old, "m-1"), Status::Success);
    // One life does not ask again so soon.
    daemon.terminate();
    let _daemon = site.start();
    is_at(&old, &site);
    assign(&service, &new);
    old.remove_device("pump");
    is_at(&new, &site);
    assert_eq!(remembered(&site)["devices"]["pump"]["assignedHub"], new.host().as_str());
    pulse(&new, "m-1");
    site.wait_for_row("m-1", "in_doubt");
    assert_eq!(slave.writes(), [(2, 7)], "the same message under another hub's name is not run again");
    pulse(&new, "m-2");
    site.wait_for_row("m-2", "succeeded");
}

#[test]
fn what_the_service_says_no_to_is_told_and_tried_again() {
    let (hub, slave) = (Hub::found_by_its_name(), Slave::new());
    let service = service(&hub);
    let site = site(&service, &[&hub], &slave, "key_file = \"device.key\"\nregistration_id = \"sn-007\"");
    let daemon = site.start();
    site.wait_for_last_error("refuses the device (HTTP 401, 401002: Unauthorized)");
    assert_eq!(site.device_status("pump")["hubHost"], "");
    let enrollment = Enrollment { hub: Some(hub.host()), ..Enrollment::new(key()) };
    for (wrong, told) in [
        (Enrollment { outcome: Outcome::Disabled, ..enrollment.clone() }, "enrollment disabled"),
        (Enrollment { outcome: Outcome::Failed, ..enrollment.clone() }, "could not assign the device to a hub, 400209"),
        (Enrollment { profile: Some("mqttv5".into()), ..enrollment.clone() }, "which fieldbridge does not speak"),
        (enrollment.clone(), "as \"sn-007\""),
    ] {
        service.enroll("sn-007", wrong);
        // What it reads anew is tried at once.
        assert!(site.command(&["reload"]).status.success());
        site.wait_for_last_error(told);
    }
    service.enroll("sn-007", Enrollment { device: Some("pump".into()), ..enrollment });
    assert!(site.command(&["reload"]).status.success());
    is_at(&hub, &site);
    assert!(!daemon.log().contains("sig="), "a token is a secret");
}

#[test]
fn a_damaged_memory_is_told_and_made_anew() {
    let (hub, slave) = (Hub::found_by_its_name(), Slave::new());
    let service = service(&hub);
    let site = site(&service, &[&hub], &slave, "key_file = \"device.key\"");
    site.write("provisioning.json", "{\"devices\":{\"pump\":");
    let checked = site.command(&["check"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.contains("provisioning.json can't be read"), "{said}");
    assert!(said.contains(&format!("hubs as {} assigns them", service.host())), "{said}");
    let daemon = site.start();
    is_at(&hub, &site);
    assert_eq!(remembered(&site)["devices"]["pump"]["assignedHub"], hub.host().as_str());
    assert!(daemon.log().contains("provisioning.json can't be read"));
}

#[test]
fn a_live_check_registers_what_has_no_daemon_and_asks_the_daemon_of_the_rest() {
    let (hub, slave) = (Hub::found_by_its_name(), Slave::new());
    let service = service(&hub);
    let site = site(&service, &[&hub], &slave, "key_file = \"device.key\"");
    let checked = || {
        let output = site.command(&["check", "--live"]);
        String::from_utf8(output.stdout).unwrap()
    };
    let said = checked();
    let assigned = format!("provisioning pump: the service assigns it to {}", hub.host());
    assert!(said.contains(&assigned) && said.contains("identity pump: the hub accepts it"), "{said}");
    assert!(!site.path("provisioning.json").exists(), "it changes nothing");
    let _daemon = site.start();
    is_at(&hub, &site);
    let said = checked();
    assert!(said.contains(&format!("provisioning pump: assigned to {}, says the running", hub.host())), "{said}");
    assert!(said.contains("identity pump: connected, says the running fieldbridge"), "{said}");
    assert_eq!(service.registrations("pump"), 2, "the check's, and the daemon's");
}
