//! The demo's story, chapter by chapter.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value as Json;

use super::peripherals::SLOW_REGISTER;
use super::stage::{Stage, DEVICES};
use super::tally::{Kind, Tally};
use crate::demo::hub::Cut;

/// Tells the story, and fails if something does not come out as it must.
pub async fn tell() -> Result<(), String> {
    let mut story = Story { stage: Stage::set().await?, tally: Tally::default(), chapter: 0 };
    say("fieldbridge demo: a simulated IoT Hub over TLS (MQTT and AMQP), a Modbus TCP slave, a Modbus RTU slave and a scale");
    say("with a line protocol, each peripheral a process of its own; the daemon is a child process.");
    story.stage.start_daemon().await?;
    say(&format!("The daemon is ready: {} devices, {} identities at the hub.", DEVICES.len(), DEVICES.len()));
    story.every_kind().await?;
    story.definite_no().await?;
    #[cfg(feature = "backend")]
    story.back_end().await?;
    #[cfg(feature = "backend")]
    story.calls_and_values().await?;
    story.duplicate().await?;
    story.kill_in_the_middle().await?;
    story.network_drops().await?;
    story.end().await
}

struct Story {
    stage: Stage,
    tally: Tally,
    chapter: u32,
}

/// A command of the story.
struct Send<'a> {
    device: &'a str,
    id: &'a str,
    command: &'a str,
    body: &'a str,
    kind: Kind,
    effect: Option<String>,
}

fn register(address: u16, value: u16) -> Option<String> {
    Some(format!("register {address} {value}"))
}

impl Story {
    async fn every_kind(&mut self) -> Result<(), String> {
        self.chapter("A command of each kind");
        let commands = [
            ("pump-7", "m-1", "set-speed", "42.5", Kind::Idempotent, register(0, 425)),
            ("pump-7", "m-2", "read-speed", "", Kind::Read, None),
            ("dispenser-1", "m-3", "dispense", "5", Kind::Once, register(10, 5)),
            ("valve-3", "m-4", "open", "", Kind::Once, Some("coil 3 1".into())),
            ("scale-1", "m-5", "weigh", "", Kind::Read, None),
            ("scale-1", "m-6", "label", "Batch 17", Kind::Once, Some("line P Batch 17".into())),
        ];
        for (device, id, command, body, kind, effect) in commands {
            let event = self.run(Send { device, id, command, body, kind, effect }).await?;
            expect(id, &event, "succeeded")?;
        }
        Ok(())
    }

    async fn definite_no(&mut self) -> Result<(), String> {
        self.chapter("A definite no, with its reason");
        let commands = [
            ("pump-7", "m-7", "set-speed", "140", Kind::Invalid, "rejected"),
            ("pump-7", "m-8", "explode", "", Kind::Invalid, "rejected"),
            ("pump-7", "m-9", "read-nothing", "", Kind::Invalid, "failed"),
            ("scale-1", "m-10", "label", "far too long for such a small label", Kind::Invalid, "failed"),
        ];
        for (device, id, command, body, kind, status) in commands {
            let event = self.run(Send { device, id, command, body, kind, effect: None }).await?;
            expect(id, &event, status)?;
        }
        Ok(())
    }

    #[cfg(feature = "backend")]
    async fn back_end(&mut self) -> Result<(), String> {
        self.chapter("The back end's half, to a device on AMQP: what the gateway rejects is not completed");
        let commands = [
            ("b-1", &["set-speed", "60"][..], Kind::Idempotent, register(0, 600), 0, "succeeded"),
            ("b-2", &["set-speed", "600"], Kind::Invalid, None, 1, "rejected"),
        ];
        for (id, command, kind, effect, exit, status) in commands {
            say(&format!("  $ fieldbridge send pump-7 {} --message-id {id} --ack full --wait", command.join(" ")));
            let options = ["--message-id", id, "--ack", "full", "--wait"];
            let (ended, printed) = self.stage.back_end(&[&["send", "pump-7"], command, &options].concat()).await?;
            printed.lines().for_each(|line| say(&format!("      {line}")));
            if ended != Some(exit) {
                return Err(format!("`fieldbridge send` of {id} was to end with {exit}, and ended with {ended:?}"));
            }
            self.tally.sent(id, kind, effect);
            let event = self.stage.settled(id, 1).await?;
            say(&format!("      result: {}", outcome(&event)));
            expect(id, &event, status)?;
        }
        Ok(())
    }

