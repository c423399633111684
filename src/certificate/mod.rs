//! Certificates and keys as files hold them, and what TLS makes of them.

pub mod pair;
pub mod parts;
pub mod pem;

pub use pair::Trust;
