//! The life of a connection: keep-alive, renewal of the token, deliveries of the wrong quality, a neighbour that
//! flaps. Proves G2, G3, G6 and G11.

use std::time::{Duration, Instant};

use super::{another_pump, command, fence, message_ids_of, site, wait_for_deliveries, BOTH, LONG};
use crate::support::broker::{Broker, Client, Packet};
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, pump, Site};

/// A site with keys of `[hub]` of its own, and devices beside the pump.
pub fn site_with_hub(hub: &str, more: &str) -> (Site, Broker, Slave) {
    let (broker, slave) = (Broker::new(), Slave::new());
    let hub = format!("host = \"hub.example\"\naddress = \"{}\"\ntls = false\n{hub}", broker.address());
    let site = Site::with_hub(&hub, &format!("{}\n{more}", pump(slave.address(), "after-execution", LONG)));
    (site, broker, slave)
}

fn deliver_with_qos_0(client: &mut Client, message_id: &str, body: &str) {
    let topic = format!("devices/pump/messages/devicebound/%24.mid={message_id}");
    let length = (topic.len() as u16).to_be_bytes();
    client.packet(0x30, &[&length[..], topic.as_bytes(), body.as_bytes()].concat());
}

/// When a token expires, in seconds since 1970.
fn expiry(password: &str) -> u64 {
    let (_, expiry) = password.rsplit_once("&se=").expect("a token has an expiry");
    expiry.parse().expect("an expiry is a number")
}

#[test]
fn a_token_is_renewed_by_a_new_connection_which_waits_for_the_command_in_flight() {
    let (site, broker, slave) = site_with_hub("token_lifetime = \"10s\"", &another_pump("idle"));
    let _daemon = site.start();
    let begun = Instant::now();
    let [mut busy, mut idle] = broker.serve_each(["pump", "idle"]);
    let first_expiry = expiry(busy.connect.password.as_ref().unwrap());
    slave.set_mood(Mood::Held);
    busy.deliver(1, "m-1", &command("pulse", 7));
    slave.wait_for_requests(1);

    assert_eq!(idle.next(), Packet::Disconnect, "the old connection ends in order");
    assert!(begun.elapsed() >= Duration::from_secs(7), "renewed after {:?}", begun.elapsed());
    let idle = broker.serve();
    assert_eq!(idle.connect.client_id, "idle");
    let second_expiry = expiry(idle.connect.password.as_ref().unwrap());
    assert!(second_expiry >= first_expiry + 7, "the token is a new one: {first_expiry}, {second_expiry}");

    // The busy one's turn has come too, at 80 % of the token's life at the latest.
    let turn = Duration::from_millis(8200).saturating_sub(begun.elapsed());
    assert!(busy.is_silent_for(turn.max(Duration::from_millis(100))), "a command in flight is waited for");
    slave.set_mood(Mood::Good);
    assert_eq!(busy.next_puback(&mut Vec::new()), 1);
    loop {
        match busy.next() {
            Packet::Publish { packet_id, .. } => busy.puback(packet_id),
            Packet::Disconnect => break,
            other => panic!("{other:?} where DISCONNECT was expected"),
        }
    }
    let mut busy = broker.serve();
    assert_eq!(busy.connect.client_id, "pump");
    assert!(expiry(busy.connect.password.as_ref().unwrap()) >= first_expiry + 7);
    busy.deliver(1, "m-1", &command("pulse", 7));
    assert_eq!(busy.next_puback(&mut Vec::new()), 1);
    assert_eq!(slave.writes(), [(2, 7)]);
}

