//! `settle = "after-accept"`: the gateway owns a command as soon as it has a durable record of it, across its own
//! death. Proves G1, G2, G3, G5 and G7.

use std::time::Duration;

use serde_json::Value as Json;

use super::{add_keys, command, event_id, fence, message_ids_of, register, site, site_with, wait_for_deliveries};
use crate::support::broker::{Broker, Client};
use crate::support::slave::{Mood, Slave};
use crate::support::Site;

const ACCEPT: &str = "after-accept";

#[test]
fn acceptance_is_acknowledged_while_the_peripheral_is_slow_and_the_order_is_kept() {
    let (site, broker, slave) = site(ACCEPT);
    let _daemon = site.start();
    let mut client = broker.serve();
    slave.set_mood(Mood::Held);
    for number in 1..=10 {
        client.deliver(number, &format!("m-{number}"), &command("pulse", number));
    }
    let expected: Vec<u16> = (1..=10).collect();
    assert_eq!(client.collect(10, 0).0, expected);
    slave.wait_for_requests(1);
    assert_eq!(slave.requests(), 1, "one command is on the wire, the others wait");

    slave.set_mood(Mood::Good);
    let (_, events) = client.collect(0, 10);
    let messages: Vec<String> = (1..=10).map(|number| format!("m-{number}")).collect();
    assert_eq!(message_ids_of(&events), messages);
    let writes: Vec<(u16, u16)> = (1..=10).map(|number| (2, number)).collect();
    assert_eq!(slave.writes(), writes);
    fence(&mut client, 11);
}

#[test]
fn acceptance_is_acknowledged_although_the_peripheral_never_answers() {
    let (site, broker, slave) = site_with(ACCEPT, "response_timeout = \"200ms\"\nretries = 0");
    let _daemon = site.start();
    let mut client = broker.serve();
    slave.set_mood(Mood::Deaf);
    client.deliver(1, "in-doubt", &command("pulse", 1));
    client.deliver(2, "failed", &command("set", 2));
    assert_eq!(client.collect(2, 0).0, [1, 2]);
    let (_, events) = client.collect(0, 2);
    let ends: Vec<_> = events.iter().map(|(_, event)| (&event["status"], &event["error"]["code"])).collect();
    assert_eq!(ends, [(&"in_doubt".into(), &"timeout".into()), (&"failed".into(), &"timeout".into())]);
    assert_eq!(slave.requests(), 2);
}

/// A hub's queue of commands `m-1`, `m-2`, …, of which it sends 50 without a PUBACK at most.
struct Queue {
    completed: u16,
    sent: u16,
    end: u16,
}

impl Queue {
    /// Sends what may be sent.
    fn send(&mut self, client: &mut Client) {
        while self.sent < self.end.min(self.completed + 50) {
            self.sent += 1;
            client.deliver(self.sent, &format!("m-{}", self.sent), &command("pulse", self.sent));
        }
    }

    /// Takes the next PUBACK, which must be in order, and sends what may be sent then.
    fn go_on(&mut self, client: &mut Client) {
        self.send(client);
        let packet_id = client.next_puback(&mut Vec::new());
        self.completed += 1;
        assert_eq!(packet_id, self.completed);
    }
}

#[test]
fn more_commands_than_can_wait_stay_with_the_hub_and_are_executed_later_in_order() {
    let (site, broker, slave) = site(ACCEPT);
    // None runs out of time while the wire is held, however slow this machine is.
    add_keys(&site, "pulse", "deadline = \"1h\"");
    let _daemon = site.start();
    slave.set_mood(Mood::Held);
    let mut queue = Queue { completed: 0, sent: 0, end: 300 };
    let mut client = broker.serve();
    // 128 wait for the executor; one is on the wire, and one in the hand of the intake.
    while queue.completed < 130 {
        queue.go_on(&mut client);
    }
    queue.send(&mut client);
    wait_for_deliveries(&site, 180);
    assert!(client.is_silent_for(Duration::from_millis(200)), "more was accepted than can wait");
    for round in 1..=2 {
        drop(client);
        client = broker.serve();
        queue.sent = queue.completed;
        queue.send(&mut client);
        wait_for_deliveries(&site, 180 + 50 * round);
    }
    // What was left of cut connections has taken no place from the last one's.
    assert!(client.is_silent_for(Duration::from_millis(200)), "more was accepted than can wait");
    slave.set_mood(Mood::Good);
    while queue.completed < queue.end {
        queue.go_on(&mut client);
    }
    site.wait_for_row("m-300", "succeeded");
    let writes: Vec<(u16, u16)> = (1..=300).map(|number| (2, number)).collect();
    assert_eq!(slave.writes(), writes);
}

#[test]
fn a_redelivery_of_an_accepted_command_is_completed_and_not_repeated() {
    let (site, broker, slave) = site(ACCEPT);
    let _daemon = site.start();
    let mut first = broker.serve();
    slave.set_mood(Mood::Held);
    first.deliver(1, "ahead", &command("set", 1));
    first.deliver(2, "m-1", &command("pulse", 7));
    site.wait_for_row("m-1", "accepted");
    drop(first);

    let mut second = broker.serve();
    second.deliver(1, "m-1", &command("pulse", 7));
    second.deliver(2, "ahead", &command("set", 1));
    assert_eq!(second.collect(2, 0).0, [1, 2], "completed while they wait");
    slave.set_mood(Mood::Good);
    let (_, events) = second.collect(0, 2);
    assert_eq!(message_ids_of(&events), ["ahead", "m-1"], "the order is that of the first receipt");
    assert_eq!(slave.writes(), [(0, 1), (2, 7)]);
    fence(&mut second, 3);
}

