//! What a disk keeps when the power goes: a model of one folder, pure.
//!
//! - A change is durable when it was synced, and not before: a file's content and length by a sync of that file, names
//!   by a sync of the folder. This is all that POSIX promises; most file systems keep more.
//! - Of what was not synced, anything from nothing to everything may be there after the cut.

use std::collections::{BTreeMap, HashMap};

/// A drive writes so many bytes or none of them.
const SECTOR_BYTES: usize = 512;

/// A file, under whatever name.
pub type Inode = u64;

/// One change that a program has made.
#[derive(Debug, Clone)]
pub enum Change {
    Create { name: String, inode: Inode },
    Remove { name: String },
    Rename { from: String, to: String },
    Write { inode: Inode, at: usize, bytes: Vec<u8> },
    Resize { inode: Inode, length: usize },
}

impl Change {
    /// The file whose content it changes; without one it changes names.
    fn inode(&self) -> Option<Inode> {
        match self {
            Change::Create { .. } | Change::Remove { .. } | Change::Rename { .. } => None,
            Change::Write { inode, .. } | Change::Resize { inode, .. } => Some(*inode),
        }
    }
}

/// What of the changes that were not synced is there after the cut.
#[derive(Debug, Clone)]
pub enum Kept {
    /// None of them.
    Nothing,
    /// The first so many of a hundred, in the order in which they were made.
    Prefix(u32),
    /// All of them, as after a kill.
    Everything,
    /// Names up to some change, as a journal does it; of the writes any, in any order, and parts of some.
    Torn(fastrand::Rng),
}

/// Names and files.
#[derive(Debug, Clone, Default)]
struct Content {
    names: BTreeMap<String, Inode>,
    files: HashMap<Inode, Vec<u8>>,
}

impl Content {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { name, inode } => {
                self.names.insert(name.clone(), *inode);
            }
            Change::Remove { name } => {
                self.names.remove(name);
            }
            Change::Rename { from, to } => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                }
            }
            Change::Write { inode, at, bytes } => {
                let file = self.files.entry(*inode).or_default();
                file.resize(file.len().max(*at), 0);
                let (over, beyond) = bytes.split_at(bytes.len().min(file.len() - at));
                file[*at..at + over.len()].copy_from_slice(over);
                file.extend_from_slice(beyond);
            }
            Change::Resize { inode, length } => self.files.entry(*inode).or_default().resize(*length, 0),
        }
    }
}

/// A disk in use.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    now: Content,
    durable: Content,
    /// What was not synced, in the order in which it was done.
    pending: Vec<Change>,
    last_inode: Inode,
}

impl Disk {
    pub fn names(&self) -> impl Iterator<Item = (&str, Inode)> {
        self.now.names.iter().map(|(name, inode)| (name.as_str(), *inode))
    }

    pub fn find(&self, name: &str) -> Option<Inode> {
        self.now.names.get(name).copied()
    }

    /// What a file is called.
    pub fn name(&self, inode: Inode) -> Option<&str> {
        self.names().find(|(_, found)| *found == inode).map(|(name, _)| name)
    }

    /// What programs read in a file.
    pub fn file(&self, inode: Inode) -> &[u8] {
        self.now.files.get(&inode).map_or(&[], Vec::as_slice)
    }

    pub fn new_inode(&mut self) -> Inode {
        self.last_inode += 1;
        self.last_inode
    }

    pub fn change(&mut self, change: Change) {
        self.now.apply(&change);
        self.pending.push(change);
    }

    /// Makes one file's content durable, or with `None` the names.
    pub fn sync(&mut self, what: Option<Inode>) {
        let durable = &mut self.durable;
        self.pending.retain(|change| {
            let synced = change.inode() == what;
            if synced {
                durable.apply(change);
            }
            !synced
        });
    }

