//! What a person at the gateway asks for: a row for each, whatever becomes of the person and the daemon. Proves G3 and
//! G9 for commands that no hub would deliver again.

use std::process::{Child, Command, Stdio};

use serde_json::{json, Value as Json};

use super::{add_keys, command, fence, site, Site};
use crate::support::slave::Mood;
use crate::support::{eventually, program, signal};

/// An operator who asks for a command with the value 7, and waits.
fn operator(site: &Site, command: &str) -> Child {
    let mut operator = Command::new(program());
    operator.args(["exec", "pump", command, "7", "--config"]).arg(site.path("fieldbridge.toml"));
    operator.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the built program can be run")
}

/// The row of an operator's command once it is in one of these states.
fn local_row(site: &Site, states: &[&str]) -> Json {
    eventually(&format!("a local row that is {states:?}"), || {
        let is_it =
            |row: &Json| row["source"] == "local" && states.contains(&row["state"].as_str().unwrap_or_default());
        site.rows().into_iter().find(is_it)
    })
}

/// As by Ctrl-C, which is ignored in what a shell has started in the background.
fn goes_away(mut operator: Child) {
    signal(operator.id(), "TERM");
    operator.wait().expect("a child can be waited for");
}

#[test]
fn each_command_of_an_operator_has_its_line_however_many_there_are() {
    let (site, broker, _slave) = site("after-execution");
    let daemon = site.start();
    let _client = broker.serve();
    for value in 0..15 {
        assert!(site.command(&["exec", "pump", "set", &value.to_string()]).status.success());
    }
    let log = daemon.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("executed for a local operator")).collect();
    assert_eq!(lines.len(), 15, "{log}");
    assert!(lines[14].contains("requested=\"14\"") && lines[14].contains("user="), "{}", lines[14]);
}

#[test]
fn a_command_whose_operator_goes_away_while_it_waits_is_not_sent_and_has_its_row() {
    for name in ["set", "pulse"] {
        let (site, broker, slave) = site("after-execution");
        let _daemon = site.start();
        let mut client = broker.serve();
        slave.set_mood(Mood::Held);
        client.deliver(1, "ahead", &command("set", 1));
        slave.wait_for_requests(1);
        let operator = operator(&site, name);
        local_row(&site, &["accepted"]);
        goes_away(operator);
        let row = local_row(&site, &["expired", "failed", "succeeded", "in_doubt"]);
        assert_eq!((&row["state"], &row["attempts"]), (&json!("expired"), &json!(0)), "{row}");
        assert!(row["error"]["message"].as_str().is_some_and(|why| why.contains("went away")), "{row}");
        slave.set_mood(Mood::Good);
        assert_eq!(client.collect(1, 1).0, [1]);
        fence(&mut client, 2);
        assert_eq!(slave.writes(), [(0, 1)]);
    }
}

#[test]
fn a_command_that_has_begun_goes_on_to_its_outcome_without_its_operator_and_over_a_stop() {
    for stops in [false, true] {
        let (site, broker, slave) = site("after-execution");
        let mut daemon = site.start();
        let _client = broker.serve();
        slave.set_mood(Mood::Held);
        let operator = operator(&site, "pulse");
        slave.wait_for_requests(1);
        goes_away(operator);
        if stops {
            signal(daemon.pid(), "TERM");
            eventually("it stops", || daemon.log().contains("stopping").then_some(()));
        }
        slave.set_mood(Mood::Good);
        if stops {
            assert_eq!(daemon.wait().code(), Some(0));
        }
        let row = local_row(&site, &["expired", "failed", "succeeded", "in_doubt"]);
        assert_eq!((&row["state"], &row["requested"], &row["attempts"]), (&json!("succeeded"), &json!(7), &json!(1)));
        assert_eq!(slave.writes(), [(2, 7)]);
    }
}

#[test]
fn a_command_of_an_operator_goes_on_over_reloads_that_take_its_device_away_and_bring_it_back() {
    let (site, broker, slave) = site("after-execution");
    let mut daemon = site.start();
    let first = broker.serve();
    slave.set_mood(Mood::Held);
    let mut operator = operator(&site, "pulse");
    slave.wait_for_requests(1);
    let whole = std::fs::read_to_string(site.path("fieldbridge.toml")).expect("it is there");
    let (before, after) = whole.split_once("[device.pump]").expect("it has a device");
    let (_, after) = after.split_once("\n[").expect("something follows");
    site.write("fieldbridge.toml", &format!("{before}[{after}"));
    assert!(site.command(&["reload"]).status.success());
    drop(first);
    site.write("fieldbridge.toml", &whole);
    assert!(site.command(&["reload"]).status.success());
    // An executor ends what an earlier life has left before anything that comes.
    let mut client = broker.serve();
    client.deliver(1, "unknown", r#"{"command":"no-such-command"}"#);
    assert_eq!(client.collect(1, 1).0, [1]);
    slave.set_mood(Mood::Good);
    assert!(operator.wait().expect("a child can be waited for").success());
    let row = local_row(&site, &["expired", "failed", "succeeded", "in_doubt"]);
    assert_eq!((&row["state"], &row["attempts"]), (&json!("succeeded"), &json!(1)), "{row}");
    assert!(daemon.is_running());
    assert_eq!(slave.writes(), [(2, 7)]);
}

#[test]
fn a_command_of_an_operator_that_a_crash_interrupts_is_not_repeated_and_has_its_end() {
    for (name, state) in [("pulse", "in_doubt"), ("set", "failed"), ("pulse-verified", "succeeded")] {
        let (site, broker, slave) = site("after-execution");
        let daemon = site.start();
        let client = broker.serve();
        slave.set_mood(Mood::Held);
        let mut operator = operator(&site, name);
        slave.wait_for_requests(1);
        daemon.kill();
        operator.wait().expect("a child can be waited for");
        drop(client);
        slave.set_mood(Mood::Good);
        let _daemon = site.start();
        let row = local_row(&site, &["expired", "failed", "succeeded", "in_doubt"]);
        assert_eq!(row["state"], state, "{name}: {row}");
        if state != "succeeded" {
            assert_eq!(row["error"]["code"], "interrupted", "{name}");
        }
        assert_eq!(slave.writes().len(), 1, "{name}");
        // The back end is told nothing of it.
        fence(&mut broker.serve(), 9);
    }
}

#[test]
fn a_command_of_an_operator_that_waits_for_its_bus_is_told_when_its_deadline_passes() {
    let (site, broker, slave) = site("after-execution");
    add_keys(&site, "pulse", "deadline = \"1s\"");
    let _daemon = site.start();
    let mut client = broker.serve();
    slave.set_mood(Mood::Held);
    client.deliver(1, "ahead", &command("set", 1));
    slave.wait_for_requests(1);
    let output = site.command(&["exec", "pump", "pulse", "7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("(expired)"));
    assert_eq!(local_row(&site, &["expired"])["attempts"], 0);
    slave.set_mood(Mood::Good);
    assert_eq!(client.collect(1, 1).0, [1]);
    assert_eq!(slave.writes(), [(0, 1)]);
}
