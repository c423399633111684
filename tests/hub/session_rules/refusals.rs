//! A hub that refuses: what an operator reads, and that the gateway comes back by itself.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::{another_pump, command, fence, site, LONG};
use crate::support::broker::{Broker, Packet};
use crate::support::slave::Slave;
use crate::support::{eventually, pump, Site};

/// Each identity is refused with one return code, and the operator reads this.
const REFUSALS: [(&str, u8, &str); 5] = [
    ("no-1", 1, "protocol version"),
    ("no-2", 2, "check the device id"),
    ("no-3", 3, "throttling"),
    ("no-4", 4, "the device key"),
    ("no-5", 5, "exists at this hub and is enabled"),
];

#[test]
fn every_refusal_is_shown_with_a_hint_until_the_hub_accepts() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let others: String = REFUSALS.iter().map(|(id, ..)| another_pump(id)).collect();
    let site = Site::new(&broker.address(), &format!("{}\n{others}", pump(slave.address(), "after-execution", LONG)));
    let _daemon = site.start();
    for _ in 0..=REFUSALS.len() {
        let mut client = broker.accept();
        match REFUSALS.iter().find(|(id, ..)| *id == client.connect.client_id) {
            Some((_, code, _)) => client.connack(*code, false),
            None => {
                client.connack(0, true);
                client.grant();
            }
        }
    }
    for (id, _, hint) in REFUSALS {
        eventually(&format!("{hint:?} for {id}"), || {
            let status = site.device_status(id);
            let told = status["lastError"].as_str().is_some_and(|error| error.contains(hint));
            (told && status["hub"] != "connected").then_some(())
        });
    }
    // The pump was cut off when its client was dropped above: all six come back.
    let mut clients: Vec<_> = (0..=REFUSALS.len()).map(|_| broker.serve()).collect();
    for (id, ..) in REFUSALS {
        eventually(&format!("{id} is connected"), || {
            let status = site.device_status(id);
            (status["hub"] == "connected" && status["lastError"] == Json::Null).then_some(())
        });
    }
    let pump = clients.iter_mut().find(|client| client.connect.client_id == "pump").unwrap();
    fence(pump, 1);
}

#[test]
fn a_hub_that_keeps_refusing_is_asked_less_and_less_often() {
    let (site, broker, _slave) = site("after-execution");
    let _daemon = site.start();
    broker.accept().connack(5, false);
    let mut last = Instant::now();
    for at_least in [100, 500].map(Duration::from_millis) {
        let mut client = broker.accept();
        // The wait begins when the daemon reads the refusal; a little later than it was sent here.
        assert!(last.elapsed() >= at_least, "asked again after {:?}", last.elapsed());
        client.connack(5, false);
        last = Instant::now();
    }
    let mut client = broker.serve();
    fence(&mut client, 1);
    drop(client);
    let cut = Instant::now();
    broker.accept();
    assert!(
        cut.elapsed() < Duration::from_secs(1),
        "a connection that worked begins the waits anew: {:?}",
        cut.elapsed()
    );
}

#[test]
fn a_subscription_that_is_not_granted_with_qos_1_is_an_error_and_what_came_before_it_is_settled() {
    let (site, broker, slave) = site("after-execution");
    let _daemon = site.start();
    for (number, granted) in [0x80, 0, 2].into_iter().enumerate() {
        let mut client = broker.accept();
        client.connack(0, number > 0);
        let Packet::Subscribe { packet_id, .. } = client.next() else { panic!("no SUBSCRIBE after CONNACK") };
        let value = number as u16 + 1;
        client.deliver(7, &format!("m-{value}"), &command("pulse", value));
        assert_eq!(client.next(), Packet::PubAck(7));
        client.suback(packet_id, granted);
        client.closes();
        eventually("the error is shown", || {
            let error = site.device_status("pump")["lastError"].as_str().map(str::to_owned)?;
            error.contains("did not grant the subscription with QoS 1").then_some(())
        });
    }
    let mut client = broker.serve();
    let (_, events) = client.collect(0, 3);
    assert_eq!(events.len(), 3);
    assert_eq!(slave.writes(), [(2, 1), (2, 2), (2, 3)]);
    fence(&mut client, 8);
    assert_eq!(site.device_status("pump")["lastError"], Json::Null);
}

#[test]
fn a_hub_that_is_away_at_the_start_is_found_when_it_comes() {
    let (site, _, slave) = {
        let slave = Slave::new();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        (Site::new(&address, &pump(slave.address(), "after-execution", LONG)), (), slave)
    };
    let _daemon = site.start();
    eventually("the error is shown", || {
        let error = site.device_status("pump")["lastError"].as_str().map(str::to_owned)?;
        (error.contains("can't be reached") && error.contains("check the uplink")).then_some(())
    });
    assert_eq!(slave.requests(), 0);
}
