//! The hub, the identities, their certificates and the clock: what is told of each, right and wrong.

use std::time::{Duration, SystemTime};

use fieldbridge::demo::hub::{Auth, C2d, Options, Wire};
use rcgen::{CertificateParams, KeyPair};

use super::{live, live_under, plant, plant_with, Found, Plant};
use crate::support::slave::Slave;
use crate::support::tls::{authority, server, Server};
use crate::support::wall::Wall;
use crate::support::{self, pump};

#[test]
fn each_identity_that_the_hub_refuses_is_named() {
    let plant = plant_with(Options::default(), |slave| {
        let wrong = "[device.wrong]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n";
        let own = |id: &str| {
            let keys = format!("cert_file = \"{id}.pem\"\ncert_key_file = \"{id}-key.pem\"");
            wrong.replace("wrong", id).replace("key_file = \"device.key\"", &keys)
        };
        format!("{}{wrong}{}{}", pump(slave.address(), "after-execution", ""), own("x"), own("y"))
    });
    plant.hub.add_key_device("wrong");
    let right = plant.hub.add_cert_device("x").expect("a certificate");
    let unknown = plant.hub.issue_client_cert("y").expect("a certificate");
    plant.hub.add_device("y", Auth::Thumbprints(vec![right.thumbprint.clone()]));
    for (id, certificate) in [("x", &right), ("y", &unknown)] {
        plant.site.write(&format!("{id}.pem"), &certificate.cert_pem);
        plant.site.write(&format!("{id}-key.pem"), &certificate.key_pem);
    }
    let found = live(&plant.site);
    found.says("ok", "identity pump", "a token made now");
    found.says("fail", "identity wrong", "check that the device exists at this hub");
    found.says("ok", "identity x", "with its certificate");
    found.says("ok", "certificate x", "is valid until");
    found.says("fail", "identity y", "not authorized");
    assert!(plant.hub.wire().iter().any(|event| matches!(event.what, Wire::Refused { code: 5, .. })));
    // A key that belongs to another certificate is seen before anything is tried.
    plant.site.write("x-key.pem", &unknown.key_pem);
    let output = plant.site.command(&["check", "--live"]);
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("device.x.cert_key_file") && told.contains("is not the key of"), "{told}");
}

#[test]
fn a_devices_certificate_is_judged_by_its_dates() {
    let plant = plant();
    plant.site.configure("key_file = \"device.key\"", "cert_file = \"own.pem\"\ncert_key_file = \"own-key.pem\"");
    let key = KeyPair::generate().expect("a key");
    plant.site.write("own-key.pem", &key.serialize_pem());
    let day = Duration::from_secs(24 * 3600);
    let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
    for (begins, ends, verdict, said) in [
        (now - 9 * day, now + 300 * day, "ok", "is valid until"),
        (now - 9 * day, now + 20 * day, "warn", "expires in 19 days"),
        (now - 9 * day, now - day, "fail", "has expired"),
        (now + day, now + 300 * day, "fail", "is not valid before"),
    ] {
        let mut params = CertificateParams::new([]).expect("no names are good names");
        (params.not_before, params.not_after) = (begins, ends);
        plant.site.write("own.pem", &params.self_signed(&key).expect("a certificate").pem());
        live(&plant.site).says(verdict, "certificate pump", said);
    }
}

#[test]
fn a_hub_that_is_not_reached_is_told_by_the_step_that_fails() {
    let mut plant = plant();
    let address = plant.hub.addr().to_string();
    plant.site.configure(&address, "no-such-hub.invalid:8883");
    let found = live(&plant.site);
    found.says("fail", "hub name", "check DNS");
    found.says("warn", "identity pump", "the hub is not reached");
    plant.site.configure("no-such-hub.invalid:8883", &address);
    plant.hub.unplug();
    let found = live(&plant.site);
    found.says("ok", "hub name", "has an address");
    found.says("fail", "hub TCP", "is open outwards");
    found.says("warn", "identity pump", "the hub is not reached");
    plant.hub.plug_in();
    live(&plant.site).is_good();
    // A port on which nothing speaks TLS.
    let plain = plant_with(Options { tls: false, ..Options::default() }, |_| String::new());
    plant.site.configure(&address, &plain.hub.addr().to_string());
    let found = live(&plant.site);
    found.says("ok", "hub TCP", "takes connections");
    found.says("fail", "hub TLS", "is this a TLS port");
}

