//! A connection on which requests of the web come.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};

use super::websocket::Protocol;
use super::Shared;

pub(super) type Answer = Response<Full<Bytes>>;

/// A connection on which requests come.
pub(super) struct Site {
    pub shared: Arc<Shared>,
    pub connection: u64,
    /// Of the client's certificate.
    pub thumbprints: Vec<String>,
    /// What it becomes after its request, if that asks for it.
    pub upgrade: Mutex<Option<(Protocol, OnUpgrade)>>,
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status;
    answer
}
