//! `[device.ID]`

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::bus::{Entry, Kind, RESPONSE_TIMEOUT, RETRIES, TURNAROUND};
use super::credential::{credential, secondary};
use super::keys::{self, nearest};
use super::profile::{too_soon, Profile};
use super::provisioning::registration;
use super::text::{expression, lacks_end, looks_for_end};
use super::tree::{join, Span, Table};
use super::unit::{check_units, is_broadcast, note_in_flight, on_unreachable, quirks, unit};
use super::way::transport;
use super::{is_loopback, Bus, BusKind, Credential, Cut, Device, Hub, Patience, Settle, TransportKind, NAME_CHARS_MAX};
use crate::command::Form;
use crate::complaint::Complaint;
use crate::peripheral::frame::{Ends, Frame};
use crate::peripheral::quirks::Quirk;
use crate::peripheral::{Action, Command, Events, Poll};

/// Every device by id; those that something is wrong with are left out.
pub(super) fn devices(
    root: &Table,
    (hub, is_assigned): (Option<&Hub>, bool),
    buses: &BTreeMap<String, Entry>,
    profiles: &BTreeMap<String, Profile>,
) -> BTreeMap<String, Device> {
    let tables = root.tables("device", keys::DEVICE);
    let around = Around { hub, is_assigned, buses, profiles };
    let mut seen = Seen::default();
    let devices =
        tables.iter().filter_map(|(id, table)| Some(((*id).to_owned(), device(table, id, &around, &mut seen)?)));
    let devices = devices.collect();
    for (path, why) in std::mem::take(&mut seen.late) {
        root.walk.warn(&path, "deadline", why);
    }
    for (id, table) in &tables {
        if let Some(why) = seen.is_not_alone(id) {
            table.wrong("quirks", why);
        }
    }
    if tables.is_empty() {
        root.note("device", ("no devices are configured, so nothing is received", "add a [device.ID] table"));
    }
    devices
}

/// What devices refer to.
struct Around<'a> {
    hub: Option<&'a Hub>,
    /// Devices are assigned to their hubs.
    is_assigned: bool,
    buses: &'a BTreeMap<String, Entry>,
    profiles: &'a BTreeMap<String, Profile>,
}

/// What shows only of several devices together.
#[derive(Default)]
struct Seen<'a> {
    /// Who has a unit of a bus.
    units: HashMap<(&'a str, u8), &'a str>,
    /// What answers under any unit: bus and unit, by its id.
    any_unit: BTreeMap<&'a str, (&'a str, u8)>,
    /// Commands whose deadline is too short for a bus, and what is said of them: once, however many devices have them.
    late: BTreeMap<String, Complaint>,
}

impl Seen<'_> {
    /// What is wrong with a device that answers under any unit, where others could be taken for it.
    fn is_not_alone(&self, id: &str) -> Option<Complaint> {
        let (bus, unit) = self.any_unit.get(id)?;
        let others = self.units.iter().filter(|((on, other), _)| on == bus && other != unit);
        let ((_, other), of) = others.min()?;
        Some(Complaint::new(
            format!(
                "\"unit-id\" takes an answer of any unit, and bus {bus:?} has unit {other} of device {of:?} beside unit {unit}"
            ),
            "put the device on a bus of its own, or remove \"unit-id\"",
        ))
    }
}

