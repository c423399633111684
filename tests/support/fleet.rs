//! Many devices at the simulated hub, over TLS, on a few Modbus TCP slaves; and books of every command: how often it
//! was performed, completed and told of. A book is kept in a few bytes, so that a million of them can be.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use fieldbridge::demo::hub::{Ack, Auth, C2d, Options, SendError, Status};
use serde_json::{json, Value as Json};

use super::hub::Hub;
use super::slave::{Mood, Slave};
use super::wall::Wall;
use super::{eventually_within, Daemon, Site, PUMP};

/// What became of one command.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Book {
    performed: u8,
    completed: u8,
    told: u8,
    /// Digest of the result event's id: the same event may come again.
    event: u64,
}

/// Hub, slaves and configuration; the daemon is started by the test.
pub struct Fleet {
    pub site: Site,
    pub hub: Hub,
    devices: Vec<String>,
    slaves: Vec<Slave>,
    books: Vec<Book>,
    /// By slave and value, the last command that writes it.
    values: Vec<Vec<u32>>,
    done: usize,
    /// Events that the hub has got more than once.
    pub repeated_events: usize,
}

impl Fleet {
    /// Devices `d-0`, `d-1`, … with this in the configuration's `[hub]`.
    pub fn new(devices: usize, slaves: usize, hub_settings: &str, options: Options) -> Fleet {
        let hub = Hub::start(options);
        let slaves: Vec<Slave> = (0..slaves).map(|_| Slave::new()).collect();
        let mut text = String::new();
        for (n, slave) in slaves.iter().enumerate() {
            text += &format!("[bus.bus-{n}]\nkind = \"modbus-tcp\"\naddress = \"{}\"\n", slave.address());
        }
        let devices: Vec<String> = (0..devices).map(|n| format!("d-{n}")).collect();
        for (n, id) in devices.iter().enumerate() {
            let (bus, unit) = (n % slaves.len(), n / slaves.len() % 247 + 1);
            text += &format!(
                "[device.{id}]\nbus = \"bus-{bus}\"\nunit = {unit}\nprofile = \"pump\"\nkey_file = \"device.key\"\n"
            );
            hub.add_device(id, Auth::Key((0..32).collect()));
        }
        // Nothing is to expire while it waits among so many.
        text += &PUMP.replace("idempotent", "deadline = \"10m\"\nidempotent");
        let head = format!(
            "host = \"{}\"\naddress = \"{}\"\nca_file = \"hub-ca.pem\"\n{hub_settings}\n",
            hub.host(),
            hub.addr()
        );
        let site = Site::with_hub(&head, &text);
        hub.ca_file(&site.path("")).expect("the certificate can be written");
        let values = vec![vec![u32::MAX; 1 << 16]; slaves.len()];
        Fleet { site, hub, devices, slaves, books: Vec::new(), values, done: 0, repeated_events: 0 }
    }

    /// Starts the daemon, with a log as an installed one writes it.
    pub fn start(&self) -> Daemon {
        self.start_with(Vec::new())
    }

    /// The same with clocks that can jump.
    pub fn start_under(&self, clocks: &Wall) -> Daemon {
        self.start_with(clocks.environment())
    }

    /// The same under another program that becomes the daemon.
    pub fn start_under_program(&self, wrapper: &[&str]) -> Daemon {
        self.start_as(wrapper, Vec::new())
    }

    fn start_with(&self, environment: Vec<(&str, &str)>) -> Daemon {
        self.start_as(&[], environment)
    }

