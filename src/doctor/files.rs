//! Whether the files are as the service needs them: what it reads, its certificates' dates, the room for its ledger.
//! Nothing is changed, and where somebody else looks, the service's user is judged by owner, group and mode.

use std::path::{Path, PathBuf};

use rustix::fs::{access, statvfs, Access, StatVfsMountFlags};

use super::certificate::Life;
use super::daemon::Daemon;
use super::socket::admin_socket;
use super::user::{User, Wish, SERVICE};
use super::{Finding, Verdict};
use crate::certificate::pair;
use crate::complaint::Complaint;
use crate::config::{Config, Credential, Hub, Provisioning};
use crate::ledger::{LedgerError, Reader};
use crate::time::Timestamp;

/// With less than this the ledger can't be made or moved: its ballast alone takes 4 MiB.
const ROOM_NEEDED: u64 = 16 << 20;
/// With less than this somebody should look.
const ROOM_WANTED: u64 = 128 << 20;

pub(super) fn check(config: &Config, files: &[PathBuf], daemon: &Daemon) -> Vec<Finding> {
    let service = User::of_the_service();
    let mut findings = readable(files, service.as_ref().filter(|_| is_root()));
    findings.extend(certificates(config));
    findings.extend(ledger(&config.ledger.path, service.as_ref(), daemon));
    // The socket of a daemon that runs is where it is to be.
    if let Daemon::Absent = daemon {
        findings.extend(admin_socket(&config.admin_socket).map(|why| Finding::failed("admin socket", why)));
    }
    findings
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One line for all files that can be read, and one for each that can't.
fn readable(files: &[PathBuf], service: Option<&User>) -> Vec<Finding> {
    let about = "files";
    let Some(service) = service else {
        let whose = match is_root() {
            true => format!("by root; there is no user {SERVICE} on this machine"),
            false => "by the user that asks".to_owned(),
        };
        return vec![Finding::ok(about, format!("{} of the configuration can be read {whose}", counted(files.len())))];
    };
    let closed = files.iter().filter_map(|file| Some((file, service.may(Wish::Read, file).err()?)));
    let mut findings: Vec<Finding> = closed
        .map(|(file, why)| {
            let remedy = format!("chgrp {SERVICE} {0}; chmod 0640 {0}", file.display());
            Finding::fail(about, format!("{} {why}", file.display())).remedy(remedy)
        })
        .collect();
    let open = files.len() - findings.len();
    if open > 0 {
        let said = format!("{} of the configuration can be read by {SERVICE}", counted(open));
        findings.insert(0, Finding::ok(about, said));
    }
    findings
}

fn counted(files: usize) -> String {
    if files == 1 {
        "1 file".into()
    } else {
        format!("{files} files")
    }
}

/// The dates of what the devices show, and of what the hub is known by.
pub(super) fn certificates(config: &Config) -> Vec<Finding> {
    let now = Timestamp::now();
    let judge = |about: &str, path: &Path, remedy: &str| {
        let life = pair::certificates(path).and_then(|chain| {
            Life::of_chain(chain.iter().map(|(_, der)| &der[..])).map_err(|why| Complaint::bare(why).of(path.display()))
        });
        match life {
            Ok(life) => life.judge(about, &path.display().to_string(), now, remedy),
            Err(why) => Finding::of(Verdict::Warn, about, why),
        }
    };
    let mut findings: Vec<Finding> = config
        .devices
        .values()
        .filter_map(|device| {
            let Credential::Certificate { cert_file, .. } = &device.credential else { return None };
            let remedy = "have it renewed, and its thumbprint or authority known at the hub";
            Some(judge(&format!("certificate {}", device.id), cert_file, remedy))
        })
        .collect();
    if let Hub { ca_file: Some(path), .. } = &config.hub {
        findings.push(judge("certificate of hub.ca_file", path, "put the authority's new certificate into it"));
    }
    if let Some(Provisioning { ca_file: Some(path), .. }) = &config.provisioning {
        let remedy = "put the authority's new certificate into it";
        findings.push(judge("certificate of provisioning.ca_file", path, remedy));
    }
    findings
}

fn ledger(path: &Path, service: Option<&User>, daemon: &Daemon) -> Vec<Finding> {
    let about = "ledger";
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.exists() {
        return vec![Finding::warn(about, format!("its folder {} is not there yet", folder.display()))
            .remedy("the service makes /var/lib/fieldbridge when it first starts; any other folder must be made")];
    }
    let mut findings = vec![room(about, folder)];
    let may = |path: &Path| {
        let own = access(path, Access::READ_OK | Access::WRITE_OK);
        match service {
            // Root may everything, and an operator need not be who the daemon runs as.
            Some(service) if is_root() || own.is_err() => service.may(Wish::Change, path),
            _ => own.map_err(|error| format!("can't be written: {error}")),
        }
    };
    let closed = [folder, path].into_iter().filter(|place| place.exists());
    for (place, why) in closed.filter_map(|place| Some((place, may(place).err()?))) {
        let remedy = format!("chown -R {SERVICE}: {}", folder.display());
        findings.push(Finding::fail(about, format!("{} {why}", place.display())).remedy(remedy));
    }
    findings.push(match daemon {
        Daemon::Running { status, .. } => match status.ledger.ok {
            true => Finding::ok(about, format!("the running daemon writes it: {} rows", status.ledger.rows)),
            false => Finding::heard(about, status.ledger.last_error.as_deref().unwrap_or("it can't be written")),
        },
        Daemon::Mute { .. } => Finding::warn(about, "not opened: the daemon, which can't be asked, uses it"),
        Daemon::Absent => match Reader::look(path) {
            Ok(()) => Finding::ok(about, format!("{} opens", path.display())),
            Err(LedgerError::Missing(_)) => {
                Finding::ok(about, format!("{} is not there yet; the daemon makes it", path.display()))
            }
            Err(error) => Finding::failed(about, error.complaint()),
        },
    });
    findings
}

fn room(about: &str, folder: &Path) -> Finding {
    match statvfs(folder) {
        Err(error) => Finding::fail(about, format!("{}: {error}", folder.display())),
        Ok(found) if found.f_flag.contains(StatVfsMountFlags::RDONLY) => {
            Finding::fail(about, format!("{} is on a file system that is mounted read-only", folder.display()))
                .remedy("mount it writable, or set `ledger.path` to a place that is")
        }
        Ok(found) => judge_room(about, folder, found.f_bavail.saturating_mul(found.f_frsize)),
    }
}

fn judge_room(about: &str, folder: &Path, free: u64) -> Finding {
    let said = format!("{} has {} MiB free", folder.display(), free >> 20);
    let remedy = "make room: journalctl --vacuum-size=50M is a beginning";
    match free {
        _ if free < ROOM_NEEDED => Finding::fail(about, said).remedy(remedy),
        _ if free < ROOM_WANTED => Finding::warn(about, said).remedy(remedy),
        _ => Finding::ok(about, said),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn room_is_judged() {
        for (free, verdict) in [
            (0, Verdict::Fail),
            (ROOM_NEEDED - 1, Verdict::Fail),
            (ROOM_NEEDED, Verdict::Warn),
            (ROOM_WANTED - 1, Verdict::Warn),
            (ROOM_WANTED, Verdict::Ok),
            (u64::MAX, Verdict::Ok),
        ] {
            assert_eq!(judge_room("ledger", Path::new("/"), free).verdict, verdict, "{free}");
        }
    }
}
