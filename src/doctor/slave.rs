//! Whether a device's peripheral answers: one question that changes nothing, and what its end means. The running daemon
//! asks it on its own bus in the same way.
//!
//! Invariant: what is asked is a Modbus read, of a place that the device's own commands use. Text is never sent: a line
//! that may be repeated may still act.

use std::time::Duration;

use tokio::time::Instant;

use super::{within, Finding};
use crate::bus::call::{Call, Permit, Wire};
use crate::bus::BusHandle;
use crate::config::Device;
use crate::peripheral::exchange::{Refusal, Request};
use crate::peripheral::registers::{Point, Table};
use crate::peripheral::{exception, Action, Command};

/// One repetition, as a line may have its noise.
const ATTEMPTS: u32 = 2;
/// A read that takes longer is not waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long the bus may keep a question waiting, beside other commands' timeouts.
const TURN_LIMIT: Duration = Duration::from_secs(15);
/// What a gateway between networks says of the device behind it when that does not answer.
const NOT_BEHIND_THE_GATEWAY: [u8; 2] = [exception::NO_PATH, exception::NO_RESPONSE];

/// What is asked of a device.
#[derive(Debug, Clone)]
struct Question {
    call: Call,
    /// What is read.
    what: String,
}

/// What can be asked without changing anything. The error says why nothing can.
fn question(device: &Device) -> Result<Question, String> {
    if device.broadcast {
        return Err("it is all units of its line, and none answers what goes to all".to_owned());
    }
    let commands = || device.commands.values().flat_map(Command::each);
    let reads = commands().filter_map(|command| match &command.action {
        Action::Read(point) => Some((command, point.read(), point)),
        _ => None,
    });
    let read_backs = commands().filter_map(|command| {
        let point = &command.read_back.as_ref()?.point;
        Some((command, point.read(), point))
    });
    let others = commands().filter_map(|command| match &command.action {
        Action::Write(point) => Some((command, first_of(point), point)),
        _ => None,
    });
    let found = reads.chain(read_backs).chain(others).next();
    let (command, request, point) = found.ok_or_else(|| match commands().next() {
        None => "its profile has no commands".to_owned(),
        Some(_) => "a line of text may act, whatever it says, so none is sent".to_owned(),
    })?;
    // A write's own timeout is for what it sets in motion.
    let timeout = command.timeout.filter(|_| matches!(command.action, Action::Read(_)));
    let timeout = timeout.map(|timeout| timeout.min(ANSWER_LIMIT));
    let (patience, quirks) = (device.patience, device.quirks);
    let call = Call { timeout, patience, quirks, ..Call::new(device.unit, request) };
    Ok(Question { call, what: format!("{} {} of {}", table_name(point.table), point.address, command.name) })
}

/// The first bit or register of a point that is only written. A device that won't give it says so, and that is an
/// answer.
fn first_of(point: &Point) -> Request {
    let address = point.address;
    match point.table {
        Table::Coil | Table::Discrete => Request::ReadBits { coils: point.table == Table::Coil, address, count: 1 },
        Table::Holding | Table::Input => {
            Request::ReadWords { holding: point.table == Table::Holding, address, count: 1 }
        }
    }
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Coil => "coil",
        Table::Discrete => "discrete input",
        Table::Holding => "holding register",
        Table::Input => "input register",
    }
}

/// The finding's name for a device's peripheral.
pub(super) fn about(device: &Device) -> String {
    format!("peripheral {}", device.id)
}

/// Asks whether a device's peripheral answers.
pub async fn ask(device: &Device, bus: &BusHandle) -> Finding {
    let about = about(device);
    let question = match question(device) {
        Ok(question) => question,
        Err(why) => return not_asked(device, &why),
    };
    let mut end = Wire::NotSent("the bus was not free".into());
    let caller = bus.caller();
    for _ in 0..ATTEMPTS {
        let Some(Ok(mut turn)) = within(TURN_LIMIT, caller.turn()).await else { break };
        let not_after = Some(Instant::now() + TURN_LIMIT);
        let call = Call { not_after, permit: Permit::default(), ..question.call.clone() };
        end = turn.exchange(&call).await;
        if !matches!(end, Wire::NoAnswer(_) | Wire::BadReply(_)) {
            break;
        }
    }
    judge(&about, device.unit, &question.what, &end)
}

