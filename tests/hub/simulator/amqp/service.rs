//! The back end's half: messages to devices, and feedback from them.

use std::time::Duration;

use fieldbridge::amqp::types::messaging::DeliveryState;
use fieldbridge::demo::hub::{Ack, C2d, SimHub};
use serde_json::Value as Json;

use super::client::{message, Client};
use super::{accepted, delivery, hub, receiving, rejected, released};

const COMMANDS: &str = "/messages/devicebound";
const FEEDBACK: &str = "/messages/serviceBound/feedback";
const TO_D: &str = "/devices/d/messages/devicebound";

async fn back_end(hub: &SimHub) -> Client {
    let mut client = Client::open(hub).await;
    assert_eq!(client.put_token(&hub.service_token(3600)).await, 200);
    client
}

async fn send(client: &mut Client, sent: C2d, to: &str) -> DeliveryState {
    client.transfer(7, message(&sent, Some(to)), 2).await;
    client.outcome().await
}

fn why(outcome: &DeliveryState) -> (String, String) {
    let DeliveryState::Rejected(rejected) = outcome else { panic!("{outcome:?}") };
    let error = rejected.error.as_ref().unwrap();
    let condition = serde_amqp::to_vec(&error.condition).unwrap();
    (String::from_utf8(condition[2..].to_vec()).unwrap(), error.description.clone().unwrap())
}

#[tokio::test]
async fn a_message_is_sent_to_a_device_and_its_feedback_taken() {
    let hub = hub(|_| {}).await;
    let mut device = receiving(&hub, 10).await;
    let mut service = back_end(&hub).await;
    assert_eq!(service.send_to(7, COMMANDS).await, None);
    assert_eq!(service.receive_from(8, FEEDBACK, 5).await, None);
    let mut sent = C2d::new("m-1", "42").ack(Ack::Full).property("command", "set-speed");
    sent.correlation_id = Some("c".into());
    assert_eq!(send(&mut service, sent, TO_D).await, accepted());
    let got = delivery(&mut device).await;
    assert_eq!((got.text("message-id"), got.text("correlation-id")), ("m-1".into(), "c".into()));
    assert_eq!(got.application("command"), Some("set-speed".into()));
    device.settle(got.id, accepted()).await;
    let batch = delivery(&mut service).await;
    assert_eq!(batch.text("content-type"), "application/vnd.microsoft.iothub.feedback.json");
    let records: Json = serde_json::from_slice(&batch.body).unwrap();
    assert_eq!(records[0]["originalMessageId"], "m-1");
    assert_eq!(records[0]["statusCode"], "Success");
    assert_eq!(records[0]["deviceId"], "d");
    assert_eq!(service.settle_and_hear(batch.id, accepted()).await, accepted());
    assert_eq!(hub.feedback_waiting(), 0);
}

#[tokio::test]
async fn feedback_is_one_queue_and_what_is_released_comes_to_another() {
    let hub = hub(|_| {}).await;
    let mut device = receiving(&hub, 10).await;
    let mut first = back_end(&hub).await;
    assert_eq!(first.receive_from(8, FEEDBACK, 1).await, None);
    hub.send("d", C2d::new("m", "").ack(Ack::Full)).unwrap();
    let got = delivery(&mut device).await;
    device.settle(got.id, rejected()).await;
    let batch = delivery(&mut first).await;
    let mut second = back_end(&hub).await;
    assert_eq!(second.receive_from(8, FEEDBACK, 1).await, None);
    second.is_quiet().await;
    first.settle(batch.id, released()).await;
    let again = delivery(&mut second).await;
    assert_eq!(batch.body, again.body);
    // What a connection had when it ended comes again too.
    drop(second);
    first.credit(8, 1, false).await;
    assert_eq!(delivery(&mut first).await.body, batch.body);
    assert_eq!(hub.feedback_waiting(), 1);
}

#[tokio::test]
async fn records_come_in_batches_where_the_hub_waits_for_more() {
    let hub = hub(|options| options.feedback_interval = Duration::from_millis(50)).await;
    let mut device = receiving(&hub, 10).await;
    let mut service = back_end(&hub).await;
    assert_eq!(service.receive_from(8, FEEDBACK, 9).await, None);
    for id in ["a", "b", "c"] {
        hub.send("d", C2d::new(id, "").ack(Ack::Full)).unwrap();
    }
    for _ in 0..3 {
        let got = delivery(&mut device).await;
        device.settle(got.id, accepted()).await;
    }
    let mut seen = 0;
    while seen < 3 {
        let batch = delivery(&mut service).await;
        let records: Vec<Json> = serde_json::from_slice(&batch.body).unwrap();
        seen += records.len();
        service.settle(batch.id, accepted()).await;
    }
    assert_eq!(seen, 3);
}

#[tokio::test]
async fn what_the_hub_does_not_take_is_rejected_with_its_condition() {
    let hub = hub(|options| (options.queue_limit, options.keeps_from_start) = (1, true)).await;
    let mut service = back_end(&hub).await;
    assert_eq!(service.send_to(7, COMMANDS).await, None);
    assert_eq!(send(&mut service, C2d::new("m", ""), TO_D).await, accepted());
    let (condition, description) = why(&send(&mut service, C2d::new("m", ""), TO_D).await);
    assert_eq!(condition, "amqp:resource-limit-exceeded");
    assert!(description.contains("403004"), "{description}");
    let unknown = send(&mut service, C2d::new("m", ""), "/devices/nobody/messages/devicebound").await;
    assert_eq!(why(&unknown).0, "amqp:not-found");
    let large = send(&mut service, C2d::new("m", "x".repeat(65_537)), TO_D).await;
    assert_eq!(why(&large).0, "amqp:link:message-size-exceeded");
    let nowhere = send(&mut service, C2d::new("m", ""), "/devices/d").await;
    assert_eq!(why(&nowhere).0, "com.microsoft:argument-error");
}

#[tokio::test]
async fn a_policy_a_bearer_or_sasl_plain_lets_the_back_end_in_and_nothing_else() {
    let hub = hub(|options| options.bearer = Some("entra".into())).await;
    let mut client = Client::open(&hub).await;
    assert_eq!(client.put_token(&hub.service_token(-3600)).await, 401);
    assert_eq!(client.put_token("Bearer other").await, 401);
    assert_eq!(client.put_token(&hub.token("d", 3600).unwrap()).await, 200);
    assert_eq!(client.send_to(7, COMMANDS).await, Some("amqp:unauthorized-access".into()));
    assert_eq!(client.put_token("Bearer entra").await, 200);
    assert_eq!(client.send_to(7, COMMANDS).await, None);
    let name = hub.host().split('.').next().unwrap().to_owned();
    let token = hub.service_token(3600);
    let mut client = Client::plain(&hub, &format!("service@sas.root.{name}"), &token).await.unwrap();
    assert_eq!(client.receive_from(8, FEEDBACK, 1).await, None);
    assert!(Client::plain(&hub, &format!("service@sas.root.{name}"), "nonsense").await.is_none());
}
