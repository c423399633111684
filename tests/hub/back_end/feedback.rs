//! Feedback that is not one's own, or that nobody gets: whatever a back end does, the hub's one queue loses nothing.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::Duration;

use fieldbridge::backend::feedback::End;
use fieldbridge::backend::message::Outgoing;
use fieldbridge::backend::{Backend, Place, Policy, Who};
use fieldbridge::demo::hub::{Ack, C2d, Options};
use serde_json::Value as Json;
use tokio::time::timeout;

use super::{back_end, begun, foreign_feedback, json, listens, patient_hub, plant_of, prepared, said};
use crate::support::hub::Hub;
use crate::support::process::Killed;
use crate::support::tls::Server;
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
async fn a_link_that_is_not_used_may_end_and_what_was_waited_among_is_given_back_once() {
    let (hub, _slave, site) = plant_of(patient_hub(), "");
    foreign_feedback(&hub, 1);
    let waiting = begun(&hub, &site, &["send", "pump", "set", "7", "--message-id", "own", "--wait=1h"]);
    listens(&hub, 0);
    hub.detach_links_of("/messages/devicebound", "amqp:link:detach-forced");
    let _daemon = site.start();
    let waited = waiting.wait_with_output().unwrap();
    assert!(waited.status.success() && said(&waited).contains("Success"), "{}", said(&waited));
    assert!(!said(&waited).contains("the connection is lost"), "{}", said(&waited));
    let mut other = connected(&hub, &site).await;
    let batch = timeout(PATIENCE, other.next_batch()).await.expect("it is there").unwrap();
    assert_eq!(batch.batch.returns, 1, "{:?}", batch.batch);
}

#[tokio::test]
async fn a_connection_that_ends_for_its_token_gives_nothing_back() {
    let options = Options { keeps_from_start: true, bearer: Some("eyJ.good".into()), ..Options::default() };
    let (hub, _slave, site) = plant_of(Hub::start(options), "");
    foreign_feedback(&hub, 1);
    let (host, metadata) = (hub.host(), one_token());
    let args = ["send", "pump", "set", "7", "--message-id", "own", "--wait=8s", "--hub", &host, "--entra"];
    let mut command = prepared(&hub, &site, &args);
    for name in ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"] {
        command.env_remove(name);
    }
    command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("http://{}", metadata.address));
    let waited = command.output().unwrap();
    assert_eq!(waited.status.code(), Some(1), "{}", said(&waited));
    assert!(said(&waited).contains("the connection is lost"), "{}", said(&waited));
    let mut other = connected(&hub, &site).await;
    let batch = timeout(PATIENCE, other.next_batch()).await.expect("it is there").unwrap();
    assert_eq!(batch.batch.returns, 0, "{:?}", batch.batch);
}

/// What has one token for the machine, which lives for seconds, and no other.
fn one_token() -> Server {
    let asked = AtomicUsize::new(0);
    Server::start(move |mut stream, _: &Mutex<Vec<u8>>| {
        crate::entra::request(&mut stream);
        let status = match asked.fetch_add(1, Ordering::Relaxed) {
            0 => "200 OK",
            _ => "503 No",
        };
        let body = r#"{"access_token":"eyJ.good","expires_in":"3","resource":"x"}"#;
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    })
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

#[test]
fn a_hub_that_takes_its_time_to_give_feedback_is_not_taken_to_have_none() {
    let (hub, _slave, site) = plant_of(patient_hub(), "");
    foreign_feedback(&hub, 2);
    // Longer than a pause that says that there is none.
    hub.throttle(Duration::from_secs(6));
    assert_eq!(taken(&hub, &site), ["other-0", "other-1"]);
}
