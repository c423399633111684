//! AMQP, from a client that is scripted frame by frame: for devices, and for the back end.

mod client;
mod events;
mod service;

use std::time::Duration;

use fieldbridge::amqp::types::messaging::{Accepted, DeliveryState, Modified, Rejected, Released};
use fieldbridge::demo::hub::{
    Ack, Auth, C2d, Cut, Effect, End, Fault, Kick, Options, Settlement, SimHub, Status, Wire, WireEvent,
};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Message};

use super::{hub, LIMIT, SHORT_LOCK};
use client::{Client, Delivered};

const DEVICEBOUND: &str = "/devices/d/messages/devicebound";

fn accepted() -> DeliveryState {
    DeliveryState::Accepted(Accepted {})
}

fn rejected() -> DeliveryState {
    DeliveryState::Rejected(Rejected { error: None })
}

fn released() -> DeliveryState {
    DeliveryState::Released(Released {})
}

/// A client whose token for `d` counts.
async fn shown(hub: &SimHub) -> Client {
    let mut client = Client::open(hub).await;
    assert_eq!(client.put_token(&hub.token("d", 3600).unwrap()).await, 200);
    client
}

/// A client to which the messages of `d` come.
async fn receiving(hub: &SimHub, credit: u32) -> Client {
    let mut client = shown(hub).await;
    assert_eq!(client.receive_from(5, DEVICEBOUND, credit).await, None);
    client
}

async fn delivery(client: &mut Client) -> Delivered {
    client.delivery().await.expect("a delivery and no end")
}

fn effects(hub: &SimHub) -> Vec<Effect> {
    let effect = |event: WireEvent| match event.what {
        Wire::Settled { effect, .. } => Some(effect),
        _ => None,
    };
    hub.wire().into_iter().filter_map(effect).collect()
}

#[tokio::test]
async fn a_message_comes_with_all_its_properties_and_is_completed() {
    let hub = hub(|options| options.uuid_message_ids = true).await;
    let mut client = receiving(&hub, 10).await;
    let id = "00112233-4455-6677-8899-aabbccddeeff";
    let mut message = C2d::new(id, "body").ack(Ack::Full).ttl(Duration::from_secs(60)).property("command", "x");
    message.content_type = Some("application/json".into());
    hub.send("d", message).unwrap();
    let got = delivery(&mut client).await;
    assert_eq!((got.text("message-id"), got.body.as_slice()), (id.into(), &b"body"[..]));
    assert_eq!(got.text("to"), DEVICEBOUND);
    assert_eq!(got.text("content-type"), "application/json");
    assert!(got.has_expiry);
    assert_eq!(got.application("command"), Some("x".into()));
    assert_eq!(got.application("iothub-ack"), Some("full".into()));
    assert_eq!(got.annotation("x-opt-sequence-number"), "1");
    assert_eq!(got.annotation("iothub-deliverycount"), "0");
    assert_eq!(got.tag.len(), 16);
    assert_eq!(got.annotation("x-opt-lock-token").replace('-', ""), got.tag_text());
    client.settle(got.id, accepted()).await;
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap()[0].status, Status::Success);
}

#[tokio::test]
async fn what_is_rejected_or_released_ends_as_that() {
    let hub = hub(|options| options.max_delivery_count = 2).await;
    let mut client = receiving(&hub, 10).await;
    hub.send("d", C2d::new("no", "").ack(Ack::Full)).unwrap();
    let got = delivery(&mut client).await;
    client.settle(got.id, rejected()).await;
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap()[0].status, Status::Rejected);
    hub.send("d", C2d::new("later", "").ack(Ack::Full)).unwrap();
    let got = delivery(&mut client).await;
    client.settle(got.id, released()).await;
    let again = delivery(&mut client).await;
    assert_eq!(again.annotation("iothub-deliverycount"), "1");
    client
        .settle(
            again.id,
            DeliveryState::Modified(Modified {
                delivery_failed: Some(true),
                undeliverable_here: None,
                message_annotations: None,
            }),
        )
        .await;
    assert_eq!(hub.wait_feedback(2, LIMIT).await.unwrap()[1].status, Status::DeliveryCountExceeded);
    assert_eq!(effects(&hub), [Effect::Rejected, Effect::Abandoned, Effect::Abandoned]);
}

