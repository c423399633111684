//! Metrics in the OpenMetrics text format (OpenMetrics 1.0, RFC draft draft-ietf-opsawg-openmetrics, section 3). Pure.
//!
//! Invariants
//! - What is told is of the snapshot and of what was counted: nobody is asked.
//! - Each name stands once, with its samples behind it; labels are of the configuration, of one byte, or of a list of
//!   words, so that their number is bounded.
//! - Of each device every end and every result is told, from zero on: a rule sees the first one happen.

use std::fmt::{Display, Write as _};

use crate::bus::RESULTS as EXCHANGES;
use crate::command::outcome::State;
use crate::command::STATUSES;
use crate::health::meters::{Distribution, Readings, BOUNDS};
use crate::health::snapshot::{BusState, LinkState, Snapshot};
use crate::hub::trouble::result::RESULTS as CONNECTS;

/// Its media type.
pub const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything, as it is scraped.
pub fn render(of: &Snapshot, readings: &Readings) -> String {
    let mut out = Text(String::with_capacity(16 * 1024));
    out.family("fieldbridge_build", "info", "The program.");
    out.sample("fieldbridge_build_info", &[("version", &of.version)], 1);
    gateway(&mut out, of);
    hub(&mut out, of, readings);
    commands(&mut out, of, readings);
    ledger(&mut out, of, readings);
    telemetry(&mut out, of);
    buses(&mut out, of, readings);
    out.0.push_str("# EOF\n");
    out.0
}

fn gateway(out: &mut Text, of: &Snapshot) {
    out.family("fieldbridge_uptime_seconds", "gauge", "Seconds since the daemon has begun.");
    out.sample("fieldbridge_uptime_seconds", &[], of.uptime_seconds);
    out.family("fieldbridge_clock_ok", "gauge", "1 if the wall clock is believed.");
    out.sample("fieldbridge_clock_ok", &[], u8::from(of.clock.ok));
    out.family("fieldbridge_configuration_ok", "gauge", "0 if the last reload was refused.");
    out.sample("fieldbridge_configuration_ok", &[], u8::from(of.configuration.ok));
}

fn hub(out: &mut Text, of: &Snapshot, readings: &Readings) {
    let is = |state: LinkState, other: LinkState| u8::from(state == other);
    out.family("fieldbridge_hub_connected", "gauge", "1 if the device is connected to the hub.");
    for device in &of.devices {
        out.sample("fieldbridge_hub_connected", &[("device", &device.id)], is(device.hub, LinkState::Connected));
    }
    out.family("fieldbridge_hub_held", "gauge", "1 if the device is not connected since its unit is away: no trouble.");
    for device in &of.devices {
        out.sample("fieldbridge_hub_held", &[("device", &device.id)], is(device.hub, LinkState::Held));
    }
    out.family("fieldbridge_hub_connects", "counter", "Attempts to connect to the hub, by what came of them.");
    for (id, device) in &readings.devices {
        for result in CONNECTS {
            let count = device.connects.get(result).copied().unwrap_or(0);
            out.sample("fieldbridge_hub_connects_total", &[("device", id), ("result", result)], count);
        }
    }
}

