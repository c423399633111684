//! The daemon over AMQP, against the hub simulator. Proves G1, G2, G5, G6, G7, G8 and G11 from outside for a transport
//! that rejects and gives back: many identities on one connection, each with troubles of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use fieldbridge::demo::hub::{Ack, Auth, C2d, Cut, Effect, Fault, MethodCall, Options, Status, Wire, WireEvent};

use crate::support::hub::Hub;
use crate::support::process::Figures;
use crate::support::slave::Slave;
use crate::support::{self, eventually, eventually_within, free_address, Site, PATIENCE, PUMP};

fn key() -> Auth {
    Auth::Key((0..32).collect())
}

/// A hub by AMQP with these lines in `[hub]`.
fn head(hub: &Hub, lines: &str) -> String {
    let (host, address) = (hub.host(), hub.amqp_addr());
    format!("host = \"{host}\"\naddress = \"{address}\"\ntransport = \"amqp\"\nca_file = \"hub-ca.pem\"\n{lines}")
}

/// A site with the device `pump`, proven by `credential`.
fn site(hub: &Hub, slave: &Slave, credential: &str, lines: &str) -> Site {
    let more = support::pump(slave.address(), "after-execution", "").replace("key_file = \"device.key\"", credential);
    let site = Site::with_hub(&head(hub, lines), &more);
    site.write("hub-ca.pem", &hub.ca_pem());
    site
}

fn site_with_key(hub: &Hub, slave: &Slave) -> Site {
    site(hub, slave, "key_file = \"device.key\"", "")
}

fn attached(hub: &Hub, device: &str) {
    eventually("the device is attached", || hub.is_connected(device).then_some(()));
}

fn set(hub: &Hub, number: u16) {
    let message = C2d::new(format!("m-{number}"), number.to_string()).property("command", "set").ack(Ack::Full);
    hub.send("pump", message).expect("the queue has room");
}

/// What became of so many messages, by their senders' feedback.
fn feedback(hub: &Hub, count: usize) -> Vec<(String, Status)> {
    let records = eventually("feedback", || Some(hub.feedback()).filter(|all| all.len() >= count));
    records.into_iter().map(|record| (record.original_message_id.unwrap_or_default(), record.status)).collect()
}

fn connections(hub: &Hub) -> BTreeSet<u64> {
    let attached = |event: &WireEvent| match &event.what {
        Wire::Attached { address } => address.contains("messages/devicebound").then_some(event.connection),
        _ => None,
    };
    hub.wire().iter().filter_map(attached).collect()
}

fn written(slave: &Slave) -> Vec<u16> {
    slave.writes().into_iter().map(|(_, value)| value).collect()
}

#[test]
fn commands_are_run_completed_rejected_and_told_of() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", key());
    let site = site_with_key(&hub, &slave);
    let daemon = site.start();
    attached(&hub, "pump");
    set(&hub, 1);
    let unknown = C2d { correlation_id: Some("c-2".into()), ..C2d::new("m-2", "1").property("command", "dance") };
    hub.send("pump", unknown.ack(Ack::Full)).unwrap();
    let garbage = C2d::new("m-3", &b"\xff\xfe\x00"[..]).property("command", "set").ack(Ack::Full);
    hub.send("pump", garbage).unwrap();
    set(&hub, 4);
    let told = feedback(&hub, 4);
    let expected = [Status::Success, Status::Rejected, Status::Rejected, Status::Success];
    let ids = ["m-1", "m-2", "m-3", "m-4"];
    assert_eq!(told, ids.into_iter().map(str::to_owned).zip(expected).collect::<Vec<_>>());
    assert_eq!(written(&slave), [1, 4]);
    let events = eventually("four result events", || Some(hub.telemetry()).filter(|all| all.len() == 4));
    for (event, id) in events.iter().zip(ids) {
        assert_eq!((event.property("$.cid"), event.property("fieldbridge")), (Some(id), Some("command-result")));
        assert_eq!((event.property("$.ct"), event.property("$.ce")), (Some("application/json"), Some("utf-8")));
        assert_eq!(event.json()["messageId"], id);
    }
    assert_eq!(site.device_status("pump")["transport"], "amqp");
    site.settled();
    let how = ids.map(|id| site.settled_how(id));
    assert_eq!(how, ["completed by amqp", "rejected by amqp", "rejected by amqp", "completed by amqp"]);
    assert!(daemon.terminate().success());
    assert!(!hub.is_connected("pump"), "it took leave");
}

