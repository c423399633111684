//! A first configuration as a dialogue: one question at a time, each answer judged at once, and line and hub tried
//! before anything is written.
//!
//! Invariants
//! - Nothing is written here: whoever ends the dialogue has changed nothing.
//! - Each question can be answered by an option, and is not asked then. What an option says is judged with the whole.

use std::path::{Path, PathBuf};

use super::place::{is_plain, no_file_after};
use super::question::{prompt, Asking};
use super::text::{self, At, Bus, Characters, Draft, Profile, Secret};
use super::trial::{judge, Part, Trial};
use super::Parity;
use crate::config::shipped::Shipped;
use crate::doctor::{names_that_stay, Verdict, BY_ID};

/// How characters are made, in the short form that manuals have.
const CHARACTERS: [(&str, Characters, &str); 4] = [
    ("8E1", Characters { parity: Parity::Even, stop_bits: None }, "even parity, as the Modbus specification has it"),
    ("8N1", Characters { parity: Parity::None, stop_bits: Some(1) }, "no parity, as many makers have it"),
    ("8N2", Characters { parity: Parity::None, stop_bits: Some(2) }, "no parity, and two stop bits"),
    ("8O1", Characters { parity: Parity::Odd, stop_bits: None }, "odd parity"),
];

/// What the options say of the line.
#[derive(Default)]
pub(super) struct Line {
    pub(super) port: Option<PathBuf>,
    pub(super) modbus_tcp: Option<String>,
    pub(super) baud: Option<u32>,
    pub(super) parity: Option<Parity>,
    pub(super) unit: Option<u8>,
}

/// What the options say of the hub.
#[derive(Default)]
pub(super) struct Hub {
    pub(super) host: Option<String>,
    pub(super) id_scope: Option<String>,
    pub(super) registration_id: Option<String>,
}

/// Which hub the device belongs to, as options or a person say it. `before` is the answer of before.
pub(super) fn at(asking: &Asking, given: Hub, before: Option<&At>) -> Result<At, String> {
    let is_assigned = match (&given.host, &given.id_scope) {
        (Some(_), _) => false,
        (None, Some(_)) => true,
        (None, None) => asking.is_somebody_there() && is_assigned(asking, before)?,
    };
    if !is_assigned {
        let before = before.and_then(|before| match before {
            At::Hub(host) => Some(host.as_str()),
            At::Assigned { .. } => None,
        });
        return host(asking, given.host, before).map(At::Hub);
    }
    let (scope_before, registration_before) = match before {
        Some(At::Assigned { id_scope, registration_id }) => (Some(id_scope.as_str()), registration_id.clone()),
        _ => (None, None),
    };
    let question = "ID Scope of the provisioning service, as its overview shows it, such as 0ne00123ABC";
    let wrong = |scope: &str| {
        let at = At::Assigned { id_scope: scope.to_owned(), registration_id: None };
        judge(&Draft { at, ..Draft::to_judge_by() }, None)
    };
    let id_scope = asking.judged("--id-scope", given.id_scope, question, scope_before, wrong)?;
    Ok(At::Assigned { id_scope, registration_id: given.registration_id.or(registration_before) })
}

/// Whether a service assigns the device to its hub.
fn is_assigned(asking: &Asking, before: Option<&At>) -> Result<bool, String> {
    prompt(
        "Which hub does the device belong to?\n  1 to one whose name you know\n  2 to the one that the Device \
         Provisioning Service (DPS) assigns it to: you know its ID Scope\n",
    );
    let proposed = if matches!(before, Some(At::Assigned { .. })) { "2" } else { "1" };
    let wrong = |answer: &str| (!["1", "2"].contains(&answer)).then(|| format!("{answer:?} is neither 1 nor 2"));
    Ok(asking.judged("--host or --id-scope", None, "Number", Some(proposed), wrong)? == "2")
}

/// The hub's name.
fn host(asking: &Asking, given: Option<String>, before: Option<&str>) -> Result<String, String> {
    let question = "Host name of the hub, such as contoso.azure-devices.net";
    let wrong = |host: &str| judge(&Draft { at: At::Hub(host.to_owned()), ..Draft::to_judge_by() }, None);
    asking.judged("--host", given, question, before, wrong)
}