#[tokio::test]
async fn no_more_messages_come_than_there_is_credit_for_and_in_any_order_they_are_settled() {
    let hub = hub(|_| {}).await;
    let mut client = receiving(&hub, 2).await;
    for id in ["a", "b", "c"] {
        hub.send("d", C2d::new(id, id).ack(Ack::Full)).unwrap();
    }
    let first = delivery(&mut client).await;
    let second = delivery(&mut client).await;
    client.is_quiet().await;
    client.settle(second.id, accepted()).await;
    client.settle(first.id, accepted()).await;
    assert_eq!(hub.wait_feedback(2, LIMIT).await.unwrap()[0].original_message_id.as_deref(), Some("b"));
    client.credit(5, 1, false).await;
    assert_eq!(delivery(&mut client).await.body, b"c");
}

#[tokio::test]
async fn drained_credit_is_given_back() {
    let hub = hub(|_| {}).await;
    let mut client = receiving(&hub, 0).await;
    client.credit(5, 7, true).await;
    let flow = client.flow().await;
    assert_eq!((flow.link_credit, flow.delivery_count), (Some(0), Some(7)));
}

#[tokio::test]
async fn a_lock_that_runs_out_brings_the_message_again_and_its_settlement_is_late() {
    let hub = hub(|options| options.lock = SHORT_LOCK).await;
    let mut client = receiving(&hub, 10).await;
    hub.send("d", C2d::new("m", "x").ack(Ack::Full)).unwrap();
    let first = delivery(&mut client).await;
    hub.set_options(|options| options.lock = LIMIT);
    let second = delivery(&mut client).await;
    assert_ne!(first.tag, second.tag);
    // One that is not settled at once is told.
    let outcome = client.settle_and_hear(first.id, accepted()).await;
    assert!(matches!(outcome, DeliveryState::Rejected(_)), "{outcome:?}");
    let outcome = client.settle_and_hear(second.id, accepted()).await;
    assert_eq!(outcome, accepted());
    assert_eq!(effects(&hub), [Effect::Late, Effect::Completed]);
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_not_delivered_on_this_connection_is_not_settled_on_it() {
    let hub = hub(|_| {}).await;
    let mut before = receiving(&hub, 10).await;
    hub.send("d", C2d::new("m", "x").ack(Ack::Full)).unwrap();
    let delivered = delivery(&mut before).await;
    let mut client = receiving(&hub, 0).await;
    client.settle(delivered.id, accepted()).await;
    client.credit(5, 1, false).await;
    let delivered = delivery(&mut client).await;
    client.settle(delivered.id, accepted()).await;
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap().len(), 1);
    assert_eq!(effects(&hub), [Effect::Unknown, Effect::Completed]);
}

#[tokio::test]
async fn a_large_message_takes_many_frames_both_ways() {
    let hub = hub(|_| {}).await;
    let mut client = Client::with_frames_of(&hub, 512).await;
    assert_eq!(client.put_token(&hub.token("d", 3600).unwrap()).await, 200);
    assert_eq!(client.receive_from(5, DEVICEBOUND, 10).await, None);
    let body = "x".repeat(60_000);
    hub.send("d", C2d::new("m", body.clone())).unwrap();
    assert_eq!(delivery(&mut client).await.body, body.as_bytes());
    assert_eq!(client.send_to(6, "/devices/d/messages/events").await, None);
    let outcome = client.send_parts(6, C2d::new("e", body.clone()).property("outcome", "done"), 3).await;
    assert_eq!(outcome, accepted());
    let stored = hub.take_telemetry().remove(0);
    assert_eq!(
        (stored.body.len(), stored.property("$.mid"), stored.property("outcome")),
        (60_000, Some("e"), Some("done"))
    );
}

