//! What the ledger does with files beside what SQLite does: locks, the ballast, the first creation, and a look at where
//! the files stand.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::proof::crash::{self, Point};

/// Bytes that are rewritten at a time.
const REWRITE_BYTES: usize = 256 * 1024;
/// A small file is not longer.
const SMALL_BYTES: u64 = 4096;

/// Where the ledger lies: the system's files, unless a simulation stands in for them. What fails does so as the system
/// says, and what was to be on the disk may or may not be there.
#[expect(clippy::missing_errors_doc, reason = "the system's own, all of them")]
pub trait Disk: fmt::Debug + Send + Sync {
    /// The SQLite VFS that reaches the same files. `None`: SQLite's own.
    fn vfs(&self) -> Option<&'static str>;
    /// The path without symbolic links, also of a file that is not there yet.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// What stands under a name.
    fn look(&self, path: &Path) -> io::Result<Look>;
    /// Locks a file until the answer is dropped, or the process ends.
    fn hold(&self, path: &Path, making: Making) -> Result<Box<dyn Held>, TryLockError>;
    /// On return a new file of `bytes` stands on the disk, and `room` more bytes were free beside it. It has real
    /// blocks: a hole takes no space that could be given back.
    fn lay(&self, path: &Path, bytes: usize, room: usize) -> io::Result<()>;
    /// On return the content of a file, or the names in a folder, are on the disk.
    fn sync(&self, path: &Path) -> io::Result<()>;
    /// Writes a file's content over itself. On return all of it is on the disk: after an fsync that has failed, Linux
    /// takes what was not written for written, and only what is written anew reaches the disk.
    fn rewrite(&self, path: &Path) -> io::Result<()>;
    /// The content of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Makes or replaces a small file. On return its content is on the disk.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// Gives a file another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a file's name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Device and inode: another file under the same name has others.
    pub file: (u64, u64),
    /// When it was made, since 1970, where the file system keeps that: an inode's number is given to the next file at
    /// once when one is deleted.
    pub made: Option<Duration>,
    /// Bytes.
    pub length: u64,
    /// Names that the file has.
    pub names: u64,
}

/// Whether a file that is to be locked may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// If it is not there.
    IfMissing,
    /// It must be there.
    Never,
}

/// A locked file. Dropping it gives the lock up.
pub trait Held: Send {}

/// A lock of the system's. It is given up by name: a process that is being started elsewhere in the program has a copy
/// of the handle for a moment, which would keep it.
struct Locked(File);

impl Held for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// The system's files.
#[derive(Debug)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn vfs(&self) -> Option<&'static str> {
        None
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        if let Ok(path) = path.canonicalize() {
            return Ok(path);
        }
        let name = path.file_name().ok_or_else(|| io::Error::other("it is not a file's path"))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        Ok(folder.canonicalize()?.join(name))
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        let found = std::fs::metadata(path)?;
        let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        Ok(Look { file: (found.dev(), found.ino()), made, length: found.len(), names: found.nlink() })
    }

    fn hold(&self, path: &Path, making: Making) -> Result<Box<dyn Held>, TryLockError> {
        let file = match making {
            Making::IfMissing => File::options().create(true).truncate(false).write(true).open(path),
            Making::Never => File::open(path),
        };
        let file = file.map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Box::new(Locked(file)))
    }

    fn lay(&self, path: &Path, bytes: usize, room: usize) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&vec![0x5a; bytes + room])?;
        file.sync_all()?;
        crash::point(Point::BallastWritten);
        file.set_len(bytes as u64)?;
        file.sync_all()
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rewrite(&self, path: &Path) -> io::Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut piece = vec![0; REWRITE_BYTES];
        let mut at = 0;
        loop {
            // A program that reads may have kept the log from being emptied for long: it is not taken in whole.
            let there = file.read_at(&mut piece, at)?;
            if there == 0 {
                return file.sync_all();
            }
            file.write_all_at(&piece[..there], at)?;
            at += there as u64;
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(SMALL_BYTES).read_to_end(&mut content)?;
        Ok(content)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// The path with a suffix to its file name: SQLite's own files and ours lie beside the ledger.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
