//! Why a connection to the hub ended, told apart as far as MQTT allows, with what to check.
//!
//! The hub gives no reasons: every refusal at CONNECT is "not authorized", every later error a closed socket
//! ("Understand error codes", "MQTT support", Microsoft). So the sentences list what can be behind it, most likely
//! first. By HTTPS each answer has a status, and often the hub's own code.

mod proxy;

use std::time::Duration;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

pub use proxy::ProxyTrouble;

/// Why a connection ended or did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The name of the hub has no address now.
    #[error("{address} can't be looked up: {error}; check DNS, the uplink, and `hub.host`")]
    Lookup {
        /// What was looked up.
        address: String,
        /// What the resolver said.
        error: String,
    },
    /// No TCP connection.
    #[error("{address} can't be reached: {error}; check the uplink, and that {} is open outwards{}", port(.address), instead(.address))]
    Unreachable {
        /// Where to.
        address: String,
        /// What the system said.
        error: String,
    },
    /// No handle is left for a socket.
    #[error(
        "no connection to the hub can be made, as the limit of open files is reached ({0}); raise it: LimitNOFILE= in a file of \
         /etc/systemd/system/fieldbridge.service.d/"
    )]
    NoHandles(String),
    /// Other identities have all the connections that there are handles for.
    #[error(
        "the limit of open files leaves room for {0} connections to the hub, and others have them; raise it: LimitNOFILE= in a \
         file of /etc/systemd/system/fieldbridge.service.d/"
    )]
    NoPlace(usize),
    /// The proxy brings no connection to the hub.
    #[error("{0}")]
    Proxy(ProxyTrouble),
    /// What answers is no hub's WebSocket.
    #[error("no WebSocket to the hub: {0}")]
    WebSocket(String),
    /// TLS failed.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The server does not take the certificate that it was shown, or wants one that was not shown.
    #[error("TLS failed: {0}")]
    CertificateRefused(String),
    /// This identity's own certificate or key can't be used.
    #[error("{0}")]
    Credential(String),
    /// It all took too long.
    #[error("the hub did not answer within {0} s; it may be throttling, or the uplink is bad")]
    Slow(u64),
    /// CONNACK with a return code.
    #[error("the hub refused the connection: {}", refusal(*.0))]
    Refused(u8),
    /// SUBACK without QoS 1.
    #[error("the hub did not grant the subscription with QoS 1; without it messages would be lost")]
    NotGranted,
    /// The hub closed the connection without a word.
    #[error("the hub closed the connection; it gives no reason over MQTT")]
    Closed,
    /// The token's life was over.
    #[error("the hub does not let the device in, as its token has expired; is the clock right?")]
    TokenExpired,
    /// The hub closed several connections right after they were made.
    #[error("the hub keeps closing the connection soon after it is made; does another client use this device id?")]
    Kicked,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The hub did not answer a ping.
    #[error("the hub did not answer within the keep-alive time; the connection is dead")]
    HalfOpen,
    /// The hub did not acknowledge a result event.
    #[error("the hub did not acknowledge a result event for {} s", .0.as_secs())]
    EventUnacknowledged(Duration),
    /// By HTTPS: the hub says no.
    #[error("{}", no_by_http(*.status, .said, *.retry_after))]
    Http {
        /// The status, 100 to 999.
        status: u16,
        /// What the hub said beside it, or nothing.
        said: String,
        /// For how many seconds it asks to be left alone.
        retry_after: Option<u64>,
    },
    /// By HTTPS: what answers is not the hub.
    #[error(
        "something between answers in the hub's place ({0}); look for a log-in page of the network or for a proxy, and let \
         connections to `hub.host` through"
    )]
    NotTheHub(String),
    /// The ledger does not answer.
    #[error("the ledger does not answer; the disk may be failing")]
    LedgerSlow,
    /// What came was not MQTT, or not what a hub sends.
    #[error("the hub sent something that is not understood: {0}")]
    Protocol(String),
    /// A delivery that can't be handled on this connection.
    #[error("{0}; the connection is made anew")]
    Ambiguous(&'static str),
    /// There was no room for all that the hub has.
    #[error("more messages wait for this device than the gateway keeps; the connection is made anew to get the rest")]
    LeftBehind,
    /// A delivery was given back.
    #[error("a message was left with the hub; the connection is made anew to get it again")]
    Abandoned,
    /// By AMQP: the hub lets nobody in with what was shown, before any device was named.
    #[error(
        "the hub lets nobody in: {0}; check `hub.host`, and that nothing between here and there answers in its place"
    )]
    NotLetIn(String),
    /// The hub gave an answer to the device's token, and it is no.
    #[error("{}", no_to_token(*.status, .description))]
    TokenRefused {
        /// As in HTTP.
        status: u32,
        /// What it says beside.
        description: String,
    },
    /// The hub gave no answer to the device's token.
    #[error("the hub did not answer to the device's token within {0} s; it may be throttling, or the uplink is bad")]
    TokenUnanswered(u64),
    /// The hub ended what it had granted, or granted nothing.
    #[error(
        "the hub does not let the device in any more{}; check that it exists at this hub and is enabled, and that the clock is \
         right", beside(.0)
    )]
    Unauthorized(String),
    /// The hub has no such device.
    #[error("the hub does not know the device{}; check its name, and `hub.host`", beside(.0))]
    NotFound(String),
    /// Somebody else has attached as this device.
    #[error(
        "somebody else receives this device's messages now (amqp:link:stolen); a device must be on one gateway only, so take it \
         away from the other"
    )]
    Stolen,
    /// The hub wants less to be done.
    #[error("the hub is throttling{}; the daemon tries again, with growing waits", beside(.0))]
    Throttled(String),
    /// The hub ended this device's part of a connection.
    #[error("the hub ended the device's link with {condition}{}; the daemon attaches it anew", beside(.description))]
    Detached {
        /// The condition that it named.
        condition: String,
        /// What it says beside.
        description: String,
    },
    /// The hub closed a connection, and said why.
    #[error("the hub closed the connection with {condition}{}; the daemon connects anew", beside(.description))]
    Dismissed {
        /// The condition that it named.
        condition: String,
        /// What it says beside.
        description: String,
    },
    /// A connection that several devices share is gone.
    #[error("the connection to the hub is lost: {0}; the daemon connects anew")]
    Lost(String),
    /// The hub takes fewer devices on a connection than there are.
    #[error("the hub takes no more devices on this connection; the daemon makes another")]
    NoSession,
    /// The hub has said of a result event that it does not take it.
    #[error("the hub does not take a result event ({0}); it stays in the ledger, and others go before it")]
    EventRefused(String),
}