#[tokio::test]
async fn a_link_without_a_token_is_attached_and_detached_right_after() {
    let hub = hub(|_| {}).await;
    hub.add_key_device("other");
    let mut client = Client::open(&hub).await;
    assert_eq!(client.put_token("SharedAccessSignature nonsense").await, 401);
    assert_eq!(client.put_token(&hub.token("d", -3600).unwrap()).await, 401);
    assert_eq!(client.put_token(&hub.token("other", 3600).unwrap()).await, 200);
    let refused = Some("amqp:unauthorized-access".to_owned());
    assert_eq!(client.receive_from(5, DEVICEBOUND, 1).await, refused);
    assert_eq!(client.send_to(6, "/devices/d/messages/events").await, refused);
    assert_eq!(client.send_to(7, "/messages/devicebound").await, refused);
    assert_eq!(client.receive_from(8, "/nowhere", 1).await, Some("amqp:not-found".into()));
    // The connection goes on.
    assert_eq!(client.receive_from(5, "/devices/other/messages/devicebound", 1).await, None);
}

#[tokio::test]
async fn many_devices_share_a_connection_and_one_ends_alone() {
    let hub = hub(|options| options.token_grace = Duration::ZERO).await;
    hub.add_key_device("other");
    let mut client = receiving(&hub, 10).await;
    assert_eq!(client.put_token(&hub.token("other", 3600).unwrap()).await, 200);
    assert_eq!(client.receive_from(6, "/devices/other/messages/devicebound", 10).await, None);
    assert!(hub.is_connected("d") && hub.is_connected("other"));
    assert!(hub.expire_token("d"));
    assert_eq!(client.detached().await, (5, "amqp:unauthorized-access".into()));
    hub.send("other", C2d::new("m", "still here")).unwrap();
    assert_eq!(delivery(&mut client).await.body, b"still here");
    // A new token on the live connection, and all is well.
    assert_eq!(client.put_token(&hub.token("d", 3600).unwrap()).await, 200);
    assert_eq!(client.receive_from(7, DEVICEBOUND, 10).await, None);
    hub.set_enabled("d", false);
    assert_eq!(client.detached().await, (7, "amqp:unauthorized-access".into()));
    assert!(hub.is_connected("other"));
}

#[tokio::test]
async fn a_token_is_renewed_without_a_word_to_the_links() {
    let hub = hub(|_| {}).await;
    let mut client = receiving(&hub, 10).await;
    let before = hub.token_expiry("d").unwrap();
    assert_eq!(client.put_token(&hub.token("d", 7200).unwrap()).await, 200);
    assert!(before < hub.token_expiry("d").unwrap());
    hub.fault("d", Fault::RefuseToken);
    assert_eq!(client.put_token(&hub.token("d", 7200).unwrap()).await, 401);
    hub.send("d", C2d::new("m", "x")).unwrap();
    assert_eq!(delivery(&mut client).await.body, b"x");
}

#[tokio::test]
async fn a_second_link_steals_the_messages_of_the_first() {
    let hub = hub(|_| {}).await;
    let mut first = receiving(&hub, 10).await;
    let mut second = receiving(&hub, 10).await;
    assert_eq!(first.detached().await, (5, "amqp:link:stolen".into()));
    hub.send("d", C2d::new("m", "x")).unwrap();
    assert_eq!(delivery(&mut second).await.body, b"x");
    assert!(hub.detach_link("d", "amqp:internal-error"));
    assert_eq!(second.detached().await, (5, "amqp:internal-error".into()));
    assert!(!hub.is_connected("d"));
}

#[tokio::test]
async fn what_was_on_its_way_comes_again_over_another_link() {
    let hub = hub(|_| {}).await;
    let mut client = receiving(&hub, 10).await;
    hub.send("d", C2d::new("m", "x").ack(Ack::Full)).unwrap();
    let lost = delivery(&mut client).await;
    client.detach(5).await;
    client.settle(lost.id, accepted()).await;
    assert_eq!(client.receive_from(6, DEVICEBOUND, 10).await, None);
    assert_eq!(delivery(&mut client).await.body, b"x");
    assert!(hub.cut("d", Cut::Fin));
    assert!(client.delivery().await.is_none());
    let mut client = receiving(&hub, 10).await;
    assert_eq!(delivery(&mut client).await.body, b"x");
}

