//! What the back end says of a trouble with the hub: in words of its own, since it has no configuration, no device's
//! key, and nobody who tries again for it. Pure.
//!
//! Invariants
//! - No sentence speaks of a daemon, of a device's credential or of a key of the configuration.
//! - What passes by itself is never called the hub's no.

use super::BackendError;
use crate::hub::trouble::{beside, Trouble};

/// What whoever may not do something lacks.
const RIGHT: &str =
    "a shared access policy needs the right ServiceConnect, an identity of Microsoft Entra a role at this \
                     hub such as IoT Hub Data Contributor";

/// What the gateway's configuration has a key for, and what it is here. What holds another one stands before that.
const OPTIONS: [(&str, &str); 9] = [
    ("`hub.proxy_credentials_file`", "`--proxy-credentials-file`"),
    ("name it as proxy_credentials_file", "name it by `--proxy-credentials-file`"),
    ("`hub.proxy`", "`--proxy`"),
    ("`hub.ca_file`", "`--ca-file`"),
    ("`hub.host` and `hub.address`", "the hub's name and `--address`"),
    ("`hub.host`", "the hub's name"),
    ("`hub.address`", "`--address`"),
    ("(the service runs as fieldbridge) ", ""),
    ("the daemon tries again", "try again"),
];

/// A sentence of the gateway's, with options in the place of keys.
pub(super) fn in_options(text: &str) -> String {
    OPTIONS.iter().fold(text.to_owned(), |text, (key, option)| text.replace(key, option))
}

impl From<Trouble> for BackendError {
    fn from(trouble: Trouble) -> BackendError {
        let is_no = matches!(
            trouble,
            Trouble::TokenRefused { .. } | Trouble::TokenExpired | Trouble::Unauthorized(_) | Trouble::NotFound(_)
        );
        match is_no && !trouble.is_of_the_moment() {
            true => BackendError::Refused(sentence(&trouble)),
            false => BackendError::Unreachable(sentence(&trouble)),
        }
    }
}

/// What is said of a trouble, and what to do.
pub(super) fn sentence(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Lookup { address, error } => {
            format!("{address} can't be looked up: {error}; check DNS, the uplink, and the hub's name")
        }
        Trouble::Unreachable { address, error } => unreachable(address, error),
        Trouble::NoHandles(error) => {
            format!("no connection can be made, as the limit of open files is reached ({error}); raise it (ulimit -n)")
        }
        Trouble::CertificateRefused(_) => {
            "TLS failed: the server asks for a certificate, and a back end has none; check `--address`: is it a hub?".into()
        }
        Trouble::Slow(seconds) => slow("", *seconds),
        Trouble::Lost(why) | Trouble::Broken(why) => format!("the connection to the hub is lost: {why}; look at the uplink"),
        Trouble::HalfOpen => "the connection to the hub is lost: the hub says nothing any more; look at the uplink".into(),
        Trouble::NotLetIn(why) => format!(
            "the hub lets nobody in: {why}; check the hub's name, and that nothing between here and there answers in its place"
        ),
        Trouble::TokenRefused { status, description } if trouble.is_of_the_moment() => {
            format!("the hub can't take the token now ({status}{}); try again", beside(description))
        }
        Trouble::TokenRefused { status, description } => format!(
            "the hub refuses the token with {status}{}; check that the key is the policy's, and that the clock is right; {RIGHT}",
            beside(description)
        ),
        Trouble::TokenUnanswered(seconds) => slow(" to the token", *seconds),
        Trouble::TokenExpired => "the hub says that the token has expired, which is new; is the clock right?".into(),
        Trouble::Unauthorized(description) => format!("the hub does not allow that{}; {RIGHT}", beside(description)),
        Trouble::NotFound(description) => format!(
            "the hub has nothing for back ends at this address{}; check the hub's name, and that its tier is not Basic",
            beside(description)
        ),
        Trouble::Throttled(description) => {
            format!("the hub is throttling{}; try again in a while", beside(description))
        }
        Trouble::Stolen => "somebody else has the link now (amqp:link:stolen); try again".into(),
        Trouble::NoSession => "the hub takes no more on this connection; try again".into(),
        Trouble::Detached { condition, description } => {
            format!("the hub ended the link with {condition}{}; try again", beside(description))
        }
        Trouble::Dismissed { condition, description } => {
            format!("the hub closed the connection with {condition}{}; try again", beside(description))
        }
        other => in_options(&other.to_string()),
    }
}

fn slow(to: &str, seconds: u64) -> String {
    format!("the hub did not answer{to} within {seconds} s; it may be throttling, or the uplink is bad: try again")
}

