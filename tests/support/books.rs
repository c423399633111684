//! The books of a run in which things go wrong: what was sent, and what became of it, counted where it counts, at the
//! hub and on the peripherals.

use std::collections::{BTreeMap, BTreeSet};

use fieldbridge::demo::hub::{Ack, C2d, Effect, SendError, Status, Wire};
use serde_json::{json, Value as Json};

use super::hub::Hub;
use super::transports::By;

/// What a command is to its peripheral.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    Set,
    SetVerified,
    Pulse,
    PulseVerified,
}

/// The commands of a [`super::PUMP`].
pub const PUMP_ROUTES: [Route; 4] = [Route::Set, Route::SetVerified, Route::Pulse, Route::PulseVerified];

impl Route {
    pub fn command(self) -> &'static str {
        match self {
            Route::Set => "set",
            Route::SetVerified => "set-verified",
            Route::Pulse => "pulse",
            Route::PulseVerified => "pulse-verified",
        }
    }

    pub fn is_idempotent(self) -> bool {
        matches!(self, Route::Set | Route::SetVerified)
    }
}

/// A device of a run.
#[derive(Clone)]
pub struct Device {
    pub id: String,
    /// The tables of its configuration.
    pub text: String,
    pub routes: &'static [Route],
}

/// One command. Its value is its own, so that it is known wherever it turns up.
#[derive(Debug, Clone)]
pub struct Command {
    pub device: usize,
    pub id: String,
    pub route: Route,
    pub value: u16,
}

/// What became of a command.
#[derive(Debug)]
pub struct Fate<'a> {
    pub command: &'a Command,
    pub status: String,
    pub code: String,
    /// How often a peripheral has done it.
    pub done: usize,
}

/// What is to be sent to whom, and how far that has got.
pub struct Books {
    pub devices: Vec<Device>,
    pub commands: Vec<Command>,
    pub sent: usize,
    /// Whether a command may end unsent, because its time ran out.
    pub may_expire: bool,
    /// How the daemon reaches the hub.
    pub by: By,
}

impl Books {
    /// So many commands for each device, in turn. Their values begin with this one.
    pub fn new(devices: Vec<Device>, commands_each: usize, first_value: u16) -> Books {
        let count = devices.len();
        let mut books = Books { devices, commands: Vec::new(), sent: 0, may_expire: false, by: By::Mqtt };
        for n in 0..commands_each {
            for device in 0..count {
                let routes = books.devices[device].routes;
                books.add(device, routes[n % routes.len()], first_value);
            }
        }
        books
    }

    /// One more command, to be sent. Values begin with this one.
    pub fn add(&mut self, device: usize, route: Route, first_value: u16) {
        let value = first_value + self.commands.len() as u16;
        // Ids with spaces, as the vendor's sample sends.
        let id = format!("{} no. {value}", self.devices[device].id);
        self.commands.push(Command { device, id, route, value });
    }

    /// Sends the next commands, as far as the hub's queues have room.
    pub fn send(&mut self, hub: &Hub, count: usize) {
        for _ in 0..count.min(self.commands.len() - self.sent) {
            let Command { device, id, route, value } = &self.commands[self.sent];
            let body = json!({ "command": route.command(), "value": value }).to_string();
            match hub.send(&self.devices[*device].id, C2d::new(id, body).ack(Ack::Full)) {
                Ok(_) => self.sent += 1,
                Err(SendError::QueueFull) => return,
                Err(other) => panic!("the hub does not take a message: {other}"),
            }
        }
    }

    /// Whether the hub keeps messages for each device.
    pub fn all_subscribed(&self, hub: &Hub) -> bool {
        self.devices.iter().all(|device| hub.is_subscribed(&device.id))
    }

    /// Whether everything was sent, every message is completed and every result is at the hub.
    pub fn are_closed(&self, hub: &Hub) -> bool {
        let waits = self.devices.iter().any(|device| hub.queue_len(&device.id) > 0);
        if waits || self.sent < self.commands.len() {
            return false;
        }
        let events = events(hub);
        self.commands.iter().all(|command| events.contains_key(&command.id))
    }

