use super::*;
use crate::health::snapshot::{self, Bus, Done};

/// A daemon with which all is well.
fn well(devices: usize) -> Snapshot {
    let device = |n| Device {
        id: format!("pump-{n}"),
        bus: "line".into(),
        hub: LinkState::Connected,
        present: Some(true),
        ..Device::default()
    };
    Snapshot {
        clock: snapshot::Clock { ok: true, ..Default::default() },
        configuration: snapshot::Configuration { ok: true, ..Default::default() },
        ledger: snapshot::Ledger { ok: true, ..Default::default() },
        devices: (1..=devices).map(device).collect(),
        buses: vec![Bus { name: "line".into(), state: BusState::Open, ..Bus::default() }],
        ..Snapshot::default()
    }
}

fn one(snapshot: &Snapshot) -> (String, String) {
    let found = of(snapshot);
    assert_eq!(found.len(), 1, "{found:#?}");
    (found[0].what.clone(), found[0].remedy.clone())
}

#[test]
fn where_all_is_well_and_where_all_is_as_somebody_wants_it_nobody_is_needed() {
    assert_eq!(of(&well(3)), []);
    let mut wanted = well(3);
    wanted.devices[0].locked = Some(snapshot::Lock::default());
    wanted.devices[1].hub = LinkState::Held;
    wanted.devices[2].hub = LinkState::WaitingForLocks;
    wanted.devices[2].last_error = Some("messages may be locked".into());
    wanted.buses[0].state = BusState::Closed;
    wanted.buses[0].last_error = Some("it was lost".into());
    assert_eq!(of(&wanted), []);
    let mut begins = well(2);
    begins.devices.iter_mut().for_each(|device| device.hub = LinkState::Connecting);
    assert_eq!(of(&begins), [], "it has only begun");
}

#[test]
fn a_ledger_that_knows_nothing_of_before_needs_somebody_who_does_while_commands_come() {
    let mut snapshot = well(2);
    snapshot.ledger.distrusted = true;
    assert_eq!(of(&snapshot), [], "messages say when the hub took them");
    snapshot.devices.iter_mut().for_each(|device| device.distrusted = true);
    let (what, remedy) = one(&snapshot);
    assert!(what.contains("commands of pump-1 and pump-2 that must not be repeated end in doubt until"), "{what}");
    assert!(remedy.contains("`fieldbridge ledger new --trust`"), "{remedy}");
    snapshot.devices.iter_mut().for_each(|device| device.hub = LinkState::Connecting);
    assert_eq!(of(&snapshot), [], "nothing comes");
}

#[test]
fn sixty_devices_with_one_cause_are_one_line() {
    let mut snapshot = well(60);
    for device in &mut snapshot.devices {
        device.hub = LinkState::Waiting;
        device.last_error = Some(format!("the hub does not know \"{}\"; check its name", device.id));
    }
    let (what, remedy) = one(&snapshot);
    let named = "pump-1, pump-2, pump-3 and 57 more are not connected to the hub: the hub does not know \"its id\"";
    assert_eq!((&*what, &*remedy), (named, "check its name"));
    snapshot.devices.truncate(1);
    assert_eq!(one(&snapshot).0, "pump-1 is not connected to the hub: the hub does not know \"pump-1\"");
}

#[test]
fn a_thousand_devices_with_as_many_causes_are_a_few_lines() {
    let mut snapshot = well(1000);
    for (n, device) in snapshot.devices.iter_mut().enumerate() {
        device.hub = LinkState::Waiting;
        device.last_error = Some(format!("error {n}"));
    }
    let found = of(&snapshot);
    assert_eq!(found.len(), CAUSES_MAX + 1);
    assert_eq!(found[CAUSES_MAX].what, "990 more causes like these");
}