/// Whether a hub says of a token that its time is over. It has no code for that which it always gives.
fn says_expired(description: &str) -> bool {
    let description = description.to_ascii_lowercase();
    description.contains("expired") && description.contains("token")
}

/// What a hub says beside a condition or a status, if anything.
pub fn beside(description: &str) -> String {
    if description.is_empty() {
        String::new()
    } else {
        format!(": {description}")
    }
}

/// What the hub's no to a token means and what to check.
fn no_to_token(status: u32, description: &str) -> String {
    let beside = beside(description);
    match is_passing(status) {
        true => format!("the hub can't take the device's token now ({status}{beside}); the daemon tries again"),
        false => format!(
            "the hub refuses the device's token with {status}{beside}; check that the device exists at this hub and is enabled, \
             that its key is the right one, and that the clock is right"
        ),
    }
}

/// Whether a status says only that the hub can't answer now.
fn is_passing(status: u32) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// What a CONNACK return code means (MQTT 3.1.1, 3.2.2.3) and what to check.
fn refusal(code: u8) -> &'static str {
    match code {
        1 => "unacceptable protocol version",
        2 => "client id rejected; check the device id",
        3 => "server unavailable; it may be throttling, the daemon tries again",
        4 => "bad user name or password; check `hub.host` and the device key",
        5 => {
            "not authorized; check that the device exists at this hub and is enabled, that its key or certificate is the right one, \
             that the clock is right, and that the hub's quota is not used up"
        }
        _ => "unknown return code",
    }
}

