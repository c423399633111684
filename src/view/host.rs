//! Whether a request means this machine. Pure.
//!
//! A browser sends the name by which it was led here. A page of somebody else's can have a name of its own lead to a
//! loopback address (DNS rebinding), and would read what is told there; so only names are answered that nobody else can
//! give out.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a Host header names this machine: by an IP address, `localhost`, its own name, or one of `hosts`, which are
/// in lower case.
pub fn is_ours(header: &str, machine: &str, hosts: &[String]) -> bool {
    let Some(host) = without_port(header) else { return false };
    if host.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let machine = machine.to_ascii_lowercase();
    // Its name in the local network (RFC 6762, 3) is told by the machine itself, too.
    let is_machines = !machine.is_empty() && (host == machine || host.strip_suffix(".local") == Some(&machine));
    host == "localhost" || is_machines || hosts.contains(&host)
}

/// The host of `HOST` or `HOST:PORT`.
fn without_port(header: &str) -> Option<&str> {
    let (host, port) = match header.rsplit_once(':') {
        // The colons within brackets belong to the address.
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (header, "0"),
    };
    let is_host = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
    (is_host && port.parse::<u16>().is_ok()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_give_out_are_answered() {
        let hosts = ["gateway.plant".to_owned()];
        for header in [
            "127.0.0.1:8088",
            "10.1.2.3",
            "[::1]:8088",
            "[fe80::1]",
            "localhost:8088",
            "LocalHost",
            "Gw-7:8088",
            "gw-7.local",
            "gateway.plant:80",
            "gateway.plant.",
        ] {
            assert!(is_ours(header, "gw-7", &hosts), "{header}");
        }
        for header in [
            "",
            ":8088",
            "evil.example",
            "evil.example:8088",
            "localhost.evil.example",
            "gw-7.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:port",
            "::1",
            "[::1",
            "[evil]",
            "127.0.0.1@evil.example",
            ".local",
        ] {
            assert!(!is_ours(header, "gw-7", &hosts), "{header}");
        }
        assert!(!is_ours(".local", "", &[]) && !is_ours("", "", &[]));
    }
}