    /// What became of every command, by its event and by what the peripherals have done.
    pub fn fates(&self, hub: &Hub, done: &[u16]) -> Vec<Fate<'_>> {
        let events = events(hub);
        let fate = |command| {
            let Command { id, value, .. }: &Command = command;
            let told = events.get(id).unwrap_or_else(|| panic!("{id}: no event"));
            assert_eq!(told.len(), 1, "{id}: several results: {told:?}");
            let (_, body) = told.first().expect("there is one");
            let event: Json = serde_json::from_str(body).expect("an event is JSON");
            let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
            let done = done.iter().filter(|one| *one == value).count();
            Fate { command, status: text(&event["status"]), code: text(&event["error"]["code"]), done }
        };
        self.commands.iter().map(fate).collect()
    }

    /// What holds whatever peripherals, networks and disks do.
    pub fn check(&self, hub: &Hub, done: &[u16]) -> Vec<Fate<'_>> {
        let fates = self.fates(hub, done);
        self.check_hub(hub, &fates);
        for fate in &fates {
            assert!(fate.status != "expired" || self.may_expire, "it had all the time: {fate:?}");
            check_fate(fate);
        }
        self.check_order(done);
        fates
    }

    /// Every message was settled once, as what became of it says, and never by an acknowledgement of another
    /// connection.
    fn check_hub(&self, hub: &Hub, fates: &[Fate]) {
        let mut feedback = BTreeMap::<_, Vec<Status>>::new();
        for record in hub.feedback() {
            feedback.entry(record.original_message_id.expect("they all have ids")).or_default().push(record.status);
        }
        for fate in fates {
            let told = feedback.get(&fate.command.id).map_or(&[][..], Vec::as_slice);
            assert!(told.len() == 1 && self.may_be_told(fate, told[0]), "feedback {told:?}: {fate:?}");
        }
        for event in hub.wire() {
            assert!(!is_foreign(self.by, &event.what), "a settlement that does not belong there: {event:?}");
        }
    }

    /// Whether the hub may have been told so of a command that ended so.
    fn may_be_told(&self, fate: &Fate, status: Status) -> bool {
        let is_refusal = self.by.rejects() && matches!(fate.status.as_str(), "rejected" | "expired");
        // It is completed before its end is known, unless that settlement is lost.
        let is_early = self.devices[fate.command.device].text.contains("after-accept");
        match status {
            Status::Success => !is_refusal || is_early,
            Status::Rejected => is_refusal,
            _ => false,
        }
    }

    /// A device's messages were settled in the order in which they were sent: where no lock runs out, that of receipt.
    pub fn check_order_of_settling(&self, hub: &Hub) {
        let settled: Vec<String> = hub.feedback().into_iter().filter_map(|record| record.original_message_id).collect();
        for (n, device) in self.devices.iter().enumerate() {
            let own = self.commands.iter().filter(|command| command.device == n);
            let place = |command: &Command| settled.iter().position(|id| *id == command.id);
            assert!(own.map(place).is_sorted(), "{}: settled in the order {settled:?}", device.id);
        }
    }

    /// A device's commands reached the wire in the order in which they were sent (its values grow).
    fn check_order(&self, done: &[u16]) {
        let mut last = vec![0; self.devices.len()];
        let mut seen = BTreeSet::new();
        for value in done.iter().filter(|value| seen.insert(**value)) {
            let Some(command) = self.commands.iter().find(|command| command.value == *value) else { continue };
            let device = command.device;
            assert!(last[device] < *value, "{value} came after {} on {}", last[device], self.devices[device].id);
            last[device] = *value;
        }
    }

    /// Prints how the commands ended, and what crossed the wire to the hub.
    pub fn print(&self, hub: &Hub, fates: &[Fate]) {
        let mut counts = BTreeMap::<_, usize>::new();
        for Fate { command, status, code, done } in fates {
            let settle = if self.devices[command.device].text.contains("after-accept") {
                "after-accept"
            } else {
                "after-execution"
            };
            *counts.entry((command.route, settle, status, code, done)).or_default() += 1;
        }
        println!("{:14} {:16} {:10} {:16} {:>9} {:>8}", "command", "settle", "result", "code", "performed", "commands");
        for ((route, settle, status, code, done), count) in counts {
            println!("{:14} {settle:16} {status:10} {code:16} {done:>8}x {count:>8}", route.command());
        }
        let wire = hub.wire();
        let count = |is: fn(&Wire) -> bool| wire.iter().filter(|event| is(&event.what)).count();
        println!(
            "{:?}: {} messages, {} logins, {} deliveries, {} settlements ({} too late), {} events",
            self.by,
            self.commands.len(),
            count(|what| matches!(what, Wire::Connected { .. } | Wire::Token { status: 200, .. })),
            count(|what| matches!(what, Wire::Publish { .. } | Wire::Delivered { .. })),
            count(|what| matches!(what, Wire::Puback { .. } | Wire::Settled { .. })),
            // Over AMQP and HTTPS a message that was delivered again is under another lock.
            count(|what| match what {
                Wire::Puback { effect, .. } => *effect == Effect::Late,
                Wire::Settled { effect, .. } => *effect == Effect::Late,
                _ => false,
            }),
            count(|what| matches!(what, Wire::Telemetry { .. })),
        );
    }
}