#[test]
fn a_hub_that_no_longer_answers_pings_is_noticed_and_the_command_in_flight_is_not_repeated() {
    let (site, broker, slave) = site_with_hub("keepalive = \"5s\"", "");
    let daemon = site.start();
    let mut first = broker.serve();
    assert_eq!(first.connect.keepalive, 5);
    slave.set_mood(Mood::Held);
    first.deliver(1, "m-1", &command("pulse", 7));
    slave.wait_for_requests(1);
    assert_eq!(first.next_of_any_kind(), Packet::PingReq);
    let asked = Instant::now();

    // Nobody answers, and the connection stays open.
    let mut second = broker.serve();
    assert!(asked.elapsed() >= Duration::from_secs(4), "the hub has the keep-alive time to answer");
    assert!(daemon.log().contains("did not answer within the keep-alive time"));
    second.deliver(1, "m-1", &command("pulse", 7));
    wait_for_deliveries(&site, 2);
    slave.set_mood(Mood::Good);
    assert_eq!(second.collect(1, 1).0, [1]);
    assert_eq!(slave.writes(), [(2, 7)]);
    drop(first);
    fence(&mut second, 2);
}

#[test]
fn a_delivery_with_qos_0_is_run_and_logged_and_acknowledges_nothing() {
    let (site, broker, slave) = site("after-execution");
    let daemon = site.start();
    let mut client = broker.serve();
    deliver_with_qos_0(&mut client, "m-0", &command("pulse", 7));
    let (_, event) = client.next_event();
    assert_eq!((&event["messageId"], &event["status"]), (&"m-0".into(), &"succeeded".into()));
    assert_eq!(slave.writes(), [(2, 7)]);
    assert!(daemon.log().contains("QoS 0"), "somebody must learn of it");
    fence(&mut client, 1);
}

#[test]
fn a_delivery_with_qos_0_is_run_even_if_its_connection_ends_first() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut first = broker.serve();
        slave.set_mood(Mood::Held);
        first.deliver(1, "ahead", &command("pulse", 1));
        slave.wait_for_requests(1);
        deliver_with_qos_0(&mut first, "m-0", &command("pulse", 7));
        wait_for_deliveries(&site, 2);
        drop(first);
        let mut second = broker.serve();
        slave.set_mood(Mood::Good);
        let (_, events) = second.collect(0, 2);
        assert_eq!(message_ids_of(&events), ["ahead", "m-0"], "the hub will not bring it again");
        assert_eq!(slave.writes(), [(2, 1), (2, 7)]);
        fence(&mut second, 2);
    }
}

#[test]
fn a_delivery_with_qos_2_ends_the_connection_and_nothing_is_run() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    let mut client = broker.serve();
    let topic = "devices/pump/messages/devicebound/%24.mid=m-2";
    let length = (topic.len() as u16).to_be_bytes();
    client.packet(0x34, &[&length[..], topic.as_bytes(), &[0, 1], command("pulse", 7).as_bytes()].concat());
    client.closes();
    let mut client = broker.serve();
    fence(&mut client, 1);
    assert_eq!(slave.writes(), []);
}

#[test]
fn a_connection_that_flaps_disturbs_no_other_identity() {
    let (site, broker, slave) = site_with_hub("", &another_pump("calm"));
    let _daemon = site.start();
    let [mut flapping, mut calm] = broker.serve_each(["pump", "calm"]);
    for number in 1..=2 {
        drop(flapping);
        let topic = format!("devices/calm/messages/devicebound/%24.mid=m-{number}");
        calm.publish(number, topic.as_bytes(), command("pulse", number).as_bytes());
        let (pubacks, events) = calm.collect(1, 1);
        assert_eq!((pubacks[0], &events[0].1["status"]), (number, &"succeeded".into()));
        flapping = broker.serve();
        assert_eq!(flapping.connect.client_id, "pump", "only the connection that was cut is made anew");
    }
    assert_eq!(slave.writes(), [(2, 1), (2, 2)]);
    assert_eq!(site.device_status("calm")["lastError"], serde_json::Value::Null);
    fence(&mut flapping, 1);
}

