//! What a person does with a running gateway: the admin socket, `exec`, locks, what is seen of a bus, and what is
//! shown.

pub mod admin;
pub mod attention;
pub mod capture;
pub mod exec;
pub mod inspect;
pub mod locking;
pub mod resolving;
pub mod text;