/// Whether something is settled that was not delivered there: G6. Over HTTPS a device that is only to be let in shows
/// a lock that nobody was given.
pub fn is_foreign(by: By, what: &Wire) -> bool {
    match what {
        Wire::Puback { effect, .. } | Wire::Settled { effect, .. } => match effect {
            Effect::Unknown => by != By::Https,
            effect => matches!(effect, Effect::Foreign | Effect::OutOfOrder),
        },
        _ => false,
    }
}

/// The result events at the hub by message id: each one's event ids and bodies, however often it was published.
fn events(hub: &Hub) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut events = BTreeMap::<_, BTreeSet<_>>::new();
    for event in hub.telemetry() {
        let property = |name: &str| event.property(name).expect("a result event has it").to_owned();
        let body = String::from_utf8(event.body.clone()).expect("an event is UTF-8");
        events.entry(property("$.cid")).or_default().insert((property("$.mid"), body));
    }
    events
}

/// What is told of a command is so.
fn check_fate(fate: &Fate) {
    let Fate { command, status, code, done } = fate;
    if !command.route.is_idempotent() {
        assert!(*done <= 1, "done {done} times: {fate:?}");
    }
    match (status.as_str(), code.as_str()) {
        ("succeeded", "") => assert!(*done >= 1, "false success: {fate:?}"),
        // What an earlier life of the daemon has done with a command that may be repeated is not known to the next.
        ("failed", "bus-unavailable") | ("expired", "expired") if command.route.is_idempotent() => {}
        ("failed", "bus-unavailable" | "verify-mismatch") | ("expired", "expired") => {
            assert_eq!(*done, 0, "false failure: {fate:?}")
        }
        ("failed", "timeout" | "bad-reply") => {
            assert!(command.route.is_idempotent(), "doubt called failure: {fate:?}")
        }
        ("failed", "exception" | "refused") if command.route.is_idempotent() => {}
        ("failed", "exception" | "refused") => assert_eq!(*done, 0, "false refusal: {fate:?}"),
        ("in_doubt", "timeout" | "bad-reply" | "exception" | "interrupted") => {
            assert!(!command.route.is_idempotent(), "doubt without need: {fate:?}");
        }
        // The hub had a session already when the power went, and that it had none before was not on the disk yet.
        ("in_doubt", "unknown-history") => {
            assert!(!command.route.is_idempotent() && *done == 0, "doubt without need: {fate:?}");
        }
        _ => panic!("an end that nothing here leads to: {fate:?}"),
    }
}

/// Modbus devices of both ways to settle, in turn, on buses `bus-0`, `bus-1`, …
pub fn modbus_devices(count: usize, buses: usize) -> Vec<Device> {
    (0..count)
        .map(|n| {
            let (id, bus) = (format!("pump-{n}"), n % buses);
            let settle = if (n / buses).is_multiple_of(2) { "after-execution" } else { "after-accept" };
            let text = format!(
                "\n[device.{id}]\nbus = \"bus-{bus}\"\nunit = {}\nprofile = \"pump\"\nkey_file = \"device.key\"\nsettle = \"{settle}\"\n",
                n + 1
            );
            Device { id, text, routes: &PUMP_ROUTES }
        })
        .collect()
}

/// Buses `bus-0`, `bus-1`, … for the peripherals at these addresses, with more keys for each.
pub fn modbus_buses<'a>(addresses: impl IntoIterator<Item = &'a str>, keys: &str) -> String {
    let bus = |(n, address)| format!("\n[bus.bus-{n}]\nkind = \"modbus-tcp\"\naddress = \"{address}\"\n{keys}\n");
    addresses.into_iter().enumerate().map(bus).collect()
}

/// The profile of a pump whose commands don't expire while no daemon runs.
pub fn patient_pump() -> String {
    super::PUMP.replace("idempotent", "deadline = \"10m\"\nidempotent")
}

/// Does a test once for every seed that is asked for: `FIELDBRIDGE_SEED` is the first, `FIELDBRIDGE_ROUNDS` their
/// number.
pub fn with_seeds(name: &str, test: impl Fn(u64)) {
    let first = number("FIELDBRIDGE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    for seed in first..first + number("FIELDBRIDGE_ROUNDS").unwrap_or(1) {
        println!("{name}: FIELDBRIDGE_SEED={seed}");
        test(seed);
    }
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a whole number"))
}
