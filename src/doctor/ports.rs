//! Who has a serial port open: the open files of all processes (proc_pid_fd(5)), and the lock files of terminal
//! programs. Nothing is opened here.

use std::fmt;
use std::fs::Metadata;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The major numbers of pseudo-terminals, whose minor numbers each container counts for itself (the kernel's
/// devices.txt).
const PSEUDO_TERMINALS: RangeInclusive<u64> = 136..=143;

/// A process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: i32,
    name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

impl Holder {
    fn of(pid: i32) -> Option<Holder> {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Holder { pid, name: name.trim_end().to_owned() })
    }
}

/// Every other process that has this port open. Of other users' processes only root sees it.
pub(super) fn holders(port: &Path) -> Vec<Holder> {
    let Ok(real) = port.canonicalize() else { return Vec::new() };
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut pids: Vec<i32> = numbers("/proc").into_iter().filter(|pid| *pid != own && has_open(*pid, &real)).collect();
    if let Some(pid) = locker(&real).filter(|pid| *pid != own && !pids.contains(pid)) {
        pids.push(pid);
    }
    pids.into_iter().filter_map(Holder::of).collect()
}

fn has_open(pid: i32, real: &Path) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.into_iter().any(|file| {
        // Only what may be a port is looked at: asking for a file of a network that is away would wait.
        let may_be = std::fs::read_link(file.path()).is_ok_and(|name| name == real || name.starts_with("/dev"));
        may_be && is_same(&file.path(), real)
    })
}

/// Whether two names are of one file, or of one port. A name alone does not tell: each container has a /dev of its own.
fn is_same(one: &Path, other: &Path) -> bool {
    let (Ok(one), Ok(other)) = (std::fs::metadata(one), std::fs::metadata(other)) else { return false };
    let is_port =
        |of: &Metadata| of.file_type().is_char_device() && !PSEUDO_TERMINALS.contains(&(of.rdev() >> 8 & 0xfff));
    (one.dev(), one.ino()) == (other.dev(), other.ino())
        || is_port(&one) && is_port(&other) && one.rdev() == other.rdev()
}

fn numbers(folder: &str) -> Vec<i32> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The process that a lock file names (Filesystem Hierarchy Standard 3.0, 5.9: the number in ASCII).
fn locker(real: &Path) -> Option<i32> {
    let name = real.file_name()?.to_str()?;
    std::fs::read_to_string(format!("/var/lock/LCK..{name}")).ok()?.trim().parse().ok()
}

/// The ports that adapters have under names that stay.
pub fn names_that_stay(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut ports: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    ports.sort_unstable();
    ports
}

/// Where they stand (udev's 60-serial.rules).
pub const BY_ID: &str = "/dev/serial/by-id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_file_open_is_found_by_any_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("ttyUSB0"), folder.path().join("by-id"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(holders(&link), []);
        let opened = std::fs::File::open(&file).unwrap();
        // This process itself does not count.
        assert_eq!(holders(&link), []);
        let mut child = std::process::Command::new("sleep").arg("60").stdin(opened).spawn().unwrap();
        let found = holders(&link);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(u32::try_from(found[0].pid).unwrap(), child.id());
        assert!(found[0].to_string().ends_with(&format!("(pid {})", child.id())), "{}", found[0]);
        assert_eq!(holders(Path::new("/nowhere")), []);
    }

    #[test]
    fn ports_are_listed_in_order() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(names_that_stay(&folder.path().join("missing")), [] as [PathBuf; 0]);
        let names = ["usb-b-port0", "usb-a-port0"].map(|name| folder.path().join(name));
        names.iter().for_each(|name| std::fs::write(name, "").unwrap());
        assert_eq!(names_that_stay(folder.path()), [names[1].clone(), names[0].clone()]);
    }
}