#[tokio::test]
async fn a_fault_loses_settlements_tokens_and_half_a_frame() {
    let hub = hub(|_| {}).await;
    let mut client = receiving(&hub, 10).await;
    hub.send("d", C2d::new("m", "x".repeat(1000)).ack(Ack::Full)).unwrap();
    let first = delivery(&mut client).await;
    hub.fault("d", Fault::LoseSettlement);
    client.settle(first.id, accepted()).await;
    let lost = |event: &WireEvent| matches!(event.what, Wire::Settled { effect: Effect::Lost, .. });
    hub.wait_wire(1, LIMIT, lost).await.unwrap();
    hub.fault("d", Fault::CutInFrame);
    hub.run_out_locks("d");
    assert!(client.delivery().await.is_none());
    let mut client = receiving(&hub, 10).await;
    let again = delivery(&mut client).await;
    hub.fault("d", Fault::CutAfterSettlement);
    client.settle(again.id, accepted()).await;
    assert!(client.delivery().await.is_none());
    assert_eq!(hub.queue_len("d"), 0);
    for (fault, is_stored) in [(Fault::CutBeforeTelemetry, false), (Fault::CutAfterTelemetry, true)] {
        let mut client = shown(&hub).await;
        assert_eq!(client.send_to(6, "/devices/d/messages/events").await, None);
        hub.fault("d", fault);
        client.send_message(6, C2d::new("e", "1")).await;
        assert!(client.delivery().await.is_none());
        assert_eq!(hub.take_telemetry().len(), usize::from(is_stored));
    }
    hub.fault("d", Fault::IgnoreToken);
    let mut client = Client::open(&hub).await;
    client.ask_token(&hub.token("d", 3600).unwrap()).await;
    assert_eq!(client.outcome().await, accepted());
    client.is_quiet().await;
    hub.fault("d", Fault::CutBeforeConnack);
    client.ask_token(&hub.token("d", 3600).unwrap()).await;
    assert!(client.delivery().await.is_none());
}

#[tokio::test]
async fn a_half_open_connection_keeps_what_it_has() {
    let hub = hub(|_| {}).await;
    let mut client = receiving(&hub, 10).await;
    hub.half_open("d");
    hub.send("d", C2d::new("m", "x")).unwrap();
    client.is_quiet().await;
    assert!(hub.is_connected("d"));
}

#[tokio::test]
async fn sasl_plain_lets_one_device_in_and_wrong_credentials_none() {
    let hub = hub(|_| {}).await;
    let token = hub.token("d", 3600).unwrap();
    let name = hub.host().split('.').next().unwrap().to_owned();
    let mut client = Client::plain(&hub, &format!("d@sas.{name}"), &token).await.expect("good credentials");
    assert_eq!(client.receive_from(5, DEVICEBOUND, 1).await, None);
    assert!(Client::plain(&hub, &format!("e@sas.{name}"), &token).await.is_none());
    assert!(Client::plain(&hub, &format!("d@sas.{name}"), "nonsense").await.is_none());
}

#[tokio::test]
async fn a_certificate_is_as_good_as_a_token() {
    let hub = SimHub::start(Options::default()).await.unwrap();
    let cert = hub.add_cert_device("d").unwrap();
    let tls = super::tls(&hub, hub.amqp_addr(), Some(&cert)).await.unwrap();
    let mut client = Client::begin(tls, 65_536, None).await.unwrap();
    assert_eq!(client.receive_from(5, DEVICEBOUND, 1).await, None);
    hub.send("d", C2d::new("m", "x")).unwrap();
    assert_eq!(delivery(&mut client).await.body, b"x");
    let none = super::tls(&hub, hub.amqp_addr(), None).await.unwrap();
    let mut client = Client::begin(none, 65_536, None).await.unwrap();
    assert_eq!(client.receive_from(5, DEVICEBOUND, 1).await, Some("amqp:unauthorized-access".into()));
}

#[tokio::test]
async fn mqtt_and_amqp_take_the_device_from_each_other() {
    let hub = hub(|_| {}).await;
    let mut amqp = receiving(&hub, 10).await;
    let mut mqtt = super::subscribed(&hub).await;
    assert_eq!(amqp.detached().await, (5, "amqp:link:stolen".into()));
    let _again = receiving(&hub, 10).await;
    mqtt.is_closed().await;
}

