//! `[hub]`: by which transports the hub is reached, where, and through what.

use std::collections::BTreeMap;
use std::time::Duration;

use super::address::{check_host, host_and_port, is_loopback};
use super::credential::secret;
use super::keys;
use super::tree::{Span, Table};
use super::{Proxy, TransportKind};
use crate::certificate::pair;
use crate::complaint::Complaint;

const DAY: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(25 * 60);
const POLL_INTERVAL: Span = Span { min: Duration::from_secs(1), max: DAY, because: "" };

/// What is said of a transport that was left out of this program.
const NOT_BUILT: (&str, &str) =
    ("this program was built without it", "choose another, or install the program of the package");

/// The ways to a hub.
pub(super) struct Ways {
    pub transport: TransportKind,
    pub addresses: BTreeMap<TransportKind, String>,
    pub gateway: Option<String>,
    pub proxy: Option<Proxy>,
    pub poll_interval: Duration,
}

/// The keys of `[hub]` that say how the hub is reached. `host`: its name, where that is known.
pub(super) fn ways(table: &Table, host: Option<&str>, tls: bool) -> Ways {
    let transport = transport(table).unwrap_or(TransportKind::Mqtt);
    let gateway = gateway(table);
    let given = table.text("address").and_then(|text| {
        host_and_port(text, Some(transport.port(tls)))
            .map_err(|why| table.wrong("address", why.and("write it as HOST:PORT")))
            .ok()
    });
    let named = named(table, tls);
    let host = gateway.as_deref().or(host).unwrap_or_default();
    let addresses = TransportKind::ALL.map(|kind| {
        let address = match (named.get(&kind), &given) {
            (Some(named), _) => named.clone(),
            (None, Some(given)) if kind == transport => given.clone(),
            (None, Some(given)) => format!("{}:{}", host_of(given), kind.port(tls)),
            (None, None) => format!("{host}:{}", kind.port(tls)),
        };
        (kind, address)
    });
    let addresses = BTreeMap::from(addresses);
    let proxy = proxy(table);
    if !tls {
        check_plain(table, &addresses[&transport], proxy.as_ref());
    }
    let poll_interval = table.duration("poll_interval", &POLL_INTERVAL);
    if poll_interval.is_some_and(|interval| interval < DEFAULT_POLL_INTERVAL) {
        let why = "is less than the 25m that the hub asks of devices in production: it may throttle";
        table.note("poll_interval", Complaint::bare(why));
    }
    Ways { transport, addresses, gateway, proxy, poll_interval: poll_interval.unwrap_or(DEFAULT_POLL_INTERVAL) }
}

/// The key `transport`, in `[hub]` or of a device.
pub(super) fn transport(table: &Table) -> Option<TransportKind> {
    let kind = table.choice("transport", &TransportKind::ALL.map(|kind| (kind.as_str(), kind)))?;
    if !kind.is_built() {
        table.wrong("transport", NOT_BUILT);
    }
    Some(kind)
}

/// The host of `HOST:PORT`.
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// `hub.addresses`
fn named(table: &Table, tls: bool) -> BTreeMap<TransportKind, String> {
    let Some(addresses) = table.table("addresses", keys::ADDRESSES) else { return BTreeMap::new() };
    let read = |kind: TransportKind| {
        let text = addresses.text(kind.as_str())?;
        match host_and_port(text, Some(kind.port(tls))) {
            Ok(address) if tls || is_loopback(&address) => Some((kind, address)),
            Ok(_) => {
                addresses.wrong(kind.as_str(), Complaint::bare("must be a loopback address, because hub.tls is false"));
                None
            }
            Err(why) => {
                addresses.wrong(kind.as_str(), why.and("write it as HOST:PORT"));
                None
            }
        }
    };
    TransportKind::ALL.into_iter().filter_map(read).collect()
}

fn gateway(table: &Table) -> Option<String> {
    let name = table.text("gateway")?.to_lowercase();
    if let Err(why) = check_host(&name) {
        let why = (why, "write only the name of the IoT Edge gateway, as it stands in its certificate");
        table.wrong("gateway", why);
        return None;
    }
    if !pair::is_server_name(&name) {
        table.wrong("gateway", ("is not a name for a server in TLS", "write the name in the gateway's certificate"));
        return None;
    }
    Some(name)
}

