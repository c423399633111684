//! A device as a unit of its bus: its number, how it bends the protocol, and what becomes of commands while it is away.

use std::collections::BTreeMap;

use super::bus::Kind;
use super::keys::nearest;
use super::profile::Profile;
use super::tree::Table;
use super::{Bus, Device, OnUnreachable};
use crate::complaint::Complaint;
use crate::peripheral::quirks::{Quirk, Quirks};
use crate::peripheral::{Action, Command};

/// Which unit of its bus a device is.
pub(super) fn unit(table: &Table, kind: Option<Kind>) -> Option<u8> {
    let Some(kind) = kind else {
        // Of a wrong or unknown bus: any unit may be right.
        return table.small("unit", 0..=255);
    };
    if kind == Kind::Serial {
        if table.has("unit") {
            table.wrong("unit", ("a serial line has no units", "remove it"));
        }
        return Some(0);
    }
    if !table.has("unit") {
        table.absent("unit", ("is missing", "set the Modbus unit id that the peripheral is set to"));
        return None;
    }
    let unit = table.small::<u8>("unit", 0..=255)?;
    // Modbus over Serial Line V1.02, 2.2.
    if kind != Kind::ModbusTcp && unit > 247 {
        table.note("unit", (format!("{unit} is reserved on a serial line"), "is the peripheral really set to it?"));
    }
    Some(unit)
}

/// Whether a unit is all of a line: 0 is an ordinary one of a server (Modbus over Serial Line V1.02, 2.2).
pub(super) fn is_broadcast(unit: Option<u8>, kind: Option<Kind>) -> bool {
    unit == Some(0) && matches!(kind, Some(Kind::ModbusRtu | Kind::ModbusAscii))
}

/// Reports commands that want an answer of all units, or want to be shown by units where one was written.
pub(super) fn check_units(table: &Table, broadcast: bool, profile: &Profile) {
    const ALL: &str = "0 is all units of the line: a broadcast, which nobody answers";
    let commands = || profile.commands.values().flat_map(Command::each);
    let units_of = |command: &Command| command.read_back.as_ref().map(|rule| rule.units.is_empty());
    if let Some(name) = profile.polls.keys().next().filter(|_| broadcast) {
        let what = format!("{ALL}, and poll {name:?} reads");
        table.wrong("unit", (what, "give the device a profile of its own, without polls"));
        return;
    }
    let why = if broadcast {
        let read = commands().find(|command| matches!(command.action, Action::Read(_)));
        let first = commands().find(|command| command.reads_first());
        let shown = commands().find(|command| units_of(command) == Some(true));
        match (read, first, shown) {
            (Some(read), ..) => Complaint::new(
                format!("{ALL}, and command {:?} reads", read.name),
                "give the device a profile of its own, which only writes",
            ),
            (None, Some(first), _) => Complaint::new(
                format!("{ALL}, and command {:?} reads a register before it writes", first.name),
                "write a bit by function = 22, and a number by a scale that is always the same",
            ),
            (None, None, Some(shown)) => Complaint::new(
                format!("{ALL}, and command {:?} is read back", shown.name),
                "say which units are to show it: read_back = { units = [3, 4] }",
            ),
            (None, None, None) => return,
        }
    } else {
        let Some(shown) = commands().find(|command| units_of(command) == Some(false)) else { return };
        Complaint::new(
            format!("command {:?} is read back from units, which is for what all units are told", shown.name),
            "remove units from its read_back, or give this device unit = 0 on a modbus-rtu or modbus-ascii line",
        )
    };
    table.wrong(if broadcast { "unit" } else { "profile" }, why);
}

/// What becomes of a device's commands while it is away.
pub(super) fn on_unreachable(table: &Table, bus: Option<&Bus>) -> OnUnreachable {
    let choices = [("fail", OnUnreachable::Fail), ("hold", OnUnreachable::Hold), ("mirror", OnUnreachable::Mirror)];
    let chosen = table.choice("on_unreachable", &choices);
    if chosen.is_some() && bus.is_some_and(|bus| bus.unreachable_after == 0) {
        let why = ("has no effect, as unreachable_after of its bus is 0: no unit of it is ever away", "remove one");
        table.note("on_unreachable", why);
    }
    chosen.unwrap_or_default()
}

/// What a peripheral does otherwise than by the letter of Modbus.
pub(super) fn quirks(table: &Table, kind: Option<Kind>) -> Quirks {
    let Some(given) = table.json("quirks") else { return Quirks::NONE };
    if kind == Some(Kind::Serial) {
        table.wrong("quirks", ("are of Modbus, and a serial line speaks the peripheral's own protocol", "remove them"));
        return Quirks::NONE;
    }
    let names = Quirk::ALL.map(Quirk::as_str);
    let Some(given) = given.as_array() else {
        let why = ("is not a list", format!("write it in brackets, such as quirks = [{:?}]", names[0]));
        table.wrong("quirks", why);
        return Quirks::NONE;
    };
    let mut quirks = Quirks::NONE;
    for name in given {
        let Some(quirk) = name.as_str().and_then(Quirk::from_name) else {
            let near = name.as_str().and_then(|name| nearest(name, names));
            let all = || format!("they are {}", names.map(|name| format!("{name:?}")).join(", "));
            let hint = near.map_or_else(all, |near| format!("did you mean {near:?}?"));
            table.wrong("quirks", (format!("no quirk is called {name}"), hint));
            continue;
        };
        if quirks.has(quirk) {
            table.wrong("quirks", (format!("{name} stands there twice"), "remove one"));
        }
        if quirk == Quirk::TransactionId && matches!(kind, Some(Kind::ModbusRtu | Kind::ModbusAscii)) {
            let why = (format!("{name} is of Modbus TCP, and this bus has no transaction ids"), "remove it");
            table.wrong("quirks", why);
        }
        quirks = quirks.and(quirk);
    }
    quirks
}

/// Remarks on a device whose answers can't be told from others' where several are awaited.
pub(super) fn note_in_flight(table: &Table, bus: &str, settings: &Bus, quirks: Quirks) {
    let Some(quirk) = quirks.one_at_a_time().filter(|_| settings.max_in_flight > 1) else { return };
    let what = format!(
        "{:?} takes answers that are told by nothing but their order, so that on bus {bus:?} one request at a time is \
         under way, whatever its max_in_flight says",
        quirk.as_str()
    );
    table.note("quirks", (what, "for more of them at once, put the device on a bus of its own"));
}

/// One request at a time on every bus with a device that needs it.
pub(super) fn hold_to_one(buses: &mut BTreeMap<String, Bus>, devices: &BTreeMap<String, Device>) {
    for device in devices.values().filter(|device| device.quirks.one_at_a_time().is_some()) {
        if let Some(bus) = buses.get_mut(&device.bus) {
            bus.max_in_flight = 1;
        }
    }
}
