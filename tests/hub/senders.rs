//! Messages as their senders have them: other field names, no command at all, numbers as text, other encodings; what a
//! message says of itself comes back in its event and outlives a crash. Proves G8 and a part of G7 from outside.

use fieldbridge::demo::hub::{Ack, C2d, Options, Status};
use serde_json::{json, Value as Json};

use crate::support::broker::{Broker, Client};
use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, pump, Daemon, Site};

/// The pump with a form of messages of its own, and a command for a coil.
const OTHERWISE: &str = r#"
[profile.pump.message]
command = "Command"
value = "Value"
numbers_as_text = true

[profile.pump.command.run]
write = { table = "coil", address = 5 }
idempotent = true
"#;

struct Plant {
    site: Site,
    broker: Broker,
    slave: Slave,
}

impl Plant {
    /// `device` is written below the device, `more` behind everything.
    fn new(settle: &str, device: &str, more: &str) -> Plant {
        let (broker, slave) = (Broker::new(), Slave::new());
        let settle_line = format!("settle = \"{settle}\"");
        let pump = pump(slave.address(), settle, "response_timeout = \"20s\"");
        let pump = pump.replacen(&settle_line, &format!("{settle_line}\n{device}"), 1);
        let site = Site::new(&broker.address(), &format!("{pump}\n{more}"));
        Plant { site, broker, slave }
    }

    fn start(&self) -> (Daemon, Client) {
        (self.site.start(), self.broker.serve())
    }
}

/// Delivers with these properties, and returns the event that comes of it.
fn outcome(client: &mut Client, packet_id: u16, bag: &str, body: &[u8]) -> Json {
    client.publish(packet_id, format!("devices/pump/messages/devicebound/{bag}").as_bytes(), body);
    let (pubacks, mut events) = client.collect(1, 1);
    assert_eq!(pubacks, [packet_id]);
    events.remove(0).1
}

fn end_of(event: &Json) -> (&str, &Json) {
    (event["status"].as_str().unwrap(), &event["error"]["code"])
}

fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

const NONE: &Json = &Json::Null;

