//! The provisioning service over MQTT: a connection that is no device's at the hub, and its few topics.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rumqttc::{Codec, Connect, Packet, PubAck, Publish, QoS, SubAck, SubscribeReasonCode, UnsubAck};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::{https, Asked};
use crate::demo::hub::auth::Proof;
use crate::demo::hub::mqtt::{encode, publish_bytes};
use crate::demo::hub::state::{Now, State, Who};
use crate::demo::hub::stream::{close, Stream, OPEN_TIMEOUT};
use crate::demo::hub::wire::Wire;
use crate::demo::hub::Shared;

const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?";
const LOOK: &str = "$dps/registrations/GET/iotdps-get-operationstatus/?";
const FILTER: &str = "$dps/registrations/res/#";

/// The id scope and the registration id of a user name, if it is one of this service's:
/// `{idScope}/registrations/{registrationId}/api-version={date}` and further keys.
pub(in crate::demo::hub) fn registrant(connect: &Connect) -> Option<(String, String)> {
    let (scope, rest) = connect.login.as_ref()?.username.split_once("/registrations/")?;
    let (id, version) = rest.split_once('/')?;
    version.starts_with("api-version=20").then(|| (scope.to_owned(), id.to_owned()))
}

/// Serves a connection after its CONNECT.
pub(in crate::demo::hub) async fn serve(
    shared: Arc<Shared>,
    mut stream: Framed<Stream, Codec>,
    connect: &Connect,
    thumbprints: &[String],
) {
    let Some((scope, id)) = registrant(connect) else { return };
    let token = connect.login.as_ref().map_or("", |login| login.password.as_str());
    let (who, is_known) = shared.with(|state| {
        let who = Who { device: id.clone(), connection: state.next_connection() };
        let known = match connect.client_id == id {
            true => state.knows_registrant(&scope, &id, &Proof { token, thumbprints }, Now::read()),
            false => Err("the client id is not the registration id".to_owned()),
        };
        let is_known = known.is_ok();
        if let Err(reason) = known {
            state.log(&who, Wire::Refused { code: 5, reason });
        }
        (who, is_known)
    });
    let connack = [0x20, 2, 0, if is_known { 0 } else { 5 }];
    let mut goes_on = stream.get_mut().write_all(&connack).await.is_ok() && is_known;
    while goes_on {
        let Ok(Some(Ok(packet))) = timeout(OPEN_TIMEOUT, stream.next()).await else { break };
        let Some(bytes) = shared.with(|state| answer(state, &who, &id, packet)) else { break };
        goes_on = stream.get_mut().write_all(&bytes).await.is_ok() && stream.get_mut().flush().await.is_ok();
    }
    close(stream.into_inner(), false).await;
}

/// What is said to a packet; `None` ends the connection.
fn answer(state: &mut State, who: &Who, id: &str, packet: Packet) -> Option<Bytes> {
    match packet {
        Packet::Subscribe(subscribe) => {
            let is_own = subscribe.filters.iter().all(|filter| filter.path == FILTER);
            let codes = subscribe.filters.iter().map(|_| SubscribeReasonCode::Success(QoS::AtLeastOnce)).collect();
            is_own.then(|| encode(&Packet::SubAck(SubAck::new(subscribe.pkid, codes))))
        }
        Packet::Unsubscribe(unsubscribe) => Some(encode(&Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid)))),
        Packet::Publish(publish) => request(state, who, id, &publish),
        Packet::PingReq => Some(encode(&Packet::PingResp)),
        Packet::PubAck(_) => Some(Bytes::new()),
        _ => None,
    }
}

fn request(state: &mut State, who: &Who, id: &str, publish: &Publish) -> Option<Bytes> {
    let is_register = publish.topic.starts_with(REGISTER);
    let query = publish.topic.strip_prefix(REGISTER).or_else(|| publish.topic.strip_prefix(LOOK))?;
    let field = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let asked = match is_register {
        true => Asked::Register,
        false => Asked::Look { operation: field("operationId")? },
    };
    let request = field("$rid")?;
    let reply = state.provision(id, &asked);
    let what = if is_register { https::REGISTER } else { https::LOOK };
    state.log(who, Wire::Request { what: what.to_owned(), status: reply.status });
    let retry_after = reply.retry_after.map(|seconds| format!("&retry-after={seconds}")).unwrap_or_default();
    let topic = format!("$dps/registrations/res/{}/?$rid={request}{retry_after}", reply.status);
    let mut bytes = BytesMut::new();
    if publish.pkid != 0 {
        bytes.extend_from_slice(&encode(&Packet::PubAck(PubAck::new(publish.pkid))));
    }
    bytes.extend_from_slice(&publish_bytes(topic.as_bytes(), None, false, reply.body.to_string().as_bytes()));
    Some(bytes.freeze())
}