/// Under which id the device is enrolled, where a service assigns it.
pub(super) fn registration(asking: &Asking, at: At, device: &str) -> Result<At, String> {
    let (At::Assigned { id_scope, registration_id }, true) = (&at, asking.is_somebody_there()) else { return Ok(at) };
    let assigned = |registration: &str| At::Assigned {
        id_scope: id_scope.clone(),
        registration_id: (registration != device).then(|| registration.to_owned()),
    };
    let wrong = |registration: &str| {
        judge(&Draft { at: assigned(registration), device: device.to_owned(), ..Draft::to_judge_by() }, None)
    };
    let proposed = registration_id.as_deref().unwrap_or(device);
    let question = "Registration id of its enrollment";
    Ok(assigned(&asking.judged("--registration-id", None, question, Some(proposed), wrong)?))
}

/// The device's id. A file is named after it where its key is typed.
pub(super) fn device(
    asking: &Asking,
    given: Option<String>,
    before: Option<&str>,
    types_key: bool,
) -> Result<String, String> {
    let wrong = |device: &str| match types_key && !is_plain(device) {
        true => Some(no_file_after(device)),
        false => judge(&Draft { device: device.to_owned(), ..Draft::to_judge_by() }, None),
    };
    asking.judged("--device", given, "Device id at the hub", before, wrong)
}

/// The device's key, typed.
pub(super) fn key(asking: &Asking) -> Result<String, String> {
    let wrong = |key: &str| judge(&Draft { secret: Secret::NewKey, ..Draft::to_judge_by() }, Some(key));
    asking.secret("--key-file", "Device key, base64 (it is not shown)", wrong)
}

/// The bus, and the unit on it. `before` are the answers of before, which are proposed.
pub(super) fn bus(
    asking: &Asking,
    given: Line,
    profile: &mut Option<Profile>,
    shipped: &Shipped,
    before: Option<(&Bus, Option<u8>)>,
) -> Result<(Bus, Option<u8>), String> {
    let speaks_text = profile.as_ref().is_some_and(|profile| profile.speaks_text);
    let is_open = profile.is_none() && given.port.is_none() && given.modbus_tcp.is_none();
    let kind = match (&given.modbus_tcp, is_open && asking.is_somebody_there()) {
        _ if before.is_some() => before.map_or(Kind::Rtu, |(bus, _)| Kind::of(bus)),
        (Some(_), _) if speaks_text => {
            return Err("this profile speaks lines of text, on a serial port; give --port".into());
        }
        (Some(_), _) => Kind::Tcp,
        (None, true) => kind(asking)?,
        (None, false) if speaks_text => Kind::Text,
        (None, false) => Kind::Rtu,
    };
    if kind == Kind::Text && profile.is_none() {
        *profile = Some(text_profile(asking, shipped)?);
    }
    let bus = match kind {
        Kind::Tcp => Bus::Tcp { address: address(asking, given.modbus_tcp, before.map(|(bus, _)| bus))? },
        Kind::Rtu | Kind::Text => {
            serial(asking, given.port, given.baud, given.parity, kind, before.map(|(bus, _)| bus))?
        }
    };
    if kind == Kind::Text {
        return Ok((bus, None));
    }
    let proposed = before.and_then(|(_, unit)| unit).unwrap_or(1).to_string();
    let wrong = |unit: &str| match unit.parse() {
        Ok(unit) => judge(&Draft { unit: Some(unit), ..Draft::to_judge_by() }, None),
        Err(_) => Some(format!("{unit:?} is not a unit id; they are 1 to 247")),
    };
    let question = "Modbus unit id that the peripheral is set to";
    let unit = asking.judged("--unit", given.unit.map(|unit| unit.to_string()), question, Some(&proposed), wrong)?;
    Ok((bus, Some(unit.parse().map_err(|_| format!("{unit:?} is not a unit id; give another --unit"))?)))
}

/// What is spoken on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rtu,
    Tcp,
    Text,
}

