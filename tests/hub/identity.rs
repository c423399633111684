//! How an identity is proven and the hub is trusted, against the hub simulator over TLS: the ways that work, and for
//! each that doesn't the sentence that says what to check.

use std::time::Duration;

use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::{self, eventually, Site, PATIENCE};
use fieldbridge::demo::hub::{Auth, C2d, Options, Status};

/// A site with the device `pump`, proven by `credential`; `hub_keys` are more lines of `[hub]`.
fn site(hub: &Hub, slave: &Slave, credential: &str, hub_keys: &str) -> Site {
    let address = if hub_keys.contains("address") { String::new() } else { format!("address = \"{}\"\n", hub.addr()) };
    let head = format!("host = \"{}\"\n{address}ca_file = \"hub-ca.pem\"\n{hub_keys}", hub.host());
    let more = support::pump(slave.address(), "after-execution", "").replace("key_file = \"device.key\"", credential);
    let site = Site::with_hub(&head, &more);
    site.write("hub-ca.pem", &hub.ca_pem());
    site
}

fn command_runs(hub: &Hub, slave: &Slave) {
    eventually("the device is subscribed", || hub.is_subscribed("pump").then_some(()));
    let before = hub.feedback().len();
    hub.send("pump", C2d::new("m-1", "7").property("command", "pulse").ack(fieldbridge::demo::hub::Ack::Full)).unwrap();
    let feedback = eventually("feedback", || hub.feedback().get(before).cloned());
    assert_eq!(feedback.status, Status::Success);
    assert_eq!(slave.writes(), [(2, 7)]);
}

#[test]
fn a_connection_string_proves_a_device() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_key_device("pump");
    let site = site(&hub, &slave, "connection_string_file = \"pump.connection\"", "");
    site.write("pump.connection", &hub.connection_string("pump"));
    let _daemon = site.start();
    command_runs(&hub, &slave);
}

#[test]
fn a_certificate_proves_a_device() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let certificate = hub.add_cert_device("pump").unwrap();
    let site = site(&hub, &slave, "cert_file = \"pump.pem\"\ncert_key_file = \"pump-key.pem\"", "");
    site.write("pump.pem", &certificate.cert_pem);
    site.write("pump-key.pem", &certificate.key_pem);
    let _daemon = site.start();
    command_runs(&hub, &slave);
}

#[test]
fn another_devices_certificate_is_refused_and_a_new_one_is_taken_up_without_a_restart() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let right = hub.add_cert_device("pump").unwrap();
    let wrong = hub.issue_client_cert("pump").unwrap();
    let site = site(&hub, &slave, "cert_file = \"pump.pem\"\ncert_key_file = \"pump-key.pem\"", "");
    site.write("pump.pem", &wrong.cert_pem);
    site.write("pump-key.pem", &wrong.key_pem);
    let _daemon = site.start();
    site.wait_for_last_error("not authorized");
    site.write("pump.pem", &right.cert_pem);
    site.write("pump-key.pem", &right.key_pem);
    command_runs(&hub, &slave);
}

#[test]
fn a_wrong_key_is_told_from_an_unreachable_hub() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", Auth::Key(vec![9; 32]));
    let site = site(&hub, &slave, "key_file = \"device.key\"", "");
    let daemon = site.start();
    site.wait_for_last_error("that its key or certificate is the right one");
    assert!(!daemon.log().contains("sig="), "a token is a secret");
}

#[test]
fn a_hub_that_nobody_vouches_for_is_not_told_the_token() {
    let (hub, stranger, slave) = (Hub::start(Options::default()), Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", Auth::Key((0..32).collect()));
    let site = site(&hub, &slave, "key_file = \"device.key\"", "");
    site.write("hub-ca.pem", &stranger.ca_pem());
    let _daemon = site.start();
    site.wait_for_last_error("hub.ca_file");
    assert!(hub.wire().is_empty(), "nothing of MQTT was said: {:?}", hub.wire());
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let options = Options { host: "other.fieldbridge.test".into(), ..Options::default() };
    let other = Hub::start(options);
    let site = site(&hub, &slave, "key_file = \"device.key\"", &format!("address = \"{}\"\n", other.addr()));
    site.write("hub-ca.pem", &other.ca_pem());
    let _daemon = site.start();
    site.wait_for_last_error("not for hub.fieldbridge.test");
}

#[test]
fn a_port_that_does_not_speak_tls_is_called_so() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let plain = Hub::start(Options { tls: false, ..Options::default() });
    let site = site(&hub, &slave, "key_file = \"device.key\"", &format!("address = \"{}\"\n", plain.addr()));
    let _daemon = site.start();
    site.wait_for_last_error("TLS");
}

#[test]
fn a_token_is_renewed_before_it_expires_and_nothing_is_lost_or_repeated() {
    let options = Options { token_grace: Duration::ZERO, clock_skew: Duration::ZERO, ..Options::default() };
    let (hub, slave) = (Hub::start(options), Slave::new());
    hub.add_device("pump", Auth::Key((0..32).collect()));
    let site = site(&hub, &slave, "key_file = \"device.key\"", "token_lifetime = \"10s\"\n");
    let daemon = site.start();
    let connections = || {
        let connected = |event: &fieldbridge::demo::hub::WireEvent| {
            matches!(event.what, fieldbridge::demo::hub::Wire::Connected { .. })
        };
        hub.wire().iter().filter(|event| connected(event)).count()
    };
    eventually("the device is subscribed", || hub.is_subscribed("pump").then_some(()));
    let mut sent = 0u16;
    let deadline = std::time::Instant::now() + PATIENCE;
    while connections() < 3 {
        assert!(std::time::Instant::now() < deadline, "no renewal");
        sent += 1;
        let message = C2d::new(format!("m-{sent}"), sent.to_string()).property("command", "pulse");
        hub.send("pump", message.ack(fieldbridge::demo::hub::Ack::Full)).unwrap();
        eventually("it is completed", || (hub.feedback().len() == usize::from(sent)).then_some(()));
    }
    let values: Vec<u16> = slave.writes().into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, (1..=sent).collect::<Vec<_>>());
    assert!(!daemon.log().contains("no connection to the hub"), "a renewal is no trouble");
}

#[test]
fn a_second_client_with_the_same_id_is_suspected() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", Auth::Key((0..32).collect()));
    let first = site(&hub, &slave, "key_file = \"device.key\"", "");
    let second = site(&hub, &slave, "key_file = \"device.key\"", "");
    let _daemons = (first.start(), second.start());
    eventually("one of them says so", || {
        let says = |site: &Site| {
            site.device_status("pump")["lastError"].as_str().is_some_and(|e| e.contains("another client"))
        };
        (says(&first) || says(&second)).then_some(())
    });
}
