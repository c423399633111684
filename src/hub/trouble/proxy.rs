//! Why a proxy brings no connection to the hub, with what to check.

use std::fmt;

use crate::complaint::Complaint;

const CHECK_ITS_LOG: &str = "check `hub.proxy`, and the proxy's log";

/// Why a proxy brings no connection to the hub. Each says "proxy", for whoever looks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyTrouble {
    /// No connection to it.
    Unreachable {
        /// `HOST:PORT`
        proxy: String,
        /// What the system said.
        error: String,
    },
    /// 407, and none were shown; tinyproxy says 401 then.
    AsksForCredentials {
        /// `HOST:PORT`
        proxy: String,
        /// The status of its answer.
        status: u16,
    },
    /// The same, although some were shown.
    RefusesCredentials {
        /// `HOST:PORT`
        proxy: String,
        /// The status of its answer.
        status: u16,
    },
    /// 407, and it takes none of the kind that there is.
    OtherCredentials {
        /// `HOST:PORT`
        proxy: String,
        /// Those that it names.
        schemes: String,
    },
    /// 403 or 405.
    Forbidden {
        /// `HOST:PORT`
        proxy: String,
        /// The hub, `HOST:PORT`.
        to: String,
        /// The status of its answer.
        status: u16,
    },
    /// A redirect, 511, or a page with a good status: it wants to be seen first.
    Page {
        /// `HOST:PORT`
        proxy: String,
        /// The status of its answer.
        status: u16,
    },
    /// 5xx.
    NoWay {
        /// `HOST:PORT`
        proxy: String,
        /// The hub, `HOST:PORT`.
        to: String,
        /// The status of its answer.
        status: u16,
    },
    /// Any other status.
    Refused {
        /// `HOST:PORT`
        proxy: String,
        /// The hub, `HOST:PORT`.
        to: String,
        /// The status of its answer.
        status: u16,
    },
    /// What was to come through it did not.
    Through {
        /// `HOST:PORT`
        proxy: String,
        /// What happened.
        what: Complaint,
    },
    /// No HTTP.
    NotHttp(String),
    /// It is gone.
    Closed(String),
    /// It says nothing.
    Slow {
        /// `HOST:PORT`
        proxy: String,
        /// How long it had.
        seconds: u64,
    },
}

impl ProxyTrouble {
    /// What is wrong, and what to do.
    pub fn complaint(&self) -> Complaint {
        let (what, remedy) = match self {
            Self::Unreachable { proxy, error } => (
                format!("the proxy {proxy} can't be reached: {error}"),
                "check `hub.proxy`, and that the proxy runs; it is never gone round",
            ),
            Self::AsksForCredentials { proxy, status } => (
                format!("the proxy {proxy} asks for credentials ({status})"),
                "write user:password into a file, and name it as `hub.proxy_credentials_file`",
            ),
            Self::RefusesCredentials { proxy, status } => (
                format!("the proxy {proxy} does not take the credentials ({status})"),
                "correct user:password in the file `hub.proxy_credentials_file`",
            ),
            Self::OtherCredentials { proxy, schemes } => (
                format!("the proxy {proxy} asks for credentials of a kind that is not supported ({schemes})"),
                "have whoever runs it take Basic, or let this machine through by its address",
            ),
            Self::Forbidden { proxy, to, status } => {
                let what = format!("the proxy {proxy} does not let connections to {to} through ({status})");
                return Complaint::new(what, format!("have whoever runs it allow CONNECT to {to}"));
            }
            Self::Page { proxy, status } => (
                format!("the proxy {proxy} answers with a page ({status}) in place of a connection"),
                "a log-in stands before this network: have this machine let through without",
            ),
            Self::NoWay { proxy, to, status } => (
                format!("the proxy {proxy} can't reach {to} ({status})"),
                "check the name, and the proxy's own uplink and rules",
            ),
            Self::Refused { proxy, to, status } => (
                format!("the proxy {proxy} refuses to connect to {to} ({status})"),
                "is it a proxy that lets TLS through (CONNECT)?",
            ),
            Self::Through { proxy, what: Complaint { what, remedy } } => {
                (format!("{what} (through the proxy {proxy}, which may intercept it or hold it up)"), remedy.as_str())
            }
            Self::NotHttp(proxy) => {
                (format!("what answers at the proxy's address {proxy} is no HTTP proxy"), "check `hub.proxy`")
            }
            Self::Closed(proxy) => {
                (format!("the proxy {proxy} closed the connection before it answered"), CHECK_ITS_LOG)
            }
            Self::Slow { proxy, seconds } => {
                (format!("the proxy {proxy} did not answer within {seconds} s"), CHECK_ITS_LOG)
            }
        };
        Complaint::new(what, remedy)
    }
}

impl fmt::Display for ProxyTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.complaint().fmt(f)
    }
}

impl std::error::Error for ProxyTrouble {}