impl Kind {
    const ALL: [(Kind, &'static str); 3] = [
        (Kind::Rtu, "Modbus RTU, on a serial port (RS-485, RS-232)"),
        (Kind::Tcp, "Modbus TCP, at an address of the network"),
        (Kind::Text, "lines of text, on a serial port: a scale, a display, a printer"),
    ];

    fn of(bus: &Bus) -> Kind {
        match bus {
            Bus::Tcp { .. } => Kind::Tcp,
            Bus::Serial { speaks_text: true, .. } => Kind::Text,
            Bus::Serial { .. } => Kind::Rtu,
        }
    }
}

fn kind(asking: &Asking) -> Result<Kind, String> {
    let list: String = (1..).zip(Kind::ALL).map(|(number, (_, what))| format!("  {number} {what}\n")).collect();
    prompt(&format!("How does the peripheral speak?\n{list}"));
    let of = |answer: &str| answer.parse().ok().and_then(|n: usize| Kind::ALL.get(n.checked_sub(1)?).copied());
    let wrong = |answer: &str| of(answer).is_none().then(|| format!("{answer:?} is not one of 1, 2 and 3"));
    let answer = asking.judged("--port or --modbus-tcp", None, "Number", Some("1"), wrong)?;
    Ok(of(&answer).map_or(Kind::Rtu, |(kind, _)| kind))
}

/// A profile that says what the lines of text are.
fn text_profile(asking: &Asking, shipped: &Shipped) -> Result<Profile, String> {
    let names = text::names_of_text(shipped);
    prompt(&format!("Profiles that speak lines of text: {}\n", names.join(", ")));
    let wrong = |name: &str| match text::profile(name, shipped) {
        Ok(profile) if profile.speaks_text => None,
        Ok(_) => Some(format!("{name} speaks Modbus; there are {}", names.join(", "))),
        Err(why) => Some(why),
    };
    let first = names.first().map(String::as_str);
    text::profile(&asking.judged("--profile", None, "Profile", first, wrong)?, shipped)
}

fn address(asking: &Asking, given: Option<String>, before: Option<&Bus>) -> Result<String, String> {
    let proposed = match before {
        Some(Bus::Tcp { address }) => Some(address.as_str()),
        _ => None,
    };
    let bus = |address: &str| Bus::Tcp { address: address.to_owned() };
    let wrong = |address: &str| judge(&Draft { bus: bus(address), ..Draft::to_judge_by() }, None);
    asking.judged("--modbus-tcp", given, "Address, such as 10.0.0.12:502", proposed, wrong)
}

fn serial(
    asking: &Asking,
    port: Option<PathBuf>,
    baud: Option<u32>,
    parity: Option<Parity>,
    kind: Kind,
    before: Option<&Bus>,
) -> Result<Bus, String> {
    let (was_port, was_baud, was) = match before {
        Some(Bus::Serial { port, baud, characters, .. }) => (Some(port.as_path()), *baud, Some(*characters)),
        _ => (None, 19200, None),
    };
    let port = asking.port(port, was_port, &names_that_stay(Path::new(BY_ID)))?;
    let speaks_text = kind == Kind::Text;
    let bus = |baud, characters| {
        // What a line of text ends with, its profile says.
        Bus::Serial { port: "/dev/null".into(), baud, characters, speaks_text: false }
    };
    let plain = Characters { parity: Parity::Even, stop_bits: None };
    let wrong = |baud: &str| match baud.parse() {
        Ok(baud) => judge(&Draft { bus: bus(baud, plain), ..Draft::to_judge_by() }, None),
        Err(_) => Some(format!("{baud:?} is not a number of bits a second, such as 9600 or 19200")),
    };
    let text = baud.map(|baud| baud.to_string());
    let text = asking.judged("--baud", text, "Bits a second", Some(&was_baud.to_string()), wrong)?;
    let baud = text.parse().map_err(|_| format!("{text:?} is not a number; give another --baud"))?;
    let characters = match parity {
        Some(parity) => Characters { parity, stop_bits: None },
        None if !asking.is_somebody_there() => plain,
        None => characters(asking, was.unwrap_or(if speaks_text { CHARACTERS[1].1 } else { plain }))?,
    };
    Ok(Bus::Serial { port, baud, characters, speaks_text })
}

fn characters(asking: &Asking, proposed: Characters) -> Result<Characters, String> {
    let list: String = CHARACTERS.iter().map(|(name, _, what)| format!("  {name}  {what}\n")).collect();
    prompt(&format!("Bits of a character; the peripheral's manual or its display says it:\n{list}"));
    let of = |answer: &str| CHARACTERS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(answer));
    let names = || CHARACTERS.map(|(name, ..)| name).join(", ");
    let wrong = |answer: &str| of(answer).is_none().then(|| format!("{answer:?} is not one of {}", names()));
    let name = CHARACTERS.iter().find(|(_, characters, _)| *characters == proposed).map_or("8E1", |(name, ..)| name);
    let answer = asking.judged("--parity", None, "Characters", Some(name), wrong)?;
    Ok(of(&answer).map_or(proposed, |(_, characters, _)| *characters))
}