fn proxy(table: &Table) -> Option<Proxy> {
    let address = table.text("proxy").and_then(|text| match proxy_address(text) {
        Ok(address) => Some(address),
        Err(why) => {
            table.wrong("proxy", why);
            None
        }
    });
    if !table.has("proxy") {
        if table.has("proxy_credentials_file") {
            table.wrong("proxy_credentials_file", ("has no use without proxy", "name the proxy, or remove this line"));
        }
        return None;
    }
    let credentials = match table.has("proxy_credentials_file") {
        true => Some(secret(table, "proxy_credentials_file", super::secret::proxy_credentials)?),
        false => None,
    };
    Some(Proxy { address: address?, credentials })
}

/// `http://HOST:PORT`, as `HOST:PORT`.
///
/// # Errors
/// What is wrong with it, as a sentence without subject, which never repeats a password.
pub fn proxy_address(text: &str) -> Result<String, Complaint> {
    const EXAMPLE: &str = "write it as \"http://HOST:PORT\"";
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
            return Err(Complaint::new("is a proxy that is reached by TLS, which is not supported", EXAMPLE));
        }
        Some((scheme, _)) if scheme.to_ascii_lowercase().starts_with("socks") => {
            return Err(Complaint::new("is a SOCKS proxy, and only HTTP proxies (CONNECT) are supported", EXAMPLE));
        }
        Some(_) => return Err(Complaint::new("is no HTTP proxy", EXAMPLE)),
        None => text,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err(Complaint::new(
            "holds credentials",
            format!("put user:password into a file, name it as proxy_credentials_file, and {EXAMPLE}"),
        ));
    }
    if rest.contains('/') {
        return Err(Complaint::new("holds a path, which a proxy has not", EXAMPLE));
    }
    host_and_port(rest, None).map_err(|why| why.and(EXAMPLE))
}

/// An address for a transport, with its usual port where it names none.
///
/// # Errors
/// What is wrong with it, as a sentence without subject.
#[cfg(feature = "backend")]
pub fn address(text: &str, transport: TransportKind) -> Result<String, Complaint> {
    host_and_port(text, Some(transport.port(true))).map_err(|why| why.and("write it as HOST:PORT"))
}

/// What a proxy asks for, as it stands in a file: `user:password`.
///
/// # Errors
/// What is wrong with it, as a sentence without subject that repeats nothing of it.
#[cfg(feature = "backend")]
pub fn proxy_credentials(bytes: &[u8]) -> Result<String, Complaint> {
    super::secret::proxy_credentials(super::secret::text(bytes)?)
}

fn check_plain(table: &Table, address: &str, proxy: Option<&Proxy>) {
    if !is_loopback(address) {
        table.wrong(
            "tls",
            (
                "without TLS anybody on the way can read and send commands",
                "remove this line, or set hub.address to a loopback address such as \"127.0.0.1:1883\"",
            ),
        );
    } else if proxy.is_some_and(|proxy| !is_loopback(&proxy.address)) {
        let why =
            ("without TLS the proxy can read and send commands", "remove this line, or name a proxy on this machine");
        table.wrong("tls", why);
    } else if proxy.is_some() {
        table.note("tls", ("without TLS the proxy on this machine can read and send commands", "is it meant so?"));
    } else if table.has("ca_file") {
        table.note("ca_file", Complaint::bare("is not used, because tls is false"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_with_a_port_and_tells_no_password() {
        for (text, address) in [
            ("http://proxy:3128", "proxy:3128"),
            ("HTTP://10.0.0.1:8080/", "10.0.0.1:8080"),
            ("proxy.plant:3128", "proxy.plant:3128"),
            ("http://[fd00::1]:3128", "[fd00::1]:3128"),
        ] {
            assert_eq!(proxy_address(text), Ok(address.to_owned()), "{text}");
        }
        for (text, told) in [
            ("http://proxy", "port"),
            ("https://proxy:3128", "TLS"),
            ("socks5://proxy:1080", "SOCKS"),
            ("http://user:hush@proxy:3128", "proxy_credentials_file"),
            ("user:hush@proxy:3128", "proxy_credentials_file"),
            ("http://proxy:3128/path", "path"),
            ("ftp://proxy:3128", "no HTTP proxy"),
        ] {
            let why = proxy_address(text).unwrap_err().to_string();
            assert!(why.contains(told) && !why.contains("hush"), "{text}: {why}");
        }
    }
}
