//! `[metrics]` and `[web]`: where the daemon is seen from outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value as Json;

use super::address::check_host;
use super::hub::{in_the_way, SOCKET_PATH_MAX};
use super::keys::Section;
use super::tree::Table;
use super::{keys, Listen, View};
use crate::complaint::Complaint;

/// Names in `hosts`: more than anybody has for one machine.
const HOSTS_MAX: usize = 32;

/// `[metrics]` and `[web]`, each if it is to listen.
pub(super) fn views(root: &Table) -> (Option<View>, Option<View>) {
    let metrics = view(root, "metrics", keys::METRICS, "127.0.0.1:9464");
    let web = view(root, "web", keys::WEB, "127.0.0.1:8088");
    if let (Some(metrics), Some(web)) = (&metrics, &web) {
        let has_a_port = |listen: &Listen| !matches!(listen, Listen::Tcp(address) if address.port() == 0);
        if metrics.listen == web.listen && has_a_port(&web.listen) {
            let table = root.table_or_empty("web", keys::WEB);
            table.wrong("listen", ("is that of [metrics], too", "give each its own port or socket"));
        }
    }
    (metrics, web)
}

fn view(root: &Table, name: &str, section: Section, example: &str) -> Option<View> {
    let table = root.table_or_empty(name, section);
    let hosts = hosts(&table);
    if !table.has("listen") {
        return None;
    }
    let text = table.text("listen")?;
    if !cfg!(feature = "web") {
        let why = ("is not what this program was built with", "install the one with the feature web, or leave it out");
        table.wrong("listen", why);
        return None;
    }
    let listen = match text.strip_prefix("unix:") {
        Some(path) => socket(&table, path)?,
        None => match address(text, example) {
            Ok(address) => Listen::Tcp(address),
            Err(why) => {
                table.wrong("listen", why);
                return None;
            }
        },
    };
    if let Listen::Tcp(address) = listen {
        if !address.ip().to_canonical().is_loopback() {
            let what = "can be reached from other machines, without a log-in and without encryption";
            let remedy = format!("keep it in a network that you trust, or listen at \"{example}\"");
            table.warn("listen", Complaint::new(what, remedy));
        }
    }
    Some(View { listen, hosts })
}

fn socket(table: &Table, path: &str) -> Option<Listen> {
    let path: PathBuf = table.walk.folder.join(path);
    let why = if path.as_os_str().len() > SOCKET_PATH_MAX {
        let what = format!("is longer than the {SOCKET_PATH_MAX} bytes that the system allows for a socket's path");
        Some(Complaint::new(what, "choose a shorter one"))
    } else {
        in_the_way(&path)
    };
    match why {
        None => Some(Listen::Unix(path)),
        Some(why) => {
            table.wrong("listen", why);
            None
        }
    }
}

/// `IP:PORT`, or `localhost:PORT`.
fn address(text: &str, example: &str) -> Result<SocketAddr, Complaint> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let remedy = match (host, port.parse::<u16>()) {
        ("localhost", Ok(port)) => return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        ("", Ok(port)) => format!("write \"127.0.0.1:{port}\" for this machine alone"),
        ("*", Ok(port)) => format!("write \"0.0.0.0:{port}\" for every address of this machine"),
        _ if text.contains("://") => format!("leave out the scheme and the path: \"{example}\""),
        _ => format!("it must be an IP address of this machine with a port, such as \"{example}\", or \"unix:PATH\""),
    };
    Err(Complaint::new("is not an address to listen at", remedy))
}

/// `hosts`, in lower case.
fn hosts(table: &Table) -> Vec<String> {
    if !table.has("hosts") {
        return Vec::new();
    }
    let remedy = "write names without a port, such as [\"gateway.plant\"]";
    let names = match table.json("hosts") {
        None => return Vec::new(),
        Some(Json::Array(names)) if names.len() <= HOSTS_MAX => names,
        Some(Json::Array(_)) => {
            table.wrong("hosts", (format!("has more than {HOSTS_MAX} names"), "leave out what nobody asks by"));
            return Vec::new();
        }
        Some(_) => {
            table.wrong("hosts", ("is not a list of names", remedy));
            return Vec::new();
        }
    };
    let mut hosts = Vec::new();
    for name in &names {
        match name.as_str().map(|name| (name, check_host(name))) {
            Some((name, Ok(()))) => hosts.push(name.to_lowercase()),
            Some((name, Err(why))) => table.wrong("hosts", (format!("has {name:?}, which {why}"), remedy)),
            None => table.wrong("hosts", ("has something that is not text", remedy)),
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_at_is_one_of_this_machine_and_a_slip_is_told() {
        let of = |text| address(text, "127.0.0.1:9464").map(|address| address.to_string());
        assert_eq!(of("127.0.0.1:9464"), Ok("127.0.0.1:9464".into()));
        assert_eq!(of("[::1]:9464"), Ok("[::1]:9464".into()));
        assert_eq!(of("localhost:9464"), Ok("127.0.0.1:9464".into()));
        for (text, told) in [
            ("9464", "\"127.0.0.1:9464\""),
            (":9464", "\"127.0.0.1:9464\""),
            ("*:9464", "\"0.0.0.0:9464\""),
            ("http://127.0.0.1:9464/metrics", "scheme"),
            ("127.0.0.1", "with a port"),
            ("gateway.plant:9464", "IP address"),
            ("127.0.0.1:99999", "IP address"),
        ] {
            let why = of(text).unwrap_err().to_string();
            assert!(why.contains(told), "{text}: {why}");
        }
    }
}
