//! By what an identity is let in: tokens and certificates.

pub mod sas;
pub mod tls;