fn commands(out: &mut Text, of: &Snapshot, readings: &Readings) {
    out.family("fieldbridge_commands", "counter", "Commands that ended, by their final state.");
    for (id, device) in &readings.devices {
        for state in State::ALL.into_iter().filter(|state| state.is_final()).map(State::as_str) {
            let count = device.ends.get(state).copied().unwrap_or(0);
            out.sample("fieldbridge_commands_total", &[("device", id), ("state", state)], count);
        }
    }
    let name = "fieldbridge_commands_duplicate";
    out.family(name, "counter", "Deliveries of messages that the ledger knew already: settled, not executed.");
    for device in &of.devices {
        out.sample(&format!("{name}_total"), &[("device", &device.id)], device.duplicates);
    }
    let name = "fieldbridge_method_calls";
    out.family(name, "counter", "Calls of direct methods that were answered, by the answer's status.");
    for (id, device) in &readings.devices {
        for status in STATUSES {
            let count = device.calls.get(status).copied().unwrap_or(0);
            out.sample(&format!("{name}_total"), &[("device", id), ("status", status)], count);
        }
    }
    out.family("fieldbridge_commands_pending", "gauge", "Commands that wait or run.");
    for device in &of.devices {
        out.sample("fieldbridge_commands_pending", &[("device", &device.id)], device.pending);
    }
    out.family("fieldbridge_in_doubt_open", "gauge", "Commands in doubt that nobody has dealt with, as last counted.");
    for (id, device) in &readings.devices {
        out.sample("fieldbridge_in_doubt_open", &[("device", id)], device.in_doubt_open);
    }
    let name = "fieldbridge_completion_seconds";
    out.family(name, "histogram", "From a message's first receipt to its settlement at the hub.");
    out.distribution(name, &[], &readings.completion);
    out.family("fieldbridge_peripheral_present", "gauge", "0 if the unit of the device does not answer, where known.");
    for (device, present) in of.devices.iter().filter_map(|device| Some((device, device.present?))) {
        out.sample("fieldbridge_peripheral_present", &[("device", &device.id)], u8::from(present));
    }
    out.family("fieldbridge_locked", "gauge", "1 if nothing is written to the device, since somebody has locked it.");
    for device in &of.devices {
        out.sample("fieldbridge_locked", &[("device", &device.id)], u8::from(device.locked.is_some()));
    }
}

fn ledger(out: &mut Text, of: &Snapshot, readings: &Readings) {
    out.family("fieldbridge_ledger_ok", "gauge", "1 if the ledger can be written.");
    out.sample("fieldbridge_ledger_ok", &[], u8::from(of.ledger.ok));
    out.family("fieldbridge_ledger_rows", "gauge", "Rows of the ledger, as last counted.");
    out.sample("fieldbridge_ledger_rows", &[], of.ledger.rows);
    let name = "fieldbridge_ledger_commit_seconds";
    out.family(name, "histogram", "Commits of the ledger, each with its flush to the disk.");
    out.distribution(name, &[], &readings.commits);
    out.family("fieldbridge_outbox_pending", "gauge", "Result events that the hub does not have yet, as last counted.");
    out.sample("fieldbridge_outbox_pending", &[], of.outbox.pending);
}

fn telemetry(out: &mut Text, of: &Snapshot) {
    let Some(telemetry) = &of.telemetry else { return };
    out.family("fieldbridge_telemetry_ok", "gauge", "1 if the file of telemetry can be written.");
    out.sample("fieldbridge_telemetry_ok", &[], u8::from(telemetry.ok));
    for (name, help, count) in [
        ("fieldbridge_telemetry_samples", "Samples that were read and are told.", telemetry.samples),
        ("fieldbridge_telemetry_published", "Messages of telemetry that the hub has taken.", telemetry.published),
        ("fieldbridge_telemetry_lost", "Samples that the hub never has.", telemetry.lost),
    ] {
        out.family(name, "counter", help);
        out.sample(&format!("{name}_total"), &[], count);
    }
    let help = "Messages of telemetry that the hub does not have yet.";
    out.family("fieldbridge_telemetry_pending", "gauge", help);
    out.sample("fieldbridge_telemetry_pending", &[], telemetry.pending);
}

fn buses(out: &mut Text, of: &Snapshot, readings: &Readings) {
    out.family("fieldbridge_bus_open", "gauge", "0 if the bus can't be opened; one that nobody needs at present is 1.");
    for bus in &of.buses {
        out.sample("fieldbridge_bus_open", &[("bus", &bus.name)], u8::from(bus.state != BusState::Opening));
    }
    out.family("fieldbridge_bus_exchanges", "counter", "Exchanges, by unit and by what came of them.");
    for (bus, counted) in &readings.buses {
        debug_assert!(counted.exchanges.keys().all(|(_, result)| EXCHANGES.contains(result)));
        for ((unit, result), count) in &counted.exchanges {
            let labels = [("bus", bus.as_str()), ("unit", unit.as_str()), ("result", *result)];
            out.sample("fieldbridge_bus_exchanges_total", &labels, count);
        }
    }
    out.family("fieldbridge_bus_wait_seconds", "histogram", "How long commands and looks waited for the bus.");
    for (bus, counted) in &readings.buses {
        out.distribution("fieldbridge_bus_wait_seconds", &[("bus", bus)], &counted.waits);
    }
}

/// The text as it grows.
struct Text(String);

