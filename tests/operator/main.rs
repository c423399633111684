//! What users and their scripts meet, and the rules of the house. Proves G2, G3, G5, G8, G11 and G14 where they are the
//! operator's.
//!
//! - `cli`, `init`, `add`, `config`, `check_live`, `inspect`, `reload`, `demo`: the program at its user's hands.
//! - `import`: profiles from what others have written.
//! - `seen`: the gateway as it is seen from outside.
//! - `bundle`, `journal`: what is seen of it from elsewhere.
//! - `secrets`: what nobody may see.
//! - `documented`, `manual`, `pictures`, `supply`, `tidy`: documents, pages, pictures, dependencies and source keep to
//!   their rules.

#![allow(clippy::unwrap_used)] // clippy knows only functions that are marked as tests

#[path = "../support/mod.rs"]
mod support;

mod add;
mod bundle;
mod check_live;
mod cli;
mod config;
mod demo;
mod documented;
mod import;
mod init;
mod inspect;
mod journal;
mod manual;
mod pictures;
mod reload;
mod secrets;
mod seen;
mod supply;
mod tidy;
