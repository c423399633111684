//! `fieldbridge lock` and `fieldbridge unlock`: hands in a machine.

use std::path::Path;

use super::{environment, print, print_error};
use crate::config;
use crate::exit::Exit;
use crate::operate::{locking, text};
use crate::systemd;

pub(super) fn lock(path: &Path, device: &str, reason: Option<&str>, json: bool) -> Result<(), Exit> {
    systemd::seclude();
    let places = config::places(path, environment()).map_err(Exit::Config)?;
    // Somebody's hands do not wait for a configuration to be good.
    let is_known = || match config::load(path, environment()) {
        Ok(loaded) => loaded.config.devices.contains_key(device),
        Err(_) => {
            print_error("note: the configuration has errors, and whether it has this device is not known");
            true
        }
    };
    let (locked, is_running) = locking::lock(&places.admin_socket, &places.ledger, device, reason, is_known)?;
    print(&if json { locked.to_string() } else { text::locked(&locked, is_running) });
    Ok(())
}

pub(super) fn unlock(path: &Path, device: &str, json: bool) -> Result<(), Exit> {
    systemd::seclude();
    let places = config::places(path, environment()).map_err(Exit::Config)?;
    let (unlocked, _) = locking::unlock(&places.admin_socket, &places.ledger, device)?;
    print(&if json { unlocked.to_string() } else { text::printable(&format!("{device} is unlocked")) });
    Ok(())
}
