//! The model of a disk as a file system (FUSE) that a program can't tell from another one, until the power goes.
//!
//! - Each operation that changes or syncs something has a number. The power goes right before or right after one,
//!   inside of it: the program is killed, and then it gets its answer.
//! - Once the power is off nothing changes any more.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::disk::{Change, Disk, Inode, Kept};
use crate::support::{signal, PATIENCE};

/// Nobody but the kernel changes anything, so what it knows stays true.
const LIFE: Duration = Duration::from_secs(3600);
/// Inode 1 is the folder itself.
const FIRST: u64 = 2;

/// When the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// At this operation, counted from 1.
    pub operation: usize,
    /// When it is done, not before it.
    pub after: bool,
}

/// What an operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Change,
    Sync,
}

/// SQLite's index of the log is never synced and is made anew after a crash: no moment of its life is worth a cut.
const SCRATCH: &str = "-shm";

#[derive(Default)]
struct State {
    disk: Disk,
    operations: Vec<Operation>,
    cut: Option<Cut>,
    /// The process that the power belongs to.
    victim: Option<u32>,
    off: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics here")
    }

    /// Changes something, unless the power is off or goes.
    fn change(&self, change: Change) -> Result<(), Errno> {
        self.operate(Operation::Change, |disk| disk.change(change))
    }

    /// The same for a file's content.
    fn change_file(&self, inode: Inode, change: Change) -> Result<(), Errno> {
        let mut state = self.lock();
        if !state.off && state.disk.name(inode).is_some_and(|name| name.ends_with(SCRATCH)) {
            state.disk.change(change);
            return Ok(());
        }
        drop(state);
        self.change(change)
    }

    /// Does an operation, unless the power is off or goes.
    fn operate<T>(&self, kind: Operation, act: impl FnOnce(&mut Disk) -> T) -> Result<T, Errno> {
        let mut state = self.lock();
        if state.off {
            return Err(Errno::EIO);
        }
        state.operations.push(kind);
        let cut = state.cut.filter(|cut| cut.operation == state.operations.len());
        let result = if cut.is_some_and(|cut| !cut.after) { Err(Errno::EIO) } else { Ok(act(&mut state.disk)) };
        if cut.is_some() {
            self.power_off(state);
        }
        result
    }

    /// From now on nothing reaches the disk, and the program gets no further.
    fn power_off(&self, state: MutexGuard<'_, State>) {
        let unknown = |state: &mut State| state.victim.is_none();
        let (mut state, waited) =
            self.changed.wait_timeout_while(state, PATIENCE, unknown).expect("no thread panics here");
        assert!(!waited.timed_out(), "whom to take the power from was never said");
        if !state.off {
            signal(state.victim.expect("it is known"), "KILL");
            state.off = true;
        }
    }

    /// Looks at the disk, as long as there is power.
    fn look<T>(&self, find: impl FnOnce(&Disk) -> T) -> Result<T, Errno> {
        let state = self.lock();
        if state.off {
            return Err(Errno::EIO);
        }
        Ok(find(&state.disk))
    }
}

/// A mounted disk. It is unmounted when it is dropped.
pub struct Mounted {
    shared: Arc<Shared>,
    folder: std::path::PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts a disk, which will lose its power at some time or never.
    pub fn new(folder: &Path, disk: Disk, cut: Option<Cut>) -> Mounted {
        let shared =
            Arc::new(Shared { state: Mutex::new(State { disk, cut, ..State::default() }), ..Shared::default() });
        let mut config = Config::default();
        config.mount_options.push(fuser::MountOption::FSName("power-cut".into()));
        let session = fuser::spawn_mount(Folder(shared.clone()), folder, &config).unwrap_or_else(|error| {
            panic!("this test mounts a FUSE file system: it must run as root and needs /dev/fuse ({error})")
        });
        Mounted { shared, folder: folder.to_owned(), session: Some(session) }
    }

    /// Says whose power it is.
    pub fn feeds(&self, pid: u32) {
        self.shared.lock().victim = Some(pid);
        self.shared.changed.notify_all();
    }

