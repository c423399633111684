//! Certificates and keys as files hold them, and what TLS makes of them.

pub mod identity;
pub mod parts;
pub mod pem;

pub use identity::Trust;
