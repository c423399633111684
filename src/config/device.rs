//! `[device.ID]`

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::bus::{Entry, Kind};
use super::credential::{credential, secondary};
use super::keys::{self, nearest};
use super::profile::{too_soon, Profile};
use super::text::lacks_end;
use super::tree::{join, Table};
use super::way::transport;
use super::{is_loopback, Bus, BusKind, Credential, Device, Hub, Settle, TransportKind, NAME_CHARS_MAX};
use crate::command::Form;
use crate::complaint::Complaint;
use crate::peripheral::Action;

/// Every device by id; those that something is wrong with are left out.
pub(super) fn devices(
    root: &Table,
    hub: Option<&Hub>,
    buses: &BTreeMap<String, Entry>,
    profiles: &BTreeMap<String, Profile>,
) -> BTreeMap<String, Device> {
    let tables = root.tables("device", keys::DEVICE);
    let around = Around { hub, buses, profiles };
    let mut seen = Seen::default();
    let devices =
        tables.iter().filter_map(|(id, table)| Some(((*id).to_owned(), device(table, id, &around, &mut seen)?)));
    let devices = devices.collect();
    for (path, why) in seen.late {
        root.walk.warn(&path, "deadline", why);
    }
    if tables.is_empty() {
        root.note("device", ("no devices are configured, so nothing is received", "add a [device.ID] table"));
    }
    devices
}

/// What devices refer to.
struct Around<'a> {
    hub: Option<&'a Hub>,
    buses: &'a BTreeMap<String, Entry>,
    profiles: &'a BTreeMap<String, Profile>,
}

/// What shows only of several devices together.
#[derive(Default)]
struct Seen<'a> {
    /// Who has a unit of a bus.
    units: HashMap<(&'a str, u8), &'a str>,
    /// Commands whose deadline is too short for a bus, and what is said of them: once, however many devices have them.
    late: BTreeMap<String, Complaint>,
}

/// Looks at all of one device, whatever is wrong with it.
fn device<'a>(table: &Table, id: &'a str, around: &Around<'a>, seen: &mut Seen<'a>) -> Option<Device> {
    let Around { hub, buses, profiles } = *around;
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
    let profile = reference(table, "profile", profiles);
    if let (Some((name, bus)), Some((_, profile))) = (bus, profile) {
        check_fit(table, name, bus.kind, profile);
        if let Some(settings) = &bus.bus {
            seen.late.extend(late_on(profile, name, settings));
            if let BusKind::Serial { delimiter, .. } = &settings.kind {
                note_missing_end(table, name, delimiter, profile);
            }
        }
    }
    let settle =
        table.choice("settle", &[("after-execution", Settle::AfterExecution), ("after-accept", Settle::AfterAccept)]);
    let default_command = profile.and_then(|profile| default_command(table, profile));
    let credential = credential(table, id, hub);
    let secondary = secondary(table, credential.as_ref());
    if let Some(hub) = hub {
        check_way(table, hub, transport, credential.as_ref());
    }
    let ((bus, _), (_, profile)) = (bus?, profile?);
    Some(Device {
        id: id.to_owned(),
        bus: bus.to_owned(),
        unit: unit?,
        transport,
        credential: credential?,
        secondary,
        settle: settle.unwrap_or(Settle::AfterExecution),
        form: Arc::new(Form { default_command, ..profile.form.clone() }),
        commands: Arc::clone(&profile.commands),
    })
}

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

fn unit(table: &Table, kind: Option<Kind>) -> Option<u8> {
    let Some(kind) = kind else {
        // Of a wrong or unknown bus: any unit may be right.
        return table.small("unit", 0..=255);
    };
    let bounds = match kind {
        Kind::Serial => {
            if table.has("unit") {
                table.wrong("unit", ("a serial line has no units", "remove it"));
            }
            return Some(0);
        }
        Kind::ModbusRtu | Kind::ModbusAscii => 1..=247,
        Kind::ModbusTcp => 0..=255,
    };
    if !table.has("unit") {
        table.absent("unit", ("is missing", "set the Modbus unit id that the peripheral is set to"));
        return None;
    }
    let unit = table.small::<u8>("unit", 0..=255)?;
    if bounds.contains(&unit) {
        return Some(unit);
    }
    let why = if unit == 0 {
        Complaint::new("0 is the broadcast address, and nobody confirms a broadcast", "a unit id is 1 to 247")
    } else {
        Complaint::new(format!("{unit} is reserved on a serial line"), "a unit id is 1 to 247")
    };
    table.wrong("unit", why);
    None
}

/// Commands whose deadline passes while one answer is waited for on a bus: the paths of their tables, and what is said.
fn late_on(profile: &Profile, bus: &str, settings: &Bus) -> Vec<(String, Complaint)> {
    let commands = profile.commands.values().filter(|command| command.timeout.is_none());
    let late = commands.filter(|command| command.deadline < settings.response_timeout);
    let waits = format!("response_timeout of bus {bus:?}");
    late.map(|command| {
        let path = join(&join(&profile.path, "command"), &command.name);
        (path, too_soon(command.deadline, &waits, settings.response_timeout))
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
