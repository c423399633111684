//! A file system of a few megabytes, which can be full.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small tmpfs that is unmounted when it is dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub fn new(size: &str) -> SmallDisk {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(folder.path())
            .status()
            .expect("mount can be run");
        assert!(mounted.success(), "this test mounts a small tmpfs: run it as root, or under `unshare -rm`");
        SmallDisk(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Makes it read-only (`ro`) or writable (`rw`).
    pub fn remount(&self, how: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()).status();
        assert!(status.expect("mount can be run").success(), "it can't be remounted");
    }

    /// Fills what is free, to the last byte, and returns the file that does.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).expect("a file can be made");
        for size in [65536, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }

    /// Takes away what fills it.
    pub fn clear(&self) {
        std::fs::remove_file(self.path().join("filler")).expect("it was filled");
    }

    /// Fills it but for so many bytes.
    pub fn fill_but(&self, left: u64) -> PathBuf {
        let path = self.fill();
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the filler is there");
        let length = file.metadata().expect("it has a length").len();
        file.set_len(length - left).expect("it can be cut");
        path
    }
}

/// A copy of a ledger with its log, as `ledger.db` in a folder of its own: whoever opens the file itself tidies up.
pub fn copy_of_ledger(ledger: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for name in ["ledger.db", "ledger.db-wal"] {
        let file = ledger.with_file_name(name);
        if file.exists() {
            std::fs::copy(file, folder.path().join(name)).expect("a file can be copied");
        }
    }
    folder
}

/// The words under which a program has a file system of its own: `prepare` is run before it, and may mount.
pub fn with_mounts(prepare: &str) -> Vec<String> {
    super::require("unshare", "util-linux");
    let script = format!("set -e; mount --make-rprivate /; {prepare}; exec \"$@\"");
    ["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned).into()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