#[test]
fn identities_that_wait_for_their_connack_hold_up_no_other() {
    // More than there are handshakes at a time.
    let others: Vec<String> = (0..40).map(|n| format!("other-{n}")).collect();
    let more: String = others.iter().map(|id| another_pump(id)).collect();
    let (site, broker, _slave) = site_with_hub("connect_rate = 100", &more);
    let _daemon = site.start();
    let waiting: Vec<Client> = (0..=others.len()).map(|_| broker.accept()).collect();
    let ids: std::collections::BTreeSet<_> = waiting.iter().map(|client| &client.connect.client_id).collect();
    assert_eq!(ids.len(), others.len() + 1, "each has come once: {ids:?}");
}

#[test]
fn a_flapping_connection_loses_and_repeats_nothing_of_its_own() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    // Each connection brings the whole queue, as a hub would, and is cut after a few PUBACKs.
    let mut queue: Vec<u16> = (1..=12).collect();
    let mut connections = 0;
    while !queue.is_empty() {
        let mut client = broker.serve();
        connections += 1;
        for (at, number) in queue.iter().enumerate() {
            client.deliver(at as u16 + 1, &format!("m-{number}"), &command("pulse", *number));
        }
        let mut events = Vec::new();
        let completed = queue.len().min(3);
        for expected in 1..=completed {
            assert_eq!(usize::from(client.next_puback(&mut events)), expected);
        }
        queue.drain(..completed);
    }
    assert_eq!(connections, 4);
    let expected: Vec<(u16, u16)> = (1..=12).map(|number| (2, number)).collect();
    assert_eq!(slave.writes(), expected);
    eventually("every event is published", || {
        let mut client = broker.serve();
        client.deliver(1, "last", r#"{"command":"read"}"#);
        let mut events = Vec::new();
        client.next_puback(&mut events);
        while !message_ids_of(&events).contains(&"last") {
            events.push(client.next_event());
        }
        (site.rows().len() == 13).then_some(())
    });
}

#[test]
fn a_connection_is_not_given_up_for_a_new_token_before_its_turn_has_come() {
    const OTHERS: usize = 9;
    let others: Vec<String> = (0..OTHERS).map(|n| format!("other-{n}")).collect();
    let more: String = others.iter().map(|id| another_pump(id)).collect();
    let (site, broker, _slave) = site_with_hub("token_lifetime = \"10s\"\nconnect_rate = 1000", &more);
    let _daemon = site.start();
    let mut old: Vec<Client> = (0..=OTHERS).map(|_| broker.serve()).collect();
    // From now on turns are a second apart, and all tokens are to be renewed within one second.
    site.configure("connect_rate = 1000", "connect_rate = 1");
    assert!(site.command(&["reload"]).status.success());
    let mut renewed = Vec::new();
    while renewed.len() < 3 {
        let client = broker.serve();
        old.retain(|before| before.connect.client_id != client.connect.client_id);
        renewed.push(client);
    }
    let served = old.iter_mut().map(|client| client.is_silent_for(Duration::from_millis(1)));
    let served = served.filter(|served| *served).count();
    assert!(served + 2 >= old.len(), "{served} of {} connections are served while they wait for their turn", old.len());
}

#[test]
fn an_event_for_which_the_hub_ends_every_connection_does_not_hold_up_the_others() {
    let (site, broker, _slave) = site("after-execution");
    let daemon = site.start();
    let (mut refused, mut taken, mut connections) = (0, false, 0);
    while !taken {
        connections += 1;
        assert!(connections <= 8, "the event of m-2 never came, that of m-1 {refused} times");
        let mut client = broker.serve();
        client.deliver(1, "m-1", &command("set", 1));
        client.deliver(2, "m-2", &command("set", 2));
        loop {
            match client.next() {
                Packet::PubAck(_) => {}
                Packet::Publish { body, .. } if String::from_utf8_lossy(&body).contains("\"m-1\"") => {
                    refused += 1;
                    break;
                }
                Packet::Publish { packet_id, .. } => {
                    client.puback(packet_id);
                    taken = true;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(refused >= 3, "one end says nothing: {refused}");
    assert!(daemon.log().contains("others go before it"), "somebody must learn of it");
}