    fn start_as(&self, wrapper: &[&str], mut environment: Vec<(&str, &str)>) -> Daemon {
        environment.push(("FIELDBRIDGE_LOG", "info"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.site.path("daemon.log"));
        let daemon = self.site.spawn_logging_to(log.expect("a log can be opened"), wrapper, &environment);
        daemon.wait_until_ready();
        daemon.unheard()
    }

    /// Waits until every device is connected and subscribed.
    pub fn connected(&self, limit: Duration) {
        eventually_within(limit, "every device connected", || (self.connections() == self.devices.len()).then_some(()));
    }

    /// Devices that are connected and subscribed now.
    pub fn connections(&self) -> usize {
        let stands = |id: &&String| self.hub.is_connected(id) && self.hub.is_subscribed(id);
        self.devices.iter().filter(stands).count()
    }

    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    /// From now on every slave has this mood.
    pub fn set_mood(&self, mood: Mood) {
        self.slaves.iter().for_each(|slave| slave.set_mood(mood));
    }

    /// Sends a device its next command, unless its queue is full: every third must not be repeated.
    pub fn send(&mut self, device: usize) -> bool {
        self.send_with_note(device, "")
    }

    /// The same in a body that carries a note along, which means nothing to the gateway.
    pub fn send_with_note(&mut self, device: usize, note: &str) -> bool {
        let number = self.books.len() as u32;
        let values = &mut self.values[device % self.slaves.len()];
        // Values go round; a slave is never behind by a whole round.
        let value = number as usize % values.len();
        let command = if number.is_multiple_of(3) { "pulse" } else { "set" };
        let body = match note {
            "" => json!({ "command": command, "value": value }),
            note => json!({ "command": command, "value": value, "note": note }),
        };
        let body = body.to_string();
        match self.hub.send(&self.devices[device], C2d::new(number.to_string(), body).ack(Ack::Full)) {
            Ok(_) => {
                values[value] = number;
                self.books.push(Book::default());
                true
            }
            Err(SendError::QueueFull) => false,
            Err(other) => panic!("the hub does not take a message: {other}"),
        }
    }

    pub fn sent(&self) -> usize {
        self.books.len()
    }

    /// Enters what has happened since, and says how many commands are done with in every respect. Whatever happens
    /// twice, or to a command that was never sent, ends the test.
    pub fn tally(&mut self) -> usize {
        for (slave, values) in self.slaves.iter().zip(&self.values) {
            for (_, value) in slave.take_writes() {
                let book = &mut self.books[values[usize::from(value)] as usize];
                book.performed += 1;
                assert_eq!(book.performed, 1, "{value} was performed twice");
            }
        }
        for record in self.hub.take_feedback() {
            let number = number(record.original_message_id.as_deref());
            assert_eq!(record.status, Status::Success, "{number}");
            self.books[number].completed += 1;
            assert_eq!(self.books[number].completed, 1, "{number} was completed twice");
            self.done += usize::from(self.books[number].told == 1);
        }
        for event in self.hub.take_telemetry() {
            let number = number(event.property("$.cid"));
            let mut digest = DefaultHasher::new();
            event.property("$.mid").expect("an event has an id").hash(&mut digest);
            let book = &mut self.books[number];
            if book.told == 1 {
                assert_eq!(book.event, digest.finish(), "{number} has two results");
                self.repeated_events += 1;
                continue;
            }
            assert_eq!(event.json()["status"], "succeeded", "{:?}", event.json());
            (book.told, book.event) = (1, digest.finish());
            self.done += usize::from(book.completed == 1);
        }
        self.done
    }

    /// Waits until every command that was sent is done with.
    pub fn work_is_done(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.tally() < self.sent() {
            if Instant::now() > deadline {
                let odd = |number: &usize| (self.books[*number].completed, self.books[*number].told) != (1, 1);
                let left: Vec<_> =
                    (0..self.sent()).filter(odd).map(|number| (number, self.books[number])).take(5).collect();
                let (status, wire) = (self.status(), self.hub.wire());
                let last = &wire[wire.len().saturating_sub(20)..];
                panic!("not done within {limit:?}, among others: {left:?}\n{status}\n{last:#?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Every command that was sent has been performed, completed and told of, once.
    pub fn check(&mut self) {
        assert_eq!(self.tally(), self.books.len());
        let odd = self.books.iter().position(|book| (book.performed, book.completed, book.told) != (1, 1, 1));
        assert_eq!(odd.map(|number| (number, self.books[number])), None);
        let waiting: usize = self.devices.iter().map(|id| self.hub.queue_len(id)).sum();
        assert_eq!(waiting, 0, "the hub keeps nothing");
    }

    /// What `status --json` says of the whole.
    pub fn status(&self) -> Json {
        self.site.status()
    }
}

fn number(id: Option<&str>) -> usize {
    id.expect("it is about a message").parse().expect("an id is a number")
}
