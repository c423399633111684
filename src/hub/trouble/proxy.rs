//! Why a proxy brings no connection to the hub, with what to check.

/// Why a proxy brings no connection to the hub. Each says "proxy", for whoever looks for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyTrouble {
    /// No connection to it.
    #[error("the proxy {proxy} can't be reached: {error}; check `hub.proxy`, and that the proxy runs; it is never gone round")]
    Unreachable {
        /// `HOST:PORT`
        proxy: String,
        /// What the system said.
        error: String,
    },
    /// 407, and none were shown; tinyproxy says 401 then.
    #[error(
        "the proxy {proxy} asks for credentials ({status}); write user:password into a file, and name it as \
         `hub.proxy_credentials_file`"
    )]
    AsksForCredentials {
        /// `HOST:PORT`
        proxy: String,
        /// The status of its answer.
        status: u16,
    },
    /// The same, although some were shown.
    #[error(
        "the proxy {proxy} does not take the credentials ({status}); correct user:password in the file \
         `hub.proxy_credentials_file`"
    )]
    RefusesCredentials {
        /// `HOST:PORT`
        proxy: String,
        /// The status of its answer.
        status: u16,
    },
    /// 407, and it takes none of the kind that there is.
    #[error(
        "the proxy {proxy} asks for credentials of a kind that is not supported ({schemes}); have whoever runs it take Basic, or \
         let this machine through by its address"
    )]
    OtherCredentials {
        /// `HOST:PORT`
        proxy: String,
        /// Those that it names.
        schemes: String,
    },
    /// 403 or 405.
    #[error("the proxy {proxy} does not let connections to {to} through ({status}); have whoever runs it allow CONNECT to {to}")]
    Forbidden {
        /// `HOST:PORT`
        proxy: String,
        /// The hub, `HOST:PORT`.
        to: String,
        /// The status of its answer.
        status: u16,
    },
    /// A redirect, 511, or a page with a good status: it wants to be seen first.
    #[error(
        "the proxy {proxy} answers with a page ({status}) in place of a connection; a log-in stands before this network: have this \
         machine let through without"
    )]
    Page {
        /// `HOST:PORT`
        proxy: String,
        /// The status of its answer.
        status: u16,
    },
    /// 5xx.
    #[error("the proxy {proxy} can't reach {to} ({status}); check the name, and the proxy's own uplink and rules")]
    NoWay {
        /// `HOST:PORT`
        proxy: String,
        /// The hub, `HOST:PORT`.
        to: String,
        /// The status of its answer.
        status: u16,
    },
    /// Any other status.
    #[error("the proxy {proxy} refuses to connect to {to} ({status}); is it a proxy that lets TLS through (CONNECT)?")]
    Refused {
        /// `HOST:PORT`
        proxy: String,
        /// The hub, `HOST:PORT`.
        to: String,
        /// The status of its answer.
        status: u16,
    },
    /// What was to come through it did not.
    #[error("{what} (through the proxy {proxy}, which may intercept it or hold it up)")]
    Through {
        /// `HOST:PORT`
        proxy: String,
        /// What happened.
        what: String,
    },
    /// No HTTP.
    #[error("what answers at the proxy's address {0} is no HTTP proxy; check `hub.proxy`")]
    NotHttp(String),
    /// It is gone.
    #[error("the proxy {0} closed the connection before it answered; check `hub.proxy`, and the proxy's log")]
    Closed(String),
    /// It says nothing.
    #[error("the proxy {proxy} did not answer within {seconds} s; check `hub.proxy`, and the proxy's log")]
    Slow {
        /// `HOST:PORT`
        proxy: String,
        /// How long it had.
        seconds: u64,
    },
}
