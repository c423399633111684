//! What the back end calls for, and whether what it was answered is true: G1 to G5 and G7 of direct methods. None of
//! the gateway's code takes part.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::Instant;

use super::hub::{Answer, Event, Hub};
use super::ledger::Row;
use super::manners::{Manner, Manners};
use super::record::Record;
use super::scenario::{Asks, Configuration, Device, Faults, Message, Over, Scenario, HUBS, LINES};
use super::world::World;

/// The first of the values that calls ask for: no message's is so large, and a register holds ten times as much.
const VALUES_FROM: u16 = 6_000;
/// Most calls of a schedule.
const CALLS_MAX: u64 = 8;

/// What is called for, by dice of its own: in some schedules, of devices that are reached by MQTT or AMQP, where the
/// ledger stays what it is.
pub fn wanted(
    world: &World,
    manners: &Manners,
    (faults, configurations): (&Faults, &[Configuration]),
    chaos: Duration,
) -> Vec<(Duration, Message)> {
    let mut dice = world.dice("calls");
    let forgets = [Manner::LostLedger, Manner::RestoredLedger, Manner::OtherHub, Manner::Moves];
    let is_quiet = faults.dead_line.is_some() || forgets.into_iter().any(|manner| manners.have(manner));
    let all = || configurations.iter().flat_map(|one| &one.devices);
    let has_calls = |id: &str| all().filter(|one| one.id == id).all(|one| one.over != Over::Https);
    let is_called = |device: &&Device| has_calls(&device.id);
    let called: Vec<&Device> = configurations[0].devices.iter().filter(is_called).collect();
    if is_quiet || called.is_empty() || dice.u8(..10) < 6 {
        return Vec::new();
    }
    let call = |number: u64| {
        let device = called[dice.usize(..called.len())];
        let choices: &[Asks] = match device.bus {
            "text" => &[Asks::Set, Asks::Pulse, Asks::Pulse],
            _ => &[Asks::Set, Asks::Pulse, Asks::Pulse, Asks::SetVerified, Asks::PulseVerified],
        };
        let asks = choices[dice.usize(..choices.len())];
        let value = VALUES_FROM + number as u16;
        let line = LINES.iter().find(|(bus, _)| *bus == device.bus).map_or("", |(_, line)| line);
        let message = Message {
            hub: HUBS[0],
            device: device.id.clone(),
            id: Some(format!("call {value} of {}", device.id)),
            asks,
            value,
            body: Vec::new(),
            over: device.over,
            line,
            unit: device.unit as u8,
            after_accept: false,
            expiry: None,
        };
        (Duration::from_millis(dice.u64(0..chaos.as_millis() as u64 * 3 / 4)), message)
    };
    let count = world.dice("number of calls").u64(1..CALLS_MAX);
    (0..count).map(call).collect()
}

/// Judges every call of a schedule that has come to rest.
pub fn judge(world: &World, scenario: &Scenario, hub: &Hub, rows: &[Row], record: &Record) {
    judge_order(world, scenario, hub, record);
    for (_, message) in &scenario.calls {
        let answers = hub.look_at_calls(|calls| calls.answers(message.value).to_vec());
        let events = hub.look(|_, events| {
            let own = events.get(&message.device).into_iter().flatten();
            own.filter(|event| event.correlation == message.id).cloned().collect::<Vec<_>>()
        });
        let effects = record.effects.iter().filter(|effect| effect.value == message.value).count();
        let own: Vec<&Row> = rows.iter().filter(|row| row.message_id == message.id).collect();
        // What the instrument says by itself could not be known for that yet.
        let is_excused = own.iter().any(|row| record.excuses(message, row));
        for why in wrong(message, (&answers, &events), &own, (effects, is_excused)) {
            world.violate(format!(
                "{why}: {message:?}, done {effects} times, {own:?}, answered {answers:?}, told {events:?}"
            ));
        }
        if let [row] = own[..] {
            world.count(match row.state.as_str() {
                "succeeded" => "calls: succeeded",
                "in_doubt" => "calls: in doubt",
                "expired" => "calls: expired",
                "failed" => "calls: failed",
                _ => "calls: otherwise",
            });
        }
    }
}

