//! How a device proves its identity: keys, connection strings and certificates.
//!
//! Invariants
//! - No message here repeats what stands in a file, nor a path that looks like the secret itself.
//! - Certificates and keys are judged by what connects with them: what is good here can begin a handshake.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::secret::{is_secret, odd_length, parse_connection_string, parse_key, text};
use super::tree::Table;
use super::{Credential, Hub};
use crate::certificate::pair::{self, Misfit};
use crate::certificate::pem;
use crate::complaint::Complaint;

/// A device's credential, from exactly one of its keys; `None` where something is wrong with it.
pub(super) fn credential(table: &Table, id: &str, hub: Option<&Hub>) -> Option<Credential> {
    let given: Vec<&str> = ["key_file", "connection_string_file", "cert_file"]
        .into_iter()
        .filter(|key| table.has(key) || (*key == "cert_file" && table.has("cert_key_file")))
        .collect();
    match given.as_slice() {
        [] => {
            table.absent(
                "key_file",
                ("is missing", "give key_file, or connection_string_file, or cert_file with cert_key_file"),
            );
            None
        }
        ["key_file"] => key(table),
        ["connection_string_file"] => connection_string(table, id, hub),
        ["cert_file"] => certificate(table),
        [others @ .., last] => {
            let last = if table.has(last) { last } else { "cert_key_file" };
            let why =
                (format!("stands beside {}", others.join(" and ")), "a device has one credential: keep one of them");
            table.wrong(last, why);
            None
        }
    }
}

fn key(table: &Table) -> Option<Credential> {
    let key = secret(table, "key_file", parse_key)?;
    Some(shared_key(table, "key_file", key))
}

fn connection_string(table: &Table, id: &str, hub: Option<&Hub>) -> Option<Credential> {
    let parsed = secret(table, "connection_string_file", parse_connection_string)?;
    if hub.is_some_and(|hub| hub.host.is_empty()) {
        let why = (
            "names its hub, and [hub] does not",
            "write the hub's host name as host in [hub], or give the device a key_file, to be assigned to its hub",
        );
        table.wrong("connection_string_file", why);
    } else if let Some(hub) = hub.filter(|hub| hub.host != parsed.host) {
        let why = (
            format!("is for the hub {:?}, and hub.host is {:?}", parsed.host, hub.host),
            "use the string of a device at that hub",
        );
        table.wrong("connection_string_file", why);
    }
    if let (Some(hub), Some(gateway)) = (hub, &parsed.gateway) {
        if hub.gateway.as_ref() != Some(gateway) {
            let why = match &hub.gateway {
                Some(other) => Complaint::new(
                    format!("names the IoT Edge gateway {gateway:?}, and hub.gateway is {other:?}"),
                    "which is right?",
                ),
                None => Complaint::new(
                    "names an IoT Edge gateway (GatewayHostName)",
                    format!(
                        "write gateway = {gateway:?} in [hub] to connect to it, or remove that part to connect to the hub \
                         itself"
                    ),
                ),
            };
            table.wrong("connection_string_file", why);
        }
    }
    if parsed.device != id {
        let why =
            (format!("is for the device {:?}, and this is {id:?}", parsed.device), "use the string of this device");
        table.wrong("connection_string_file", why);
    }
    Some(shared_key(table, "connection_string_file", parsed.key))
}

/// The key that is tried when the hub refuses the first.
pub(super) fn secondary(table: &Table, first: Option<&Credential>) -> Option<Vec<u8>> {
    let key = secret(table, "secondary_key_file", parse_key)?;
    match first {
        Some(Credential::Certificate { .. }) => {
            table.wrong("secondary_key_file", ("has no use beside a certificate", "remove it"));
        }
        Some(Credential::Key(first)) if *first == key => {
            table.note(
                "secondary_key_file",
                ("holds the same key as the first", "put the device's secondary key into it"),
            );
        }
        _ => {}
    }
    match shared_key(table, "secondary_key_file", key) {
        Credential::Key(key) => Some(key),
        Credential::Certificate { .. } => None,
    }
}

