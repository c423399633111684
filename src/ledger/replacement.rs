//! A ledger that takes another's place: the end of what a plan says, whoever comes upon it.
//!
//! Invariant: at no moment does a ledger stand without its log, or with another's.

use std::path::{Path, PathBuf};

use super::disk::{beside, Disk};
use crate::proof::crash::{self, Point};

/// The files of a ledger, by what follows its name.
pub(super) const PARTS: [&str; 4] = ["", "-wal", "-shm", ".sound"];

/// Ends a replacement that was cut short, if there is one. Called by whoever holds the ledger.
pub(super) fn finish(disk: &dyn Disk, ledger: &Path) -> std::io::Result<Option<PathBuf>> {
    let plan = beside(ledger, ".replace");
    let content = match disk.read(&plan) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // A plan that can't be read may be one to give the new ledger its name.
        content => content?,
    };
    let new = beside(ledger, ".new");
    let Some(time) = std::str::from_utf8(&content).ok().and_then(|text| text.strip_suffix('\n')) else {
        // It was cut short when it was written: nothing was moved.
        disk.remove(&plan)?;
        return Ok(None);
    };
    let old = beside(ledger, &format!(".old-{time}"));
    if disk.look(&new).is_ok() {
        for part in PARTS {
            let (from, to) = (beside(ledger, part), beside(&old, part));
            if disk.look(&from).is_ok() {
                disk.rename(&from, &to)?;
                crash::point(Point::PartMovedAside);
            }
        }
        disk.rename(&new, ledger)?;
        crash::point(Point::ReplacementNamed);
    }
    if let Some(folder) = ledger.parent() {
        disk.sync(folder)?;
    }
    disk.remove(&plan)?;
    Ok(disk.look(&old).is_ok().then_some(old))
}