#[test]
fn a_certificate_proves_a_device() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let certificate = hub.add_cert_device("pump").unwrap();
    let site = site(&hub, &slave, "cert_file = \"pump.pem\"\ncert_key_file = \"pump-key.pem\"", "");
    site.write("pump.pem", &certificate.cert_pem);
    site.write("pump-key.pem", &certificate.key_pem);
    let _daemon = site.start();
    attached(&hub, "pump");
    set(&hub, 7);
    assert_eq!(feedback(&hub, 1)[0].1, Status::Success);
    assert_eq!(written(&slave), [7]);
}

#[test]
fn many_identities_share_a_connection_and_one_with_a_wrong_key_is_alone_with_that() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let mut more = format!("[bus.plant]\nkind = \"modbus-tcp\"\naddress = \"{}\"\n{PUMP}", slave.address());
    let devices: Vec<String> = (0..40).map(|n| format!("d-{n}")).collect();
    for (n, id) in devices.iter().enumerate() {
        let unit = n + 1;
        more +=
            &format!("[device.{id}]\nbus = \"plant\"\nunit = {unit}\nprofile = \"pump\"\nkey_file = \"device.key\"\n");
        hub.add_device(id, if n == 7 { Auth::Key(vec![9; 32]) } else { key() });
    }
    let site = Site::with_hub(&head(&hub, "connect_rate = 1000\n"), &more);
    site.write("hub-ca.pem", &hub.ca_pem());
    let daemon = site.start();
    let others: Vec<&String> = devices.iter().filter(|id| *id != "d-7").collect();
    eventually("all but one are attached", || others.iter().all(|id| hub.is_connected(id)).then_some(()));
    assert_eq!(connections(&hub).len(), 1);
    let trouble = eventually("one is refused", || site.device_status("d-7")["lastError"].as_str().map(str::to_owned));
    assert!(trouble.contains("refuses the device's token with 401"), "{trouble}");
    for (n, id) in others.iter().enumerate() {
        hub.send(id, C2d::new(format!("m-{n}"), n.to_string()).property("command", "set").ack(Ack::Full)).unwrap();
    }
    assert!(feedback(&hub, others.len()).iter().all(|(_, status)| *status == Status::Success));
    let mut values = written(&slave);
    values.sort_unstable();
    assert_eq!(values, (0..others.len() as u16).collect::<Vec<_>>());
    // One link is detached: the others' stay, and it comes back on the same connection.
    assert!(hub.detach_link("d-3", "amqp:internal-error"));
    let came_back = || {
        let wire = hub.wire();
        let is_back = |event: &&WireEvent| event.device == "d-3" && matches!(event.what, Wire::Attached { .. });
        (wire.iter().filter(is_back).count() >= 2 && hub.is_connected("d-3")).then_some(())
    };
    eventually("it is attached again", came_back);
    assert_eq!(connections(&hub).len(), 1);
    let wire = hub.wire();
    let gone = wire.iter().filter(|event| matches!(&event.what, Wire::Detached { condition: Some(_), .. }));
    assert_eq!(gone.map(|event| event.device.as_str()).collect::<BTreeSet<_>>(), ["d-3"].into());
    // The connection is cut under all of them: all come back on one.
    let attached_to = |id: &str| {
        let wire = hub.wire();
        let of = wire.iter().rev().find(|event| event.device == id && matches!(event.what, Wire::Attached { .. }));
        of.map(|event| event.connection)
    };
    let before = attached_to("d-0");
    hub.cut("d-0", Cut::Reset);
    let are_back = || others.iter().all(|id| hub.is_connected(id) && attached_to(id) != before).then_some(());
    eventually("all are back", are_back);
    assert_eq!(connections(&hub).len(), 2);
    assert!(daemon.terminate().success());
}

