//! `fieldbridge status`: whether anything needs a person, and the shape of its JSON.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;

use super::{has_shape, json_of, says, status, stdout, Plant, PROGRAM};
use crate::support::slave::Mood;
use crate::support::{self, eventually, Site};

#[test]
fn events_of_a_device_that_is_not_configured_any_more_are_told_apart() {
    let site = Site::new("127.0.0.1:1", &support::pump("127.0.0.1:1", "after-execution", ""));
    assert_eq!(status(&site.command(&["ledger", "new", "--trust"])), 0);
    let db = rusqlite::Connection::open(site.path("ledger.db")).expect("it was made");
    db.execute_batch(
        "INSERT INTO outbox (device, message_id, body)
         VALUES ('gone', 'm-1', '{}'), ('pump', 'm-1', '{}'), ('gone', 'm-2', '{}'), ('zzz', 'm-1', '{}')",
    )
    .expect("rows can be added");
    drop(db);
    let _daemon = site.start();
    assert_eq!(site.status()["outbox"], json!({"pending": 1, "ofRemovedDevices": 3}));
    let shown = stdout(&site.command(&["status"]));
    assert!(shown.contains("3 more events are of devices that are not configured any more"), "{shown}");
}

#[test]
fn a_refused_reload_is_seen_in_the_status() {
    let plant = Plant::start();
    plant.site.settled();
    says(&plant.site.command(&["status"]), 0, "Everything works.", "");
    plant.site.configure("unit = 1", "unit = 300");
    says(&plant.site.command(&["status"]), 1, "fieldbridge.toml has changed since it was read", "");
    says(&plant.site.command(&["reload"]), 78, "", "device.pump.unit");
    says(&plant.site.command(&["status"]), 1, "REFUSED", "");
    says(&plant.site.command(&["status"]), 1, "device.pump.unit", "");
    let document = json_of(&plant.site.command(&["status", "--json"]));
    assert_eq!(document["attention"][0]["what"].as_str().map(|what| what.contains("REFUSED")), Some(true));
    plant.site.configure("unit = 300", "unit = 1");
    says(&plant.site.command(&["reload"]), 0, "nothing has changed", "");
    assert!(!stdout(&plant.site.command(&["status"])).contains("REFUSED"));
    // The ledger stays where it is, whatever the files say meanwhile.
    let moved = "[ledger]\npath = \"other.db\"\n";
    let main = std::fs::read_to_string(plant.site.path("fieldbridge.toml")).expect("it is there");
    let other: String = main
        .lines()
        .map(|line| match line.starts_with("path = ") {
            true => "path = \"other.db\"\n".to_owned(),
            false => format!("{line}\n"),
        })
        .collect();
    let other = if main.contains("[ledger]") { other } else { format!("{main}{moved}") };
    plant.site.write("fieldbridge.toml", &other);
    for _ in 0..2 {
        says(&plant.site.command(&["reload"]), 0, "ledger.path is taken up at the next start only", "");
    }
    plant.site.write("fieldbridge.toml", &main);
    says(&plant.site.command(&["reload"]), 0, "nothing has changed", "");
    plant.site.settled();
}