    #[cfg(feature = "backend")]
    async fn calls_and_values(&mut self) -> Result<(), String> {
        self.chapter("A call, which has its answer at once, and the same one again; values that are read regularly");
        let (id, effect) = ("c-1", register(10, 9));
        self.stage.wait("the device listens for calls", |stage| stage.hub.hears_methods("dispenser-1")).await?;
        for _ in 1..=2 {
            say(&format!("  $ fieldbridge call dispenser-1 dispense 9 --message-id {id}"));
            let call = ["call", "dispenser-1", "dispense", "9", "--message-id", id];
            let (ended, printed) = self.stage.back_end(&call).await?;
            printed.lines().for_each(|line| say(&format!("      {line}")));
            if ended != Some(0) {
                return Err(format!("`fieldbridge call` of {id} was to end with 0, and ended with {ended:?}"));
            }
            self.tally.called(id, Kind::Once, effect.clone());
        }
        let doses = self.count(&effect);
        say(&format!("  on the slave: {doses}; the second call was answered from the ledger"));
        self.stage
            .wait("the hub has the new dose", |stage| stage.values("dispenser-1", "dose").contains(&9.into()))
            .await?;
        let values: Vec<String> = self.stage.values("dispenser-1", "dose").iter().map(Json::to_string).collect();
        say(&format!("  telemetry of dispenser-1, a poll that reports changes: dose {}", values.join(", ")));
        Ok(())
    }

    async fn duplicate(&mut self) -> Result<(), String> {
        self.chapter("The same message twice: one action, two completions");
        for round in 1..=2 {
            self.stage.send("dispenser-1", "m-11", "dispense", "8")?;
            self.tally.sent("m-11", Kind::Once, register(10, 8));
            self.stage.settled("m-11", round).await?;
        }
        say(&format!(
            "  m-11 dispense 8     on the slave: {}   completed: {}",
            self.count(&register(10, 8)),
            self.stage.completions("m-11")
        ));
        Ok(())
    }

    async fn kill_in_the_middle(&mut self) -> Result<(), String> {
        self.chapter("SIGKILL in the middle of a command that must not be repeated");
        for (id, command, value, status) in
            [("m-12", "dispense-slowly", 12, "in_doubt"), ("m-13", "dispense-and-check", 13, "succeeded")]
        {
            let effect = register(SLOW_REGISTER, value);
            self.stage.send("dispenser-1", id, command, &value.to_string())?;
            self.tally.sent(id, Kind::Once, effect.clone());
            let begun = effect.clone();
            self.stage
                .wait("the slave has begun", |stage| stage.effects().iter().any(|line| Some(line) == begun.as_ref()))
                .await?;
            self.stage.kill_daemon();
            say(&format!("  {id} {command} {value}: the slave has begun and not confirmed; the daemon is killed"));
            say(&format!("      ledger: {}   hub: {} completions", self.ledger_state(id)?, self.stage.completions(id)));
            self.stage.start_daemon().await?;
            let event = self.stage.settled(id, 1).await?;
            say(&format!("      restarted: {}", outcome(&event)));
            say(&format!(
                "      on the slave: {}   ledger: {}   hub: {} completion",
                self.count(&effect),
                self.ledger_state(id)?,
                self.stage.completions(id)
            ));
            expect(id, &event, status)?;
        }
        say("  The first can't be read back, so the back end is told that it is in doubt; the second was read back.");
        Ok(())
    }

