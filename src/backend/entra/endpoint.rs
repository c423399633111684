//! Where a server is, as Azure's variables say it. Pure.

/// A server, and the path that its own begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) is_tls: bool,
    /// A name or an address; one of IPv6 without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Empty, or with a `/` before it and none behind it.
    pub(super) path: String,
}

impl Endpoint {
    /// Reads `https://HOST[:PORT][/PATH]`. Without a scheme it is `https`.
    pub(super) fn parse(text: &str) -> Result<Endpoint, String> {
        let wrong = || format!("is no host: {text:?}; write it as https://HOST");
        let (is_tls, rest) = match text.trim().split_once("://") {
            None => (true, text.trim()),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some(_) => return Err(wrong()),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            None => Ok(if is_tls { 443 } else { 80 }),
            Some(port) => port.parse(),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
        if host.is_empty() || !host.bytes().all(is_name) || !is_path {
            return Err(wrong());
        }
        let path = path.trim_matches('/');
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Endpoint { is_tls, host: host.to_owned(), port: port.map_err(|_| wrong())?, path })
    }

    /// Whether nobody else sees what is said to it.
    pub(super) fn is_private(&self) -> bool {
        self.is_tls || self.is_this_machine()
    }

    /// Whether it is on this machine, by its address.
    pub(super) fn is_this_machine(&self) -> bool {
        let is_loopback = self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        is_loopback || self.host.eq_ignore_ascii_case("localhost")
    }

    /// `HOST:PORT`
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    /// The host as it stands before a port.
    fn bracketed(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        }
    }

    /// What it is called in a request: the port only where it is not the usual one.
    pub(super) fn name(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.bracketed(),
            (_, port) => format!("{}:{port}", self.bracketed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (bool, String, u16, String, String) {
        let endpoint = Endpoint::parse(text).unwrap();
        let name = endpoint.name();
        (endpoint.is_tls, endpoint.host, endpoint.port, endpoint.path, name)
    }

    #[test]
    fn a_host_is_read_as_azures_libraries_read_it() {
        let own = |text: &str| text.to_owned();
        for text in
            ["https://login.microsoftonline.us/", "login.microsoftonline.us", " HTTPS://login.microsoftonline.us"]
        {
            let name = own("login.microsoftonline.us");
            assert_eq!(parsed(text), (true, name.clone(), 443, own(""), name));
        }
        assert_eq!(parsed("http://[::1]:8080/a/b/"), (false, own("::1"), 8080, own("/a/b"), own("[::1]:8080")));
        assert_eq!(parsed("http://127.0.0.1"), (false, own("127.0.0.1"), 80, own(""), own("127.0.0.1")));
    }

    #[test]
    fn what_is_no_host_is_told_so() {
        for text in [
            "",
            "https://",
            "ftp://a",
            "https://a b",
            "https://a:port",
            "https://a:70000",
            "https://u@a",
            "https://a/b?c",
            "https://[::1]a",
            "https://[::1",
        ] {
            assert!(Endpoint::parse(text).unwrap_err().contains("https://HOST"), "{text}");
        }
    }

    #[test]
    fn a_secret_is_only_for_tls_and_for_this_machine() {
        let is_private = |text| Endpoint::parse(text).unwrap().is_private();
        assert!(is_private("https://a.example") && is_private("http://127.0.0.1:9") && is_private("http://[::1]"));
        assert!(!is_private("http://a.example") && !is_private("http://10.0.0.1"));
    }
}