/// Looks at all of one device, whatever is wrong with it.
fn device<'a>(table: &Table, id: &'a str, around: &Around<'a>, seen: &mut Seen<'a>) -> Option<Device> {
    let Around { hub, is_assigned, buses, profiles } = *around;
    let transport = transport(table).or(hub.map(|hub| hub.transport)).unwrap_or(TransportKind::Mqtt);
    if let Err(why) = check_id(id, transport) {
        table.wrong_here(why);
    }
    let bus = reference(table, "bus", buses);
    let unit = unit(table, bus.and_then(|(_, bus)| bus.kind));
    if let (Some((name, _)), Some(unit), true) = (bus, unit, table.has("unit")) {
        if let Some(other) = seen.units.insert((name, unit), id) {
            let what = format!("{unit} is the unit of device {other:?} on bus {name:?} too");
            table.note("unit", (what, "is it one controller?"));
        }
    }
    let patience = Patience {
        response_timeout: table.duration("response_timeout", &RESPONSE_TIMEOUT),
        retries: table.small("retries", RETRIES),
        turnaround: table.duration("turnaround", &TURNAROUND),
    };
    let quirks = quirks(table, bus.and_then(|(_, bus)| bus.kind));
    if let (Some((name, _)), Some(unit), true) = (bus, unit, quirks.has(Quirk::UnitId)) {
        seen.any_unit.insert(id, (name, unit));
    }
    if let Some((name, settings)) = bus.and_then(|(name, bus)| Some((name, bus.bus.as_ref()?))) {
        note_in_flight(table, name, settings, quirks);
    }
    let profile = reference(table, "profile", profiles);
    if let (Some((name, bus)), Some((_, profile))) = (bus, profile) {
        check_together(table, (name, bus), (unit, transport), profile);
        if let Some(settings) = &bus.bus {
            seen.late.extend(late_on(profile, (id, &patience), (name, settings)));
        }
    }
    let events = events(table, bus.map(|(_, bus)| bus));
    let on_unreachable = on_unreachable(table, bus.and_then(|(_, bus)| bus.bus.as_ref()));
    let settle =
        table.choice("settle", &[("after-execution", Settle::AfterExecution), ("after-accept", Settle::AfterAccept)]);
    let method_timeout = method_timeout(table, transport);
    let default_command = profile.and_then(|profile| default_command(table, profile));
    let credential = credential(table, id, hub);
    let secondary = secondary(table, credential.as_ref());
    let registration = registration(table, id, is_assigned);
    hub.into_iter().for_each(|hub| check_way(table, hub, transport, credential.as_ref()));
    let broadcast = is_broadcast(unit, bus.and_then(|(_, bus)| bus.kind));
    let ((bus, entry), (_, profile)) = (bus?, profile?);
    let (commands, polls) = fitted(profile, entry.bus.as_ref().map(|settings| &settings.kind));
    Some(Device {
        id: id.to_owned(),
        bus: bus.to_owned(),
        unit: unit?,
        patience,
        broadcast,
        quirks,
        on_unreachable,
        transport,
        registration,
        credential: credential?,
        secondary,
        events,
        settle: settle.unwrap_or(Settle::AfterExecution),
        method_timeout,
        form: Arc::new(Form { default_command, ..profile.form.clone() }),
        commands,
        polls,
    })
}

/// How long who calls waits. Where no call can come that is remarked upon.
fn method_timeout(table: &Table, transport: TransportKind) -> Duration {
    if table.has("method_timeout") && transport == TransportKind::Https {
        let what = "has no effect: no direct method comes over HTTPS";
        table.note("method_timeout", (what, "remove it, or take another transport"));
    }
    table.duration("method_timeout", &METHOD_TIMEOUTS).unwrap_or(METHOD_TIMEOUT)
}

/// Whether a profile's commands go over a bus as it is.
fn check_together(
    table: &Table,
    (name, bus): (&str, &Entry),
    (unit, transport): (Option<u8>, TransportKind),
    profile: &Profile,
) {
    check_fit(table, name, bus.kind, profile);
    note_no_twin(table, transport, profile);
    check_units(table, is_broadcast(unit, bus.kind), profile);
    match bus.bus.as_ref().map(|settings| &settings.kind) {
        Some(BusKind::Serial { cut: Cut::Delimiter(delimiter), .. }) => {
            note_missing_end(table, name, delimiter, profile);
            warn_of_ends(table, name, delimiter, profile);
        }
        Some(BusKind::Serial { cut: Cut::Frame(frame), .. }) => check_framed(table, name, frame, profile),
        _ => {}
    }
}

/// Remarks on set points that no transport brings.
fn note_no_twin(table: &Table, transport: TransportKind, profile: &Profile) {
    let desired = profile.commands.values().find(|command| command.desired.is_some());
    if let Some(command) = desired.filter(|_| !transport.has_twin()) {
        let why = format!(
            "its command {:?} has a desired property, and by {transport} nothing of the device's twin comes or goes",
            command.name
        );
        table.note("profile", (why, "reach the device by mqtt or mqtt-ws, or ask for the command by a message"));
    }
}