#[test]
fn what_was_recorded_is_never_repeated_whatever_becomes_of_settlements() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", key());
    let site = site_with_key(&hub, &slave);
    let _daemon = site.start();
    attached(&hub, "pump");
    let faults = [
        Fault::LosePuback,
        Fault::CutAfterPublish,
        Fault::CutBeforePublish,
        Fault::CutAfterPubacks(1),
        Fault::CutInFrame,
        Fault::CutAfterSettlement,
        Fault::CutBeforeTelemetry,
        Fault::CutAfterTelemetry,
        Fault::RefuseToken,
    ];
    for (n, fault) in (0..).zip(faults) {
        hub.fault("pump", fault);
        if fault == Fault::RefuseToken {
            hub.cut("pump", Cut::Fin);
        }
        set(&hub, n);
        eventually(&format!("done in spite of {fault:?}"), || {
            let told = hub.telemetry().iter().any(|event| event.property("$.cid") == Some(&format!("m-{n}")));
            (told && hub.queue_len("pump") == 0).then_some(())
        });
    }
    assert_eq!(written(&slave), (0..faults.len() as u16).collect::<Vec<_>>());
    assert!(feedback(&hub, faults.len()).iter().all(|(_, status)| *status == Status::Success));
    site.settled();
    assert!(site.rows().iter().all(|row| row["state"] == "succeeded"));
}

#[test]
fn messages_are_settled_in_the_order_in_which_they_came() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", key());
    let site = site_with_key(&hub, &slave);
    site.configure("settle = \"after-execution\"", "settle = \"after-accept\"");
    let _daemon = site.start();
    attached(&hub, "pump");
    for n in 0..40 {
        match n % 5 {
            4 => hub.send("pump", C2d::new(format!("m-{n}"), "x").property("command", "no-such")).map(drop).unwrap(),
            _ => set(&hub, n),
        }
    }
    eventually("the queue is empty", || (hub.queue_len("pump") == 0).then_some(()));
    let wire = hub.wire();
    let delivered = wire.iter().filter_map(|event| match &event.what {
        Wire::Delivered { seq, .. } => Some(*seq),
        _ => None,
    });
    let settled = wire.iter().filter_map(|event| match &event.what {
        Wire::Settled { seq, effect: Effect::Completed | Effect::Rejected, .. } => *seq,
        _ => None,
    });
    assert_eq!(settled.collect::<Vec<_>>(), delivered.collect::<Vec<_>>());
    let expected: Vec<u16> = (0..40).filter(|n| n % 5 != 4).collect();
    eventually("all are executed", || (written(&slave) == expected).then_some(()));
}

#[test]
fn a_token_is_renewed_in_place() {
    let options = Options { token_grace: Duration::ZERO, clock_skew: Duration::ZERO, ..Options::default() };
    let (hub, slave) = (Hub::start(options), Slave::new());
    hub.add_device("pump", key());
    let site = site(&hub, &slave, "key_file = \"device.key\"", "token_lifetime = \"10s\"\n");
    let daemon = site.start();
    attached(&hub, "pump");
    let tokens = || hub.wire().iter().filter(|event| matches!(event.what, Wire::Token { status: 200, .. })).count();
    let (mut sent, deadline) = (0, std::time::Instant::now() + PATIENCE);
    while tokens() < 3 {
        assert!(std::time::Instant::now() < deadline, "no renewal");
        set(&hub, sent);
        sent += 1;
        feedback(&hub, usize::from(sent));
    }
    assert_eq!(connections(&hub).len(), 1);
    assert_eq!(written(&slave), (0..sent).collect::<Vec<_>>());
    assert!(!daemon.log().contains("no connection to the hub"), "a renewal is no trouble");
    assert!(!daemon.log().contains("sig="), "a token is a secret");
}

#[test]
fn a_token_that_the_hub_does_not_take_now_is_shown_again_while_the_one_before_counts() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", key());
    let site = site(&hub, &slave, "key_file = \"device.key\"", "token_lifetime = \"10s\"\n");
    let daemon = site.start();
    attached(&hub, "pump");
    let tokens = |wanted: u16| {
        let wire = hub.wire();
        wire.iter().filter(|event| matches!(event.what, Wire::Token { status, .. } if status == wanted)).count()
    };
    hub.refuse_for(PATIENCE, 3);
    eventually("a renewal is put off", || (tokens(503) > 0).then_some(()));
    hub.refuse_for(Duration::ZERO, 3);
    eventually("it is made after all", || (tokens(200) >= 2).then_some(()));
    set(&hub, 1);
    assert_eq!(feedback(&hub, 1)[0].1, Status::Success);
    assert_eq!(connections(&hub).len(), 1);
    let wire = hub.wire();
    let for_messages = |event: &&WireEvent| matches!(&event.what, Wire::Attached { address } if address.contains("messages/devicebound"));
    assert_eq!(wire.iter().filter(for_messages).count(), 1, "its link has stood all the time");
    // So have those of its calls.
    let is_for_calls = |what: &Wire| matches!(what, Wire::Attached { address } if address.contains("methods/"));
    let answered = hub.calls("pump", MethodCall::new("set", 2)).expect("the device answers");
    assert_eq!((answered.status, &answered.payload["value"]), (200, &2.into()));
    assert_eq!(hub.wire().iter().filter(|event| is_for_calls(&event.what)).count(), 2);
    assert!(!daemon.log().contains("no connection to the hub"), "it is no trouble");
}