#[test]
fn status_has_the_shape_that_scripts_rely_on() {
    let mut plant = Plant::start();
    plant.deliver(1, "m-1", "set", 7);
    plant.client.deliver(2, "m-1", r#"{"command":"set","value":7}"#);
    assert_eq!(plant.client.next_puback(&mut Vec::new()), 2);
    plant.site.settled();
    let example = json!({"version": "0.1.0", "uptimeSeconds": 12,
        "clock": {"ok": true, "now": "2026-11-22T10:00:00.123Z", "lastError": null},
        "configuration": {"ok": true, "lastError": null, "file": "…", "changedFiles": ["…"]},
        "hub": {"host": "…", "connected": 3, "identities": 3},
        "devices": [{"id": "pump-7", "bus": "line-a", "hub": "connected", "hubHost": "…", "transport": "mqtt", "lastError": null,
                     "locked": null, "present": true, "awaySince": null, "received": 10, "executed": 8, "duplicates": 2,
                     "inDoubt": 0, "inDoubtOpen": 0, "distrusted": false, "pending": 0, "lastFailure": null,
                     "lastSuccess": {"at": null, "secondsAgo": 3, "command": "set"}}],
        "buses": [{"name": "line-a", "kind": "modbus-rtu", "state": "open", "lastError": null, "exchanges": 8, "timeouts": 0,
                   "units": [{"unit": 7, "exchanges": 8, "timeouts": 0, "badReplies": 0, "checksumErrors": 0,
                              "exceptions": {}, "milliseconds": {"last": 1.0, "mean": 1.0, "max": 1.0,
                              "histogram": [{"upTo": 10, "count": 1}]}}], "events": null}],
        "ledger": {"ok": true, "rows": 10, "inDoubtOpen": 0, "distrusted": false, "lastError": null},
        "outbox": {"pending": 0, "ofRemovedDevices": 0}, "attention": [{"what": "…", "remedy": "…"}]});
    let status = plant.site.status();
    has_shape(&status, &example, "status");
    let success = &status["devices"][0]["lastSuccess"];
    assert_eq!(success["command"], "set");
    let device = json!({"id": "pump", "bus": "plant", "hub": "connected", "hubHost": "hub.example", "transport": "mqtt",
        "lastError": null, "locked": null, "present": true, "awaySince": null, "received": 2, "executed": 1, "duplicates": 1,
        "inDoubt": 0, "inDoubtOpen": 0, "distrusted": false, "pending": 0, "lastFailure": null, "lastSuccess": success});
    assert_eq!(status["devices"], json!([device]));
    let units = &status["buses"][0]["units"];
    assert_eq!((&units[0]["unit"], &units[0]["exchanges"], &units[0]["timeouts"]), (&json!(1), &json!(1), &json!(0)));
    let bus = json!({"name": "plant", "kind": "modbus-tcp", "state": "open", "lastError": null, "exchanges": 1, "timeouts": 0,
        "units": units, "events": null});
    assert_eq!(status["buses"], json!([bus]));
    assert_eq!(status["hub"], json!({"host": "hub.example", "connected": 1, "identities": 1}));
    assert_eq!(
        status["ledger"],
        json!({"ok": true, "rows": 1, "inDoubtOpen": 0, "distrusted": false, "lastError": null})
    );
    assert_eq!(status["attention"], json!([]));
    let output = plant.site.command(&["status"]);
    for part in [
        "Everything works.\n",
        "hub hub.example: 1 of 1 identities connected",
        "ledger ok, 1 row, 0 in doubt; outbox 0 events",
        "fieldbridge.toml: in force as it stands in the files",
        " s ago: set",
    ] {
        says(&output, 0, part, "");
    }
}

#[test]
fn sixty_devices_that_miss_the_hub_for_one_reason_are_one_problem() {
    let devices: String = (0..60)
        .map(|n| {
            format!("[device.d-{n:02}]\nbus = \"b\"\nunit = {}\nprofile = \"p\"\nkey_file = \"device.key\"\n", n + 1)
        })
        .collect();
    let bus = "[bus.b]\nkind = \"modbus-tcp\"\naddress = \"127.0.0.1:1\"\nidle_close = \"0s\"\n";
    let profile = "[profile.p.command.read]\nread = { table = \"holding\", address = 0 }\n";
    let site = Site::new("127.0.0.1:1", &format!("{bus}{devices}{profile}"));
    let _daemon = site.start();
    let has_tried_all = || {
        let document = site.status();
        let devices = document["devices"].as_array().expect("a list").clone();
        devices.iter().all(|device| !device["lastError"].is_null()).then_some(())
    };
    eventually("each has tried", has_tried_all);
    let output = site.command(&["status"]);
    says(&output, 1, "d-00, d-01, d-02 and 57 more are not connected to the hub: ", "");
    let shown = stdout(&output);
    assert_eq!(shown.matches("not connected to the hub").count(), 1, "{shown}");
    assert!(shown.lines().next().is_some_and(|line| line.ends_with("you:")), "{shown}");
    assert_eq!(status(&site.command(&["status", "--json"])), 0, "the document says it");
}

#[test]
fn what_is_in_doubt_needs_a_person_until_somebody_has_looked_over_restarts_too() {
    let mut plant = Plant::start();
    plant.slave.set_mood(Mood::Mute);
    plant.deliver(1, "m-1", "pulse", 7);
    let open = |site: &Site| {
        let document = site.status();
        (document["ledger"]["inDoubtOpen"].clone(), document["devices"][0]["inDoubtOpen"].clone())
    };
    assert_eq!(open(&plant.site), (json!(1), json!(1)));
    let shown = stdout(&plant.site.command(&["status"]));
    assert!(shown.contains("1 command is in doubt, of pump: whether it was done is not known"), "{shown}");
    assert!(shown.contains("ago: pulse, in_doubt (timeout)"), "{shown}");
    let Plant { daemon, site, .. } = plant;
    assert!(daemon.terminate().success());
    let daemon = site.start();
    assert_eq!(open(&site), (json!(1), json!(1)), "the ledger knows");
    let output = site.command(&["ledger", "resolve", "pump", "m-1", "--note", "the valve is open"]);
    says(&output, 0, "row 1 is resolved", "");
    assert_eq!(open(&site), (json!(0), json!(0)));
    let row = json_of(&site.command(&["ledger", "show", "1", "--json"]));
    assert_eq!((&row["state"], &row["resolved"]["note"]), (&json!("in_doubt"), &json!("the valve is open")));
    assert_eq!(row["resolved"]["by"], super::user_name());
    let last = row["history"].as_array().and_then(|history| history.last()).expect("there is one").clone();
    assert_eq!(last["event"], "resolved", "{last}");
    says(&site.command(&["ledger", "resolve", "1"]), 1, "", "row 1 was resolved before");
    says(&site.command(&["ledger", "resolve", "9"]), 1, "", "the ledger has no row 9");
    assert!(daemon.terminate().success());
}

#[test]
fn status_that_is_watched_through_a_pipe_is_printed_anew() {
    let plant = Plant::start();
    let config = plant.site.path("fieldbridge.toml");
    let mut watch = Command::new(PROGRAM)
        .args(["status", "--watch", "--config"])
        .arg(config)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the built program can be run");
    let lines = BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    let pictures = lines.map_while(Result::ok).filter(|line| line.starts_with("fieldbridge ")).take(2).count();
    assert_eq!(pictures, 2);
    watch.kill().and_then(|()| watch.wait()).expect("it can be ended");
}

/// Runs a program on a terminal of 60 columns, prints what that has shown, and ends as the program did.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    try:
        piece = os.read(terminal, 1024)
    except OSError:
        break
    if not piece:
        break
    sys.stdout.buffer.write(piece)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn on_a_terminal_it_is_wrapped_and_in_colour_unless_somebody_wants_none() {
    let site = Site::new("127.0.0.1:1", &support::pump("127.0.0.1:1", "after-execution", ""));
    let _daemon = site.start();
    eventually("it has tried", || (!site.status()["devices"][0]["lastError"].is_null()).then_some(()));
    let shown = |no_color: &str| {
        let output = Command::new("python3")
            .args(["-c", ON_A_TERMINAL, PROGRAM, "status", "--config"])
            .arg(site.path("fieldbridge.toml"))
            .env("TERM", "xterm")
            .env("NO_COLOR", no_color)
            .stdin(Stdio::null())
            .output()
            .expect("python3 can be run");
        says(&output, 1, "you:", "");
        stdout(&output).replace("\r\n", "\n")
    };
    let coloured = shown("");
    assert!(coloured.starts_with("\x1b[1;31m"), "{coloured:?}");
    let plain = shown("1");
    assert!(!plain.contains('\x1b'), "{plain:?}");
    let (problems, _) = plain.split_once("\n\nfieldbridge ").expect("the rest follows");
    assert!(problems.lines().count() > 4, "each is longer than a line: {problems}");
    assert!(problems.lines().all(|line| line.chars().count() <= 60), "{problems}");
}
