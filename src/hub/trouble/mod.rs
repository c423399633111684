//! Why a connection to the hub ended, told apart as far as MQTT allows, with what to check.
//!
//! The hub gives no reasons: every refusal at CONNECT is "not authorized", every later error a closed socket
//! ("Understand error codes", "MQTT support", Microsoft). So the sentences list what can be behind it, most likely
//! first. By HTTPS each answer has a status, and often the hub's own code.

mod proxy;
pub mod result;
mod sentences;

use std::time::Duration;

use tokio_rustls::rustls::Error as TlsError;

pub use proxy::ProxyTrouble;
#[cfg(feature = "backend")]
pub use sentences::beside;

use crate::complaint::Complaint;

/// Why a connection ended or did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The name of the hub has no address now.
    Lookup {
        /// What was looked up.
        address: String,
        /// What the resolver said.
        error: String,
    },
    /// No TCP connection.
    Unreachable {
        /// Where to.
        address: String,
        /// What the system said.
        error: String,
    },
    /// No handle is left for a socket.
    NoHandles(String),
    /// Other identities have all the connections that there are handles for.
    NoPlace(usize),
    /// The proxy brings no connection to the hub.
    Proxy(ProxyTrouble),
    /// What answers is no hub's WebSocket.
    WebSocket(Complaint),
    /// TLS failed.
    Tls(Complaint),
    /// The server does not take the certificate that it was shown, or wants one that was not shown.
    CertificateRefused(Complaint),
    /// This identity's own certificate or key can't be used.
    Credential(Complaint),
    /// It all took too long.
    Slow(u64),
    /// CONNACK with a return code.
    Refused(u8),
    /// SUBACK without QoS 1.
    NotGranted,
    /// The hub closed the connection without a word.
    Closed,
    /// The token's life was over.
    TokenExpired,
    /// The hub closed several connections right after they were made.
    Kicked,
    /// The connection broke.
    Broken(String),
    /// The hub did not answer a ping.
    HalfOpen,
    /// The hub did not acknowledge a result event.
    EventUnacknowledged(Duration),
    /// By HTTPS: the hub says no.
    Http {
        /// The status, 100 to 999.
        status: u16,
        /// What the hub said beside it, or nothing.
        said: String,
        /// For how many seconds it asks to be left alone.
        retry_after: Option<u64>,
    },
    /// By HTTPS: what answers is not the hub.
    NotTheHub(String),
    /// The ledger does not answer.
    LedgerSlow,
    /// What came was not MQTT, or not what a hub sends.
    Protocol(String),
    /// A delivery that can't be handled on this connection.
    Ambiguous(&'static str),
    /// There was no room for all that the hub has.
    LeftBehind,
    /// A delivery was given back.
    Abandoned,
    /// By AMQP: the hub lets nobody in with what was shown, before any device was named.
    NotLetIn(String),
    /// The hub gave an answer to the device's token, and it is no.
    TokenRefused {
        /// As in HTTP.
        status: u32,
        /// What it says beside.
        description: String,
    },
    /// The hub gave no answer to the device's token.
    TokenUnanswered(u64),
    /// The hub ended what it had granted, or granted nothing.
    Unauthorized(String),
    /// The hub has no such device.
    NotFound(String),
    /// Somebody else has attached as this device.
    Stolen,
    /// The hub wants less to be done.
    Throttled(String),
    /// The hub ended this device's part of a connection.
    Detached {
        /// The condition that it named.
        condition: String,
        /// What it says beside.
        description: String,
    },
    /// The hub closed a connection, and said why.
    Dismissed {
        /// The condition that it named.
        condition: String,
        /// What it says beside.
        description: String,
    },
    /// A connection that several devices share is gone.
    Lost(String),
    /// The hub takes fewer devices on a connection than there are.
    NoSession,
    /// The hub has said of a result event that it does not take it.
    EventRefused(String),
}

/// Whether a hub says of a token that its time is over. It has no code for that which it always gives.
fn says_expired(description: &str) -> bool {
    let description = description.to_ascii_lowercase();
    description.contains("expired") && description.contains("token")
}

/// Whether a status says only that the hub can't answer now.
fn is_passing(status: u32) -> bool {
    matches!(status, 408 | 429 | 500..=599)
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

    /// Whether it may mean that the device does not belong to this hub, or that there is no such hub any more.
    pub fn may_be_elsewhere(&self) -> bool {
        match self {
            Trouble::Http { status, .. } => matches!(status, 401 | 404),
            Trouble::TokenRefused { status, .. } => matches!(status, 401 | 404),
            Trouble::NotFound(_) | Trouble::NotLetIn(_) | Trouble::Lookup { .. } => true,
            _ => self.is_refusal(),
        }
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
            Some(TlsError::InvalidCertificate(refused)) => sentences::certificate(refused, server_name),
            Some(TlsError::AlertReceived(alert)) => match sentences::own_certificate(*alert) {
                Some(why) => return Trouble::CertificateRefused(why),
                None => Complaint::bare(format!("the hub ended the handshake ({alert:?})")),
            },
            Some(TlsError::NoCertificatesPresented) => Complaint::bare("the hub showed no certificate"),
            Some(other) => Complaint::bare(other.to_string()),
            None => Complaint::new(error.to_string(), "is this a TLS port, and does nothing between intercept it?"),
        };
        Trouble::Tls(why)
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::{AlertDescription, CertificateError};

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
    fn what_to_do_is_no_part_of_what_a_hub_or_a_system_has_said() {
        let said = || "no; try; again".to_owned();
        for (trouble, what, remedy) in [
            (
                Trouble::Lookup { address: "h:8883".into(), error: said() },
                "h:8883 can't be looked up: no; try; again",
                "check DNS, the uplink, and `hub.host`",
            ),
            (
                Trouble::NotFound(said()),
                "the hub does not know the device: no; try; again",
                "check its name, and `hub.host`",
            ),
            (Trouble::Broken(said()), "the connection broke: no; try; again", ""),
            (
                Trouble::of_token(503, said()),
                "the hub can't take the device's token now (503: no; try; again)",
                "the daemon tries again",
            ),
            (Trouble::Tls(Complaint::new("no; try", "mend")), "TLS failed: no; try", "mend"),
            (
                Trouble::Proxy(ProxyTrouble::Through { proxy: "p:1".into(), what: Trouble::Slow(20).complaint() }),
                "the hub did not answer within 20 s (through the proxy p:1, which may intercept it or hold it up)",
                "it may be throttling, or the uplink is bad",
            ),
        ] {
            assert_eq!(trouble.complaint(), Complaint::new(what, remedy), "{trouble:?}");
            assert_eq!(trouble.to_string(), trouble.complaint().to_string());
        }
    }

    #[test]
    fn what_a_hub_says_of_a_device_that_is_not_its_own_is_told_from_what_passes() {
        let http = |status| Trouble::Http { status, said: String::new(), retry_after: None };
        let token = |status| Trouble::TokenRefused { status, description: String::new() };
        for trouble in [Trouble::Refused(5), http(401), http(404), token(404), Trouble::NotFound(String::new())] {
            assert!(trouble.may_be_elsewhere(), "{trouble:?}");
        }
        let busy = Trouble::Throttled(String::new());
        for trouble in [Trouble::Refused(3), http(429), http(503), token(503), busy, Trouble::Closed, Trouble::Slow(1)]
        {
            assert!(!trouble.may_be_elsewhere(), "{trouble:?}");
        }
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