#[test]
fn an_event_that_the_hub_rejects_is_set_aside_and_the_device_and_its_other_events_go_on() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", key());
    let site = site_with_key(&hub, &slave);
    let daemon = site.start();
    attached(&hub, "pump");
    hub.fault("pump", Fault::RejectTelemetry);
    (1..=3).for_each(|n| set(&hub, n));
    feedback(&hub, 3);
    let told = eventually("the others' events", || Some(hub.telemetry()).filter(|all| all.len() == 2));
    assert_eq!(told.iter().map(|event| event.property("$.cid")).collect::<Vec<_>>(), [Some("m-2"), Some("m-3")]);
    eventually("it is said", || daemon.log().contains("does not take this result event").then_some(()));
    assert_eq!((connections(&hub).len(), &site.device_status("pump")["hub"]), (1, &"connected".into()));
    assert!(!daemon.log().contains("no connection to the hub"), "it is no trouble");
}

#[test]
fn a_link_for_events_that_the_hub_detaches_is_made_anew_and_not_resumed() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", key());
    let site = site_with_key(&hub, &slave);
    let daemon = site.start();
    attached(&hub, "pump");
    let events = "/devices/pump/messages/events";
    let links = |wanted: &str| {
        let is_one = |event: &&WireEvent| matches!(&event.what, Wire::Attached { address } if address.contains(wanted));
        hub.wire().iter().filter(is_one).count()
    };
    for n in 1..=3 {
        set(&hub, n);
        feedback(&hub, usize::from(n));
        site.settled();
        assert_eq!((links(events), hub.telemetry().len()), (usize::from(n), usize::from(n)));
        hub.detach_links_of(events, "amqp:link:detach-forced");
        let is_gone = |event: &WireEvent| matches!(&event.what, Wire::Detached { condition: Some(_), .. });
        let gone = || hub.wire().iter().filter(|event| is_gone(event)).count();
        eventually("it is detached", || (gone() == usize::from(n)).then_some(()));
    }
    assert_eq!(
        (links("messages/devicebound"), connections(&hub).len()),
        (1, 1),
        "its messages' link has stood all the time"
    );
    assert!(!daemon.log().contains("no connection to the hub"), "it is no trouble");
}

#[test]
fn identities_are_attached_at_the_pace_that_is_configured_and_none_waits_for_anothers_answer() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let mut more = format!("[bus.plant]\nkind = \"modbus-tcp\"\naddress = \"{}\"\n{PUMP}", slave.address());
    let devices: Vec<String> = (0..20).map(|n| format!("d-{n:02}")).collect();
    for id in &devices {
        more += &format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n");
        hub.add_device(id, key());
    }
    // The hub says nothing to these: they wait for 30 s.
    let (unheard, heard) = devices.split_at(10);
    unheard.iter().for_each(|id| hub.fault(id, Fault::IgnoreToken));
    let site = Site::with_hub(&head(&hub, "connect_rate = 10\n"), &more);
    site.write("hub-ca.pem", &hub.ca_pem());
    let _daemon = site.start();
    let begun = std::time::Instant::now();
    eventually("the others are attached", || heard.iter().all(|id| hub.is_connected(id)).then_some(()));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "they have waited for those that the hub leaves alone: {took:?}");
    assert!(unheard.iter().all(|id| !hub.is_connected(id)));
    let wire = hub.wire();
    let is_link = |what: &Wire| matches!(what, Wire::Attached { address } if address.contains("messages/devicebound"));
    let at: Vec<_> = wire.iter().filter(|event| is_link(&event.what)).map(|event| event.at).collect();
    let span = at[at.len() - 1].duration_since(at[0]);
    assert_eq!((at.len(), connections(&hub).len()), (heard.len(), 1));
    // Ten turns of a tenth of a second each, and perhaps those of the others in between.
    assert!(span >= Duration::from_millis(850), "ten links within {span:?}");
}