/// G5: what came once, and was done once in the same life, was done in the order in which it came, calls and messages
/// alike.
fn judge_order(world: &World, scenario: &Scenario, hub: &Hub, record: &Record) {
    let came_once = |device: &str| {
        let mut came: Vec<(u16, (u64, Instant))> = hub.look(|sent, _| {
            let own = || sent.iter().filter(|one| one.message.device == device);
            let is_alone = |value| own().filter(|one| one.message.value == value).count() == 1;
            let once = own().filter(|one| one.redelivered.is_empty() && one.received.len() == 1);
            let alone = once.filter(|one| is_alone(one.message.value));
            alone.map(|one| (one.message.value, one.received[0])).collect()
        });
        let called = scenario.calls.iter().filter(|(_, message)| message.device == device);
        for (_, message) in called {
            let received = hub.look_at_calls(|calls| calls.received(message.value).to_vec());
            if let [one] = received[..] {
                came.push((message.value, one));
            }
        }
        came
    };
    let mut devices: Vec<&str> = scenario.calls.iter().map(|(_, message)| message.device.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    for device in devices {
        let mut done: Vec<(Instant, Instant, u16)> = Vec::new();
        for (value, (life, came)) in came_once(device) {
            let effects: Vec<_> = record.effects.iter().filter(|effect| effect.value == value).collect();
            if let [effect] = effects[..] {
                if effect.life == life && effect.address.is_none() {
                    done.push((came, effect.at, value));
                }
            }
        }
        done.sort_unstable();
        if done.len() > 1 {
            world.count("judged: the order of calls and messages");
        }
        if !done.is_sorted_by_key(|(_, at, _)| *at) {
            world.violate(format!("G5: {device}: calls and messages done out of order: {done:?}"));
        }
    }
}

/// What is wrong with one.
fn wrong(
    message: &Message,
    (answers, events): (&[Answer], &[Event]),
    rows: &[&Row],
    (effects, is_excused): (usize, bool),
) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    let mut check = |holds: bool, what| {
        if !holds {
            wrong.push(what);
        }
    };
    check(!message.asks.once() || effects <= 1, "G3: a call was done more than once");
    let ends: Vec<&Answer> = answers.iter().filter(|answer| answer.is_end()).collect();
    check(ends.windows(2).all(|pair| pair[0] == pair[1]), "G2: a call was answered with two ends");
    let [row] = rows else {
        wrong.push("a call that is over has one row");
        return wrong;
    };
    check(row.is_final(), "a call's row never ended");
    let expected = status(row);
    check(ends.iter().all(|end| end.status == expected), "a call was answered with what its row does not say");
    let bodies: Vec<Json> = events.iter().map(|event| serde_json::from_str(&event.body).unwrap_or_default()).collect();
    check(!events.is_empty(), "G7: a call has no event");
    let is_told =
        |end: &&Answer| serde_json::from_str::<Json>(&end.body).is_ok_and(|end| bodies.iter().all(|body| *body == end));
    check(ends.iter().all(is_told), "G7: a call's answer is not its event");
    let undone = matches!(row.state.as_str(), "failed" | "expired" | "rejected");
    check(row.state != "succeeded" || effects > 0 || is_excused, "false success of a call");
    check(!(undone && message.asks.once()) || effects == 0 || is_excused, "a call is reported as not done, and done");
    check(row.state != "in_doubt" || message.asks.once(), "G4: an idempotent call in doubt");
    wrong
}

/// The status of a row (CONTRACT.md, "Both directions").
fn status(row: &Row) -> u16 {
    match (row.state.as_str(), row.error.as_deref().unwrap_or_default()) {
        ("succeeded", _) => 200,
        ("rejected", "unknown-command") => 404,
        ("rejected", "locked-out") => 403,
        ("rejected", "message-id-reused") => 409,
        ("rejected", "too-large") => 413,
        ("rejected", _) => 400,
        ("expired", _) => 408,
        ("failed", "bus-unavailable" | "unreachable") => 503,
        _ => 500,
    }
}
