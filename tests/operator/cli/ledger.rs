//! `fieldbridge ledger`, and what is said where there is no ledger to be trusted.

use crate::support::disk::SmallDisk;
use crate::support::{eventually, Site};
use serde_json::Value as Json;

use super::{idle_site, says, status, stderr, stdout, Plant};

#[test]
fn the_ledger_is_read_beside_the_daemon_and_without_it() {
    let mut plant = Plant::start();
    for (n, command) in ["set", "pulse", "no-such-command"].into_iter().enumerate() {
        plant.deliver(n as u16 + 1, &format!("m-{n}"), command, 40 + n as u16);
    }
    let look = |site: &Site| {
        let rows = stdout(&site.command(&["ledger", "list", "--json"]));
        let ids: Vec<String> = rows
            .lines()
            .map(|row| serde_json::from_str::<Json>(row).expect("a row is JSON")["messageId"].to_string())
            .collect();
        assert_eq!(ids, [r#""m-2""#, r#""m-1""#, r#""m-0""#], "newest first, one a line");
        let table = stdout(&site.command(&["ledger", "list"]));
        assert_eq!(table.lines().count(), 4, "a head and one row a line:\n{table}");
        let output = site.command(&["ledger", "show", "pump", "m-1"]);
        says(&output, 0, "state       succeeded", "");
        let shown = stdout(&output);
        for event in ["received", "executing", "succeeded"] {
            assert!(
                shown.lines().any(|line| line.contains('Z') && line.contains(event)),
                "{event} is missing:\n{shown}"
            );
        }
        says(&site.command(&["ledger", "show", "pump", "m-9"]), 1, "", "no message \"m-9\"");
        says(&site.command(&["ledger", "show", "pumpe", "m-1"]), 1, "", "\"pumpe\"");
    };
    look(&plant.site);
    plant.site.settled();
    let Plant { daemon, site, .. } = plant;
    assert!(daemon.terminate().success());
    look(&site);
    // A daemon that was killed leaves a log beside the file, which is read too.
    let daemon = site.start();
    daemon.kill();
    look(&site);
}

#[test]
fn an_id_may_begin_with_a_hyphen_and_a_slip_in_an_option_is_none() {
    let mut plant = Plant::start();
    plant.deliver(1, "-m", "set", 7);
    let site = &plant.site;
    says(&site.command(&["ledger", "show", "pump", "-m"]), 0, "state       succeeded", "");
    says(&site.command(&["explain", "pump", "-m"]), 0, "for pump: set 7", "");
    says(&site.command(&["ledger", "resolve", "pump", "-m", "--note", "x"]), 1, "", "nothing to resolve");
    says(&site.command(&["ledger", "show", "pump", "--jsn"]), 2, "", "no such option");
    says(&site.command(&["ledger", "list", "--json", "--format", "csv"]), 2, "", "cannot be used with");
}

#[test]
fn ledger_list_selects_by_device_state_and_number() {
    let mut plant = Plant::start();
    for n in 0..5 {
        let command = if n % 2 == 0 { "set" } else { "no-such-command" };
        plant.deliver(n + 1, &format!("m-{n}"), command, 40 + n);
    }
    let ids = |args: &[&str]| -> Vec<String> {
        let output = plant.site.command(&[&["ledger", "list", "--json"], args].concat());
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        let id = |row: &str| {
            serde_json::from_str::<Json>(row).expect("a row is JSON")["messageId"].as_str().map(str::to_owned)
        };
        stdout(&output).lines().filter_map(id).collect()
    };
    assert_eq!(ids(&["--limit", "2"]), ["m-4", "m-3"]);
    assert_eq!(ids(&["--state", "rejected"]), ["m-3", "m-1"]);
    assert_eq!(ids(&["--state", "succeeded", "--limit", "1"]), ["m-4"]);
    assert_eq!(ids(&["--device", "pump"]).len(), 5);
    assert_eq!(ids(&["--device", "pump-9"]), [] as [&str; 0]);
    for state in ["accepted", "executing", "failed", "expired", "in_doubt"] {
        assert_eq!(ids(&["--state", state]), [] as [&str; 0]);
    }
}

#[test]
fn a_ledger_that_cant_be_trusted_ends_with_74_and_one_that_is_not_there_with_1() {
    let site = idle_site();
    says(&site.command(&["ledger", "list"]), 1, "", "the daemon makes it when it first starts");
    let foreign = site.path("foreign.db");
    rusqlite::Connection::open(&foreign).and_then(|db| db.execute_batch("CREATE TABLE t (x)")).expect("SQLite works");
    let foreign = std::fs::read(foreign).expect("it was written");
    let daemon = site.start();
    daemon.kill();
    let sound = std::fs::read(site.path("ledger.db")).expect("there is a ledger");
    let _ = std::fs::remove_file(site.path("ledger.db-wal"));
    let _ = std::fs::remove_file(site.path("ledger.db-shm"));
    for (bytes, why) in [
        (foreign, "not a fieldbridge ledger"),
        (b"no database at all, but long enough to be taken for one".repeat(100), "damaged"),
        (sound[..sound.len() / 2].to_vec(), "damaged"),
        (Vec::new(), "empty"),
    ] {
        std::fs::write(site.path("ledger.db"), &bytes).expect("it can be written");
        for args in [&["run"][..], &["ledger", "list"], &["ledger", "show", "pump", "m-1"]] {
            let output = site.command(args);
            says(&output, 74, "", why);
            assert!(stderr(&output).contains("ledger.db"), "{}", stderr(&output));
        }
        assert_eq!(std::fs::read(site.path("ledger.db")).expect("it is there"), bytes, "it was changed");
    }
}

#[test]
fn a_ledger_in_a_read_only_place_ends_with_74() {
    let disk = SmallDisk::new("8m");
    let site = idle_site();
    site.keep_ledger_in(disk.path());
    // Without a ledger there, and with one.
    for round in 0..2 {
        disk.remount("ro");
        says(&site.command(&["run"]), 74, "", "ledger.db");
        if round == 0 {
            disk.remount("rw");
            site.start().kill();
        }
    }
}

#[test]
fn a_second_daemon_on_the_same_ledger_is_refused_with_74_and_disturbs_nothing() {
    let mut plant = Plant::start();
    for _ in 0..2 {
        says(&plant.site.command(&["run"]), 74, "", "is in use by another fieldbridge daemon");
    }
    plant.deliver(1, "m-1", "set", 7);
    assert_eq!(plant.site.status()["hub"]["connected"], 1);
    assert!(plant.daemon.is_running());
}

#[test]
fn rows_are_selected_by_command_and_time_and_printed_for_a_spreadsheet() {
    let mut plant = Plant::start();
    for n in 0..4 {
        let command = if n % 2 == 0 { "set" } else { "pulse" };
        plant.deliver(n + 1, &format!("m-{n}"), command, 40 + n);
    }
    let ids = |args: &[&str]| -> Vec<String> {
        let output = plant.site.command(&[&["ledger", "list", "--format", "json"], args].concat());
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        let id = |row: &str| {
            serde_json::from_str::<Json>(row).expect("a row is JSON")["messageId"].as_str().map(str::to_owned)
        };
        stdout(&output).lines().filter_map(id).collect()
    };
    assert_eq!(ids(&["--command", "pulse"]), ["m-3", "m-1"]);
    assert_eq!(ids(&["--command", "pulse", "--state", "succeeded", "--limit", "1"]), ["m-3"]);
    assert_eq!(ids(&["--since", "1h"]).len(), 4);
    assert_eq!(ids(&["--since", "2030-01-01", "--device", "pump"]), [] as [&str; 0]);
    assert_eq!(ids(&["--until", "1h"]), [] as [&str; 0]);
    assert_eq!(ids(&["--until", "2100-01-01T00:00:00Z", "--state", "rejected"]), [] as [&str; 0]);
    assert_eq!(ids(&["--open"]), [] as [&str; 0]);
    says(&plant.site.command(&["ledger", "list", "--since", "yesterday"]), 2, "", "is no time; write");
    let csv = stdout(&plant.site.command(&["ledger", "list", "--format", "csv", "--limit", "1"]));
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("row,receivedAt,hub,") && lines.len() == 2, "{csv}");
    assert!(lines[1].starts_with("4,2") && lines[1].contains(",pump,m-3,pulse,43,succeeded,1,1,"), "{csv}");
    let table = stdout(&plant.site.command(&["ledger", "list"]));
    assert!(table.lines().next().is_some_and(|heads| heads.contains("local time")), "{table}");
}

#[test]
fn a_list_that_is_followed_goes_on_with_new_rows() {
    let mut plant = Plant::start();
    plant.deliver(1, "m-1", "set", 1);
    let mut follow = std::process::Command::new(super::PROGRAM)
        .args(["ledger", "list", "--follow", "--json", "--config"])
        .arg(plant.site.path("fieldbridge.toml"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the built program can be run");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().expect("it is piped")));
    let mut next = || -> Json { serde_json::from_str(&lines.next().expect("a row").expect("text")).expect("JSON") };
    assert_eq!(next()["messageId"], "m-1");
    plant.deliver(2, "m-2", "pulse", 2);
    assert_eq!(next()["messageId"], "m-2");
    plant.deliver(3, "m-3", "set", 3);
    let mut row = next();
    // The row of what must not be repeated may have been seen before its end, too.
    if row["messageId"] == "m-2" {
        row = next();
    }
    assert_eq!(row["messageId"], "m-3");
    follow.kill().and_then(|()| follow.wait()).expect("it can be ended");
}

#[test]
fn the_story_of_a_command_is_told_in_plain_words() {
    let mut plant = Plant::start();
    plant.deliver(1, "m-1", "pulse", 7);
    plant.site.settled();
    // That the hub was told, and has the event, is noted with a later commit.
    let output = eventually("the end of the story", || {
        let output = plant.site.command(&["explain", "pump", "m-1"]);
        let said = stdout(&output);
        let is_noted = said.contains("the hub was told: ") && said.ends_with("\n- the hub has its result event\n");
        is_noted.then_some(output)
    });
    says(&output, 0, "received from the hub hub.example, for pump: pulse 7", "");
    for part in [
        "recorded as about to go on the wire, as it must not be repeated",
        "done, after one attempt on the wire: the peripheral confirmed",
        "its first byte went on the wire",
        "; recorded with its result event, in one; ",
        "the hub was told: completed by mqtt; it does not deliver it again",
        "the hub has its result event",
    ] {
        says(&output, 0, part, "");
    }
    let document: Json = serde_json::from_slice(&plant.site.command(&["explain", "1", "--json"]).stdout).expect("JSON");
    assert_eq!(document["story"].as_array().map(Vec::len), Some(6), "{document}");
    says(&plant.site.command(&["explain", "pump", "m-9"]), 1, "", "no message \"m-9\"");
}

#[test]
fn a_doubt_is_resolved_in_the_file_where_no_daemon_runs() {
    let mut plant = Plant::start();
    plant.slave.set_mood(crate::support::slave::Mood::Mute);
    plant.deliver(1, "m-1", "pulse", 7);
    plant.deliver(2, "m-2", "pulse", 8);
    let Plant { daemon, site, .. } = plant;
    let open = |site: &Site| stdout(&site.command(&["ledger", "list", "--open", "--json"])).lines().count();
    assert_eq!(open(&site), 2);
    assert!(daemon.terminate().success());
    says(&site.command(&["ledger", "resolve", "1", "--note", "done by hand"]), 0, "row 1 is resolved", "");
    assert_eq!(open(&site), 1);
    // A killed daemon leaves a log, which the next one finds with what is noted in it.
    site.start().kill();
    says(&site.command(&["ledger", "resolve", "pump", "m-2"]), 0, "row 2 is resolved", "");
    says(&site.command(&["ledger", "show", "1"]), 0, "resolved    by ", "");
    says(&site.command(&["ledger", "resolve", "7"]), 1, "", "the ledger has no row 7");
    let _daemon = site.start();
    assert_eq!(open(&site), 0);
    assert_eq!(site.status()["ledger"]["inDoubtOpen"], 0);
}
