//! Feedback that is not one's own, or that nobody gets: whatever a back end does, the hub's one queue loses nothing.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::time::Duration;

use fieldbridge::backend::feedback::End;
use fieldbridge::backend::message::Outgoing;
use fieldbridge::backend::{Backend, Place, Policy, Who};
use fieldbridge::demo::hub::{Ack, C2d, Options};
use serde_json::Value as Json;
use tokio::time::timeout;

use super::{back_end, begun, foreign_feedback, json, patient_hub, plant_of, prepared, said};
use crate::support::hub::Hub;
use crate::support::process::Killed;
use crate::support::{eventually, Site, PATIENCE};

/// The exit status of a child that ends.
fn exit_status(child: &mut Child) -> Option<i32> {
    eventually("it ends", || child.try_wait().expect("it can be waited for")).code()
}

/// The ids of all that waits at the hub, which is taken.
fn taken(hub: &Hub, site: &Site) -> Vec<String> {
    let all = back_end(hub, site, &["feedback", "--json"]);
    assert!(all.status.success(), "{}", said(&all));
    let text = String::from_utf8_lossy(&all.stdout).into_owned();
    let id = |line| serde_json::from_str::<Json>(line).unwrap()["originalMessageId"].as_str().unwrap().to_owned();
    let mut ids: Vec<String> = text.lines().map(id).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn what_a_reader_that_is_gone_did_not_get_stays_at_the_hub() {
    let (hub, _slave, site) = plant_of(patient_hub(), "");
    foreign_feedback(&hub, 1);
    let mut child = Killed(begun(&hub, &site, &["feedback", "--follow", "--json"]));
    let mut line = String::new();
    let mut reader = BufReader::new(child.0.stdout.take().expect("it is piped"));
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("other-0"), "{line}");
    eventually("it is taken", || (hub.feedback_waiting() == 0).then_some(()));
    drop(reader);
    foreign_feedback(&hub, 2);
    assert_eq!(exit_status(&mut child.0), Some(70));
    assert_eq!(taken(&hub, &site), ["other-0", "other-1"]);
}

#[test]
fn what_a_full_disk_did_not_take_stays_at_the_hub() {
    let (hub, _slave, site) = plant_of(patient_hub(), "");
    foreign_feedback(&hub, 2);
    let full = OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
    let output = prepared(&hub, &site, &["feedback", "--json"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(70), "{}", said(&output));
    assert!(said(&output).contains("stays at the hub"), "{}", said(&output));
    assert_eq!(taken(&hub, &site), ["other-0", "other-1"]);
}

#[test]
fn however_often_somebody_waits_the_hub_throws_no_record_of_others_away() {
    let options = Options { keeps_from_start: true, feedback_max_delivery_count: 5, ..Options::default() };
    let (hub, _slave, site) = plant_of(Hub::start(options), "");
    foreign_feedback(&hub, 1);
    let _daemon = site.start();
    eventually("the device is attached", || hub.is_connected("pump").then_some(()));
    let sent: Vec<_> = (0..7)
        .map(|at| back_end(&hub, &site, &["send", "pump", "set", "1", "--message-id", &format!("own-{at}"), "--wait"]))
        .collect();
    let last = sent.last().unwrap();
    assert_eq!(last.status.code(), Some(1), "{}", said(last));
    assert!(said(last).contains("sent as own-6") && said(last).contains("another consumer"), "{}", said(last));
    assert!(sent[0].status.success(), "{}", said(&sent[0]));
    assert!(taken(&hub, &site).contains(&"other-0".to_owned()));
}

#[test]
fn where_as_many_batches_wait_as_may_come_it_is_said_at_once_that_somebody_has_to_take_them() {
    let (hub, _slave, site) = plant_of(patient_hub(), "");
    foreign_feedback(&hub, 64);
    let sent = back_end(&hub, &site, &["send", "pump", "set", "1", "--message-id", "own", "--wait=1h", "--json"]);
    assert_eq!(sent.status.code(), Some(1), "{}", said(&sent));
    assert!(said(&sent).contains("another consumer is needed"), "{}", said(&sent));
    assert_eq!((&json(&sent)["messageId"], &json(&sent)["feedback"]), (&"own".into(), &Json::Null));
    assert_eq!(hub.feedback_waiting(), 64);
}

#[test]
fn a_batch_with_ones_own_record_and_anothers_is_read_and_given_back() {
    let options = Options { feedback_interval: Duration::from_secs(3600), ..Options::default() };
    let (hub, _slave, site) = plant_of(Hub::start(options), "");
    let _daemon = site.start();
    eventually("the device is attached", || hub.is_connected("pump").then_some(()));
    hub.send("pump", C2d::new("other", "1").property("command", "set").ack(Ack::Full)).unwrap();
    let own = begun(&hub, &site, &["send", "pump", "set", "2", "--message-id", "own", "--wait=1h", "--json"]);
    site.wait_for_row("own", "succeeded");
    eventually("both are completed", || (hub.queue_len("pump") == 0).then_some(()));
    hub.set_options(|options| options.feedback_interval = Duration::ZERO);
    let own = own.wait_with_output().unwrap();
    assert!(own.status.success(), "{}", said(&own));
    assert_eq!(json(&own)["feedback"]["originalMessageId"], "own");
    assert_eq!(hub.feedback_waiting(), 2, "it is one batch");
    assert_eq!(taken(&hub, &site), ["other", "own"]);
}

async fn connected(hub: &Hub, site: &Site) -> Backend {
    let policy = Policy::parse(&hub.service_connection_string()).unwrap();
    let place = Place {
        address: Some(hub.amqp_addr().to_string()),
        ca_file: Some(site.path("hub-ca.pem")),
        ..Place::default()
    };
    Backend::connect(Who::Policy(policy), &place).await.unwrap()
}

#[tokio::test]
async fn whoever_is_dropped_while_waiting_leaves_nothing_stuck_and_what_is_given_back_goes_to_others() {
    let (hub, _slave, site) = plant_of(patient_hub(), "");
    foreign_feedback(&hub, 1);
    let mut one = connected(&hub, &site).await;
    let waited = timeout(Duration::from_millis(300), one.wait_for("pump", "own", PATIENCE)).await;
    assert!(waited.is_err(), "there is no such record");
    let batch = timeout(PATIENCE, one.next_batch()).await.expect("it is not stuck").unwrap();
    assert_eq!((batch.batch.returns, hub.feedback_waiting()), (0, 1));
    one.settle(&batch, End::GiveBack);
    // Whatever is sent after that goes out after it.
    let message = Outgoing { device: "pump".into(), message_id: "m-1".into(), ..Outgoing::default() };
    one.send(&message).await.unwrap();
    // The first one is still there, and does not listen.
    let mut other = connected(&hub, &site).await;
    let batch = timeout(PATIENCE, other.next_batch()).await.expect("it goes to the other one").unwrap();
    assert_eq!(batch.batch.returns, 1);
    other.settle(&batch, End::GiveBack);
    other.close().await;
    let batch = timeout(PATIENCE, one.next_batch()).await.expect("it listens again").unwrap();
    assert_eq!(batch.batch.returns, 2);
}
