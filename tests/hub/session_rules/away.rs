//! Commands for a unit that has left its last requests unanswered. Proves G1, G5 and G11 for them, and that it is found
//! out by itself when the unit is back.

use serde_json::Value as Json;

use super::{another_pump, command, message_ids_of, site_with, Broker, Site, Slave, BOTH};
use crate::support::eventually;

/// Away after two requests, and tried again after a while that no test waits out unknowingly.
const TIMING: &str =
    "response_timeout = \"150ms\"\nretries = 1\nretry_pause = \"0ms\"\nunreachable_after = 2\nprobe_interval = \"4s\"";

/// A site whose only unit is silent.
fn silent_site(settle: &str) -> (Site, Broker, Slave) {
    let (site, broker, slave) = site_with(settle, TIMING);
    slave.silence(1);
    (site, broker, slave)
}

fn code(event: &Json) -> &str {
    event["error"]["code"].as_str().unwrap_or_default()
}

fn wait_until_present(site: &Site, present: bool) {
    eventually(&format!("a unit whose presence is {present}"), || {
        (site.device_status("pump")["present"] == present).then_some(())
    });
}

#[test]
fn what_comes_for_a_unit_that_is_away_fails_at_once_and_its_first_answer_ends_that() {
    for settle in BOTH {
        let (site, broker, slave) = silent_site(settle);
        let _daemon = site.start();
        let mut client = broker.serve();
        assert_eq!(site.device_status("pump")["present"], Json::Null);
        for (packet_id, name) in [(1, "set"), (2, "pulse"), (3, "set")] {
            client.deliver(packet_id, &format!("m-{packet_id}"), &command(name, 5));
        }
        let (pubacks, events) = client.collect(3, 3);
        assert_eq!((pubacks, message_ids_of(&events)), (vec![1, 2, 3], vec!["m-1", "m-2", "m-3"]));
        let ends: Vec<_> = events.iter().map(|(_, event)| (code(event), event["attempts"].as_u64())).collect();
        assert_eq!(ends, [("timeout", Some(2)), ("unreachable", Some(0)), ("unreachable", Some(0))]);
        assert_eq!((slave.requests(), slave.count(2, 5)), (2, 0));
        let status = site.device_status("pump");
        assert_eq!(status["present"], false);
        assert!(status["awaySince"].as_str().is_some_and(|since| since.ends_with('Z')), "{status}");
        let told = String::from_utf8(site.command(&["status"]).stdout).unwrap();
        assert!(told.contains("pump is AWAY since 2"), "{told}");
        // Nobody asks for anything, and it is found out all the same.
        slave.wake(1);
        wait_until_present(&site, true);
        client.deliver(4, "m-4", &command("pulse", 6));
        let (_, events) = client.collect(1, 1);
        assert_eq!(events[0].1["status"], "succeeded");
        assert_eq!((slave.count(2, 6), site.device_status("pump")["awaySince"].clone()), (1, Json::Null));
    }
}

#[test]
fn what_is_held_stays_at_the_hub_and_is_done_in_order_when_the_unit_is_back() {
    let (site, broker, slave) = silent_site("after-execution");
    site.configure("unit = 1\n", "unit = 1\non_unreachable = \"hold\"\n");
    let _daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "m-1", &command("set", 1));
    assert_eq!(code(&client.collect(1, 1).1[0].1), "timeout");
    client.deliver(2, "m-2", &command("pulse", 2));
    client.deliver(3, "m-3", &command("set", 3));
    client.deliver(4, "m-4", &command("pulse", 4));
    super::wait_for_deliveries(&site, 4);
    assert_eq!(site.device_status("pump")["pending"], 3);
    slave.wake(1);
    let (pubacks, events) = client.collect(3, 3);
    assert_eq!(pubacks, [2, 3, 4]);
    assert!(events.iter().all(|(_, event)| event["status"] == "succeeded"), "{events:?}");
    assert_eq!(slave.writes(), [(2, 2), (0, 3), (2, 4)]);
}

#[test]
fn a_reload_forgets_who_is_away_only_where_the_bus_has_changed() {
    let (site, broker, _slave) = silent_site("after-execution");
    let _daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "m-1", &command("set", 1));
    client.collect(1, 1);
    site.configure("[device.pump]", &format!("{}[device.pump]", another_pump("sister")));
    assert!(site.command(&["reload"]).status.success());
    let _sister = broker.serve();
    assert_eq!(
        (&site.device_status("pump")["present"], &site.device_status("sister")["present"]),
        (&false.into(), &false.into())
    );
    client.deliver(2, "m-2", &command("set", 2));
    assert_eq!(code(&client.collect(1, 1).1[0].1), "unreachable");
    site.configure("retry_pause = \"0ms\"", "retry_pause = \"1ms\"");
    assert!(site.command(&["reload"]).status.success());
    eventually("a unit of which nothing is known", || {
        (site.device_status("pump")["present"] == Json::Null).then_some(())
    });
}

#[test]
fn what_an_operator_asks_for_is_sent_to_a_unit_that_is_away_and_may_find_it_back() {
    let (site, broker, slave) = silent_site("after-execution");
    let _daemon = site.start();
    let mut client = broker.serve();
    client.deliver(1, "m-1", &command("set", 1));
    client.collect(1, 1);
    let before = slave.requests();
    let output = site.command(&["exec", "pump", "set", "3"]);
    assert_eq!((output.status.code(), slave.requests()), (Some(1), before + 1), "once");
    slave.wake(1);
    assert!(site.command(&["exec", "pump", "set", "4"]).status.success());
    wait_until_present(&site, true);
}