fn shared_key(table: &Table, key: &str, bytes: Vec<u8>) -> Credential {
    if let Some(why) = odd_length(&bytes) {
        table.warn(key, why);
    }
    Credential::Key(bytes)
}

fn certificate(table: &Table) -> Option<Credential> {
    for (key, other) in [("cert_file", "cert_key_file"), ("cert_key_file", "cert_file")] {
        if !table.has(key) {
            table.absent(key, ("is missing", format!("{other} needs it beside it")));
        }
    }
    let (cert_file, key_file) = (table.path("cert_file"), table.path("cert_key_file"));
    let (cert_file, key_file) = (cert_file?, key_file?);
    let contents = contents(&cert_file, &key_file);
    match pair::check_pair(&cert_file, &key_file) {
        Ok(remarks) if !remarks.is_chained => {
            let why = Complaint::new(
                "the certificates are not each signed by the next, and a hub may refuse that",
                "put the device's own first, then its issuer's, and so on",
            );
            table.warn("cert_file", why.of(cert_file.display()));
        }
        Ok(_) => {}
        Err(Misfit::Certificate(why)) => {
            table.wrong("cert_file", why);
            // What is wrong with the key stays wrong when the certificate is right.
            if let Err(why) = pair::check_key(&key_file) {
                table.wrong("cert_key_file", why);
            }
            return None;
        }
        Err(Misfit::Key(why)) => {
            table.wrong("cert_key_file", why);
            return None;
        }
    }
    table.walk.files.borrow_mut().extend([cert_file.clone(), key_file.clone()]);
    note_exposure(table, "cert_key_file", &key_file);
    Some(Credential::Certificate { cert_file, key_file, contents })
}

/// SHA-256 of what stands in both files. What can't be read is told by who judges it.
fn contents(cert_file: &PathBuf, key_file: &PathBuf) -> [u8; 32] {
    let mut contents = ring::digest::Context::new(&ring::digest::SHA256);
    for file in [cert_file, key_file] {
        let bytes = pem::read(file).unwrap_or_default();
        contents.update(&(bytes.len() as u64).to_be_bytes());
        contents.update(&bytes);
    }
    contents.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What stands in a file that holds a secret. Each of its problems names the file.
pub(super) fn secret<T>(table: &Table, key: &str, parse: impl Fn(&str) -> Result<T, Complaint>) -> Option<T> {
    let path = table.path(key)?;
    if !path.exists() && is_secret(table.text(key)?) {
        table.wrong(
            key,
            ("holds the secret itself", "put that into a file that only fieldbridge can read, and name the file here"),
        );
        return None;
    }
    match pem::read(&path).and_then(|bytes| parse(text(&bytes)?)) {
        Ok(parsed) => {
            table.walk.files.borrow_mut().push(path.clone());
            note_exposure(table, key, &path);
            Some(parsed)
        }
        Err(why) => {
            table.wrong(key, why.of(path.display()));
            None
        }
    }
}

fn note_exposure(table: &Table, key: &str, path: &Path) {
    if fs::metadata(path).is_ok_and(|m| is_exposed(m.mode(), m.uid())) {
        let path = path.display();
        let remedy = format!("`chown root:fieldbridge {path}` and `chmod 0640 {path}`");
        table.warn(key, Complaint::new(format!("{path} can be read by others"), remedy));
    }
}

/// Whether others than the service can read a file. `root:fieldbridge 0640` is how packages hand a secret to a
/// service, so the group counts only where the owner isn't root.
fn is_exposed(mode: u32, owner: u32) -> bool {
    mode & 0o007 != 0 || (mode & 0o070 != 0 && owner != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_exposed_to_others_but_not_to_the_group_that_root_gave_it() {
        for (mode, owner, exposed) in [
            (0o400, 1000, false),
            (0o600, 0, false),
            (0o640, 0, false),
            (0o640, 1000, true),
            (0o604, 0, true),
            (0o644, 1000, true),
        ] {
            assert_eq!(is_exposed(0o100_000 | mode, owner), exposed, "{mode:o} {owner}");
        }
    }
}
