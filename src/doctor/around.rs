//! What can be told of the surroundings without trying anything: whether the ports are there, the system's trust
//! anchors, the dates of certificates.

use std::path::Path;

use super::files;
use super::ports::{names_that_stay, BY_ID};
use super::socket::admin_socket;
use super::{unit, Verdict};
use crate::certificate::Trust;
use crate::complaint::Complaint;
use crate::config::{key_path, Loaded, Problem};
use crate::handles;
use crate::hub::transports;
use crate::provisioning::book::{self, Book};

/// Names of adapters that are listed.
const LISTED_MAX: usize = 8;

/// Warnings of what is not as the configuration needs it. An adapter may be plugged in later, so none is an error.
pub fn around(loaded: &Loaded) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut there = None;
    for (name, bus) in &loaded.config.buses {
        let Some(path) = bus.kind.serial_path() else { continue };
        if path.exists() {
            continue;
        }
        let there = there.get_or_insert_with(listed);
        let remedy = format!("plug the adapter in, or correct the name: {there}");
        let why = Complaint::new(format!("{} is not there", path.display()), remedy);
        found.push(Problem::warning(&loaded.origins, &key_path(&["bus", name, "port"]), why));
    }
    let hub = &loaded.config.hub;
    if hub.tls && hub.ca_file.is_none() {
        if let Err(why) = Trust::load(None) {
            found.push(Problem::warning(&loaded.origins, "hub.host", why));
        }
    }
    if loaded.config.provisioning.is_some() {
        let (_, damaged) = Book::read(&book::path_beside(&loaded.config.ledger.path));
        found.extend(damaged.map(|why| Problem::warning(&loaded.origins, "provisioning", why)));
    }
    let (connections, buses) = (transports::connections(loaded.config.devices.values()), loaded.config.buses.len());
    if let Some(why) = handles::note(connections, buses, unit::handles().unwrap_or_else(handles::most)) {
        found.push(Problem::warning(&loaded.origins, "device", why));
    }
    found
}

/// What the daemon would refuse to begin with, although the files say nothing wrong.
pub fn refusals(loaded: &Loaded) -> Vec<Problem> {
    let why = admin_socket(&loaded.config.admin_socket);
    why.map(|why| Problem::error(&loaded.origins, "admin.socket", why)).into_iter().collect()
}

/// Warnings of certificates whose days are over, or nearly so, by this machine's clock.
pub fn dates(loaded: &Loaded) -> Vec<Problem> {
    let worn = files::certificates(&loaded.config).into_iter().filter(|finding| finding.verdict != Verdict::Ok);
    let told = worn.map(|finding| {
        let why = Complaint::new(&*finding.said, finding.remedy.as_deref().unwrap_or("look at it"));
        let key = finding.key().unwrap_or_default();
        let key = if key.starts_with("device.") { format!("{key}.cert_file") } else { key };
        Problem::warning(&loaded.origins, &key, why)
    });
    told.collect()
}

fn listed() -> String {
    let names = names_that_stay(Path::new(BY_ID));
    let names: Vec<String> = names.iter().take(LISTED_MAX).map(|name| name.display().to_string()).collect();
    match names.is_empty() {
        true => format!("{BY_ID} lists none"),
        false => format!("there are {}", names.join(", ")),
    }
}
