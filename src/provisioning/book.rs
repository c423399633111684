//! `provisioning.json` beside the ledger: which hub each device was assigned to, so that a start needs no service.
//!
//! Invariants
//! - It is replaced as a whole, under its name only when the new content is on the disk.
//! - It is a memory and no truth: what can't be read or understood is forgotten, and the service asked again.
//! - An assignment counts only for the id scope and the registration id that it was made for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::certificate::pair::is_server_name;
use crate::complaint::Complaint;
use crate::config::{Config, Device};

/// Largest file that is read: of the thousand devices of a gateway each has less than 1 KiB.
const BYTES_MAX: u64 = 4 << 20;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Book {
    /// By device.
    devices: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id_scope: String,
    registration_id: String,
    /// Host name of the hub, lower case.
    assigned_hub: String,
}

/// Where it is, for a ledger.
pub fn path_beside(ledger: &Path) -> PathBuf {
    ledger.with_file_name("provisioning.json")
}

impl Book {
    /// What was remembered, and what is wrong with the file, if something is. One that is not there has nothing.
    pub fn read(path: &Path) -> (Book, Option<Complaint>) {
        match read(path) {
            Ok(bytes) => match Book::parse(&bytes) {
                Ok(book) => (book, None),
                Err(why) => (Book::default(), Some(damaged(path, &why))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Book::default(), None),
            Err(error) => (Book::default(), Some(damaged(path, &error.to_string()))),
        }
    }

    /// Of what stands in the file.
    ///
    /// # Errors
    /// Why it is not understood.
    pub(super) fn parse(bytes: &[u8]) -> Result<Book, String> {
        let book: Book = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match book.devices.values().all(|entry| is_hub(&entry.assigned_hub)) {
            true => Ok(book),
            false => Err("a hub in it is no host name".into()),
        }
    }

    /// As it stands in the file.
    pub(super) fn to_text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("its keys are text");
        text + "\n"
    }

    /// The hub of a device, if it was assigned to one as it is configured now.
    pub fn hub_of(&self, config: &Config, device: &Device) -> Option<&str> {
        let (provisioning, registration) = (config.provisioning.as_ref()?, device.registration.as_ref()?);
        let entry = self.devices.get(&device.id)?;
        let is_of_it = entry.id_scope == provisioning.id_scope && entry.registration_id == *registration;
        is_of_it.then_some(entry.assigned_hub.as_str())
    }

    /// Notes that a device was assigned to a hub, as it is configured. Tells whether that is news.
    pub fn note(&mut self, config: &Config, device: &Device, hub: &str) -> bool {
        let (Some(provisioning), Some(registration)) = (&config.provisioning, &device.registration) else {
            return false;
        };
        let (id_scope, registration_id) = (provisioning.id_scope.clone(), registration.clone());
        let entry = Entry { id_scope, registration_id, assigned_hub: hub.to_owned() };
        self.devices.insert(device.id.clone(), entry.clone()) != Some(entry)
    }

    /// Forgets devices that are not configured.
    pub fn keep_configured(&mut self, config: &Config) {
        self.devices.retain(|id, _| config.devices.contains_key(id));
    }

    /// Puts it in the place of the file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("json-new");
        let mut file = File::create(&new)?;
        file.write_all(self.to_text().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_hub(host: &str) -> bool {
    is_server_name(host) && host == host.to_lowercase()
}

fn damaged(path: &Path, why: &str) -> Complaint {
    Complaint::new(
        format!("{} can't be read: {why}", path.display()),
        "nothing is to be done: the provisioning service is asked again, and the file made anew",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn configured(folder: &Path, scope: &str, registration: &str) -> Config {
        let main = folder.join("main.toml");
        std::fs::write(folder.join("k"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let text = format!(
            "[provisioning]\nid_scope = \"{scope}\"\n[bus.b]\nkind = \"modbus-tcp\"\naddress = \"h:502\"\n\
             [device.d]\nbus = \"b\"\nunit = 1\nprofile = \"p\"\nkey_file = \"k\"\n{registration}\n\
             [profile.p.command.c]\nread = {{ table = \"input\", address = 7 }}\n"
        );
        std::fs::write(&main, text).unwrap();
        config::load(&main, []).unwrap_or_else(|problems| panic!("{problems:?}")).config
    }

    #[test]
    fn an_assignment_is_remembered_for_what_it_was_made_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_beside(&folder.path().join("ledger.db"));
        let config = configured(folder.path(), "0ne1", "");
        let device = &config.devices["d"];
        let (mut book, why) = Book::read(&path);
        assert_eq!((book.hub_of(&config, device), why), (None, None));
        assert!(book.note(&config, device, "h.example") && !book.note(&config, device, "h.example"));
        book.write(&path).unwrap();
        let (book, why) = Book::read(&path);
        assert_eq!((book.hub_of(&config, device), why), (Some("h.example"), None));
        for (scope, registration) in [("0ne2", ""), ("0ne1", "registration_id = \"e\"")] {
            let other = configured(folder.path(), scope, registration);
            assert_eq!(book.hub_of(&other, &other.devices["d"]), None, "{scope} {registration}");
        }
        let mut gone = config.clone();
        gone.devices.clear();
        let mut kept = book.clone();
        kept.keep_configured(&gone);
        assert_eq!(kept, Book::default());
    }

    #[test]
    fn a_damaged_file_is_told_and_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_beside(&folder.path().join("ledger.db"));
        let entry = |hub: &str| {
            format!(r#"{{"devices":{{"d":{{"idScope":"0","registrationId":"d","assignedHub":"{hub}"}}}}}}"#)
        };
        for text in ["", "{", "[]", "\0\0\0", &entry("a b"), &entry("H.example"), &entry("")] {
            std::fs::write(&path, text).unwrap();
            let (book, why) = Book::read(&path);
            assert_eq!(book, Book::default());
            assert!(why.unwrap().to_string().contains("asked again"), "{text}");
        }
        std::fs::write(&path, entry("h.example")).unwrap();
        assert_eq!(Book::read(&path).1, None);
    }
}
