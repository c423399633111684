//! The start of a connection: protocol headers and SASL, in which a client may show who it is.

use futures_util::StreamExt;
use serde_amqp::primitives::{Array, Symbol};
use tokio_util::codec::Framed;

use super::write;
use crate::amqp::frame::{Body, Codec, Frame, Item, Protocol, Sasl};
use crate::amqp::types::sasl::{SaslCode, SaslInit, SaslMechanisms, SaslOutcome};
use crate::demo::hub::state::Now;
use crate::demo::hub::stream::Stream;
use crate::demo::hub::Shared;

/// What the hub offers; the last is for clients that show their tokens later.
const MECHANISMS: [&str; 4] = ["EXTERNAL", "PLAIN", "ANONYMOUS", "MSSBCBS"];

/// Goes through it, and says whether AMQP may begin.
pub(super) async fn negotiate(shared: &Shared, connection: u64, framed: &mut Framed<Stream, Codec>) -> Option<()> {
    match framed.next().await?.ok()? {
        Item::Header(Protocol::Amqp) => {
            return write(framed, &[Item::Header(Protocol::Amqp)]).await.ok();
        }
        Item::Header(Protocol::Sasl) => {}
        Item::Frame(_) => return None,
    }
    let mechanisms = SaslMechanisms { sasl_server_mechanisms: Array(MECHANISMS.map(Symbol::from).to_vec()) };
    let offered = Frame::sasl(Sasl::Mechanisms(mechanisms));
    write(framed, &[Item::Header(Protocol::Sasl), Item::Frame(offered)]).await.ok()?;
    let Item::Frame(Frame { body: Body::Sasl(Sasl::Init(init)), .. }) = framed.next().await?.ok()? else {
        return None;
    };
    let is_good = check(shared, connection, &init);
    let code = if is_good { SaslCode::Ok } else { SaslCode::Auth };
    let outcome = Frame::sasl(Sasl::Outcome(SaslOutcome { code, additional_data: None }));
    write(framed, &[Item::Frame(outcome)]).await.ok()?;
    if !is_good {
        return None;
    }
    match framed.next().await?.ok()? {
        Item::Header(Protocol::Amqp) => write(framed, &[Item::Header(Protocol::Amqp)]).await.ok(),
        _ => None,
    }
}

fn check(shared: &Shared, connection: u64, init: &SaslInit) -> bool {
    match init.mechanism.0.as_str() {
        "PLAIN" => {
            let response = init.initial_response.as_deref().map_or(&[][..], |bytes| bytes);
            let mut parts = response.split(|byte| *byte == 0).map(std::str::from_utf8);
            let (Some(Ok(_)), Some(Ok(user)), Some(Ok(token))) = (parts.next(), parts.next(), parts.next()) else {
                return false;
            };
            shared.with(|state| state.show_plain(connection, user, token, Now::read()))
        }
        // Whether the certificate is a device's is seen when it attaches its links.
        mechanism => MECHANISMS.contains(&mechanism),
    }
}