/// How long who calls a direct method waits for its end: a while less than a caller does that says nothing of it, 30 s,
/// as the answer has to come through. Nobody waits for longer than 300 s ("Understand and invoke direct methods from
/// IoT Hub", Microsoft).
const METHOD_TIMEOUT: Duration = Duration::from_secs(25);
const METHOD_TIMEOUTS: Span = Span {
    min: Duration::from_secs(1),
    max: Duration::from_secs(300),
    because: ": the hub lets nobody who calls a direct method wait for longer than 300s",
};

/// What a device id may hold beside letters and digits ("Understand the identity registry", Microsoft).
const ID_CHARS: &str = "-.+%_#*?!(),:=@;$'";
/// Those of them that MQTT's topics or the hub's own use for something else.
const NOT_IN_TOPICS: &str = "+#%?$";

fn check_id(id: &str, transport: TransportKind) -> Result<(), Complaint> {
    if id.is_empty() || id.chars().count() > NAME_CHARS_MAX {
        return Err(Complaint::new(
            format!("a device id has 1 to {NAME_CHARS_MAX} characters"),
            "use the id that the device has at the hub",
        ));
    }
    if let Some(c) = id.chars().find(|c| !c.is_ascii_alphanumeric() && !ID_CHARS.contains(*c)) {
        return Err(Complaint::new(
            format!("the device id holds {c:?}"),
            format!(
                "only letters, digits and {} are possible at the hub",
                ID_CHARS.chars().map(String::from).collect::<Vec<_>>().join(" ")
            ),
        ));
    }
    let in_topics = matches!(transport, TransportKind::Mqtt | TransportKind::MqttWs);
    match id.chars().find(|c| in_topics && NOT_IN_TOPICS.contains(*c)) {
        Some(c) => Err(Complaint::new(
            format!("the device id holds {c:?}, which has another meaning in MQTT's topics"),
            "give the device another transport, such as transport = \"amqp\", or register it under another id",
        )),
        None => Ok(()),
    }
}

/// What is to be said of how a device is reached.
fn check_way(table: &Table, hub: &Hub, transport: TransportKind, credential: Option<&Credential>) {
    if !hub.tls && table.has("transport") && !is_loopback(hub.address(transport)) {
        let why = ("without TLS (hub.tls) it needs a loopback address", "set one for it in hub.addresses");
        table.wrong("transport", why);
    }
    let has_certificate = matches!(credential, Some(Credential::Certificate { .. }));
    if has_certificate && (transport.is_websocket() || transport == TransportKind::Https) {
        let why = (
            "the hub may take certificates over port 443 only by their thumbprint, and not those that an authority \
                 has signed",
            "if it refuses this one, use the transport mqtt or amqp",
        );
        table.warn("cert_file", why);
    }
}

/// What a key refers to by name; the key is called as the tables that it refers to.
fn reference<'a, T>(table: &Table, key: &str, targets: &'a BTreeMap<String, T>) -> Option<(&'a str, &'a T)> {
    if !table.has(key) {
        let names: Vec<String> = targets.keys().take(5).map(|n| format!("{n:?}")).collect();
        let why = if names.is_empty() {
            Complaint::new("is missing", format!("name a [{key}.NAME] here, and write that table too"))
        } else {
            Complaint::new("is missing", format!("name a [{key}.NAME] here, such as {}", names.join(" or ")))
        };
        table.absent(key, why);
        return None;
    }
    let name = table.text(key)?;
    if let Some((name, target)) = targets.get_key_value(name) {
        return Some((name, target));
    }
    let shipped = if key == "profile" { table.walk.shipped.names() } else { Vec::new() };
    let known = targets.keys().chain(&shipped).map(String::as_str);
    let hint = match (nearest(name, known), shipped.is_empty()) {
        (Some(near), _) => format!("did you mean {near:?}?"),
        (None, true) => format!("write a table [{}]", join(key, name)),
        (None, false) => {
            format!("write a table [{}], or take one that `fieldbridge profile list` shows", join(key, name))
        }
    };
    table.absent(key, (format!("no {key} is called {name:?}"), hint));
    None
}

/// The command of messages that name none. The profile is given with its name.
fn default_command(table: &Table, (of, profile): (&str, &Profile)) -> Option<String> {
    let name = table.text("default_command")?;
    let names = || profile.names.iter().map(String::as_str);
    if names().any(|known| known == name) {
        return Some(name.to_owned());
    }
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("write a table [{}]", join(&join(&profile.path, "command"), name)),
    };
    table.wrong("default_command", (format!("profile {of:?} has no command {name:?}"), hint));
    None
}

