//! Connections that are lost while a back end waits: the message stays sent, and nobody is asked to send it again.

use std::io::{BufRead as _, BufReader};

use serde_json::Value as Json;

use super::{back_end, begun, foreign_feedback, json, listeners, listens, patient_hub, plant_of, said};
use crate::support::eventually;
use crate::support::process::Killed;

#[test]
fn whoever_waits_for_feedback_goes_on_over_a_connection_that_is_lost() {
    let (mut hub, slave, site) = plant_of(patient_hub(), "");
    let waiting = begun(&hub, &site, &["send", "pump", "set", "7", "--message-id", "m-1", "--wait=1h"]);
    // It does so after the hub has taken the message.
    listens(&hub, 0);
    hub.unplug();
    hub.plug_in();
    let _daemon = site.start();
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success() && said(&waited).contains("Success"), "{}", said(&waited));
    assert!(said(&waited).contains("the connection is lost"), "{}", said(&waited));
    assert_eq!(slave.writes(), [(0, 7)]);
}

#[test]
fn where_the_connection_stays_lost_the_message_is_sent_and_there_is_no_feedback() {
    let (mut hub, _slave, site) = plant_of(patient_hub(), "");
    let waiting = begun(&hub, &site, &["send", "pump", "set", "7", "--message-id", "m-1", "--wait=5s", "--json"]);
    listens(&hub, 0);
    hub.unplug();
    let waited = waiting.wait_with_output().unwrap();
    assert_eq!(waited.status.code(), Some(1), "{}", said(&waited));
    assert_eq!((&json(&waited)["messageId"], &json(&waited)["feedback"]), (&"m-1".into(), &Json::Null));
    assert!(said(&waited).contains("sent as m-1; no feedback"), "{}", said(&waited));
    assert!(!said(&waited).contains("send it again"), "{}", said(&waited));
    assert_eq!(hub.queue_len("pump"), 1);
}

#[test]
fn feedback_is_followed_over_a_connection_that_is_lost() {
    let (mut hub, _slave, site) = plant_of(patient_hub(), "");
    let mut child = Killed(begun(&hub, &site, &["feedback", "--follow", "--json"]));
    let mut lines = BufReader::new(child.0.stdout.take().expect("it is piped")).lines();
    for round in 0..2 {
        listens(&hub, round);
        foreign_feedback(&hub, 1);
        let line = lines.next().expect("it goes on").unwrap();
        assert!(line.contains("other-0"), "{line}");
        eventually("it is taken", || (hub.feedback_waiting() == 0).then_some(()));
        hub.unplug();
        hub.plug_in();
    }
    listens(&hub, 2);
    assert!(listeners(&hub) >= 3);
}

#[test]
fn feedback_is_not_followed_where_no_connection_has_ever_stood() {
    let (hub, _slave, site) = plant_of(patient_hub(), "");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = closed.local_addr().expect("it has one").to_string();
    drop(closed);
    let followed = back_end(&hub, &site, &["feedback", "--follow", "--address", &address]);
    assert_eq!(followed.status.code(), Some(75), "{}", said(&followed));
    assert!(said(&followed).contains("refuses") || said(&followed).contains("reached"), "{}", said(&followed));
}