fn unreachable(address: &str, error: &str) -> String {
    let port = address.rsplit_once(':').map_or_else(|| "its port".to_owned(), |(_, port)| format!("port {port}"));
    let instead = match address.ends_with(":5671") {
        true => "; where only 443 is, take `--transport amqp-ws`",
        false => "",
    };
    format!("{address} can't be reached: {error}; check the uplink, and that {port} is open outwards{instead}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

    use super::*;
    use crate::complaint::Complaint;
    use crate::hub::trouble::ProxyTrouble;

    fn of_tls() -> Vec<Trouble> {
        let errors = [
            TlsError::InvalidCertificate(CertificateError::UnknownIssuer),
            TlsError::InvalidCertificate(CertificateError::NotValidForName),
            TlsError::InvalidCertificate(CertificateError::Expired),
            TlsError::InvalidCertificate(CertificateError::NotValidYet),
            TlsError::InvalidCertificate(CertificateError::Revoked),
            TlsError::AlertReceived(AlertDescription::CertificateRequired),
            TlsError::AlertReceived(AlertDescription::HandshakeFailure),
            TlsError::NoCertificatesPresented,
            TlsError::DecryptError,
        ];
        let errors = errors.into_iter().map(|error| io::Error::new(io::ErrorKind::InvalidData, error));
        let plain = io::Error::from(io::ErrorKind::UnexpectedEof);
        errors.chain([plain]).map(|error| Trouble::from_tls(&error, "hub.example")).collect()
    }

    fn of_the_proxy() -> Vec<Trouble> {
        let proxy = || "proxy:3128".to_owned();
        let to = || "hub.example:5671".to_owned();
        let all = [
            ProxyTrouble::Unreachable { proxy: proxy(), error: "refused".into() },
            ProxyTrouble::AsksForCredentials { proxy: proxy(), status: 407 },
            ProxyTrouble::RefusesCredentials { proxy: proxy(), status: 407 },
            ProxyTrouble::OtherCredentials { proxy: proxy(), schemes: "NTLM".into() },
            ProxyTrouble::Forbidden { proxy: proxy(), to: to(), status: 403 },
            ProxyTrouble::Page { proxy: proxy(), status: 302 },
            ProxyTrouble::NoWay { proxy: proxy(), to: to(), status: 502 },
            ProxyTrouble::Refused { proxy: proxy(), to: to(), status: 404 },
            ProxyTrouble::Through { proxy: proxy(), what: Trouble::Slow(20).complaint() },
            ProxyTrouble::NotHttp(proxy()),
            ProxyTrouble::Closed(proxy()),
            ProxyTrouble::Slow { proxy: proxy(), seconds: 20 },
        ];
        all.map(Trouble::Proxy).into()
    }

    fn of_the_hub() -> Vec<Trouble> {
        let text = || "why".to_owned();
        let conditions =
            ["amqp:unauthorized-access", "amqp:not-found", "com.microsoft:server-busy", "amqp:internal-error"];
        let ended = conditions.into_iter().map(|condition| Trouble::from_amqp(condition, "why"));
        let answers = [401, 403, 404, 408, 429, 500, 503].into_iter().map(|status| Trouble::of_token(status, text()));
        let web_sockets = [
            ("\"h\" is not a host name", "check `hub.host`"),
            ("it opened, but not for AMQPWSB10", "is it a hub's? check `hub.host` and `hub.address`"),
            ("the server refuses it (401)", "check `hub.host`, and that the hub lets this network in"),
            ("the server can't take it now (503)", "it may be throttling, the daemon tries again"),
        ];
        let web_sockets =
            web_sockets.into_iter().map(|(what, remedy)| Trouble::WebSocket(Complaint::new(what, remedy)));
        let others = [
            Trouble::Lookup { address: "hub.example:5671".into(), error: text() },
            Trouble::Unreachable { address: "hub.example:5671".into(), error: text() },
            Trouble::NoHandles(text()),
            Trouble::Slow(20),
            Trouble::Lost(text()),
            Trouble::Broken(text()),
            Trouble::HalfOpen,
            Trouble::NotLetIn(text()),
            Trouble::TokenUnanswered(30),
            Trouble::TokenExpired,
            Trouble::Stolen,
            Trouble::NoSession,
            Trouble::Detached { condition: text(), description: text() },
            Trouble::Dismissed { condition: text(), description: text() },
            Trouble::Protocol(text()),
        ];
        ended.chain(answers).chain(web_sockets).chain(others).collect()
    }

    #[test]
    fn no_sentence_is_of_a_daemon_a_device_or_a_key_of_its_configuration() {
        for trouble in of_tls().into_iter().chain(of_the_proxy()).chain(of_the_hub()) {
            let text = BackendError::from(trouble.clone()).to_string();
            for foreign in ["daemon", "the device", "this device", "`hub.", "service.d", "`cert_file`"] {
                assert!(!text.contains(foreign), "{trouble:?}: {text}");
            }
        }
    }

    #[test]
    fn what_passes_is_no_no_and_what_lasts_is_one() {
        let is_no = |trouble: Trouble| matches!(BackendError::from(trouble), BackendError::Refused(_));
        for status in [408, 429, 500, 503] {
            assert!(!is_no(Trouble::of_token(status, String::new())), "{status}");
        }
        for status in [400, 401, 403, 404] {
            assert!(is_no(Trouble::of_token(status, String::new())), "{status}");
        }
        assert!(is_no(Trouble::of_token(401, "ExpiredToken: the token has expired".into())));
        assert!(is_no(Trouble::from_amqp("amqp:unauthorized-access", "")));
        for condition in ["com.microsoft:server-busy", "amqp:internal-error", "amqp:connection:forced", ""] {
            assert!(!is_no(Trouble::from_amqp(condition, "")), "{condition}");
        }
    }

    #[test]
    fn whoever_lacks_a_right_is_told_which() {
        let text = BackendError::from(Trouble::from_amqp("amqp:unauthorized-access", "")).to_string();
        assert!(text.contains("ServiceConnect") && text.contains("IoT Hub Data Contributor"), "{text}");
    }
}
