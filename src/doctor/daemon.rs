//! The daemon that runs on this configuration, if one does: who it is, and what it says.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{within, Finding};
use crate::config::{Bus, Config, Device, Fingerprints, Hub};
use crate::health::snapshot::{self, Snapshot};
use crate::operate::admin::{Reply, Request, REPLY_BYTES_MAX};

/// A status is at hand; for its bus a question may have to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is known of the daemon.
#[derive(Debug, Clone)]
pub(super) enum Daemon {
    /// None runs.
    Absent,
    /// It runs and answers. An older program doesn't tell what it runs on.
    Running { pid: Option<i32>, status: Box<Snapshot>, runs_on: Option<Fingerprints> },
    /// It runs and can't be asked, for this reason.
    Mute { pid: Option<i32>, why: String },
}

/// Asks the daemon how it is.
pub(super) async fn ask(config: &Config) -> Daemon {
    match exchange(&config.admin_socket, &Request::Status {}).await {
        Ok((Reply::Ok(status), pid)) => {
            let status = match serde_json::from_value(status) {
                Ok(status) => Box::new(status),
                Err(error) => return Daemon::Mute { pid, why: format!("its status is of another version: {error}") },
            };
            let runs_on = match exchange(&config.admin_socket, &Request::Running {}).await {
                Ok((Reply::Ok(prints), _)) => serde_json::from_value(prints).ok(),
                _ => None,
            };
            Daemon::Running { pid, status, runs_on }
        }
        Ok((Reply::Error(why) | Reply::Unrecorded(why), pid)) => Daemon::Mute { pid, why },
        Err(error) => match (holder_of_the_ledger(&config.ledger.path), error.kind()) {
            (None, std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => Daemon::Absent,
            (pid, _) => Daemon::Mute { pid, why: format!("{}: {error}", config.admin_socket.display()) },
        },
    }
}

/// One question and its answer, and who gave it.
pub(super) async fn exchange(socket: &Path, request: &Request) -> std::io::Result<(Reply, Option<i32>)> {
    let asked = async {
        let mut stream = UnixStream::connect(socket).await?;
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream.take(REPLY_BYTES_MAX)).read_line(&mut answer).await?;
        Ok((serde_json::from_str(&answer)?, pid))
    };
    let slow = || std::io::Error::new(std::io::ErrorKind::TimedOut, "it does not answer");
    within(PATIENCE, asked).await.unwrap_or_else(|| Err(slow()))
}

/// Who holds the lock that a daemon has on its ledger (proc_locks(5)).
fn holder_of_the_ledger(ledger: &Path) -> Option<i32> {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".lock");
    let file = std::fs::metadata(name).ok()?;
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, file.dev(), file.ino())
}

fn holder_in(locks: &str, device: u64, inode: u64) -> Option<i32> {
    let place = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok(),
            _ => None,
        }
    })
}

impl Daemon {
    /// Its process, if one runs and its number is known.
    pub(super) fn pid(&self) -> Option<i32> {
        match self {
            Daemon::Absent => None,
            Daemon::Running { pid, .. } | Daemon::Mute { pid, .. } => *pid,
        }
    }

    /// What it says of a device.
    pub(super) fn device(&self, id: &str) -> Option<&snapshot::Device> {
        let Daemon::Running { status, .. } = self else { return None };
        status.device(id)
    }

    /// What it says of a bus.
    pub(super) fn bus(&self, name: &str) -> Option<&snapshot::Bus> {
        let Daemon::Running { status, .. } = self else { return None };
        status.bus(name)
    }

    /// What it runs on, if it says so.
    fn runs_on(&self) -> Option<&Fingerprints> {
        match self {
            Daemon::Running { runs_on, .. } => runs_on.as_ref(),
            Daemon::Absent | Daemon::Mute { .. } => None,
        }
    }

    /// Whether it has this bus with other settings than those that are checked.
    pub(super) fn has_another_bus(&self, name: &str, bus: &Bus) -> bool {
        self.runs_on().is_some_and(|prints| prints.has_another_bus(name, bus))
    }

    /// Whether it has this device with other settings than those that are checked.
    pub(super) fn has_another_device(&self, device: &Device) -> bool {
        self.runs_on().is_some_and(|prints| prints.has_another_device(device))
    }

    /// Whether it is connected to the hub by other settings than those that are checked.
    pub(super) fn has_another_hub(&self, hub: &Hub) -> bool {
        self.runs_on().is_some_and(|prints| prints.has_another_hub(hub))
    }

    /// Whether it runs, and whether it runs on what the configuration says now.
    pub(super) fn findings(&self, config: &Config) -> Vec<Finding> {
        let about = "daemon";
        let named = self.pid().map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        match self {
            Daemon::Absent => vec![Finding::ok(about, "it does not run, so everything is tried from here")],
            Daemon::Mute { why, .. } => {
                vec![Finding::fail(about, format!("it runs{named}, and can't be asked: {why}"))
                    .remedy("run this as root or in the group fieldbridge; what the daemon holds is left alone")]
            }
            Daemon::Running { status, runs_on, .. } => {
                let mut findings =
                    vec![Finding::ok(about, format!("it runs{named}, and is asked for what only one may use"))];
                let host = &status.hub.host;
                let differences = match runs_on {
                    Some(runs_on) => runs_on.differences(&Fingerprints::of(config)),
                    None if *host != config.hub.host && config.provisioning.is_none() => {
                        vec!["hub.host changed".to_owned()]
                    }
                    None => Vec::new(),
                };
                if !differences.is_empty() {
                    let said = format!("it runs another configuration than this one: {}", shown(&differences));
                    findings.push(Finding::fail(about, said).remedy(RELOAD_FIRST));
                }
                findings
            }
        }
    }
}

/// What to do about a difference between the files and the daemon.
pub(super) const RELOAD_FIRST: &str = "run `fieldbridge reload` first, then check again";
/// Differences that are named.
const SHOWN_MAX: usize = 8;

fn shown(differences: &[String]) -> String {
    let mut text = differences.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if differences.len() > SHOWN_MAX {
        text += &format!(" and {} more", differences.len() - SHOWN_MAX);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  READ 70 fe:01:131 128 128\n\
                     2: FLOCK  ADVISORY  WRITE 71 fe:01:131 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 72 fe:01:131 0 EOF\nbroken\n";
        let device = rustix::fs::makedev(0xfe, 1);
        assert_eq!(holder_in(locks, device, 131), Some(71));
        assert_eq!(holder_in(locks, device, 132), None);
        assert_eq!(holder_in(locks, rustix::fs::makedev(0xfe, 2), 131), None);
    }
}
