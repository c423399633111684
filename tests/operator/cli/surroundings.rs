//! What the machine around the program gives it or keeps from it: the place of the admin socket, open files.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use super::{idle_site, says, status, stderr, stdout};
use crate::support::{self, Site};

#[test]
fn what_keeps_the_daemon_down_until_a_person_comes_is_foretold_by_check() {
    let site = idle_site();
    std::os::unix::fs::symlink(site.path("nowhere"), site.path("run")).unwrap();
    site.configure(&site.path("admin.sock").display().to_string(), &site.path("run/admin.sock").display().to_string());
    for args in [&["check"][..], &["check", "--json"]] {
        let output = site.command(args);
        assert_eq!(status(&output), 78, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("admin.socket") && stderr(&output).contains("can't be made"), "{args:?}");
    }
    let output = site.command(&["check", "--live"]);
    assert!(status(&output) == 1 && stdout(&output).contains("the admin socket"), "{}", stdout(&output));
    assert!(!site.path("nowhere").exists() && !site.path("ledger.db").exists(), "nothing is made");
    let mut daemon = site.spawn(&[], &[]);
    assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log());
    // Another look, when it is put right, leaves nothing either.
    std::fs::remove_file(site.path("run")).unwrap();
    let output = site.command(&["check"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert!(!site.path("run").exists());
    site.start();
}

#[test]
fn a_daemon_that_finds_its_socket_taken_by_one_that_may_end_soon_is_to_be_started_again() {
    let site = idle_site();
    let other = UnixListener::bind(site.path("admin.sock")).unwrap();
    let mut daemon = site.spawn(&[], &[]);
    assert_eq!(daemon.wait().code(), Some(70), "{}", daemon.log());
    assert!(daemon.log().contains("another daemon serves the admin socket"), "{}", daemon.log());
    drop(other);
    site.start();
}

/// What `check` says where systemd shows this of the unit.
fn check_beside_systemd(site: &Site, shown: &str) -> Output {
    let tools = site.path("tools");
    std::fs::create_dir_all(&tools).unwrap();
    let systemctl = tools.join("systemctl");
    let script =
        format!("#!/bin/sh\n[ \"$*\" = 'show -p LoadState -p LimitNOFILE fieldbridge.service' ] && printf '{shown}'\n");
    std::fs::write(&systemctl, script).unwrap();
    std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(support::program());
    command.env("PATH", path).arg("check").arg("--config").arg(site.path("fieldbridge.toml"));
    command.output().unwrap()
}

#[test]
fn check_compares_the_open_files_with_what_the_unit_gives_and_not_with_the_operators_shell() {
    let site = idle_site();
    let device = "[device.other]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n";
    site.configure("[device.pump]\n", &format!("{device}[device.pump]\n"));
    let output = check_beside_systemd(&site, "LoadState=loaded\\nLimitNOFILE=100\\n");
    let said = stderr(&output);
    assert!(status(&output) == 0 && said.contains("the limit of open files is 100,"), "{said}");
    assert!(said.contains("LimitNOFILE="), "{said}");
    for enough in ["LoadState=loaded\\nLimitNOFILE=8192\\n", "LoadState=loaded\\nLimitNOFILE=infinity\\n"] {
        let output = check_beside_systemd(&site, enough);
        assert!(status(&output) == 0 && !stderr(&output).contains("open files"), "{}", stderr(&output));
    }
    // Without the unit systemd shows its defaults, which say nothing.
    let output = check_beside_systemd(&site, "LoadState=not-found\\nLimitNOFILE=100\\n");
    assert!(status(&output) == 0 && !stderr(&output).contains("is 100"), "{}", stderr(&output));
}

#[test]
fn the_daemon_raises_its_limit_of_open_files_as_far_as_it_may() {
    let site = idle_site();
    let daemon = site.start_under(&["sh", "-c", "ulimit -Sn 128 && ulimit -Hn 300 && exec \"$@\"", "sh"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = files.split_whitespace().filter(|word| word.parse::<u32>().is_ok()).collect();
    assert_eq!(numbers, ["300", "300"], "{files}");
}

#[test]
fn the_log_says_more_from_when_somebody_asks_for_that() {
    let site = idle_site();
    let daemon = site.start();
    says(&site.command(&["log-level", "debgu"]), 1, "", "\"debgu\" is not a level; write one of off, error, warn");
    says(&site.command(&["log-level", "error"]), 0, "the daemon's log says error until its next start", "");
    let _ = site.command(&["reload"]);
    says(&site.command(&["log-level", "debug"]), 0, "says debug", "");
    let _ = site.command(&["reload"]);
    let log = support::eventually("what came of it", || Some(daemon.log()).filter(|log| log.contains("is in force")));
    assert_eq!(log.matches("reading the configuration anew").count(), 1, "the second one alone:\n{log}");
}
