//! A disk that keeps what was synced, and of the rest what it likes.
//!
//! Invariants
//! - What a process reads is what was written last, synced or not.
//! - What survives a power cut is what was synced, and of what was not: a prefix of each file's writes, or any of them,
//!   each perhaps cut at a sector's edge. Names behave likewise, in their order.
//! - A dead process changes nothing.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use fieldbridge::ledger::disk::{Disk, Held, Look, Making};

use super::world::World;

/// The name of the VFS that reaches these files.
pub const VFS: &str = "simulated";
const SECTOR: usize = 512;

/// The disk of a world.
pub struct SimDisk {
    world: Arc<World>,
    state: Mutex<State>,
}

/// Chances in a thousand of what can go wrong with one operation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sickness {
    /// A write fails with EIO.
    pub write: u64,
    /// An fsync fails with EIO, and what it was to make durable may be or not.
    pub sync: u64,
}

struct State {
    files: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<Naming>,
    locks: Vec<(u64, u64)>,
    next: u64,
    /// Bytes that are free. `None`: enough.
    room: Option<u64>,
    sickness: Sickness,
}

#[derive(Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// Bytes that take room and are never read: the ballast.
    ballast: u64,
}

enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

enum Naming {
    Is(PathBuf, u64),
    Isnt(PathBuf),
    Moved(PathBuf, PathBuf),
}