#[test]
fn a_server_whose_certificate_is_wrong_is_told_and_hears_no_token() {
    let ca = authority("the authority that is trusted");
    let day = Duration::from_secs(24 * 3600);
    let now = rcgen::date_time_ymd(1970, 1, 1) + SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
    let key = KeyPair::generate().expect("a key");
    let slave = Slave::new();
    let more = pump(slave.address(), "after-execution", "");
    let look = |params: CertificateParams, trusted: &str| {
        let server = Server::with(&[&params.signed_by(&key, &ca).expect("a certificate")], &key);
        let found = live(&server.site(trusted, &more));
        (found, server)
    };
    let expired = server(|params| params.not_after = now - day);
    let of_another = server(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("hub.example".try_into().expect("a name"))];
    });
    for (params, said) in [(expired, "has expired"), (of_another, "is not for hub.fieldbridge.test")] {
        let (found, server) = look(params, &ca.pem());
        found.says("fail", "hub TLS", said);
        found.says("warn", "identity pump", "the hub is not reached");
        assert!(server.heard().is_empty());
    }
    let (found, server) = look(support::tls::server(|_| {}), &authority("another").pem());
    found.says("fail", "hub TLS", "not signed by a trusted authority");
    assert!(server.heard().is_empty());
    let (found, _server) = look(support::tls::server(|params| params.not_after = now + 10 * day), &ca.pem());
    found.says("ok", "hub TLS", "the server is");
    found.says("warn", "certificate of the hub", "expires in 9 days");
    // This server ends the connection after CONNECT.
    found.says("fail", "identity pump", "");
}

#[test]
fn one_identitys_bad_certificate_keeps_nobody_else_from_the_hub() {
    let (ca, of_clients) = (authority("the authority that is trusted"), authority("of another plant's devices"));
    let (key, slave) = (KeyPair::generate().expect("a key"), Slave::new());
    let certificate = server(|_| {}).signed_by(&key, &ca).expect("a certificate");
    let hub = Server::that_knows_clients_of(of_clients.as_ref(), &[&certificate], &key);
    // By its name it comes first.
    let own = "[device.a]\nbus = \"plant\"\nunit = 2\nprofile = \"pump\"\ncert_file = \"a.pem\"\n\
               cert_key_file = \"a-key.pem\"\n";
    let site = hub.site(&ca.pem(), &format!("{}{own}", pump(slave.address(), "after-execution", "")));
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new([]).expect("no names are good names");
    site.write("a.pem", &params.self_signed(&key).expect("a certificate").pem());
    site.write("a-key.pem", &key.serialize_pem());
    let found = live(&site);
    found.says("ok", "hub TLS", "the server is");
    found.says("fail", "identity a", "TLS");
    // This server says nothing of MQTT; that it was asked is what matters.
    found.says("fail", "identity pump", "");
    assert!(!hub.heard().is_empty());
}

#[test]
fn a_clock_in_1970_is_told_and_no_token_is_made() {
    let plant = plant();
    let wall = Wall::new(&plant.site.path(""));
    wall.jump_to(60);
    let found = live_under(&plant.site, &[], &wall.environment());
    found.says("fail", "clock", "timedatectl set-ntp true");
    found.says("fail", "hub TLS", "is the clock right?");
    found.says("fail", "certificate of hub.ca_file", "is the clock right?");
    found.says("warn", "identity pump", "not asked");
    found.says("ok", "peripheral pump", "answers");
    assert_eq!(plant.hub.wire().len(), 0);
}