#[test]
fn a_message_that_names_no_command_is_the_devices_usual_one_with_its_body_as_the_value() {
    for settle in ["after-execution", "after-accept"] {
        let plant = Plant::new(settle, "default_command = \"set\"", "");
        let (_daemon, mut client) = plant.start();
        for (number, (body, written)) in (1..).zip([("7", 7), (r#"{"value":8}"#, 8), (r#"{"value":9,"note":1}"#, 9)]) {
            let event = outcome(&mut client, number, &format!("%24.mid=m-{number}"), body.as_bytes());
            assert_eq!((end_of(&event), &event["command"]), (("succeeded", NONE), &json!("set")), "{body}");
            assert_eq!(plant.slave.writes().last(), Some(&(0, written)), "{body}");
        }
        // One that names a command is that, by either way.
        let event = outcome(&mut client, 10, "%24.mid=m-10", br#"{"command":"pulse","value":5}"#);
        assert_eq!((end_of(&event), &event["command"]), (("succeeded", NONE), &json!("pulse")));
        let event = outcome(&mut client, 11, "%24.mid=m-11&command=pulse", b"6");
        assert_eq!((end_of(&event), &event["command"]), (("succeeded", NONE), &json!("pulse")));
        // The vendor's own sample is no number.
        let event = outcome(&mut client, 12, "%24.mid=m-12", b"Cloud to device message.");
        assert_eq!((end_of(&event), &event["command"]), (("rejected", &json!("bad-value")), &json!("set")));
        assert_eq!(event["requested"], "Cloud to device message.");
        assert_eq!(plant.slave.writes(), [(0, 7), (0, 8), (0, 9), (2, 5), (2, 6)]);
    }
}

#[test]
fn the_usual_command_is_the_one_that_is_configured_when_a_message_comes_and_a_redelivery_is_known_all_the_same() {
    let plant = Plant::new("after-execution", "default_command = \"set\"", "");
    let (_daemon, mut client) = plant.start();
    assert_eq!(outcome(&mut client, 1, "%24.mid=m-1", b"7")["command"], "set");
    plant.site.configure("default_command = \"set\"", "default_command = \"pulse\"");
    let told = plant.site.command(&["reload"]);
    assert!(told.status.success(), "{told:?}");
    // On the connection that stands.
    assert_eq!(outcome(&mut client, 2, "%24.mid=m-2", b"8")["command"], "pulse");
    client.publish(3, b"devices/pump/messages/devicebound/%24.mid=m-1", b"7");
    assert_eq!(client.collect(1, 0).0, [3]);
    assert_eq!(plant.slave.writes(), [(0, 7), (2, 8)]);
}

#[test]
fn fields_may_have_other_names_and_numbers_may_come_as_text() {
    let plant = Plant::new("after-execution", "", OTHERWISE);
    let (_daemon, mut client) = plant.start();
    let event = outcome(&mut client, 1, "%24.mid=m-1", br#"{"Command":"set","Value":"12"}"#);
    assert_eq!((end_of(&event), &event["requested"], &event["value"]), (("succeeded", NONE), &json!("12"), &json!(12)));
    let event = outcome(&mut client, 2, "%24.mid=m-2&command=set", br#"{"Value":13,"value":99}"#);
    assert_eq!((end_of(&event), &event["value"]), (("succeeded", NONE), &json!(13)));
    for (number, (text, is_on)) in (3..).zip([("ON", true), ("false", false), ("yes", true), ("0", false)]) {
        let event = outcome(&mut client, number, &format!("%24.mid=m-{number}&command=run"), text.as_bytes());
        assert_eq!((end_of(&event), &event["value"]), (("succeeded", NONE), &json!(is_on)), "{text}");
        // ON and OFF (Modbus Application Protocol V1.1b3, 6.5).
        let written = plant.slave.other_writes().pop().expect("a coil was written");
        assert!(written.ends_with(if is_on { &[0xff, 0] } else { &[0, 0] }), "{text}: {written:02x?}");
    }
    let event = outcome(&mut client, 7, "%24.mid=m-7&command=run", b"open");
    assert_eq!(end_of(&event), ("rejected", &json!("bad-value")));
    let event = outcome(&mut client, 10, "%24.mid=m-10", br#"{"command":"set","value":14}"#);
    assert_eq!(end_of(&event), ("rejected", &json!("unknown-command")));
    assert!(event["error"]["message"].as_str().unwrap().contains("\"Command\""), "{event}");
    let event = outcome(&mut client, 11, "%24.mid=m-11&command=set", b"\"twelve\"");
    assert_eq!(end_of(&event), ("rejected", &json!("bad-value")));
}

#[test]
fn a_body_is_read_in_the_encoding_that_it_is_sent_in_or_refused_by_a_sentence() {
    let plant = Plant::new("after-execution", "", "");
    let (_daemon, mut client) = plant.start();
    let text = r#"{"command":"pulse","value":7}"#;
    let marked = format!("\u{FEFF}{text}");
    let four: Vec<u8> = marked.chars().flat_map(|char| u32::from(char).to_le_bytes()).collect();
    let good = [
        ("", marked.clone().into_bytes()),
        ("%24.ce=utf-8", marked.clone().into_bytes()),
        ("%24.ce=UTF-16", utf_16(&marked, u16::to_le_bytes)),
        ("%24.ce=utf_16", utf_16(&marked, u16::to_be_bytes)),
        ("%24.ce=utf-16", utf_16(text, u16::to_le_bytes)),
        ("%24.ce=utf-16", utf_16(text, u16::to_be_bytes)),
        ("%24.ce=utf-16BE", utf_16(text, u16::to_be_bytes)),
        ("%24.ce=utf-32", four),
    ];
    let count = good.len();
    for (number, (encoding, body)) in (1..).zip(good) {
        let event = outcome(&mut client, number, &format!("%24.mid=m-{number}&{encoding}"), &body);
        assert_eq!(end_of(&event), ("succeeded", NONE), "{encoding}: {event}");
    }
    assert_eq!(plant.slave.writes(), vec![(2, 7); count]);

    let bad: [(&str, &[u8], &str, &str); 5] = [
        ("%24.ce=gzip", b"\x1f\x8b\x08", "unknown-command", "\"gzip\""),
        ("%24.ce=deflate&command=pulse", b"7", "bad-value", "\"deflate\""),
        ("%24.ce=utf-16&command=pulse", b"\x00\x37\x00", "bad-value", "utf-16"),
        ("command=pulse", b"\xff\xfe\x37\x00", "bad-value", "set the content encoding to utf-16"),
        ("%24.ce=utf-32be", b"\x00\x11\x00\x00", "unknown-command", "utf-32be"),
    ];
    for (number, (bag, body, code, told)) in (100..).zip(bad) {
        let event = outcome(&mut client, number, &format!("%24.mid=m-{number}&{bag}"), body);
        assert_eq!(end_of(&event), ("rejected", &json!(code)), "{event}");
        assert!(event["error"]["message"].as_str().unwrap().contains(told), "{event}");
    }
    // How a body is to be read is no part of which message it is.
    client.publish(200, b"devices/pump/messages/devicebound/%24.mid=m-1&%24.ce=gzip", marked.as_bytes());
    assert_eq!(client.collect(1, 0).0, [200]);
    assert_eq!(plant.slave.writes().len(), count);
}

#[test]
fn a_senders_correlation_id_comes_back_beside_the_message_id_and_outlives_a_crash() {
    for settle in ["after-execution", "after-accept"] {
        let plant = Plant::new(settle, "", "");
        let (daemon, mut client) = plant.start();
        let event = outcome(&mut client, 1, "%24.mid=m-1&%24.cid=order%209", br#"{"command":"set","value":1}"#);
        assert_eq!((&event["messageId"], &event["correlationId"]), (&json!("m-1"), &json!("order 9")));
        let event = outcome(&mut client, 2, "%24.mid=m-2&%24.cid", br#"{"command":"set","value":2}"#);
        for name in ["correlationId", "sequenceNumber", "enqueuedAt", "deliveryCount"] {
            assert!(event.get(name).is_none(), "{name}: MQTT does not tell it, and nobody has given it: {event}");
        }

        plant.slave.set_mood(Mood::Deaf);
        let topic = b"devices/pump/messages/devicebound/%24.mid=m-3&%24.cid=order%2010";
        client.publish(3, topic, br#"{"command":"pulse","value":3}"#);
        plant.site.wait_for_row("m-3", "executing");
        daemon.kill();
        drop(client);
        plant.slave.set_mood(Mood::Good);
        let (_daemon, mut client) = plant.start();
        let (topic, event) = loop {
            let (topic, event) = client.next_event();
            if event["messageId"] == "m-3" {
                break (topic, event);
            }
        };
        assert_eq!(
            (end_of(&event), &event["correlationId"]),
            (("in_doubt", &json!("interrupted")), &json!("order 10"))
        );
        assert!(topic.contains("%24.cid=m-3&"), "the event is correlated by the message id: {topic}");
        let rows = plant.site.rows();
        let kept: Vec<&Json> = rows.iter().map(|row| &row["correlationId"]).collect();
        assert_eq!(kept, [&json!("order 9"), &json!(null), &json!("order 10")]);
        assert!(rows.iter().all(|row| row["deliveryCount"].is_null() && row["enqueuedAt"].is_null()));
    }
}

#[test]
fn what_is_rejected_for_want_of_an_id_says_what_could_be_read_of_it() {
    let plant = Plant::new("after-execution", "default_command = \"pulse\"", "");
    let (_daemon, mut client) = plant.start();
    let cases: [(&str, &[u8], Json); 3] = [
        ("%24.cid=order%209", br#"{"command":"pulse","value":7}"#, json!(7)),
        ("%24.cid=order%209&command=pulse", b"8", json!(8)),
        ("%24.cid=order%209", b"9", json!(9)),
    ];
    for (number, (bag, body, requested)) in (1..).zip(cases) {
        let event = outcome(&mut client, number, bag, body);
        assert_eq!(end_of(&event), ("rejected", &json!("no-message-id")));
        let told = ["messageId", "command", "requested", "correlationId"].map(|name| event[name].clone());
        assert_eq!(told, [json!(null), json!("pulse"), requested, json!("order 9")]);
    }
    assert_eq!(plant.slave.writes(), []);
    assert!(plant.site.rows().iter().all(|row| row["correlationId"] == "order 9"));
}

/// A site of a hub simulator without TLS, by one transport.
fn site_by(transport: &str, hub: &Hub, slave: &Slave) -> Site {
    let head = format!(
        "host = \"{}\"\ntransport = \"{transport}\"\ntls = false\npoll_interval = \"1s\"\n\
         addresses = {{ mqtt = \"{}\", amqp = \"{}\", https = \"{}\" }}\n",
        hub.host(),
        hub.addr(),
        hub.amqp_addr(),
        hub.https_addr()
    );
    let hasty = "[profile.pump.command.hasty]\nwrite = { table = \"holding\", address = 4 }\nidempotent = true\n\
                 deadline = \"500ms\"\n";
    Site::with_hub(
        &head,
        &format!("{}\n{hasty}", pump(slave.address(), "after-execution", "response_timeout = \"20s\"")),
    )
}

#[test]
fn feedback_says_rejected_of_what_was_not_done_and_events_tell_what_the_transport_tells() {
    for transport in ["mqtt", "amqp", "https"] {
        let mut options = Options { tls: false, ..Options::default() };
        options.feedback_interval = std::time::Duration::ZERO;
        let (hub, slave) = (Hub::start(options), Slave::new());
        hub.add_device("pump", fieldbridge::demo::hub::Auth::Key((0..32).collect()));
        let site = site_by(transport, &hub, &slave);
        let _daemon = site.start();
        eventually("a connection", || (site.device_status("pump")["hub"] == "connected").then_some(()));
        eventually("a subscription", || (transport != "mqtt" || hub.is_subscribed("pump")).then_some(()));
        let send = |id: &str, body: &str| {
            let message = C2d { correlation_id: Some(format!("of {id}")), ..C2d::new(id, body).ack(Ack::Full) };
            hub.send("pump", message).expect("the hub takes it");
        };
        let event = |id: &str| {
            eventually(&format!("an event of {id} over {transport}"), || {
                hub.telemetry().iter().map(|event| event.json()).find(|event| event["messageId"] == id)
            })
        };
        slave.set_mood(Mood::Held);
        send("done", r#"{"command":"set","value":7}"#);
        slave.wait_for_requests(1);
        // HTTPS brings a message when the one before it is settled: none waits for its turn here.
        let can_wait = transport != "https";
        if can_wait {
            send("late", r#"{"command":"hasty","value":8}"#);
            assert_eq!(end_of(&event("late")), ("expired", &json!("expired")), "{transport}");
        }
        send("unknown", r#"{"command":"explode"}"#);
        slave.set_mood(Mood::Good);
        assert_eq!(end_of(&event("done")), ("succeeded", NONE), "{transport}");
        assert_eq!(end_of(&event("unknown")), ("rejected", &json!("unknown-command")), "{transport}");

        let refused = if transport == "mqtt" { Status::Success } else { Status::Rejected };
        let ends = [("done", Status::Success), ("unknown", refused), ("late", refused)];
        for (id, expected) in ends.into_iter().filter(|(id, _)| can_wait || *id != "late") {
            let status = eventually(&format!("feedback of {id} over {transport}"), || {
                let all = hub.feedback();
                all.iter().find(|one| one.original_message_id.as_deref() == Some(id)).map(|one| one.status)
            });
            assert_eq!(status, expected, "{id} over {transport}");
        }
        assert_eq!(slave.writes(), [(0, 7)]);
        for row in site.rows() {
            let id = row["messageId"].as_str().unwrap();
            let event = event(id);
            let told = ["correlationId", "sequenceNumber", "enqueuedAt", "deliveryCount"].map(|name| &event[name]);
            let kept = ["correlationId", "sequenceNumber", "enqueuedAt", "deliveryCount"].map(|name| &row[name]);
            assert_eq!(told, kept, "{id} over {transport}");
            assert_eq!(row["correlationId"], format!("of {id}"));
            let is_told = transport != "mqtt";
            assert_eq!(row["sequenceNumber"].is_u64() && row["enqueuedAt"].is_string(), is_told, "{row}");
            assert_eq!(row["deliveryCount"], if is_told { json!(0) } else { json!(null) }, "{row}");
        }
    }
}
