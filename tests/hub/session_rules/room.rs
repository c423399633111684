//! What the gateway keeps of messages that wait is bounded over all identities. Proves G5, G11 and G16.

use std::collections::BTreeMap;

use super::another_pump;
use super::command;
use super::link::site_with_hub;
use crate::support::broker::{Broker, Client, Packet};
use crate::support::eventually;
use crate::support::slave::Mood;

/// Messages of one queue that are delivered at once.
const QUEUED: u16 = 100;

/// A device's queue at a hub: what is not completed is delivered again by each connection, in order.
struct Queue {
    device: &'static str,
    /// The first message is small, and keeps the executor busy; the others are as large in memory as a value can be.
    left: Vec<u16>,
    /// How many each connection has brought to their end.
    completed: Vec<usize>,
}

impl Queue {
    fn new(device: &'static str, length: u16) -> Queue {
        Queue { device, left: (1..=length).collect(), completed: Vec::new() }
    }

    fn deliver(&self, client: &mut Client) {
        let list = serde_json::json!({ "command": "set", "value": vec![1; 2000] }).to_string();
        for number in &self.left {
            let topic = format!("devices/{}/messages/devicebound/%24.mid=m-{number}", self.device);
            let body = if *number == 1 { command("set", 1) } else { list.clone() };
            client.publish(*number, topic.as_bytes(), body.as_bytes());
        }
    }

    /// Acknowledges events and takes PUBACKs, which must be in order, until the client goes or the queue is empty.
    /// Whether the client has gone.
    fn drain(&mut self, client: &mut Client) -> bool {
        self.completed.push(0);
        while !self.left.is_empty() {
            match client.next() {
                Packet::PubAck(id) => {
                    assert_eq!(id, self.left.remove(0), "in the order of receipt");
                    *self.completed.last_mut().expect("one was pushed") += 1;
                }
                Packet::Publish { packet_id, .. } => client.puback(packet_id),
                Packet::Disconnect | Packet::Closed => return true,
                other => panic!("{other:?}"),
            }
        }
        false
    }
}

#[test]
fn messages_that_find_no_room_stay_with_the_hub_and_are_brought_to_their_end_later_in_order() {
    let (site, broker, slave) = site_with_hub("", &[another_pump("greedy"), another_pump("other")].concat());
    let _daemon = site.start();
    slave.set_mood(Mood::Held);
    let mut queues = [Queue::new("greedy", QUEUED), Queue::new("other", QUEUED), Queue::new("pump", 3)];
    let mut clients = broker.serve_each(["greedy", "other", "pump"]);
    for (queue, client) in queues.iter_mut().zip(&mut clients) {
        queue.deliver(client);
        eventually("all of them received", || {
            (site.device_status(queue.device)["received"] == queue.left.len()).then_some(())
        });
    }
    slave.set_mood(Mood::Good);
    // Several connect anew, in an order of their own; they are served one after the other.
    let mut anew = BTreeMap::new();
    let mut serve = |queue: &mut Queue, mut client: Client, broker: &Broker| {
        while queue.drain(&mut client) {
            client = loop {
                if let Some(own) = anew.remove(queue.device) {
                    break own;
                }
                let one = broker.serve();
                anew.insert(one.connect.client_id.clone(), one);
            };
            queue.deliver(&mut client);
        }
        client
    };
    let [greedy, other, pump] = clients;
    let [greedy_queue, other_queue, pump_queue] = &mut queues;
    let _greedy = serve(greedy_queue, greedy, &broker);
    let _pump = serve(pump_queue, pump, &broker);
    let _other = serve(other_queue, other, &broker);
    assert_eq!(greedy_queue.completed, [usize::from(QUEUED)], "who came first has room for its whole queue");
    for queue in [other_queue, pump_queue] {
        let (device, completed) = (queue.device, &queue.completed);
        assert!(completed.len() > 1, "{device} had no room for all: {completed:?}");
        assert!(!completed.contains(&0), "each connection of {device} brings something on: {completed:?}");
    }
    assert_eq!(slave.writes().iter().filter(|write| **write == (0, 1)).count(), 3, "the lists are no values");
}
