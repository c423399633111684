//! `[hub]`, `[admin]` and `[ledger]`.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::check_host;
use super::tree::{Span, Table};
use super::way::{ways, Ways};
use super::{keys, Hub, Ledger};
use crate::certificate::pair::{self, Trust};
use crate::complaint::Complaint;

const HOST_EXAMPLE: &str = "\"contoso.azure-devices.net\"";
const DEFAULT_API_VERSION: &str = "2021-04-12";
const DEFAULT_SOCKET: &str = "/run/fieldbridge/admin.sock";
const DEFAULT_LEDGER: &str = "/var/lib/fieldbridge/ledger.db";
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(60);
const DEFAULT_CONNECT_RATE: u32 = 20;
const DEFAULT_TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * DAY);
const DAY: u64 = 24 * 3600;

/// `sun_path` of `sockaddr_un` holds 108 bytes on Linux, the last of them zero.
pub(super) const SOCKET_PATH_MAX: usize = 107;

const KEEPALIVE: Span = Span {
    min: Duration::from_secs(5),
    max: Duration::from_secs(1177),
    because: ": the hub closes a connection that is silent for 1.5 times this, or 1767s if that is less",
};
// Short lives are for tests; the hub itself sets no limit.
const TOKEN_LIFETIME: Span = Span { min: Duration::from_secs(10), max: Duration::from_secs(DAY), because: "" };
const RETENTION: Span = Span {
    min: Duration::from_secs(2 * DAY),
    max: Duration::from_secs(3650 * DAY),
    because: ": the hub may deliver a message again for 2 days, and what is forgotten by then is executed again",
};

/// `[hub]`; `None` where something is wrong with it. Where devices are assigned to their hubs, it may have no name.
pub(super) fn hub(root: &Table, is_assigned: bool) -> Option<Hub> {
    let table = root.table_or_empty("hub", keys::HUB);
    let is_nameless = is_assigned && (!table.has("host") || table.is_empty_text("host"));
    let host = if is_nameless { Some(String::new()) } else { host(&table) };
    let tls = table.boolean("tls").unwrap_or(true);
    let Ways { transport, addresses, gateway, proxy, poll_interval } = ways(&table, host.as_deref(), tls);
    let ca_file = table.path("ca_file");
    if let Some(path) = &ca_file {
        match Trust::load(Some(path)) {
            Ok(_) => table.walk.files.borrow_mut().push(path.clone()),
            Err(why) => table.wrong("ca_file", why),
        }
    }
    let keepalive = table.duration("keepalive", &KEEPALIVE);
    if keepalive.is_some_and(|k| k.subsec_nanos() != 0) {
        table.wrong("keepalive", ("must be whole seconds, as MQTT counts them", "write it so"));
    }
    let connect_rate = table.small("connect_rate", 1..=1000);
    let api_version = api_version(&table);
    let token_lifetime = table.duration("token_lifetime", &TOKEN_LIFETIME);
    let host = host?;
    Some(Hub {
        host,
        transport,
        addresses,
        gateway,
        proxy,
        ca_file,
        tls,
        keepalive: keepalive.unwrap_or(DEFAULT_KEEPALIVE),
        connect_rate: connect_rate.unwrap_or(DEFAULT_CONNECT_RATE),
        api_version,
        token_lifetime: token_lifetime.unwrap_or(DEFAULT_TOKEN_LIFETIME),
        poll_interval,
    })
}

/// `admin.socket`
pub(super) fn admin_socket(root: &Table) -> Option<PathBuf> {
    let table = root.table_or_empty("admin", keys::ADMIN);
    if !table.has("socket") {
        return Some(PathBuf::from(DEFAULT_SOCKET));
    }
    let path = table.path("socket")?;
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let why = (
            format!("is longer than the {SOCKET_PATH_MAX} bytes that the system allows for a socket's path"),
            "choose a shorter one",
        );
        table.wrong("socket", why);
        return None;
    }
    if let Some(why) = in_the_way(&path) {
        table.wrong("socket", why);
        return None;
    }
    Some(path)
}

/// What stands where the socket is to be made, if it can't be made there.
pub(super) fn in_the_way(path: &Path) -> Option<Complaint> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        let what = format!("{} is there already and is no socket", path.display());
        return Some(Complaint::new(what, "choose another path"));
    }
    let is_file = |folder: &&Path| fs::metadata(folder).is_ok_and(|found| !found.is_dir());
    let file = path.ancestors().skip(1).find(is_file)?;
    let what = format!("{} is no folder, so nothing can be made in it", file.display());
    Some(Complaint::new(what, "correct the path"))
}

/// `[ledger]`
pub(super) fn ledger(root: &Table) -> Option<Ledger> {
    let table = root.table_or_empty("ledger", keys::LEDGER);
    let path = if table.has("path") { table.path("path") } else { Some(PathBuf::from(DEFAULT_LEDGER)) };
    if path.as_ref().is_some_and(|path| path.is_dir()) {
        table.wrong("path", ("is a folder", "name the database file in it"));
    }
    let retention = table.duration("retention", &RETENTION);
    Some(Ledger { path: path?, retention: retention.unwrap_or(DEFAULT_RETENTION) })
}