/// What the device's instrument says by itself and is wanted at the hub.
fn events(table: &Table, bus: Option<&Entry>) -> Option<Events> {
    let events = expression(table, "events", Events::new)?;
    let kind = bus.and_then(|bus| bus.kind);
    if kind.is_some_and(|kind| kind != Kind::Serial) {
        let why = ("are lines that an instrument says by itself, and who speaks Modbus says none", "remove it");
        table.wrong("events", why);
        return None;
    }
    if events.has("") {
        let why = (
            "matches every line, also a reply: no command without an `expect` would be confirmed any more",
            "write what only such lines hold, such as \"^ALARM\"",
        );
        table.warn("events", why);
    }
    if let Some(after) = bus.and_then(|bus| bus.bus.as_ref()?.idle_close) {
        let told = humantime::format_duration(after);
        let what = format!(
            "what comes is not heard while the bus is closed, which it is {told} after each command (idle_close)"
        );
        table.warn("events", (what, "remove idle_close from the bus"));
    }
    Some(events)
}

/// Commands whose deadline passes while one answer of a device on a bus is waited for: the paths of their tables, and
/// what is said.
fn late_on(
    profile: &Profile,
    (id, patience): (&str, &Patience),
    (bus, settings): (&str, &Bus),
) -> Vec<(String, Complaint)> {
    let (timeout, waits) = match patience.response_timeout {
        Some(own) => (own, format!("response_timeout of device {id:?}")),
        None => (settings.response_timeout, format!("response_timeout of bus {bus:?}")),
    };
    let commands = profile.commands.values().filter(|command| command.timeout.is_none());
    let late = commands.filter(|command| command.deadline < timeout);
    late.map(|command| {
        let path = join(&join(&profile.path, "command"), &command.name);
        (path, too_soon(command.deadline, &waits, timeout))
    })
    .collect()
}

/// Reports a profile whose commands the bus can't carry.
fn check_fit(table: &Table, bus_name: &str, kind: Option<Kind>, profile: &Profile) {
    let Some(kind) = kind else { return };
    let (misfits, does, speaks) = match kind {
        Kind::Serial => (&profile.registers, "reads or writes registers", "a serial line, which can only send"),
        Kind::ModbusRtu | Kind::ModbusAscii | Kind::ModbusTcp => {
            (&profile.sends, "sends text", "a Modbus bus, which can only read and write")
        }
    };
    if let Some(command) = misfits.first() {
        let others = match misfits.len() {
            1 => String::new(),
            2 => ", and so does another one".to_owned(),
            more => format!(", and so do {} others", more - 1),
        };
        let why = (
            format!("its command {command:?} {does}{others}, and bus {bus_name:?} is {speaks}"),
            "choose another profile or bus",
        );
        table.wrong("profile", why);
    }
    let is_text = |poll: &Poll| matches!(poll.command.action, Action::Send(_));
    let misfit = profile.polls.iter().find(|(_, poll)| is_text(poll) != (kind == Kind::Serial));
    if let Some((name, _)) = misfit {
        let does = if kind == Kind::Serial { "reads registers" } else { "sends text" };
        let why = format!("its poll {name:?} {does}, and bus {bus_name:?} is {speaks}");
        table.wrong("profile", (why, "choose another profile or bus"));
    }
}

/// What a profile has of something, by its name.
type ByName<T> = Arc<BTreeMap<String, T>>;

/// The commands and polls of a profile as a bus carries them: in frames, or in lines with an end that could be typed.
fn fitted(profile: &Profile, kind: Option<&BusKind>) -> (ByName<Command>, ByName<Poll>) {
    let (frame, delimiter) = match kind {
        Some(BusKind::Serial { cut: Cut::Frame(frame), .. }) => (Some(Arc::new(frame.clone())), None),
        // No control character is ever a part of a value.
        Some(BusKind::Serial { cut: Cut::Delimiter(end), .. }) if !end.iter().any(u8::is_ascii_control) => {
            (None, Some(Arc::from(String::from_utf8_lossy(end).as_ref())))
        }
        _ => return (Arc::clone(&profile.commands), Arc::clone(&profile.polls)),
    };
    let fit = |command: &Command| Command { frame: frame.clone(), delimiter: delimiter.clone(), ..command.clone() };
    let commands = profile.commands.iter().map(|(name, command)| (name.clone(), fit(command))).collect();
    let poll = |poll: &Poll| Poll { command: fit(&poll.command), ..poll.clone() };
    let polls = profile.polls.iter().map(|(name, of)| (name.clone(), poll(of))).collect();
    (Arc::new(commands), Arc::new(polls))
}

