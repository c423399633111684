//! What systemd makes of the unit that the daemon runs as, with all its drop-ins.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const UNIT: &str = "fieldbridge.service";
/// How long systemd may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// How many files the unit's process may open. `None`: there is no systemd, or it has no such unit.
pub(super) fn handles() -> Option<usize> {
    limit(&asked(Command::new("systemctl").args(["show", "-p", "LoadState", "-p", "LimitNOFILE", UNIT]))?)
}

/// What a program prints, if it ends well and in time.
fn asked(command: &mut Command) -> Option<String> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < PATIENCE => std::thread::sleep(LOOK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    child.stdout.take()?.read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

/// Of a unit that is not there systemd tells its defaults.
fn limit(shown: &str) -> Option<usize> {
    let value = |key: &str| shown.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    match (value("LoadState")?, value("LimitNOFILE")?) {
        ("loaded", "infinity") => Some(usize::MAX),
        ("loaded", number) => number.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_unit_that_is_loaded_counts_and_of_no_other() {
        assert_eq!(limit("LoadState=loaded\nLimitNOFILE=512\n"), Some(512));
        assert_eq!(limit("LimitNOFILE=infinity\nLoadState=loaded\n"), Some(usize::MAX));
        for shown in ["LoadState=not-found\nLimitNOFILE=524288\n", "LimitNOFILE=512\n", "LoadState=loaded\n", ""] {
            assert_eq!(limit(shown), None, "{shown}");
        }
    }

    #[test]
    fn whoever_does_not_answer_is_waited_for_no_longer() {
        let begun = Instant::now();
        assert_eq!(asked(Command::new("sleep").arg("60")), None);
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(asked(Command::new("echo").arg("x")).as_deref(), Some("x\n"));
        assert_eq!(asked(&mut Command::new("false")), None);
        assert_eq!(asked(&mut Command::new("/nowhere/systemctl")), None);
    }
}