    async fn network_drops(&mut self) -> Result<(), String> {
        self.chapter("The network drops");
        self.stage.send("dispenser-1", "m-14", "dispense-slowly", "14")?;
        self.tally.sent("m-14", Kind::Once, register(SLOW_REGISTER, 14));
        let begun = register(SLOW_REGISTER, 14);
        self.stage
            .wait("the slave has begun", |stage| stage.effects().iter().any(|line| Some(line) == begun.as_ref()))
            .await?;
        self.stage.hub.stop_listening().await;
        for device in DEVICES {
            self.stage.hub.cut(device, Cut::Reset);
        }
        say("  every connection is cut while m-14 is on the wire; the back end sends three more meanwhile");
        for (id, value) in [("m-15", 15), ("m-16", 16), ("m-17", 17)] {
            self.stage.send("dispenser-1", id, "dispense", &value.to_string())?;
            self.tally.sent(id, Kind::Once, register(10, value));
        }
        self.stage
            .wait("the daemon notices", |stage| {
                !stage.operator(&["status"]).is_ok_and(|text| text.contains(" connected\n") && text.contains("4 of 4"))
            })
            .await?;
        say(&format!("  daemon: {}", self.stage.operator(&["status"])?.lines().nth(1).unwrap_or_default()));
        self.stage.hub.resume_listening().await.map_err(|error| format!("the hub can't listen again: {error}"))?;
        for id in ["m-14", "m-15", "m-16", "m-17"] {
            let event = self.stage.settled(id, 1).await?;
            expect(id, &event, "succeeded")?;
        }
        say(
            "  the network is back: m-14 was delivered again and completed from the ledger; m-15 to m-17 ran, in order",
        );
        Ok(())
    }

    async fn end(mut self) -> Result<(), String> {
        self.chapter("The books");
        let exit = self.stage.stop_daemon().await?;
        if exit != Some(0) {
            return Err(format!("the daemon did not stop in order: {exit:?}"));
        }
        let counts = self.tally.count(&self.stage);
        say(&counts.table());
        counts.verdict()?;
        say("Every count is right.");
        Ok(())
    }

    /// Sends a command and shows what came of it, as the peripheral, the hub and the event tell it.
    async fn run(&mut self, send: Send<'_>) -> Result<Json, String> {
        let mut before = self.stage.effects();
        self.stage.send(send.device, send.id, send.command, send.body)?;
        self.tally.sent(send.id, send.kind, send.effect);
        let event = self.stage.settled(send.id, 1).await?;
        let is_new = |line: &String| match before.iter().position(|old| old == line) {
            Some(at) => {
                before.swap_remove(at);
                false
            }
            None => true,
        };
        let wire: Vec<String> = self.stage.effects().into_iter().filter(is_new).collect();
        let wire = if wire.is_empty() { "-".to_owned() } else { wire.join(", ") };
        let call = format!("{} {}", send.command, shortened(send.body));
        let feedback = self.stage.feedback(send.id);
        say(&format!(
            "  {:5} {:12} {call:24} slave: {wire:16} feedback: {feedback:8} result: {}",
            send.id,
            send.device,
            outcome(&event)
        ));
        Ok(event)
    }

    fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        let bold = std::io::stdout().is_terminal();
        let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        say(&format!("\n{on}{}. {title}{off}", self.chapter));
    }

    fn count(&self, effect: &Option<String>) -> usize {
        self.stage.effects().iter().filter(|line| Some(*line) == effect.as_ref()).count()
    }

    fn ledger_state(&self, id: &str) -> Result<String, String> {
        let text = self.stage.operator(&["ledger", "show", "dispenser-1", id, "--json"])?;
        let row: Json = serde_json::from_str(&text).map_err(|_| text)?;
        Ok(row["state"].as_str().unwrap_or_default().to_owned())
    }
}

fn outcome(event: &Json) -> String {
    let status = event["status"].as_str().unwrap_or_default();
    match (event.get("value"), event.get("error")) {
        (_, Some(error)) => format!("{status} ({})", error["code"].as_str().unwrap_or_default()),
        (Some(value), None) => format!("{status}: {value}"),
        (None, None) => status.to_owned(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(12) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn expect(id: &str, event: &Json, status: &str) -> Result<(), String> {
    match event["status"] == status {
        true => Ok(()),
        false => Err(format!("{id} was to end as {status}: {event}")),
    }
}

/// A line of the story. A reader that goes away early is no error.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