/// Reports what can't stand in a frame, or would stand there twice.
fn check_framed(table: &Table, bus_name: &str, frame: &Frame, profile: &Profile) {
    for command in profile.commands.values() {
        let Action::Send(template) = &command.action else { continue };
        let Some(payload) = template.send.fixed() else { continue };
        let (name, remedy) = (&command.name, "send the payload alone: start, checksum and end are put around it");
        let sealed = match frame.seal(payload) {
            Ok(sealed) => sealed,
            Err(why) => {
                table.wrong("profile", (format!("what its command {name:?} sends {why}"), remedy));
                continue;
            }
        };
        let said = if let Ends::Length(length) = frame.ends { length.of(&sealed) } else { None };
        if let Some(said) = said.filter(|said| usize::try_from(*said) != Ok(sealed.len())) {
            let what = format!(
                "what its command {name:?} sends is a frame of {} bytes on bus {bus_name:?}, and by its length {said}",
                sealed.len()
            );
            table.note("profile", (what, "the length is a part of what is sent: correct it there, or length.adds"));
        } else if !frame.start.is_empty() && payload.starts_with(&frame.start) {
            let why = format!("what its command {name:?} sends begins as every frame on bus {bus_name:?} does");
            table.note("profile", (why, remedy));
        }
    }
}

/// Remarks on a line without an end, where replies have one.
fn note_missing_end(table: &Table, bus_name: &str, delimiter: &[u8], profile: &Profile) {
    let mut commands = profile.commands.values();
    let endless = commands.find(|command| match &command.action {
        Action::Send(template) => lacks_end(template, delimiter),
        _ => false,
    });
    if let Some(command) = endless {
        let end = String::from_utf8_lossy(delimiter);
        let why = (
            format!(
                "its command {:?} sends a line without an end, and replies on bus {bus_name:?} end with {end:?}",
                command.name
            ),
            "most instruments wait for one: write it in send, such as \"T\\r\\n\"",
        );
        table.note("profile", why);
    }
}

/// Warns of a command whose reply is to hold the end of a line, where that is cut off before anything is compared.
fn warn_of_ends(table: &Table, bus_name: &str, delimiter: &[u8], profile: &Profile) {
    let looks = |command: &Command| match &command.action {
        Action::Send(template) => looks_for_end(template, delimiter).map(|key| (key, command.name.clone())),
        _ => None,
    };
    if let Some((key, name)) = profile.commands.values().find_map(looks) {
        let end = String::from_utf8_lossy(delimiter);
        let what = format!(
            "`{key}` of its command {name:?} looks for the end of a line, and never matches: {end:?}, with which replies \
             on bus {bus_name:?} end, is cut off before"
        );
        table.warn("profile", (what, "leave \\r and \\n out of it; the end of a reply is $"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_id_is_what_the_hub_takes_and_its_transport_can_carry() {
        use TransportKind::{Amqp, Https, Mqtt, MqttWs};
        for id in ["pump-7", "Pump.7", "a:b_c", "7", "a=b", "a,b", "a;b", "(a)!*@'", &"x".repeat(128)] {
            for transport in TransportKind::ALL {
                assert_eq!(check_id(id, transport), Ok(()), "{id}");
            }
        }
        for id in ["$a", "a%b", "a?b", "a#b", "a+b"] {
            for (transport, is_possible) in [(Mqtt, false), (MqttWs, false), (Amqp, true), (Https, true)] {
                assert_eq!(check_id(id, transport).is_ok(), is_possible, "{id} over {transport}");
            }
        }
        for id in ["", "a b", "a/b", "a&b", "pümp", "a\n", &"x".repeat(129)] {
            for transport in TransportKind::ALL {
                assert!(check_id(id, transport).is_err(), "{id}");
            }
        }
    }
}
