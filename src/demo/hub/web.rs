//! What comes through the web's port: a WebSocket's handshake, or a request over HTTPS, of a device's or of
//! the back end's.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::site::{empty, Answer, Site};
use super::state::State;
use super::stream::{Ahead, Stream, OPEN_TIMEOUT};
use super::websocket::{self, Protocol, Socket};
use super::{amqp, connection, https, provisioning, twins, Shared};

/// Serves a connection from its first byte to its last.
pub(super) async fn serve(shared: Arc<Shared>, stream: Stream, thumbprints: Vec<String>) {
    let connection = shared.with(State::next_connection);
    let site = Arc::new(Site { shared, connection, thumbprints, upgrade: Mutex::new(None) });
    let service = service_fn(|request| answer(site.clone(), request));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    let upgrade = site.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((protocol, upgrade)) = upgrade else { return };
    let Ok(Ok(upgraded)) = timeout(OPEN_TIMEOUT, upgrade).await else { return };
    let parts = upgraded.downcast::<TokioIo<Stream>>().expect("it was served over such a stream");
    let (shared, thumbprints) = (site.shared.clone(), site.thumbprints.clone());
    let bytes_max = shared.with(|state| state.options.websocket_bytes_max);
    let socket = Socket::new(Ahead::new(parts.read_buf, parts.io.into_inner()), bytes_max);
    match protocol {
        Protocol::Mqtt => connection::serve(shared, Box::new(socket), &thumbprints).await,
        Protocol::Amqp => amqp::serve(shared, Box::new(socket), thumbprints).await,
    }
}

/// An error is a connection that ends without an answer.
async fn answer(site: Arc<Site>, mut request: Request<Incoming>) -> io::Result<Answer> {
    if provisioning::https::is_meant(&request) {
        return provisioning::https::answer(&site, request).await;
    } else if twins::is_asked(&request) {
        return twins::answer(&site, request).await;
    } else if !request.headers().contains_key(UPGRADE) {
        return https::answer(&site, request).await;
    }
    let (protocol, accept) = match websocket::handshake(&request) {
        Ok(wanted) => wanted,
        Err(status) => return Ok(empty(status)),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    *site.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some((protocol, upgrade));
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(UPGRADE, "websocket".parse().expect("a word is good for a header"));
    headers.insert(CONNECTION, "Upgrade".parse().expect("a word is good for a header"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol.as_str().parse().expect("a word is good for a header"));
    Ok(answer)
}
