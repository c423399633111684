//! What the daemon knows and makes is not for others: its memory, its files, its socket; and what others say can't
//! speak in its name (part of G8). The tests that need another user run as root, and say so where they can't.

use std::os::unix::fs::{chown, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::broker::Broker;
use crate::support::process::Killed;
use crate::support::slave::Slave;
use crate::support::{self, eventually, pump, signal, Daemon, Site};

/// The site's device key, as its file has it.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The user of the daemon, and its group.
const OWNER: u32 = 65_534;
/// Another user.
const OTHER: u32 = 65_533;

fn is_root() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        eprintln!("SKIPPED: this test needs root, to act as another user");
    }
    root
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode can be set");
}

/// A site that belongs to [`OWNER`], with a copy of the program that every user can run.
fn owned_site(broker: &Broker, slave: &Slave) -> Site {
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    std::fs::copy(env!("CARGO_BIN_EXE_fieldbridge"), site.path("program")).expect("the program can be copied");
    for (name, mode) in [("", 0o755), ("program", 0o755), ("fieldbridge.toml", 0o644), ("device.key", 0o600)] {
        chown(site.path(name), Some(OWNER), Some(OWNER)).expect("root can give files away");
        set_mode(&site.path(name), mode);
    }
    site
}

/// The words that run a program as a user.
fn as_user(uid: u32, gid: u32) -> [String; 4] {
    ["setpriv".into(), format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]
}

/// Starts the daemon as [`OWNER`], with the loosest file mode mask there is, and waits until it answers.
fn start_owned(site: &Site) -> Daemon {
    let program = site.path("program").display().to_string();
    // The first of the words that follow is the program that the site would start.
    let script = format!("umask 0; shift; exec {program} \"$@\"");
    let user = as_user(OWNER, OWNER);
    let wrapper: Vec<&str> = user.iter().map(String::as_str).chain(["sh", "-c", &script, "sh"]).collect();
    let daemon = site.spawn(&wrapper, &[]);
    eventually("it answers", || run_as(0, 0, site, &["status"]).status.success().then_some(()));
    daemon
}

/// Runs an operator's command as a user.
fn run_as(uid: u32, gid: u32, site: &Site, args: &[&str]) -> Output {
    let user = as_user(uid, gid);
    let mut command = Command::new(&user[0]);
    command.args(&user[1..]).arg(site.path("program")).args(args).arg("--config").arg(site.path("fieldbridge.toml"));
    command.stdin(Stdio::null()).output().expect("setpriv can be run")
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// A program that does nothing, for comparison: what the daemon is protected from would work on it.
fn sleeper(words: &[&str], folder: &Path) -> Killed {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["sleep", "600"]).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let sleeper = Killed(command.spawn().expect("sleep can be run"));
    let name = format!("/proc/{}/comm", sleeper.0.id());
    eventually("it sleeps", || std::fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n").then_some(()));
    sleeper
}

#[test]
fn no_core_dump_is_left_that_would_hold_the_keys() {
    support::require("prlimit", "util-linux");
    let unlimited = ["prlimit", "--core=unlimited:unlimited"];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut other = sleeper(&unlimited, folder.path());
    signal(other.0.id(), "ABRT");
    let status = other.0.wait().expect("a child can be waited for");
    if !status.core_dumped() {
        eprintln!("SKIPPED: this machine writes no core dumps at all, so nothing is shown here");
        return;
    }
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let mut daemon = site.start_under(&unlimited);
    let _client = broker.serve();
    signal(daemon.pid(), "ABRT");
    let status = daemon.wait();
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped(), "a core dump was left");
}

#[test]
fn another_process_of_the_daemons_user_cant_read_its_memory() {
    if !is_root() {
        return;
    }
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = owned_site(&broker, &slave);
    let daemon = start_owned(&site);
    let user = as_user(OWNER, OWNER);
    let user: Vec<&str> = user.iter().map(String::as_str).collect();
    let other = sleeper(&user, Path::new("/"));
    let can_read = |pid: u32, what: &str| {
        let mut command = Command::new(user[0]);
        let read = command.args(&user[1..]).args(["head", "-c", "1", &format!("/proc/{pid}/{what}")]);
        read.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("head can be run").success()
    };
    for what in ["maps", "environ", "auxv"] {
        assert!(can_read(other.0.id(), what), "{what} of an ordinary process can be read");
        assert!(!can_read(daemon.pid(), what), "{what} of the daemon can be read");
    }
}

