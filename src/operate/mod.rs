//! What a person does with a running gateway: the admin socket, `exec`, locks, and what is shown.

pub mod admin;
pub mod exec;
pub mod locking;
pub mod text;
