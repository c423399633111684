//! Whether the daemon can make its socket.

use std::io;
use std::path::Path;

use rustix::fs::{access, Access};
use rustix::io::Errno;

use super::user::{User, Wish};
use crate::complaint::Complaint;
use crate::operate::admin::server::{self, Unbound};

/// What the unit's RuntimeDirectory= and StateDirectory= come to.
const FOLDERS_OF_THE_UNIT: [&str; 2] = ["/run/fieldbridge", "/var/lib/fieldbridge"];

/// What keeps the daemon from making its socket until a person has changed it.
pub(super) fn admin_socket(socket: &Path) -> Option<Complaint> {
    // Before a first start systemd has not made them.
    if FOLDERS_OF_THE_UNIT.map(Path::new).iter().any(|folder| socket.starts_with(folder) && !folder.exists()) {
        return None;
    }
    let service = User::of_the_service();
    let may_change = |folder: &Path| {
        let own = access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from);
        match &service {
            // Root may everything, and an operator need not be who the daemon runs as.
            Some(service) if own.is_err() || rustix::process::geteuid().is_root() => {
                service.may(Wish::Change, folder).map_err(|_| Errno::ACCESS.into())
            }
            _ => own,
        }
    };
    match server::foresee(socket, may_change) {
        Ok(()) => None,
        Err(Unbound::Lasting(why) | Unbound::Passing(why)) => Some(why),
    }
}
