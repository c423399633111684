//! What devices have sent, as the back end reads it.

use fieldbridge::demo::hub::{C2d, SimHub};

use super::client::Client;
use super::{accepted, delivery, hub};

/// The partition that what `d` sends is in, and the other.
const OWN: &str = "fieldbridge-events/ConsumerGroups/$Default/Partitions/0";
const OTHER: &str = "fieldbridge-events/ConsumerGroups/$Default/Partitions/1";

async fn reader(hub: &SimHub, partition: &str) -> Client {
    let mut client = Client::open(hub).await;
    assert_eq!(client.put_token(&hub.event_token(3600)).await, 200);
    assert_eq!(client.receive_from(8, partition, 10).await, None);
    client
}

async fn device(hub: &SimHub) -> Client {
    let mut device = Client::open(hub).await;
    assert_eq!(device.put_token(&hub.token("d", 3600).unwrap()).await, 200);
    assert_eq!(device.send_to(7, "/devices/d/messages/events").await, None);
    device
}

#[tokio::test]
async fn each_reader_of_a_partition_has_all_its_events_in_order_and_nothing_is_taken_out() {
    let hub = hub(|_| {}).await;
    let (mut device, mut early) = (device(&hub).await, reader(&hub, OWN).await);
    let mut other = reader(&hub, OTHER).await;
    for id in ["e-1", "e-2"] {
        let mut event = C2d::new(id, "21.5").property("fieldbridge", "command-result");
        event.correlation_id = Some("m-1".into());
        assert_eq!(device.send_parts(7, event, 1).await, accepted());
    }
    let mut late = reader(&hub, OWN).await;
    for reader in [&mut early, &mut late] {
        for (id, offset) in [("e-1", "0"), ("e-2", "1")] {
            let event = delivery(reader).await;
            assert_eq!((event.text("message-id"), event.text("correlation-id")), (id.into(), "m-1".into()));
            assert_eq!(event.application("fieldbridge"), Some("command-result".into()));
            assert_eq!(event.body, b"21.5");
            assert!(event.annotation("x-opt-offset").contains(offset), "{}", event.annotation("x-opt-offset"));
            assert!(event.annotation("iothub-connection-device-id").contains('d'));
        }
    }
    other.is_quiet().await;
}

#[tokio::test]
async fn to_read_and_to_send_take_a_token_each() {
    let hub = hub(|_| {}).await;
    let unauthorized = Some("amqp:unauthorized-access".to_owned());
    let mut sender = Client::open(&hub).await;
    assert_eq!(sender.put_token(&hub.service_token(3600)).await, 200);
    assert_eq!(sender.receive_from(8, OWN, 1).await, unauthorized);
    let mut reader = reader(&hub, OWN).await;
    assert_eq!(reader.send_to(7, "/messages/devicebound").await, unauthorized);
    assert_eq!(reader.put_token(&hub.event_token(-3600)).await, 401);
}