fn host(table: &Table) -> Option<String> {
    let remedy = format!("put the host name of your IoT hub here, such as {HOST_EXAMPLE}");
    if !table.has("host") {
        table.absent("host", ("is missing", remedy));
        return None;
    }
    // The file that a package installs has it empty.
    if table.is_empty_text("host") {
        let remedy = format!("{remedy}, then `systemctl restart fieldbridge`");
        table.wrong("host", ("is not filled in yet", remedy));
        return None;
    }
    let host = table.text("host")?.to_lowercase();
    match check_hub_host(&host) {
        Ok(()) if !pair::is_server_name(&host) => {
            table
                .wrong("host", ("is no name that a server can have in TLS", format!("it must be like {HOST_EXAMPLE}")));
            None
        }
        Ok(()) => {
            if !host.contains('.') && host != "localhost" {
                let why = ("has no domain", format!("a hub's full name is like {HOST_EXAMPLE}"));
                table.warn("host", why);
            } else if let Some(why) = mistyped_domain(&host) {
                table.warn("host", why);
            }
            Some(host)
        }
        Err(why) => {
            table.wrong("host", why);
            None
        }
    }
}

fn check_hub_host(host: &str) -> Result<(), Complaint> {
    // Not repeated: it holds a key.
    if host.contains(';') || host.starts_with("hostname=") {
        return Err(Complaint::new(
            "is a connection string",
            format!(
                "put only its HostName here, such as {HOST_EXAMPLE}, and the string itself in a file that a device's \
                 connection_string_file names"
            ),
        ));
    }
    if let Some((_, rest)) = host.split_once("://") {
        let name = rest.split(['/', ':']).next().unwrap_or(rest);
        return Err(Complaint::new("is a URL", format!("put only the host name here: {name:?}")));
    }
    if let Some((name, port)) = host.rsplit_once(':') {
        if port.parse::<u16>().is_ok() && check_host(name).is_ok() {
            return Err(Complaint::new(
                "must have no port",
                format!("write {name:?} here, and use hub.address to connect to another port"),
            ));
        }
    }
    check_host(host).map_err(|why| Complaint::new(why, format!("it must be like {HOST_EXAMPLE}")))
}

/// Where Azure's hubs are, in its clouds.
const DOMAINS: [&str; 3] = ["azure-devices.net", "azure-devices.cn", "azure-devices.us"];
/// Edits from one of them that still look like a slip.
const SLIPS_MAX: usize = 4;

/// What is said of a host that is nearly one of Azure's, or another service there.
fn mistyped_domain(host: &str) -> Option<Complaint> {
    let is_in = |domain: &str| host.strip_suffix(domain).is_some_and(|name| name.len() > 1 && name.ends_with('.'));
    if DOMAINS.iter().any(|domain| is_in(domain)) {
        return None;
    }
    if let Some(domain) = DOMAINS.iter().find(|domain| host == **domain) {
        return Some(Complaint::new(
            "is only the domain",
            format!("write your hub's name before it: \"contoso.{domain}\""),
        ));
    }
    for (end, service) in [
        ("azure-devices-provisioning.net", "the provisioning service"),
        ("servicebus.windows.net", "an endpoint for events"),
        ("azureiotcentral.com", "IoT Central"),
        ("portal.azure.com", "the portal"),
    ] {
        if host.ends_with(end) {
            return Some(Complaint::new(
                format!("is {service}, and no hub"),
                format!("a hub's name is like {HOST_EXAMPLE}"),
            ));
        }
    }
    let (name, domain) = host.split_once('.')?;
    let distance = |known: &&str| strsim::damerau_levenshtein(domain, known);
    // The other clouds are rare: only what is all but there is meant for them.
    let nearest = DOMAINS[1..].iter().find(|known| distance(known) <= 1).unwrap_or(&DOMAINS[0]);
    let is_slip = distance(nearest) <= SLIPS_MAX || domain.contains("azure-device");
    is_slip.then(|| Complaint::new("is nearly a hub's name", format!("did you mean \"{name}.{nearest}\"?")))
}

fn api_version(table: &Table) -> String {
    let Some(text) = table.text("api_version") else {
        return DEFAULT_API_VERSION.to_owned();
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if text.len() > 32 || !text.chars().all(is_plain) {
        let why = ("is no API version", format!("it must be like {DEFAULT_API_VERSION:?}"));
        table.wrong("api_version", why);
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_of_the_socket_is_named_whatever_its_name_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("a; b");
        fs::write(&file, "").expect("it can be written");
        for (path, what, remedy) in [
            (file.clone(), format!("{} is there already and is no socket", file.display()), "choose another path"),
            (
                file.join("c"),
                format!("{} is no folder, so nothing can be made in it", file.display()),
                "correct the path",
            ),
        ] {
            assert_eq!(in_the_way(&path), Some(Complaint::new(what, remedy)));
        }
        assert_eq!(in_the_way(&folder.path().join("admin.sock")), None);
    }

    #[test]
    fn a_mistyped_domain_is_told_from_one_of_the_users_own() {
        for (host, told) in [
            ("contoso.azure-devices.com", "contoso.azure-devices.net"),
            ("contoso.azure-device.net", "contoso.azure-devices.net"),
            ("contoso.azuredevices.net", "contoso.azure-devices.net"),
            ("contoso.azure-devices", "contoso.azure-devices.net"),
            ("contoso.azure-devcies.net", "contoso.azure-devices.net"),
            ("contoso.azure.devices.net", "contoso.azure-devices.net"),
            ("contoso.azure-devices.cm", "contoso.azure-devices.cn"),
            ("azure-devices.net", "contoso.azure-devices.net"),
            ("global.azure-devices-provisioning.net", "provisioning"),
            ("x.servicebus.windows.net", "endpoint"),
        ] {
            let why = mistyped_domain(host).expect("it is told").to_string();
            assert!(why.contains(told), "{host}: {why}");
        }
        for host in [
            "contoso.azure-devices.net",
            "contoso.azure-devices.cn",
            "hub.fieldbridge.test",
            "h.example",
            "hub.plant.local",
            "localhost",
            "10.0.0.1",
        ] {
            assert_eq!(mistyped_domain(host), None, "{host}");
        }
    }
}
