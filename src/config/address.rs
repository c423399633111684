//! Host names and `HOST:PORT` addresses. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::complaint::Complaint;

/// Whether an address is certain to stay on this machine.
pub fn is_loopback(address: &str) -> bool {
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return socket.ip().to_canonical().is_loopback();
    }
    // RFC 6761, 6.3: the name `localhost` never leaves the machine.
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    port.parse::<u16>().is_ok() && host.eq_ignore_ascii_case("localhost")
}

/// An address as `HOST:PORT`, with the default port, if there is one, where it gives none; or what is wrong with it.
/// What is spelled in several ways is spelled in one: names have small letters (RFC 4343), and an IPv6 address its
/// shortest form (RFC 5952), or that of the IPv4 address that it stands for.
pub(super) fn host_and_port(text: &str, default_port: Option<u16>) -> Result<String, Complaint> {
    let default_port = || default_port.ok_or_else(|| Complaint::bare("names no port, and there is no usual one"));
    if let Some((scheme, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or(rest);
        return Err(Complaint::new(
            "is a URL",
            format!("leave out {:?} and whatever follows the port: {host:?}", format!("{scheme}://")),
        ));
    }
    if let Ok(bare) = text.parse::<Ipv6Addr>() {
        return Ok(SocketAddr::new(IpAddr::V6(bare).to_canonical(), default_port()?).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        // The colons within brackets belong to the address.
        Some((host, port)) if !port.ends_with(']') => {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0);
            let Some(port) = port else {
                return Err(Complaint::new("has no valid port after the colon", "it must be 1 to 65535"));
            };
            (host, port)
        }
        _ => (text, default_port()?),
    };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    match bracketed {
        Some(inner) => match inner.parse::<IpAddr>() {
            Ok(address @ IpAddr::V6(_)) => return Ok(SocketAddr::new(address.to_canonical(), port).to_string()),
            _ => return Err(Complaint::bare("has no valid IPv6 address in its brackets")),
        },
        None => check_host(host).map_err(Complaint::bare)?,
    }
    Ok(format!("{}:{port}", host.to_ascii_lowercase()))
}

/// What is wrong with a host name, if anything (RFC 1123, 2.1).
pub(super) fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("has no host name".into());
    }
    if host.len() > 253 {
        return Err("is longer than the 253 characters of a host name".into());
    }
    for label in host.split('.') {
        if label.is_empty() {
            return Err("is not a host name: it has an empty part between dots or at an end".into());
        }
        if label.len() > 63 {
            return Err("is not a host name: a part is longer than 63 characters".into());
        }
        if let Some(c) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            return Err(format!("is not a host name: it must not hold the character {c:?}"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("is not a host name: a part begins or ends with a hyphen".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_on_the_machine_is_loopback() {
        for address in [
            "127.0.0.1:8883",
            "127.8.8.8:1",
            "[::1]:8883",
            "[::ffff:127.0.0.1]:8883",
            "localhost:8883",
            "LocalHost:1883",
        ] {
            assert!(is_loopback(address), "{address}");
        }
        for address in [
            "10.0.0.1:8883",
            "0.0.0.0:8883",
            "[::]:8883",
            "localhost.example.com:8883",
            "127.0.0.1.example.com:8883",
            "localhost:port",
            "contoso.azure-devices.net:8883",
            "",
        ] {
            assert!(!is_loopback(address), "{address}");
        }
    }

    #[test]
    fn an_address_gets_the_default_port_where_it_has_none() {
        for (text, full) in [
            ("10.0.0.12", "10.0.0.12:502"),
            ("10.0.0.12:1502", "10.0.0.12:1502"),
            ("plc.local", "plc.local:502"),
            ("::1", "[::1]:502"),
            ("[fe80::1]", "[fe80::1]:502"),
            ("[fe80::1]:503", "[fe80::1]:503"),
            ("PLC.Plant:4001", "plc.plant:4001"),
            ("[FE80:0:0::0001]:503", "[fe80::1]:503"),
            ("FE80::0:1", "[fe80::1]:502"),
            ("[::ffff:10.0.0.12]:503", "10.0.0.12:503"),
            ("::ffff:10.0.0.12", "10.0.0.12:502"),
        ] {
            assert_eq!(host_and_port(text, Some(502)), Ok(full.to_owned()), "{text}");
        }
    }

    #[test]
    fn a_wrong_address_is_told_why() {
        for (text, fragment) in [
            ("tcp://10.0.0.12:502", "\"10.0.0.12:502\""),
            ("10.0.0.12:0", "1 to 65535"),
            ("10.0.0.12:70000", "1 to 65535"),
            ("10.0.0.12:", "1 to 65535"),
            (":502", "no host name"),
            ("[10.0.0.1]:502", "IPv6"),
            ("fe80::1::2", "':'"),
            ("a b:502", "' '"),
            ("-a:502", "hyphen"),
            ("a..b", "empty part"),
        ] {
            let why = host_and_port(text, Some(502)).unwrap_err();
            assert!(why.to_string().contains(fragment), "{text}: {why}");
        }
    }
}
