//! A device whose unit is away is not connected, and its messages stay at the hub (`on_unreachable = "mirror"`): over
//! each transport, against the simulator of the hub. Proves G1, G2, G5 and G7 of that, and G11 from the sender's side.

use fieldbridge::demo::hub::{Auth, C2d, Options};
use serde_json::Value as Json;

use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::transports::By;
use crate::support::{self, eventually, Daemon, Site};

const TIMING: &str =
    "response_timeout = \"150ms\"\nretries = 1\nretry_pause = \"0ms\"\nunreachable_after = 2\nprobe_interval = \"1s\"";

/// A site with one pump, whose unit is silent.
struct Plant {
    by: By,
    hub: Hub,
    slave: Slave,
    site: Site,
}

impl Plant {
    fn new(by: By, settle: &str) -> Plant {
        let hub = Hub::start(Options { lock: by.lock(), keeps_from_start: true, ..Options::default() });
        hub.add_device("pump", Auth::Key((0..32).collect()));
        let slave = Slave::new();
        slave.silence(1);
        let head = format!("host = \"{}\"\n{}ca_file = \"hub-ca.pem\"\n", hub.host(), by.keys(by.address(&hub)));
        let site = Site::with_hub(&head, &support::pump(slave.address(), settle, TIMING));
        site.configure("unit = 1\n", "unit = 1\non_unreachable = \"mirror\"\n");
        hub.ca_file(&site.path("")).unwrap();
        by.trust(&site);
        Plant { by, hub, slave, site }
    }

    fn start(&self) -> Daemon {
        let daemon = self.site.spawn(&[], self.by.environment());
        daemon.wait_until_ready();
        self.wait_for_link("connected");
        daemon
    }

    fn send(&self, id: &str, command: &str, value: u16) {
        self.hub.send("pump", C2d::new(id, value.to_string()).property("command", command)).unwrap();
    }

    /// What the hub was told of each command, in its order.
    fn ends(&self) -> Vec<(String, String)> {
        let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
        let bodies = self.hub.telemetry().into_iter().map(|event| serde_json::from_slice(&event.body).unwrap());
        let end = |body: Json| match body["error"]["code"].as_str() {
            Some(code) => (text(&body["messageId"]), code.to_owned()),
            None => (text(&body["messageId"]), text(&body["status"])),
        };
        bodies.map(end).collect()
    }

    fn wait_for_ends(&self, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(id, end)| ((*id).to_owned(), (*end).to_owned())).collect();
        eventually(&format!("{expected:?} by {:?}", self.by), || (self.ends() == expected).then_some(()));
    }

    fn wait_for_link(&self, state: &str) -> Json {
        eventually(&format!("a device that is {state} by {:?}", self.by), || {
            let device = self.site.device_status("pump");
            (device["hub"] == state).then_some(device)
        })
    }
}

#[test]
fn messages_stay_at_the_hub_while_the_unit_is_away_and_are_done_in_order_when_it_is_back() {
    for by in By::ALL {
        let plant = Plant::new(by, "after-execution");
        let _daemon = plant.start();
        plant.send("m-1", "set", 1);
        plant.wait_for_ends(&[("m-1", "timeout")]);
        let held = plant.wait_for_link("held");
        assert_eq!((&held["present"], &held["lastError"], &held["pending"]), (&false.into(), &Json::Null, &0.into()));
        assert_eq!(plant.site.status()["hub"]["connected"], 0);
        for (id, command, value) in [("m-2", "pulse", 2), ("m-3", "set", 3), ("m-4", "pulse", 4)] {
            plant.send(id, command, value);
        }
        assert!(!plant.hub.is_connected("pump") || by == By::Https);
        assert_eq!((plant.hub.queue_len("pump"), plant.site.device_status("pump")["received"].clone()), (3, 1.into()));
        let told = String::from_utf8(plant.site.command(&["status"]).stdout).unwrap();
        assert!(told.contains("0 of 1 identities connected, 1 held"), "{told}");
        plant.slave.wake(1);
        plant.wait_for_ends(&[("m-1", "timeout"), ("m-2", "succeeded"), ("m-3", "succeeded"), ("m-4", "succeeded")]);
        assert_eq!(plant.slave.writes(), [(2, 2), (0, 3), (2, 4)], "{by:?}");
        eventually("an empty queue", || (plant.hub.queue_len("pump") == 0).then_some(()));
        plant.wait_for_link("connected");
    }
}

#[test]
fn what_was_delivered_and_not_begun_is_the_hubs_again_and_runs_once() {
    for by in By::ALL {
        let plant = Plant::new(by, "after-execution");
        let _daemon = plant.start();
        for (id, command, value) in [("m-1", "set", 1), ("m-2", "pulse", 2), ("m-3", "pulse", 3), ("m-4", "set", 4)] {
            plant.send(id, command, value);
        }
        plant.wait_for_ends(&[("m-1", "timeout")]);
        plant.wait_for_link("held");
        assert_eq!((plant.hub.queue_len("pump"), plant.slave.writes()), (3, vec![]), "{by:?}");
        plant.slave.wake(1);
        plant.wait_for_ends(&[("m-1", "timeout"), ("m-2", "succeeded"), ("m-3", "succeeded"), ("m-4", "succeeded")]);
        assert_eq!(plant.slave.writes(), [(2, 2), (2, 3), (0, 4)], "{by:?}");
    }
}

#[test]
fn what_was_accepted_is_the_gateways_and_its_end_is_published_although_the_unit_is_away() {
    for by in By::ALL {
        let plant = Plant::new(by, "after-accept");
        let _daemon = plant.start();
        plant.send("m-1", "set", 1);
        plant.send("m-2", "set", 2);
        // The second waits for its unit, and is the attempt that is made after a while.
        plant.wait_for_ends(&[("m-1", "timeout"), ("m-2", "timeout")]);
        plant.wait_for_link("held");
        plant.slave.wake(1);
        plant.wait_for_link("connected");
    }
}