impl Text {
    /// A family of samples: its name without what counters and infos have behind it, and a sentence.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if name.ends_with("_seconds") {
            let _ = writeln!(self.0, "# UNIT {name} seconds");
        }
        let _ = writeln!(self.0, "# HELP {name} {help}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            text.chars().for_each(|c| match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            });
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn distribution(&mut self, name: &str, labels: &[(&str, &str)], of: &Distribution) {
        let bounds = BOUNDS.iter().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
        let mut so_far = 0;
        for (bound, count) in bounds.zip(of.counts) {
            so_far += count;
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&format!("{name}_bucket"), &labels, so_far);
        }
        self.sample(&format!("{name}_count"), labels, so_far);
        self.sample(&format!("{name}_sum"), labels, of.sum.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::health::meters::{BusReadings, DeviceReadings, Histogram};
    use crate::health::snapshot::{Bus, Device};

    fn daemon() -> (Snapshot, Readings) {
        let id = "pump \"7\"\\\n".to_owned();
        let device = Device { id: id.clone(), hub: LinkState::Connected, present: Some(false), ..Device::default() };
        let buses = vec![Bus { name: "line".into(), state: BusState::Closed, ..Bus::default() }];
        let of = Snapshot { version: "0.9".into(), devices: vec![device], buses, ..Snapshot::default() };
        let waits = Histogram::default();
        [1, 3, 90_000].into_iter().for_each(|millis| waits.observe(Duration::from_millis(millis)));
        let exchanges = BTreeMap::from([(("7".to_owned(), "ok"), 5)]);
        let line = BusReadings { exchanges, waits: waits.reading() };
        let ends = BTreeMap::from([("succeeded", 2)]);
        let calls = BTreeMap::from([("202", 3)]);
        let counted = DeviceReadings { ends, calls, in_doubt_open: 1, ..DeviceReadings::default() };
        let (devices, buses) = (BTreeMap::from([(id, counted)]), BTreeMap::from([("line".to_owned(), line)]));
        (of, Readings { devices, buses, ..Readings::default() })
    }

    #[test]
    fn each_name_stands_once_and_what_a_label_says_is_escaped() {
        let (of, readings) = daemon();
        let text = render(&of, &readings);
        for line in [
            "fieldbridge_build_info{version=\"0.9\"} 1",
            "fieldbridge_hub_connected{device=\"pump \\\"7\\\"\\\\\\n\"} 1",
            "fieldbridge_commands_total{device=\"pump \\\"7\\\"\\\\\\n\",state=\"succeeded\"} 2",
            "fieldbridge_commands_total{device=\"pump \\\"7\\\"\\\\\\n\",state=\"in_doubt\"} 0",
            "fieldbridge_method_calls_total{device=\"pump \\\"7\\\"\\\\\\n\",status=\"202\"} 3",
            "fieldbridge_method_calls_total{device=\"pump \\\"7\\\"\\\\\\n\",status=\"503\"} 0",
            "fieldbridge_in_doubt_open{device=\"pump \\\"7\\\"\\\\\\n\"} 1",
            "fieldbridge_peripheral_present{device=\"pump \\\"7\\\"\\\\\\n\"} 0",
            "fieldbridge_bus_open{bus=\"line\"} 1",
            "fieldbridge_bus_exchanges_total{bus=\"line\",unit=\"7\",result=\"ok\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let mut families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(families.len() > 15 && text.ends_with("\n# EOF\n"), "{text}");
        families.sort_unstable();
        families.dedup_by_key(|family| family.split(' ').next());
        assert_eq!(families.len(), text.matches("# TYPE ").count());
        assert!(text.lines().all(|line| line.starts_with("# ") || line.starts_with("fieldbridge_")), "{text}");
    }

    #[test]
    fn a_histogram_counts_everything_up_to_each_bound() {
        let (of, readings) = daemon();
        let text = render(&of, &readings);
        let of_waits = |bound: &str| {
            let start = format!("fieldbridge_bus_wait_seconds_bucket{{bus=\"line\",le=\"{bound}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
        };
        assert_eq!(
            ["0.001", "0.005", "1.0", "60.0", "+Inf"].map(of_waits),
            ["1", "2", "2", "2", "3"].map(|n| Some(n.to_owned()))
        );
        assert!(text.contains("fieldbridge_bus_wait_seconds_sum{bus=\"line\"} 90.004\n"), "{text}");
    }
}
