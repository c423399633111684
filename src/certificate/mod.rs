//! Certificates and keys as files hold them.

pub mod parts;
pub mod pem;