    pub fn is_off(&self) -> bool {
        self.shared.lock().off
    }

    /// What was done so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.shared.lock().operations.clone()
    }

    /// The disk when the power is back. The program must have ended.
    pub fn after_a_cut(mut self, kept: Kept) -> Disk {
        self.unmount();
        std::mem::take(&mut self.shared.lock().disk).after_a_cut(kept)
    }

    fn unmount(&mut self) {
        let Some(session) = self.session.take() else { return };
        if let Err(error) = session.umount_and_join() {
            // A program that lives on holds it; its session's thread ends with this process.
            eprintln!("{}: {error}", self.folder.display());
            let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// The folder, as the kernel sees it.
struct Folder(Arc<Shared>);

impl Folder {
    fn attributes(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        self.0.look(|disk| attributes(disk, number))
    }
}

/// A text, where the kernel gives bytes.
fn text(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}

fn number(inode: Inode) -> INodeNo {
    INodeNo(inode + FIRST)
}

/// `None` is the folder.
fn inode(number: INodeNo) -> Option<Inode> {
    number.0.checked_sub(FIRST)
}

fn attributes(disk: &Disk, number: INodeNo) -> FileAttr {
    let (kind, perm, size) = match inode(number) {
        None => (FileType::Directory, 0o755, 0),
        Some(inode) => (FileType::RegularFile, 0o644, disk.file(inode).len() as u64),
    };
    FileAttr {
        ino: number,
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers a request with what came of it.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $ok:expr) => {
        match $result {
            Ok($value) => $ok,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Folder {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.look(|disk| disk.find(&text(name)).map(|inode| attributes(disk, number(inode))));
        answer!(reply, found.and_then(|found| found.ok_or(Errno::ENOENT)),
            found => reply.entry(&LIFE, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.attributes(number), found => reply.attr(&LIFE, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = match (size, inode(number)) {
            (Some(size), Some(inode)) => {
                let change = Change::Resize { inode, length: size as usize };
                self.0.change_file(inode, change)
            }
            _ => Ok(()),
        };
        answer!(reply, resized.and_then(|()| self.attributes(number)), found => reply.attr(&LIFE, &found));
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, _mode: u32, _umask: u32, _flags: i32, reply: ReplyCreate) {
        let created = self.0.operate(Operation::Change, |disk| {
            let inode = disk.new_inode();
            disk.change(Change::Create { name: text(name), inode });
            attributes(disk, number(inode))
        });
        answer!(reply, created, found =>
            reply.created(&LIFE, &found, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE));
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let change = Change::Remove { name: text(name) };
        answer!(reply, self.0.change(change), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let change = Change::Rename { from: text(name), to: text(new_name) };
        answer!(reply, self.0.change(change), () => reply.ok());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(reply, self.0.look(|_| ()), () => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE));
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.0.look(|disk| {
            let file = inode(number).map_or(&[][..], |inode| disk.file(inode));
            let start = (offset as usize).min(file.len());
            file[start..(start + size as usize).min(file.len())].to_vec()
        });
        answer!(reply, bytes, bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(inode) = inode(number) else { return reply.error(Errno::EISDIR) };
        let change = Change::Write { inode, at: offset as usize, bytes: data.to_vec() };
        answer!(reply, self.0.change_file(inode, change), () =>
            reply.written(data.len() as u32));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.operate(Operation::Sync, |disk| disk.sync(inode(number))), () => reply.ok());
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        answer!(reply, self.0.operate(Operation::Sync, |disk| disk.sync(None)), () => reply.ok());
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let names = self.0.look(|disk| {
            let files = disk.names().map(|(name, inode)| (name.to_owned(), number(inode), FileType::RegularFile));
            let own = [".", ".."].map(|name| (name.to_owned(), INodeNo::ROOT, FileType::Directory));
            own.into_iter().chain(files).collect::<Vec<_>>()
        });
        answer!(reply, names, names => {
            for (at, (name, number, kind)) in names.into_iter().enumerate().skip(offset as usize) {
                if reply.add(number, at as u64 + 1, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096);
    }
}