#[test]
fn a_unit_that_is_away_and_a_line_on_which_nobody_answers_are_told_apart() {
    let mut snapshot = well(3);
    snapshot.devices[1].present = Some(false);
    snapshot.devices[1].away_since = Some("2026-11-30T10:00:00Z".into());
    let (what, remedy) = one(&snapshot);
    assert_eq!(what, "pump-2 is AWAY since 2026-11-30T10:00:00Z: its unit on bus line does not answer");
    assert!(remedy.contains("`fieldbridge scan line`"), "{remedy}");
    snapshot.devices.iter_mut().for_each(|device| device.present = Some(false));
    let (what, remedy) = one(&snapshot);
    assert_eq!(what, "nobody on bus line answers: pump-1, pump-2 and pump-3 are AWAY");
    assert!(remedy.starts_with("look at the line first"), "{remedy}");
}

#[test]
fn a_peripheral_that_has_not_answered_its_last_command_is_told_until_it_does() {
    let mut snapshot = well(1);
    let silence = |code: &str| Undone {
        seconds_ago: 5,
        command: "set".into(),
        code: code.into(),
        message: "unit 1 did not answer".into(),
        ..Undone::default()
    };
    snapshot.devices[0].last_failure = Some(silence("timeout"));
    assert_eq!(one(&snapshot).0, "the last command of pump-1 failed: unit 1 did not answer (timeout)");
    snapshot.devices[0].last_success = Some(Done { seconds_ago: 60, ..Done::default() });
    assert_eq!(of(&snapshot).len(), 1, "the success was before");
    snapshot.devices[0].last_success = Some(Done { seconds_ago: 2, ..Done::default() });
    assert_eq!(of(&snapshot), []);
    snapshot.devices[0].last_success = None;
    snapshot.devices[0].last_failure = Some(silence("exception"));
    assert_eq!(of(&snapshot), [], "it has answered, and the back end was told");
    // Its bus says why.
    snapshot.devices[0].last_failure = Some(silence("timeout"));
    (snapshot.buses[0].state, snapshot.buses[0].last_error) =
        (BusState::Opening, Some("/dev/ttyUSB0 is not there; plug it in".into()));
    assert_eq!(one(&snapshot), ("bus line: /dev/ttyUSB0 is not there".into(), "plug it in".into()));
}

#[test]
fn doubts_the_ledger_the_clock_and_the_configuration_are_told_with_what_to_do() {
    let mut snapshot = well(2);
    snapshot.ledger.in_doubt_open = 3;
    snapshot.devices[1].in_doubt_open = 2;
    let (what, remedy) = one(&snapshot);
    assert_eq!(what, "3 commands are in doubt, of pump-2: whether they were done is not known");
    assert!(remedy.contains("ledger resolve ROW"), "{remedy}");
    let last_error = Some("the disk is full; free some".into());
    snapshot.ledger = snapshot::Ledger { ok: false, last_error, ..Default::default() };
    snapshot.clock.ok = false;
    snapshot.configuration.ok = false;
    snapshot.configuration.changed_files = vec!["a.toml".into()];
    let all: Vec<String> = of(&snapshot).into_iter().map(|one| format!("{}; {}", one.what, one.remedy)).collect();
    for (found, told) in all.iter().zip([
        "the ledger is NOT WRITABLE: the disk is full; until it is, nothing is taken from the hub; free some",
        "clock NOT BELIEVED",
        "REFUSED",
        "a.toml has changed since it was read; `fieldbridge check`",
    ]) {
        assert!(found.contains(told), "{told:?} is not in {found:?}");
    }
    assert_eq!(all.len(), 4);
}

#[test]
fn a_name_is_left_out_only_where_it_is_a_word() {
    for (sentence, name, left) in [
        ("no a here", "a", "no \u{1} here"),
        ("a pump-7 and pump-77", "pump-7", "a \u{1} and pump-77"),
        ("\"pump\" 'pump' pump", "pump", "\"\u{1}\" '\u{1}' \u{1}"),
        ("nothing", "", "nothing"),
    ] {
        assert_eq!(without(sentence, name), left);
    }
}
