//! What came of an attempt to connect, in one of few words: whom to ask about it.

use super::Trouble;

/// The words, with that for success first.
pub const RESULTS: [&str; 5] = ["ok", "refused", "unreachable", "tls", "proxy"];

impl Trouble {
    /// Its word among [`RESULTS`]: a proxy's, TLS' or the network's trouble, or else the hub's own no.
    pub fn result(&self) -> &'static str {
        match self {
            Trouble::Proxy(_) => "proxy",
            Trouble::Tls(_) | Trouble::CertificateRefused(_) | Trouble::Credential(_) => "tls",
            Trouble::Lookup { .. }
            | Trouble::Unreachable { .. }
            | Trouble::NoHandles(_)
            | Trouble::NoPlace(_)
            | Trouble::Slow(_)
            | Trouble::Closed
            | Trouble::Broken(_)
            | Trouble::Lost(_)
            | Trouble::HalfOpen => "unreachable",
            _ => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complaint::Complaint;

    #[test]
    fn whom_to_ask_about_a_trouble_is_told_by_a_known_word() {
        let unreachable = Trouble::Unreachable { address: "h:8883".into(), error: "no route".into() };
        for (trouble, word) in [
            (unreachable, "unreachable"),
            (Trouble::Slow(30), "unreachable"),
            (Trouble::Tls(Complaint::new("its certificate has expired", "renew it")), "tls"),
            (Trouble::Refused(5), "refused"),
            (Trouble::Stolen, "refused"),
        ] {
            assert_eq!(trouble.result(), word, "{trouble:?}");
            assert!(RESULTS.contains(&word));
        }
    }
}