#[test]
fn a_second_gateway_with_the_same_device_is_told_so() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", key());
    let (first, second) = (site_with_key(&hub, &slave), site_with_key(&hub, &slave));
    let _daemons = (first.start(), second.start());
    eventually("one of them says so", || {
        let says = |site: &Site| {
            site.device_status("pump")["lastError"].as_str().is_some_and(|error| error.contains("amqp:link:stolen"))
        };
        (says(&first) || says(&second)).then_some(())
    });
}

#[test]
fn bytes_that_are_no_amqp_end_the_connection_and_nothing_else() {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    hub.add_device("pump", key());
    let site = site_with_key(&hub, &slave);
    let _daemon = site.start();
    for (n, bytes) in (0..).zip([
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        &[0, 1, 0, 1, 2, 0, 0, 0],
        &[0, 0, 0, 9, 2, 0, 0, 0, 0x7f],
        &[0, 0, 0, 12, 2, 0, 0, 0, 0, 0x53, 0x13, 0x45],
        &[0, 0, 0, 3, 2, 0, 0, 0],
    ]) {
        attached(&hub, "pump");
        let before = connections(&hub).len();
        assert!(hub.inject("pump", bytes));
        eventually("it connects anew", || (connections(&hub).len() > before).then_some(()));
        set(&hub, n);
        feedback(&hub, usize::from(n) + 1);
    }
    assert_eq!(written(&slave), [0, 1, 2, 3, 4]);
}

#[test]
fn amqp_in_a_websocket_does_the_same() {
    let (hub, slave) = (Hub::start(Options { websocket_bytes_max: Some(7), ..Options::default() }), Slave::new());
    hub.add_device("pump", key());
    let site = site_with_key(&hub, &slave);
    site.configure("transport = \"amqp\"", "transport = \"amqp-ws\"");
    site.configure(&hub.amqp_addr().to_string(), &hub.ws_addr().to_string());
    let _daemon = site.start();
    attached(&hub, "pump");
    set(&hub, 3);
    assert_eq!(feedback(&hub, 1)[0].1, Status::Success);
    assert_eq!(written(&slave), [3]);
}

/// Resident memory of a daemon with so many identities, in kB: attached on one connection, or with no hub to be
/// reached.
fn resident_with(identities: usize, is_reached: bool) -> u64 {
    let (hub, slave) = (Hub::start(Options::default()), Slave::new());
    let mut more = format!("[bus.plant]\nkind = \"modbus-tcp\"\naddress = \"{}\"\n{PUMP}", slave.address());
    let devices: Vec<String> = (0..identities).map(|n| format!("d-{n}")).collect();
    for (n, id) in devices.iter().enumerate() {
        let unit = n % 247 + 1;
        more +=
            &format!("[device.{id}]\nbus = \"plant\"\nunit = {unit}\nprofile = \"pump\"\nkey_file = \"device.key\"\n");
        hub.add_device(id, key());
    }
    let site = Site::with_hub(&head(&hub, "connect_rate = 1000\n"), &more);
    site.write("hub-ca.pem", &hub.ca_pem());
    if !is_reached {
        let (host, port) = free_address();
        site.configure(&hub.amqp_addr().to_string(), &format!("{host}:{port}"));
    }
    let daemon = site.start();
    let have_come = || match is_reached {
        true => devices.iter().all(|id| hub.is_connected(id)),
        false => site.status()["devices"].as_array().unwrap().iter().all(|device| device["lastError"].is_string()),
    };
    eventually_within(4 * PATIENCE, "all have come so far", || have_come().then_some(()));
    assert_eq!(connections(&hub).len(), usize::from(is_reached));
    Figures::of(daemon.pid()).resident
}

#[test]
fn each_further_identity_on_a_connection_takes_little_memory() {
    let (few, many) = (50, 250);
    // What a device takes without any connection is not the transport's.
    let of = |is_reached| (resident_with(few, is_reached), resident_with(many, is_reached));
    let each = |(few_kb, many_kb): (u64, u64)| (many_kb as f64 - few_kb as f64) / (many - few) as f64;
    let (with, without) = (each(of(true)), each(of(false)));
    println!("{:.1} kB for each further identity, of {with:.1} kB that a device takes", with - without);
    assert!(with - without <= 20.0, "{:.1} kB", with - without);
}