/// Devices that are reached by this transport, with a key or a certificate each, which have messages at the hub that
/// nobody may take.
fn plant_by(transport: &str, ids: &[&str], with_key: bool) -> Plant {
    let plant = plant_with(Options { keeps_from_start: true, ..Options::default() }, |slave| {
        let one = |id: &&str| {
            let credential = match with_key {
                true => format!("key_file = \"{id}.key\"\nsecondary_key_file = \"second.key\""),
                false => format!("cert_file = \"{id}.pem\"\ncert_key_file = \"{id}-key.pem\""),
            };
            format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\n{credential}\n")
        };
        pump(slave.address(), "after-execution", "") + &ids.iter().map(one).collect::<String>()
    });
    let address = match transport {
        "mqtt" => plant.hub.addr(),
        "amqp" => plant.hub.amqp_addr(),
        "https" => plant.hub.https_addr(),
        _ => plant.hub.ws_addr(),
    };
    let keys = format!("transport = \"{transport}\"\naddresses = {{ {transport} = \"{address}\" }}\nca_file");
    plant.site.configure("ca_file", &keys);
    plant.site.write("second.key", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n");
    for id in ids {
        if with_key {
            plant.site.write(&format!("{id}.key"), &format!("{}\n", plant.hub.add_key_device(id)));
        } else {
            let certificate = plant.hub.add_cert_device(id).expect("a certificate");
            plant.site.write(&format!("{id}.pem"), &certificate.cert_pem);
            plant.site.write(&format!("{id}-key.pem"), &certificate.key_pem);
        }
        plant.hub.send(id, C2d::new("m", "1")).expect("the queue has room");
    }
    plant
}

/// What is found, with every message still in the hub's queue, and handed out to nobody.
fn live_without_a_message(plant: &Plant, ids: &[&str]) -> Found {
    let found = live(&plant.site);
    assert!(!plant.hub.wire().iter().any(|event| matches!(event.what, Wire::Delivered { .. })), "a message was taken");
    assert!(ids.iter().all(|id| plant.hub.queue_len(id) == 1 && !plant.hub.is_connected(id)));
    found
}

#[test]
fn an_identity_that_the_hub_does_not_let_in_is_named_whatever_it_is_reached_by() {
    let ids = ["right", "wrong", "disabled", "unknown"];
    for transport in ["mqtt", "mqtt-ws", "amqp", "amqp-ws", "https"] {
        for with_key in [true, false] {
            let plant = plant_by(transport, &ids, with_key);
            let other = if with_key { Auth::Key(vec![9; 32]) } else { Auth::Thumbprints(vec!["0".repeat(64)]) };
            plant.hub.add_device("wrong", other);
            plant.hub.set_enabled("disabled", false);
            // The hub has never heard of it: it is another one's name here.
            plant.site.configure("[device.unknown]", "[device.stranger]");
            // What was there before a device's first session over MQTT is lost to it.
            let ids = if transport.starts_with("mqtt") { &[][..] } else { &ids[..] };
            let found = live_without_a_message(&plant, ids);
            found.says("ok", "identity right", "the hub accepts it");
            for id in ["wrong", "disabled", "stranger"] {
                found.says("fail", &format!("identity {id}"), "");
            }
            found.says("ok", "identity pump", "the hub accepts it");
        }
    }
}

#[test]
fn a_second_key_that_is_needed_is_told_whatever_the_device_is_reached_by() {
    for transport in ["mqtt-ws", "amqp", "https"] {
        let plant = plant_by(transport, &["renewed"], true);
        plant.hub.add_device("renewed", Auth::Key((1..33).collect()));
        let found = live_without_a_message(&plant, &[]);
        found.says("ok", "identity renewed", "a token of its secondary key");
        found.says("ok", "identity pump", "a token made now");
    }
}
