//! `[provisioning]`, and what a device is called there.
//!
//! Source: "Device Provisioning Service terminology" (Microsoft).

use super::address::{check_host, host_and_port};
use super::registration::registration_id;
use super::tree::Table;
use super::{keys, Provisioning};
use crate::certificate::pair::{self, Trust};
use crate::complaint::Complaint;

const DEFAULT_HOST: &str = "global.azure-devices-provisioning.net";
const SCOPE_EXAMPLE: &str = "\"0ne00123ABC\"";
/// Longest id scope.
const SCOPE_CHARS_MAX: usize = 128;

/// `[provisioning]`, if it is to be asked: within it `None` where something is wrong with it. Without an id scope it is
/// not, which is an error where nothing else names a hub.
pub(super) fn provisioning(root: &Table) -> Option<Option<Provisioning>> {
    let table = root.table("provisioning", keys::PROVISIONING)?;
    let hub = root.table_or_empty("hub", keys::HUB);
    if !table.has("id_scope") && hub.has("host") && !hub.is_empty_text("host") {
        return None;
    }
    if !cfg!(feature = "https") {
        table.wrong_here(Complaint::new(
            "is not what this program was built with",
            "install the one with the feature https, or leave it out",
        ));
    }
    let id_scope = id_scope(&table);
    let host = host(&table);
    let address = match table.has("address") {
        true => table.text("address").and_then(|text| match host_and_port(text, Some(443)) {
            Ok(address) => Some(address),
            Err(why) => {
                table.wrong("address", why.and("write it as HOST:PORT"));
                None
            }
        }),
        false => host.as_ref().map(|host| format!("{host}:443")),
    };
    let ca_file = table.path("ca_file");
    if let Some(path) = &ca_file {
        match Trust::load(Some(path)) {
            Ok(_) => table.walk.files.borrow_mut().push(path.clone()),
            Err(why) => table.wrong("ca_file", why),
        }
    }
    let whole = || Some(Provisioning { id_scope: id_scope?, host: host?, address: address?, ca_file });
    Some(whole())
}

fn id_scope(table: &Table) -> Option<String> {
    let remedy = format!("write the ID Scope of your Device Provisioning Service here, such as {SCOPE_EXAMPLE}");
    if !table.has("id_scope") {
        table.absent("id_scope", ("is missing", remedy));
        return None;
    }
    let scope = table.text("id_scope")?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if scope.is_empty() || scope.len() > SCOPE_CHARS_MAX || !scope.chars().all(is_part) {
        table.wrong("id_scope", ("is no ID Scope", remedy));
        return None;
    }
    Some(scope.to_owned())
}

fn host(table: &Table) -> Option<String> {
    let host = match table.has("host") {
        true => table.text("host")?.to_lowercase(),
        false => DEFAULT_HOST.to_owned(),
    };
    let remedy = format!("it must be like {DEFAULT_HOST:?}, the service's global device endpoint");
    if let Err(why) = check_host(&host) {
        table.wrong("host", Complaint::new(why, remedy));
        return None;
    }
    if !pair::is_server_name(&host) {
        table.wrong("host", ("is no name that a server can have in TLS", remedy));
        return None;
    }
    Some(host)
}

/// Under which id a device registers, if it does: one whose connection string names its hub does not.
pub(super) fn registration(table: &Table, id: &str, is_assigned: bool) -> Option<String> {
    let given = table.has("registration_id").then(|| table.text("registration_id")).flatten();
    if let Some(given) = given {
        let why = match registration_id(given) {
            Err(why) => Some(why),
            Ok(()) if !is_assigned => {
                Some(Complaint::new("has no use without [provisioning]", "add that table, or remove this line"))
            }
            Ok(()) if table.has("connection_string_file") => Some(Complaint::new(
                "has no use beside a connection string, which names the hub",
                "remove this line, or give the device a key_file",
            )),
            Ok(()) => None,
        };
        why.into_iter().for_each(|why| table.wrong("registration_id", why));
        return Some(given.to_owned());
    }
    if !is_assigned || table.has("connection_string_file") {
        return None;
    }
    if registration_id(id).is_err() {
        let why = ("is missing, and the device's id can't be one", "write that of the device's enrollment");
        table.absent("registration_id", why);
    }
    Some(id.to_owned())
}