#[test]
fn an_accepted_command_survives_the_death_of_the_daemon_before_the_wire() {
    let (site, broker, slave) = site(ACCEPT);
    let daemon = site.start();
    let mut client = broker.serve();
    slave.set_mood(Mood::Held);
    client.deliver(1, "ahead", &command("set", 1));
    client.deliver(2, "m-1", &command("pulse", 7));
    client.deliver(3, "m-2", &command("pulse", 8));
    site.wait_for_row("m-2", "accepted");
    slave.wait_for_requests(1);
    daemon.kill();

    slave.set_mood(Mood::Good);
    let _daemon = site.start();
    let mut client = broker.serve();
    // The PUBACK of one was lost.
    client.deliver(1, "m-2", &command("pulse", 8));
    let (pubacks, events) = client.collect(1, 3);
    assert_eq!(pubacks, [1]);
    assert_eq!(message_ids_of(&events), ["ahead", "m-1", "m-2"]);
    assert_eq!(slave.writes(), [(0, 1), (0, 1), (2, 7), (2, 8)], "the idempotent one that was on the wire is repeated");
    fence(&mut client, 2);
}

#[test]
fn a_command_that_was_on_the_wire_when_the_daemon_died_is_resolved_without_a_second_write() {
    for (name, status, writes) in
        [("pulse", "in_doubt", 1), ("pulse-verified", "succeeded", 1), ("set", "succeeded", 2)]
    {
        let (site, broker, slave) = site(ACCEPT);
        let daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Held);
        client.deliver(1, "m-1", &command(name, 7));
        assert_eq!(client.collect(1, 0).0, [1]);
        slave.wait_for_requests(1);
        daemon.kill();

        slave.set_mood(Mood::Good);
        let _daemon = site.start();
        let mut client = broker.serve();
        client.deliver(1, "m-1", &command(name, 7));
        let (pubacks, events) = client.collect(1, 1);
        assert_eq!((pubacks.as_slice(), &events[0].1["status"]), (&[1][..], &status.into()), "{name}");
        if status == "in_doubt" {
            assert_eq!(events[0].1["error"]["code"], "interrupted");
        }
        assert_eq!(slave.count(register(name), 7), writes, "{name}");
        fence(&mut client, 2);
    }
}

#[test]
fn a_result_event_outlives_the_death_of_the_daemon() {
    let (site, broker, slave) = site(ACCEPT);
    let daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "m-1", &command("pulse", 7));
    let (first, _) = client.next_event_unacknowledged();
    daemon.kill();

    let _daemon = site.start();
    let mut client = broker.serve();
    let (second, event) = client.next_event();
    assert_eq!(event_id(&first), event_id(&second));
    assert_eq!(event["status"], "succeeded");
    assert_eq!(slave.writes(), [(2, 7)]);
    fence(&mut client, 1);
}

/// What is accepted waits behind one that is held on the wire, while a backup is made.
fn restored_with_what_waited() -> (Site, Broker, Slave) {
    let (site, broker, slave) = site(ACCEPT);
    let daemon = site.start();
    let mut client = broker.serve();
    slave.set_mood(Mood::Held);
    for (number, name) in [(1, "set-verified"), (2, "set"), (3, "pulse"), (4, "pulse-verified")] {
        client.deliver(number, name, &command(name, number));
    }
    site.wait_for_row("pulse-verified", "accepted");
    slave.wait_for_requests(1);
    let backup = site.path("backup.db").display().to_string();
    assert!(site.command(&["ledger", "backup", &backup]).status.success());
    // All of it is done, and told, before the ledger is lost.
    slave.set_mood(Mood::Good);
    client.collect(4, 4);
    site.settled();
    daemon.kill();
    assert!(site.command(&["ledger", "restore", &backup]).status.success());
    (site, broker, slave)
}

#[test]
fn what_a_backup_has_as_accepted_is_run_again_if_it_may_be_and_is_in_doubt_else() {
    let (site, broker, slave) = restored_with_what_waited();
    let before = slave.writes();
    assert_eq!(before, [(1, 1), (0, 2), (2, 3), (3, 4)]);
    let _daemon = site.start();
    let mut client = broker.serve();
    let (_, events) = client.collect(0, 4);
    assert_eq!(message_ids_of(&events), ["set-verified", "set", "pulse", "pulse-verified"]);
    for (_, event) in &events {
        let end = match event["messageId"].as_str() {
            Some("set-verified" | "set") => ("succeeded".into(), Json::Null),
            _ => ("in_doubt".into(), "unknown-history".into()),
        };
        assert_eq!((&event["status"], &event["error"]["code"]), (&end.0, &end.1), "{event}");
    }
    assert_eq!(slave.writes()[before.len()..], [(1, 1), (0, 2)], "what may be repeated, and nothing else");
    fence(&mut client, 5);
}

#[test]
fn what_a_backup_has_as_accepted_is_in_doubt_where_its_command_is_no_longer_configured_or_its_deadline_has_passed() {
    let (site, broker, slave) = restored_with_what_waited();
    let before = slave.writes();
    site.configure("[profile.pump.command.pulse-verified]", "[profile.pump.command.renamed]");
    add_keys(&site, "pulse", "deadline = \"100ms\"");
    // It counts from the receipt.
    std::thread::sleep(Duration::from_millis(100));
    let _daemon = site.start();
    let mut client = broker.serve();
    let (_, events) = client.collect(0, 4);
    for id in ["pulse", "pulse-verified"] {
        let (_, event) = events.iter().find(|(_, event)| event["messageId"] == id).unwrap();
        assert_eq!(
            (&event["status"], &event["error"]["code"]),
            (&"in_doubt".into(), &"unknown-history".into()),
            "{id}"
        );
    }
    assert_eq!(slave.writes()[before.len()..], [(1, 1), (0, 2)]);
}