impl Content {
    fn length(&self) -> u64 {
        self.now.len() as u64 + self.ballast
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Length(length) => content.resize(*length, 0),
        }
    }

    /// The part of a write before a sector's edge within it.
    fn torn(&self, sectors: usize) -> Change {
        match self {
            Change::Write(at, bytes) => {
                let cut = (at / SECTOR + sectors) * SECTOR;
                Change::Write(*at, bytes[..cut.saturating_sub(*at).min(bytes.len())].to_vec())
            }
            Change::Length(length) => Change::Length(*length),
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Naming::Is(path, file) => {
                names.insert(path.clone(), *file);
            }
            Naming::Isnt(path) => {
                names.remove(path);
            }
            Naming::Moved(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

fn eio() -> io::Error {
    io::Error::other("simulated: input/output error")
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl SimDisk {
    /// An empty disk.
    pub fn new(world: &Arc<World>) -> Arc<SimDisk> {
        let state = State {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            locks: Vec::new(),
            next: 1,
            room: None,
            sickness: Sickness::default(),
        };
        Arc::new(SimDisk { world: world.clone(), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the disk")
    }

    /// One operation of the living process.
    fn operate(&self, life: u64) -> io::Result<MutexGuard<'_, State>> {
        match self.world.step_of(life) {
            true => Ok(self.lock()),
            false => Err(eio()),
        }
    }

    fn lives(&self) -> u64 {
        self.world.life()
    }

    /// Sets what can go wrong.
    pub fn sicken(&self, sickness: Sickness) {
        self.lock().sickness = sickness;
    }

    /// Leaves so many bytes free, or enough.
    pub fn leave_room(&self, room: Option<u64>) {
        self.lock().room = room;
    }

    /// Whether it can be written as one would wish.
    pub fn heal(&self) {
        self.sicken(Sickness::default());
        self.leave_room(None);
    }

    /// The process has ended; nothing of it holds a lock any more.
    pub fn process_ended(&self) {
        self.lock().locks.clear();
    }

    /// The power is cut: what was not synced is there or not, as the disk likes.
    pub fn power_cut(&self) {
        let world = &self.world;
        let in_order = world.chance(700);
        let mut state = self.lock();
        let State { files, names, durable_names, pending_names, .. } = &mut *state;
        let mut lost = 0;
        for content in files.values_mut() {
            let pending = std::mem::take(&mut content.pending);
            let kept = world.pick(0..pending.len() as u64 + 1) as usize;
            world.tell(|| format!("disk: {kept} of {} unsynced, in order: {in_order}", pending.len()));
            for (number, change) in pending.iter().enumerate() {
                let survives = if in_order { number < kept } else { world.chance(500) };
                let is_torn = if in_order { number == kept } else { survives && world.chance(300) };
                if is_torn {
                    change.torn(world.pick(0..8) as usize).apply(&mut content.durable);
                } else if survives {
                    change.apply(&mut content.durable);
                }
                lost += usize::from(!survives);
            }
            content.now = content.durable.clone();
        }
        let pending = std::mem::take(pending_names);
        let kept = world.pick(0..pending.len() as u64 + 1) as usize;
        pending[..kept].iter().for_each(|naming| naming.apply(durable_names));
        lost += pending.len() - kept;
        *names = durable_names.clone();
        drop(state);
        if lost > 0 {
            world.count("unsynced operations lost: power cuts");
        }
        world.note(format_args!("power cut: {lost} unsynced operations lost"));
    }

    /// What would be left of a file if the power went now and nothing unsynced survived.
    pub fn durable(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        let file = state.durable_names.get(path)?;
        Some(state.files[file].durable.clone())
    }

    /// Another disk takes its place: an empty one.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.files.clear();
        state.names.clear();
        state.durable_names.clear();
        state.pending_names.clear();
    }

    /// Puts a file on the disk, synced as all names are then.
    pub fn place(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.lock();
        state.sync_names();
        let file = state.next;
        state.next += 1;
        state.files.insert(file, Content { now: bytes.clone(), durable: bytes, ..Content::default() });
        state.names.insert(path.to_owned(), file);
        state.durable_names.insert(path.to_owned(), file);
    }

    /// Opens a file, making it if `make` says so.
    pub fn open(self: &Arc<Self>, path: &Path, make: bool) -> io::Result<Handle> {
        let life = self.lives();
        let mut state = self.operate(life)?;
        let file = match (state.names.get(path), make) {
            (Some(file), _) => *file,
            (None, true) => state.make(path),
            (None, false) => return Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        drop(state);
        self.world.tell(|| format!("disk: open {path:?}: {file}"));
        Ok(Handle { disk: self.clone(), file, life, sync_names: make })
    }

    /// Takes a file's name away; `durably` also on the disk.
    pub fn unlink(&self, path: &Path, durably: bool) -> io::Result<()> {
        let mut state = self.operate(self.lives())?;
        let Some(file) = state.names.remove(path) else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        self.world.tell(|| format!("disk: remove {path:?}: {file}"));
        let freed = state.files[&file].length();
        if let Some(room) = &mut state.room {
            *room += freed;
        }
        state.pending_names.push(Naming::Isnt(path.to_owned()));
        if durably {
            state.sync_names();
        }
        Ok(())
    }
}

impl State {
    fn make(&mut self, path: &Path) -> u64 {
        let file = self.next;
        self.next += 1;
        self.files.insert(file, Content::default());
        self.names.insert(path.to_owned(), file);
        self.pending_names.push(Naming::Is(path.to_owned(), file));
        file
    }

    fn change(&mut self, file: u64, change: Change) -> io::Result<()> {
        let content = self.files.get_mut(&file).expect("an open file exists");
        let length = match &change {
            Change::Write(at, bytes) => content.now.len().max(at + bytes.len()),
            Change::Length(length) => *length,
        };
        if let Some(room) = &mut self.room {
            let (old, new) = (content.now.len() as u64, length as u64);
            match (*room + old).checked_sub(new) {
                Some(left) => *room = left,
                None => return Err(full()),
            }
        }
        change.apply(&mut content.now);
        content.pending.push(change);
        Ok(())
    }

    fn sync(&mut self, file: u64) {
        let content = self.files.get_mut(&file).expect("an open file exists");
        for change in content.pending.drain(..) {
            change.apply(&mut content.durable);
        }
    }

    fn forget(&mut self, file: u64) {
        self.files.get_mut(&file).expect("an open file exists").pending.clear();
    }

    fn sync_names(&mut self) {
        for naming in self.pending_names.drain(..) {
            naming.apply(&mut self.durable_names);
        }
    }
}

/// An open file of one life of the process.
pub struct Handle {
    disk: Arc<SimDisk>,
    file: u64,
    life: u64,
    /// It was opened to be made if need be: the first sync takes its name along, as SQLite does for its logs.
    sync_names: bool,
}

impl Handle {
    /// The same for every handle of one life on one file.
    pub fn key(&self) -> (usize, u64, u64) {
        (Arc::as_ptr(&self.disk) as usize, self.file, self.life)
    }

    /// Reads into `buffer`; gives the number of bytes that were there.
    pub fn read(&self, buffer: &mut [u8], at: usize) -> usize {
        let state = self.disk.lock();
        let content = &state.files[&self.file].now;
        let there = content.len().saturating_sub(at).min(buffer.len());
        if there > 0 {
            buffer[..there].copy_from_slice(&content[at..at + there]);
        }
        there
    }

    /// Writes.
    pub fn write(&self, bytes: &[u8], at: usize) -> io::Result<()> {
        let mut state = self.disk.operate(self.life)?;
        if self.disk.world.strikes("disk: a write fails", state.sickness.write) {
            return Err(eio());
        }
        self.disk.world.tell(|| format!("disk: write {} at {at}, {} bytes", self.file, bytes.len()));
        let written = state.change(self.file, Change::Write(at, bytes.to_vec()));
        drop(state);
        if written.is_err() {
            self.disk.world.count("disk: full");
        }
        written
    }

    /// Cuts or extends.
    pub fn truncate(&self, length: usize) -> io::Result<()> {
        self.disk.world.tell(|| format!("disk: length of {} is {length}", self.file));
        self.disk.operate(self.life)?.change(self.file, Change::Length(length))
    }

    /// On return everything written is on the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.operate(self.life)?;
        if self.disk.world.strikes("disk: an fsync fails", state.sickness.sync) {
            match self.disk.world.chance(500) {
                true => state.sync(self.file),
                // As Linux does: the pages count as clean now, and no later fsync writes them.
                false => state.forget(self.file),
            }
            return Err(eio());
        }
        self.disk.world.tell(|| format!("disk: sync {}", self.file));
        state.sync(self.file);
        if std::mem::take(&mut self.sync_names) {
            state.sync_names();
        }
        Ok(())
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.disk.lock().files[&self.file].now.len()
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated disk")
    }
}

/// A lock of one life.
struct SimLock {
    disk: Arc<SimDisk>,
    file: u64,
    life: u64,
}

impl Held for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().locks.retain(|lock| *lock != (self.file, self.life));
    }
}

/// The disk of a world, as the ledger is given it.
#[derive(Debug)]
pub struct Mounted(pub Arc<SimDisk>);

impl Disk for Mounted {
    fn vfs(&self) -> Option<&'static str> {
        Some(VFS)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn look(&self, path: &Path) -> io::Result<Look> {
        let state = self.0.operate(self.0.lives())?;
        let file = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Look { file: (1, *file), made: None, length: state.files[file].length(), names: 1 })
    }

    fn hold(&self, path: &Path, making: Making) -> Result<Box<dyn Held>, TryLockError> {
        let handle = self.0.open(path, making == Making::IfMissing).map_err(TryLockError::Error)?;
        let (file, life) = (handle.file, handle.life);
        let mut state = self.0.lock();
        if state.locks.iter().any(|(locked, _)| *locked == file) {
            return Err(TryLockError::WouldBlock);
        }
        state.locks.push((file, life));
        drop(state);
        Ok(Box::new(SimLock { disk: self.0.clone(), file, life }))
    }

    fn lay(&self, path: &Path, bytes: usize, room: usize) -> io::Result<()> {
        let handle = self.0.open(path, true)?;
        let (bytes, room) = (bytes as u64, room as u64);
        let mut state = self.0.operate(handle.life)?;
        match &mut state.room {
            Some(left) if *left < bytes + room => return Err(full()),
            Some(left) => *left -= bytes,
            None => {}
        }
        state.files.get_mut(&handle.file).expect("an open file exists").ballast = bytes;
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.operate(self.0.lives())?;
        match state.names.get(path).copied() {
            Some(file) => state.sync(file),
            None => state.sync_names(),
        }
        self.0.world.tell(|| format!("disk: sync {path:?}"));
        Ok(())
    }

    fn rewrite(&self, path: &Path) -> io::Result<()> {
        let mut handle = self.0.open(path, false)?;
        let mut content = vec![0; handle.length()];
        handle.read(&mut content, 0);
        // A page at a time, as the system does.
        for (number, page) in content.chunks(4096).enumerate() {
            handle.write(page, number * 4096)?;
        }
        handle.sync()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let handle = self.0.open(path, false)?;
        let mut content = vec![0; handle.length()];
        handle.read(&mut content, 0);
        Ok(content)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut handle = self.0.open(path, true)?;
        handle.truncate(0)?;
        handle.write(content, 0)?;
        handle.sync()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.operate(self.0.lives())?;
        self.0.world.tell(|| format!("disk: {from:?} is now {to:?}"));
        let naming = Naming::Moved(from.to_owned(), to.to_owned());
        naming.apply(&mut state.names);
        state.pending_names.push(naming);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.unlink(path, false)
    }
}