/// What a status of HTTP means ("Understand error codes", Microsoft) and what to check.
fn no_by_http(status: u16, said: &str, retry_after: Option<u64>) -> String {
    let (what, remedy) = match status {
        400 => ("does not understand the request", "check `hub.api_version` and the device id"),
        401 => (
            "does not let the device in",
            "check that its key or certificate is the right one, that it is enabled at this hub, and that the clock is right",
        ),
        403 => (
            "forbids what the device asks for",
            "check the hub's daily quota and its IP filter, and that its tier is not Basic, which has no messages for devices",
        ),
        404 => ("does not know the device", "check the device id, capitals too, and `hub.host`"),
        429 => ("is asked too often", "the daemon tries again later; if that lasts, raise `hub.poll_interval`"),
        500..=599 => ("has a trouble of its own", "the daemon tries again; if that lasts, see the status page of Azure"),
        _ => ("gave an answer that it never gives", "check `hub.host`, `hub.address` and `hub.api_version`"),
    };
    let wait = retry_after.map(|seconds| format!(", for {seconds} s")).unwrap_or_default();
    format!("the hub {what} (HTTP {status}{said}{wait}); {remedy}")
}

impl Trouble {
    /// Whether a result event that was sent can be what the hub ended the connection for.
    pub fn may_be_of_an_event(&self) -> bool {
        matches!(
            self,
            Self::Closed
                | Self::Broken(_)
                | Self::Lost(_)
                | Self::Dismissed { .. }
                | Self::EventUnacknowledged(_)
                | Self::EventRefused(_)
        )
    }

    /// Whether it is no identity's own: the hub can't be reached by any.
    pub fn is_common(&self) -> bool {
        matches!(self, Trouble::Lookup { .. } | Trouble::Unreachable { .. } | Trouble::NoHandles(_) | Trouble::Proxy(_))
    }

    /// Whether what keeps an identity out came after TCP had reached the hub.
    pub fn is_beyond_tcp(&self) -> bool {
        matches!(self, Trouble::Tls(_) | Trouble::CertificateRefused(_) | Trouble::Credential(_))
    }

    /// For how long the hub asks to be left alone, if it does; no longer than ten minutes are believed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Trouble::Http { retry_after: Some(seconds), .. } => Some(Duration::from_secs((*seconds).min(600))),
            _ => None,
        }
    }

    /// Whether the hub does not take the proof of the identity, so that another one may do.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Trouble::Refused(4 | 5)
                | Trouble::Http { status: 401, .. }
                | Trouble::TokenRefused { status: 401, .. }
                | Trouble::Unauthorized(_)
        )
    }

    /// Whether the hub may take what was shown if it is shown again: it said nothing of it, or that it can't now.
    pub fn is_of_the_moment(&self) -> bool {
        match self {
            Trouble::TokenUnanswered(_) | Trouble::Throttled(_) | Trouble::NoSession | Trouble::Detached { .. } => true,
            Trouble::TokenRefused { status, .. } => is_passing(*status),
            _ => false,
        }
    }

    /// What the hub's answer to a token means, which is no. The text is of bounded length.
    pub fn of_token(status: u32, description: String) -> Trouble {
        match status {
            401 if says_expired(&description) => Trouble::TokenExpired,
            _ => Trouble::TokenRefused { status, description },
        }
    }

    /// What it means that the hub ended a device's link or session with an AMQP error. Both texts are as the engine
    /// gives them: of bounded length, and without what the hub repeats of a token.
    pub fn from_amqp(condition: &str, description: &str) -> Trouble {
        let description = description.to_owned();
        match condition {
            "amqp:unauthorized-access" if says_expired(&description) => Trouble::TokenExpired,
            "amqp:unauthorized-access" => Trouble::Unauthorized(description),
            "amqp:not-found" => Trouble::NotFound(description),
            "amqp:link:stolen" => Trouble::Stolen,
            "amqp:resource-limit-exceeded" | "com.microsoft:server-busy" => Trouble::Throttled(description),
            other if other.contains("throttled") => Trouble::Throttled(description),
            "" => Trouble::Detached { condition: "no reason".into(), description },
            other => Trouble::Detached { condition: other.to_owned(), description },
        }
    }

    /// What a failed TLS handshake means.
    pub fn from_tls(error: &std::io::Error, server_name: &str) -> Trouble {
        let inner = error.get_ref();
        // It came in TLS's place.
        if let Some(proxy) = inner.and_then(|inner| inner.downcast_ref::<ProxyTrouble>()) {
            return Trouble::Proxy(proxy.clone());
        }
        let tls = inner.and_then(|inner| inner.downcast_ref::<TlsError>());
        let why = match tls {
            Some(TlsError::InvalidCertificate(certificate)) => certificate_trouble(certificate, server_name),
            Some(TlsError::AlertReceived(alert)) => return alert_trouble(*alert),
            Some(TlsError::NoCertificatesPresented) => "the hub showed no certificate".into(),
            Some(other) => other.to_string(),
            None => format!("{error}; is this a TLS port, and does nothing between intercept it?"),
        };
        Trouble::Tls(why)
    }
}