/// Tries line and hub, if a person wants that, as often as the person wants, and with other answers.
pub(super) fn try_out(
    asking: &Asking,
    draft: &mut Draft,
    typed_key: &mut Option<String>,
    shipped: &Shipped,
    environment: &[(String, String)],
) -> Result<(), String> {
    for part in [Part::Line, Part::Hub] {
        let what = match (part, draft.unit) {
            (Part::Line, Some(unit)) => format!("open {} and read something of unit {unit}", draft.bus.place()),
            (Part::Line, None) => format!("open {}", draft.bus.place()),
            (Part::Hub, _) => match &draft.at {
                At::Hub(host) => format!("connect to {host} as {} for a moment", draft.device),
                At::Assigned { .. } => {
                    let device = &draft.device;
                    format!("register {device} with the provisioning service, and connect to its hub for a moment")
                }
            },
        };
        prompt(&format!("A try would {what}.\n"));
        // A device that is registered for the first time is assigned by that.
        let question = match (part, &draft.at) {
            (Part::Hub, At::Assigned { .. }) => "Try it? Nothing is changed on this machine (y or n)",
            _ => "Try it? Nothing is changed by it (y or n)",
        };
        if !asking.yes(question, true)? {
            continue;
        }
        while !works(draft, typed_key.as_deref(), part, environment) {
            let choices = "Once more (m), with other answers (o), or go on all the same (g)";
            match asking.choice(choices, &["m", "o", "g"])? {
                "m" => {}
                "o" => ask_again(asking, draft, typed_key, shipped, part)?,
                _ => break,
            }
        }
    }
    Ok(())
}

/// Tries a part and tells what was found.
fn works(draft: &Draft, key: Option<&str>, part: Part, environment: &[(String, String)]) -> bool {
    prompt("trying …\n");
    let found = Trial::of(draft, key, environment.iter().cloned()).and_then(|trial| trial.tried(part));
    match found {
        Ok(found) => {
            found.iter().for_each(|finding| prompt(&format!("  {finding}\n")));
            found.iter().all(|finding| finding.verdict != Verdict::Fail)
        }
        Err(why) => {
            prompt(&format!("  {why}\n"));
            false
        }
    }
}

/// Asks once more what a part stands on.
fn ask_again(
    asking: &Asking,
    draft: &mut Draft,
    typed_key: &mut Option<String>,
    shipped: &Shipped,
    part: Part,
) -> Result<(), String> {
    match part {
        Part::Line => {
            let before = Some((&draft.bus, draft.unit));
            let (bus, unit) = bus(asking, Line::default(), &mut draft.profile, shipped, before)?;
            (draft.bus, draft.unit) = (bus, unit);
        }
        Part::Hub => {
            draft.at = at(asking, Hub::default(), Some(&draft.at))?;
            draft.device = device(asking, None, Some(&draft.device), true)?;
            draft.at = registration(asking, draft.at.clone(), &draft.device)?;
            (draft.secret, *typed_key) = (Secret::NewKey, Some(key(asking)?));
        }
    }
    Ok(())
}