#[test]
fn arguments_and_environment_hold_no_secret() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let daemon = site.start();
    let _client = broker.serve();
    for what in ["cmdline", "environ"] {
        let path = format!("/proc/{}/{what}", daemon.pid());
        let said = std::fs::read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        // Without root the environment can't be read at all any more, which another test shows.
        let Ok(said) = said else { continue };
        assert!(!said.contains(&KEY[..20]) && !said.contains("sig="), "{path}: {said}");
    }
}

#[test]
fn what_the_daemon_makes_is_not_for_others_whatever_the_mask() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let daemon = site.start_under(&["sh", "-c", "umask 0; exec \"$@\"", "sh"]);
    let mut client = broker.serve();
    client.deliver(1, "m-1", r#"{"command":"set","value":7}"#);
    assert_eq!(client.next_puback(&mut Vec::new()), 1);
    let mut seen = 0;
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock", "ledger.db.ballast", "admin.sock"] {
        let mode = std::fs::metadata(site.path(name)).expect("it was made").permissions().mode();
        assert_eq!(mode & 0o007, 0, "{name} has the mode {mode:o}");
        assert!(name == "admin.sock" || mode & 0o020 == 0, "{name} has the mode {mode:o}");
        seen += 1;
    }
    assert_eq!(seen, 6);
    assert!(daemon.terminate().success());
}

#[test]
fn only_the_daemons_group_reaches_it_and_the_log_says_who_did() {
    if !is_root() {
        return;
    }
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = owned_site(&broker, &slave);
    let daemon = start_owned(&site);
    let _client = broker.serve();
    for args in [&["status"][..], &["exec", "pump", "set", "7"]] {
        let output = run_as(OTHER, OTHER, &site, args);
        assert_eq!(output.status.code(), Some(75), "{}", text(&output));
        assert!(text(&output).contains("in the group fieldbridge"), "{}", text(&output));
    }
    let output = run_as(OTHER, OTHER, &site, &["ledger", "list"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("use sudo"), "{}", text(&output));
    assert_eq!(slave.writes(), []);

    for args in [&["status"][..], &["ledger", "list"], &["exec", "pump", "set", "7"]] {
        let output = run_as(OTHER, OWNER, &site, args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
    }
    assert_eq!(slave.writes(), [(0, 7)]);
    assert!(daemon.log().contains(&format!("uid={OTHER}")), "{}", daemon.log());
}

#[test]
fn a_message_cant_write_a_line_of_the_log_by_itself() {
    for environment in [&[][..], &[("JOURNAL_STREAM", "8:1")]] {
        let (broker, slave) = (Broker::new(), Slave::new());
        let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
        let daemon = site.spawn(&[], environment);
        daemon.wait_until_ready();
        let mut client = broker.serve();
        let forged = "%0A%3C0%3Eforged%1B%5B2J%0D";
        let topic = format!("devices/pump/messages/devicebound/%24.mid=m{forged}&command=c{forged}&%24.exp=e{forged}");
        client.publish(1, topic.as_bytes(), b"\n<0>forged\x1b[2J");
        assert_eq!(client.next_puback(&mut Vec::new()), 1);
        let log = eventually("it is logged", || Some(daemon.log()).filter(|log| log.contains("command finished")));
        assert!(log.matches("forged").count() >= 2, "{log}");
        for line in log.lines() {
            assert!(!line.contains('\x1b') && !line.contains('\r') && !line.starts_with("<0>"), "{line:?}");
            assert!(!line.trim_start().starts_with("forged"), "{line:?}");
        }
    }
}

#[test]
fn a_hub_that_speaks_first_is_refused_in_few_words() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let daemon = site.start();
    let mut client = broker.accept();
    client.publish(1, b"devices/pump/messages/devicebound/", &[b'x'; 60_000]);
    eventually("a word on it", || {
        let error = site.device_status("pump")["lastError"].as_str().unwrap_or_default().to_owned();
        error.contains("before CONNACK").then(|| assert!(error.len() < 200, "{error}"))
    });
    assert!(daemon.log().len() < 60_000, "{} bytes were logged", daemon.log().len());
}
