//! Commands reach the wire, and their PUBACKs the hub, in the order of receipt. Proves G1 and G5.

use std::time::Duration;

use super::{command, fence, message_ids_of, site, wait_for_deliveries, BOTH};
use crate::support::broker::Packet;
use crate::support::slave::Mood;

#[test]
fn what_waits_at_the_hub_is_executed_although_it_comes_before_the_subscription_is_granted() {
    for settle in BOTH {
        let (site, broker, slave) = site(settle);
        let _daemon = site.start();
        let mut client = broker.accept();
        client.connack(0, false);
        for number in 1..=50 {
            client.deliver(number, &format!("m-{number}"), &command("pulse", number));
        }
        let Packet::Subscribe { packet_id, filter, qos } = client.next() else { panic!("no SUBSCRIBE after CONNACK") };
        assert_eq!((filter.as_str(), qos), ("devices/pump/messages/devicebound/#", 1));
        let pubacks: Vec<u16> = (1..=50).collect();
        assert_eq!(client.collect(50, 0).0, pubacks);
        client.suback(packet_id, 1);
        let (_, events) = client.collect(0, 50);
        let messages: Vec<String> = (1..=50).map(|number| format!("m-{number}")).collect();
        assert_eq!(message_ids_of(&events), messages);
        let writes: Vec<(u16, u16)> = (1..=50).map(|number| (2, number)).collect();
        assert_eq!(slave.writes(), writes);
        fence(&mut client, 51);
    }
}

#[test]
fn nothing_overtakes_a_slow_command_neither_a_fast_one_nor_a_rejection_nor_a_duplicate() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "done", &command("pulse", 1));
    assert_eq!(client.collect(1, 1).0, [1]);

    slave.set_mood(Mood::Held);
    client.deliver(9, "slow", &command("pulse", 2));
    slave.wait_for_requests(2);
    client.deliver(4, "unknown", &command("explode", 3));
    client.deliver(7, "done", &command("pulse", 1));
    client.deliver(2, "fast", &command("set", 4));
    client.deliver(8, "bad", r#"{"command":"pulse","value":"much"}"#);
    client.deliver(3, "slow-too", &command("pulse", 5));
    client.deliver(5, "read", r#"{"command":"read"}"#);
    wait_for_deliveries(&site, 8);
    assert!(client.is_silent_for(Duration::from_millis(200)), "something overtook the slow command");

    slave.let_one_go();
    let (pubacks, _) = client.collect(3, 2);
    assert_eq!(pubacks, [9, 4, 7]);
    slave.wait_for_requests(3);
    assert!(client.is_silent_for(Duration::from_millis(200)), "something overtook the second slow command");
    slave.let_one_go();
    assert_eq!(client.collect(2, 2).0, [2, 8]);
    slave.let_one_go();
    let (pubacks, events) = client.collect(2, 2);
    assert_eq!(pubacks, [3, 5]);
    assert_eq!(message_ids_of(&events), ["slow-too", "read"]);
    assert_eq!(slave.writes(), [(2, 1), (2, 2), (0, 4), (2, 5)]);
    fence(&mut client, 10);
}

#[test]
fn a_queue_that_is_delivered_again_keeps_its_order() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    let mut first = broker.serve();
    slave.set_mood(Mood::Held);
    for number in 1..=20 {
        first.deliver(number, &format!("m-{number}"), &command("pulse", number));
    }
    slave.wait_for_requests(1);
    for number in 1..=5 {
        slave.let_one_go();
        slave.wait_for_requests(1 + number);
    }
    drop(first);
    // Five are completed, as far as the gateway knows; of their PUBACKs the hub has read none.
    let mut second = broker.serve();
    for number in 1..=20 {
        second.deliver(100 + number, &format!("m-{number}"), &command("pulse", number));
    }
    slave.set_mood(Mood::Good);
    let (pubacks, events) = second.collect(20, 20);
    let expected: Vec<u16> = (101..=120).collect();
    assert_eq!(pubacks, expected);
    let messages: Vec<String> = (1..=20).map(|number| format!("m-{number}")).collect();
    assert_eq!(message_ids_of(&events), messages);
    let writes: Vec<(u16, u16)> = (1..=20).map(|number| (2, number)).collect();
    assert_eq!(slave.writes(), writes);
    fence(&mut second, 200);
}