fn not_asked(device: &Device, why: &str) -> Finding {
    let finding = Finding::warn(&about(device), format!("not asked: {why}"));
    let is_try = |command: &&Command| command.idempotent && command.prepare(None).is_ok();
    match device.commands.values().find(is_try) {
        Some(command) => finding.remedy(format!(
            "if it may be done now, try it with the daemon: fieldbridge exec {} {}",
            device.id, command.name
        )),
        None => finding.remedy("try a command by `fieldbridge exec` when the daemon runs"),
    }
}

fn judge(about: &str, unit: u8, what: &str, end: &Wire) -> Finding {
    let fail = |said: String, remedy: &str| Finding::fail(about, said).remedy(remedy);
    match end {
        Wire::Answered(_) => Finding::ok(about, format!("unit {unit} answers (read {what})")),
        Wire::Refused(Refusal::Exception(code)) if NOT_BEHIND_THE_GATEWAY.contains(code) => fail(
            format!("the gateway before it answers, and unit {unit} does not (Modbus exception {code})"),
            "check the unit id, the wiring behind that gateway, and its settings",
        ),
        Wire::Refused(Refusal::Exception(code)) => {
            let name = exception::name(*code);
            Finding::ok(about, format!("unit {unit} answers, by Modbus exception {code}, {name} (read {what})"))
        }
        Wire::Refused(Refusal::Text(text)) => Finding::ok(about, format!("it answers: {text}")),
        Wire::NotSent(why) => fail(format!("nothing could be asked: {why}"), "put the bus in order first"),
        Wire::NoAnswer(why) => fail(
            format!("no answer: {why}"),
            "check its power, A and B (swapped?), unit id, baud and parity, or give it a longer `response_timeout`",
        ),
        Wire::Broadcast => Finding::warn(about, "sent to all units, and none answers that"),
        Wire::BadReply(why) => fail(
            format!("what comes back is no answer: {why}"),
            "check baud and parity, that no other device has this unit id, and that the adapter does not echo",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::Verdict;
    use super::*;
    use crate::config::{Credential, OnUnreachable, Patience, Settle, TransportKind};
    use crate::peripheral::exchange::Answer;
    use crate::peripheral::quirks::Quirks;

    fn device(profile: &str) -> Device {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        let kind = if profile.contains("send =") {
            "kind = \"serial\"\nport = \"/dev/null\"\nbaud = 9600"
        } else {
            "kind = \"modbus-tcp\"\naddress = \"h:502\"\n[device.d]\nunit = 7"
        };
        let head = "[hub]\nhost = \"h.example\"\n[device.d]\nbus = \"b\"\nprofile = \"p\"\nkey_file = \"k\"\n";
        let (head, kind) = match kind.split_once("[device.d]\n") {
            Some((kind, unit)) => (format!("{head}{unit}\n"), kind),
            None => (head.to_owned(), kind),
        };
        std::fs::write(folder.path().join("k"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        std::fs::write(&main, format!("{head}[bus.b]\n{kind}\n{profile}")).unwrap();
        let loaded = crate::config::load(&main, []).unwrap();
        loaded.config.devices["d"].clone()
    }

    #[test]
    fn what_is_asked_is_a_read_of_the_devices_own() {
        let write =
            "[profile.p.command.a]\nwrite = { table = \"holding\", address = 5, count = 3 }\nidempotent = true\n";
        let coil = "[profile.p.command.a]\nwrite = { table = \"coil\", address = 5 }\nidempotent = false\n";
        let verified = "[profile.p.command.b]\nwrite = { table = \"holding\", address = 6, type = \"u32\" }\n\
                        idempotent = false\nverify = true\n";
        let read = "[profile.p.command.c]\nread = { table = \"input\", address = 7 }\ntimeout = \"3s\"\n";
        for (profile, what, words) in [
            (format!("{write}{verified}{read}"), "input register 7 of c", Some((false, 7, 1))),
            (format!("{write}{verified}"), "holding register 6 of b", Some((true, 6, 2))),
            (write.to_owned(), "holding register 5 of a", Some((true, 5, 1))),
            (coil.to_owned(), "coil 5 of a", None),
        ] {
            let question = question(&device(&profile)).unwrap();
            assert_eq!((question.what.as_str(), question.call.unit), (what, 7));
            match (question.call.request, words) {
                (Request::ReadWords { holding, address, count }, Some(words)) => {
                    assert_eq!((holding, address, count), words);
                }
                (Request::ReadBits { coils: true, address: 5, count: 1 }, None) => {}
                (other, _) => panic!("{profile}: {other:?}"),
            }
        }
        let slow_write = verified.to_owned() + "timeout = \"200s\"\n";
        for (profile, timeout) in [(read, Some(Duration::from_secs(3))), (&slow_write, None)] {
            assert_eq!(question(&device(profile)).unwrap().call.timeout, timeout);
        }
    }

    #[test]
    fn no_text_is_sent_and_a_command_to_try_is_named() {
        let open = "[profile.p.command.open]\nsend = \"OPEN\\r\\n\"\nidempotent = true\n";
        let tare = "[profile.p.command.tare]\nsend = \"T\\r\\n\"\nidempotent = false\n";
        for (profile, remedy) in [(open, "fieldbridge exec d open"), (tare, "when the daemon runs")] {
            let device = device(profile);
            let why = question(&device).unwrap_err();
            let finding = not_asked(&device, &why);
            assert_eq!(finding.verdict, Verdict::Warn);
            assert!(finding.to_string().contains(remedy), "{finding}");
        }
        let empty = Device {
            events: None,
            id: "d".into(),
            bus: "b".into(),
            unit: 1,
            patience: Patience::default(),
            broadcast: false,
            quirks: Quirks::NONE,
            on_unreachable: OnUnreachable::default(),
            transport: TransportKind::Mqtt,
            registration: None,
            credential: Credential::Key(vec![]),
            secondary: None,
            settle: Settle::AfterExecution,
            method_timeout: std::time::Duration::from_secs(25),
            form: Arc::default(),
            commands: Arc::new(BTreeMap::new()),
        };
        assert!(question(&empty).unwrap_err().contains("no commands"));
        let all = Device { unit: 0, broadcast: true, ..device(open) };
        assert!(question(&all).unwrap_err().contains("all units"));
    }

    #[test]
    fn an_exception_is_an_answer_unless_a_gateway_gives_it() {
        let exception = |code| Wire::Refused(Refusal::Exception(code));
        for (end, verdict, said) in [
            (Wire::Answered(Answer::Words(vec![1])), Verdict::Ok, "unit 7 answers (read x)"),
            (exception(2), Verdict::Ok, "Modbus exception 2, illegal data address"),
            (exception(5), Verdict::Ok, "Modbus exception 5"),
            (exception(10), Verdict::Fail, "unit 7 does not"),
            (exception(11), Verdict::Fail, "unit 7 does not"),
            (Wire::NoAnswer("nothing".into()), Verdict::Fail, "A and B"),
            (Wire::BadReply("noise".into()), Verdict::Fail, "baud and parity"),
            (Wire::NotSent("closed".into()), Verdict::Fail, "closed"),
        ] {
            let finding = judge("peripheral d", 7, "x", &end);
            assert_eq!(finding.verdict, verdict, "{finding}");
            assert!(finding.to_string().contains(said), "{finding}");
        }
    }
}