#[tokio::test]
async fn amqp_goes_through_a_websocket() {
    let hub = hub(|options| options.websocket_bytes_max = Some(5)).await;
    let tcp = TcpStream::connect(hub.ws_addr()).await.unwrap();
    let builder = ClientBuilder::new().uri(&format!("ws://{}/$iothub/websocket", hub.host())).unwrap();
    let protocol = ("sec-websocket-protocol".parse().unwrap(), "AMQPWSB10".parse().unwrap());
    let (mut socket, _) = builder.add_header(protocol.0, protocol.1).unwrap().connect_on(tcp).await.unwrap();
    socket.send(Message::binary(&b"AMQP\x00\x01\x00\x00"[..])).await.unwrap();
    let mut header = Vec::new();
    while header.len() < 8 {
        header.extend_from_slice(socket.next().await.unwrap().unwrap().as_payload());
    }
    assert_eq!(header, b"AMQP\x00\x01\x00\x00");
}

#[tokio::test]
async fn what_is_no_amqp_ends_the_connection() {
    let hub = hub(|_| {}).await;
    let mut client = receiving(&hub, 10).await;
    client.raw(b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(client.delivery().await.is_none());
    let violation = |event: &WireEvent| matches!(event.what, Wire::Closed { end: End::Violation(_) });
    hub.wait_wire(1, LIMIT, violation).await.unwrap();
    assert!(!hub.is_connected("d"));
}

#[tokio::test]
async fn a_client_that_wants_to_hear_something_does() {
    let hub = hub(|_| {}).await;
    let mut client = Client::without_sasl(&hub, 100).await;
    client.heartbeat().await;
    client.heartbeat().await;
}

#[tokio::test]
async fn a_connection_takes_999_tokens() {
    let hub = hub(|_| {}).await;
    let mut client = Client::open(&hub).await;
    for index in 0..1000 {
        let id = format!("d-{index}");
        hub.add_device(&id, Auth::Key(b"key".to_vec()));
        let status = client.put_token(&hub.token(&id, 3600).unwrap()).await;
        assert_eq!(status, if index < 999 { 200 } else { 401 }, "{id}");
    }
    assert_eq!(client.put_token(&hub.token("d-7", 7200).unwrap()).await, 200, "a renewal is no other token");
}

#[tokio::test]
async fn a_hub_that_wants_nobody_says_so() {
    let hub = hub(|_| {}).await;
    let mut client = shown(&hub).await;
    hub.kick(Some(Kick::AfterConnack));
    assert_eq!(client.receive_from(5, DEVICEBOUND, 0).await, Some("the connection ended".into()));
    hub.kick(None);
    for (code, status) in [(5, 401), (3, 503)] {
        hub.refuse_for(LIMIT, code);
        let mut client = Client::open(&hub).await;
        assert_eq!(client.put_token(&hub.token("d", 3600).unwrap()).await, status);
    }
}

#[tokio::test]
async fn bytes_are_sent_as_a_test_has_them() {
    let hub = hub(|_| {}).await;
    let mut client = receiving(&hub, 10).await;
    assert!(hub.inject("d", *b"\x00\x00\x00\x08\x02\x00\x00\x00"));
    client.heartbeat().await;
    assert!(hub.inject("d", *b"HTTP/1.1 502 Bad Gateway"));
    assert!(client.delivery().await.is_none());
}

#[tokio::test]
async fn settlements_are_told_by_what_was_wanted() {
    let hub = hub(|_| {}).await;
    hub.add_device("d", Auth::Key(b"key".to_vec()));
    let mut client = receiving(&hub, 10).await;
    hub.send("d", C2d::new("m", "x")).unwrap();
    let got = delivery(&mut client).await;
    client.settle(got.id, rejected()).await;
    let rejects = |event: &WireEvent| matches!(event.what, Wire::Settled { settlement: Settlement::Reject, .. });
    hub.wait_wire(1, LIMIT, rejects).await.unwrap();
}