    /// How many changes were not synced.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What is there when the power is back.
    pub fn after_a_cut(self, kept: Kept) -> Disk {
        let mut content = self.durable;
        match kept {
            Kept::Nothing => {}
            Kept::Prefix(percent) => {
                let count = self.pending.len() * percent as usize / 100;
                self.pending.iter().take(count).for_each(|change| content.apply(change));
            }
            Kept::Everything => self.pending.iter().for_each(|change| content.apply(change)),
            Kept::Torn(mut random) => tear(&mut content, &self.pending, &mut random),
        }
        Disk { now: content.clone(), durable: content, pending: Vec::new(), last_inode: self.last_inode }
    }
}

/// Lets some of the changes through.
fn tear(content: &mut Content, pending: &[Change], random: &mut fastrand::Rng) {
    let mut names_left = random.usize(..=pending.iter().filter(|change| change.inode().is_none()).count());
    // Few or many of them, by a chance that is this cut's own.
    let percent = random.u32(..=100);
    for change in pending {
        match change {
            Change::Write { inode, at, bytes } if random.u32(..4) == 0 => {
                for (start, piece) in sectors(*at, bytes) {
                    if random.u32(..100) < percent {
                        content.apply(&Change::Write { inode: *inode, at: start, bytes: piece.to_vec() });
                    }
                }
            }
            Change::Write { .. } | Change::Resize { .. } if random.u32(..100) < percent => content.apply(change),
            Change::Write { .. } | Change::Resize { .. } => {}
            _ if names_left > 0 => {
                names_left -= 1;
                content.apply(change);
            }
            _ => {}
        }
    }
}

/// The pieces of a write that the drive does one by one.
fn sectors(at: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    let (mut start, mut rest) = (at, bytes);
    while !rest.is_empty() {
        let length = rest.len().min(SECTOR_BYTES - start % SECTOR_BYTES);
        let (piece, more) = rest.split_at(length);
        pieces.push((start, piece));
        (start, rest) = (start + length, more);
    }
    pieces
}

#[test]
fn the_model_keeps_what_was_synced_and_nothing_else_for_sure() {
    let mut disk = Disk::default();
    let inode = disk.new_inode();
    let write = |at: usize, bytes: &[u8]| Change::Write { inode, at, bytes: bytes.to_vec() };
    disk.change(Change::Create { name: "a".into(), inode });
    disk.change(write(0, b"synced"));
    disk.sync(Some(inode));
    assert_eq!(disk.clone().after_a_cut(Kept::Everything).file(inode), b"synced");
    assert_eq!(disk.clone().after_a_cut(Kept::Nothing).find("a"), None, "its name was not synced");
    disk.sync(None);
    disk.change(write(6, b" not"));
    disk.change(Change::Resize { inode, length: 3 });
    disk.change(Change::Rename { from: "a".into(), to: "b".into() });
    assert_eq!((disk.file(inode), disk.find("a"), disk.pending()), (&b"syn"[..], None, 3));
    let cut = |kept| {
        let disk = disk.clone().after_a_cut(kept);
        (disk.file(inode).to_vec(), disk.find("a").is_some(), disk.find("b").is_some())
    };
    assert_eq!(cut(Kept::Nothing), (b"synced".to_vec(), true, false));
    assert_eq!(cut(Kept::Prefix(34)), (b"synced not".to_vec(), true, false));
    assert_eq!(cut(Kept::Prefix(67)), (b"syn".to_vec(), true, false));
    assert_eq!(cut(Kept::Everything), (b"syn".to_vec(), false, true));
}

#[test]
fn a_torn_write_is_cut_where_sectors_end() {
    let bytes = vec![7; 1200];
    let pieces: Vec<(usize, usize)> = sectors(400, &bytes).iter().map(|(at, piece)| (*at, piece.len())).collect();
    assert_eq!(pieces, [(400, 112), (512, 512), (1024, 512), (1536, 64)]);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut disk = Disk::default();
        let inode = disk.new_inode();
        disk.change(Change::Write { inode, at: 0, bytes: vec![1; 1024] });
        disk.sync(Some(inode));
        disk.change(Change::Write { inode, at: 0, bytes: vec![2; 1024] });
        let disk = disk.after_a_cut(Kept::Torn(fastrand::Rng::with_seed(seed)));
        let (first, second) = disk.file(inode).split_at(SECTOR_BYTES);
        assert!([first, second].iter().all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        seen.insert((first[0], second[0]));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}