/// What is to be open outwards for `HOST:PORT`.
fn port(address: &str) -> String {
    address.rsplit_once(':').map_or_else(|| "its port".into(), |(_, port)| format!("port {port}"))
}

/// The way out where only the ports of the web are open.
fn instead(address: &str) -> &'static str {
    match address.rsplit_once(':') {
        Some((_, "8883")) => "; where only 443 is, set `hub.transport` to \"mqtt-ws\"",
        Some((_, "5671")) => "; where only 443 is, set `hub.transport` to \"amqp-ws\"",
        _ => "",
    }
}

fn certificate_trouble(error: &CertificateError, server_name: &str) -> String {
    match error {
        // An authority of the same name with another key ends in a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the hub's certificate is not signed by a trusted authority; check the system's CA certificates or `hub.ca_file`, and \
             whether a proxy intercepts TLS"
                .into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the certificate is not for {server_name}; check `hub.host` and `hub.address`")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the hub's certificate has expired; is the clock right?".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the hub's certificate is not valid yet; is the clock right?".into()
        }
        other => format!("the hub's certificate is refused: {other}"),
    }
}

fn alert_trouble(alert: AlertDescription) -> Trouble {
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::UnknownCA
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown => Trouble::CertificateRefused(format!(
            "the hub does not take this device's certificate ({alert:?}); check `cert_file`, its dates, and the thumbprint or CA at the hub"
        )),
        other => Trouble::Tls(format!("the hub ended the handshake ({other:?})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_has_expired_is_told_from_a_device_that_may_not_come_in() {
        let ended = |why: &str| Trouble::from_amqp("amqp:unauthorized-access", why);
        assert_eq!(ended("ErrorCode:ExpiredToken;the token's life is over"), Trouble::TokenExpired);
        assert_eq!(Trouble::of_token(401, "The token has expired.".into()), Trouble::TokenExpired);
        assert!(Trouble::TokenExpired.to_string().contains("clock"));
        assert!(!Trouble::TokenExpired.is_refusal(), "another key would not help");
        assert!(matches!(ended("ErrorCode:IotHubUnauthorizedAccess;Unauthorized"), Trouble::Unauthorized(_)));
        assert!(matches!(Trouble::of_token(401, "Unauthorized".into()), Trouble::TokenRefused { status: 401, .. }));
        let busy = Trouble::of_token(503, "ErrorCode:ServiceUnavailable".into());
        assert!(busy.is_of_the_moment() && !busy.to_string().contains("check"), "{busy}");
        assert!(matches!(Trouble::of_token(404, "expired token".into()), Trouble::TokenRefused { status: 404, .. }));
    }

    #[test]
    fn tls_failures_are_told_apart() {
        let text = |error: TlsError| {
            Trouble::from_tls(&std::io::Error::new(std::io::ErrorKind::InvalidData, error), "h.example").to_string()
        };
        assert!(text(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)).contains("ca_file"));
        assert!(text(TlsError::InvalidCertificate(CertificateError::NotValidForName)).contains("h.example"));
        assert!(text(TlsError::InvalidCertificate(CertificateError::Expired)).contains("clock"));
        assert!(text(TlsError::AlertReceived(AlertDescription::CertificateRequired)).contains("cert_file"));
        let plain = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert!(Trouble::from_tls(&plain, "h").to_string().contains("TLS port"));
        let alert = |alert| std::io::Error::new(std::io::ErrorKind::InvalidData, TlsError::AlertReceived(alert));
        let refused = Trouble::from_tls(&alert(AlertDescription::UnknownCA), "h");
        assert!(matches!(refused, Trouble::CertificateRefused(_)), "{refused:?}");
        let other = Trouble::from_tls(&alert(AlertDescription::HandshakeFailure), "h");
        assert!(matches!(other, Trouble::Tls(_)), "{other:?}");
    }
}
