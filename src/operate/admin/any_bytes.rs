//! What must hold for anything that is said on the admin socket.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{server, Reply, Request, LINE_BYTES_MAX};
use crate::proof::bytes::run;

/// Whatever is said, one line of JSON comes back; a request that is written is the one that is read, and nothing that
/// is not understood is done.
pub fn admin(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
        let text = serde_json::to_string(&request).expect("a request can be written");
        assert!(!text.contains('\n'));
        assert_eq!(serde_json::from_str::<Request>(&text).ok(), Some(request));
    }
    let (reply, done) = run(conversation(bytes));
    let reply = reply.strip_suffix('\n').expect("a whole line");
    assert!(!reply.contains('\n') && reply.len() <= LINE_BYTES_MAX as usize);
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let understood = serde_json::from_slice::<Request>(line).ok();
    match serde_json::from_str::<Reply>(reply).expect("a reply") {
        Reply::Ok(document) => assert_eq!(document, json!({ "asked": format!("{:?}", understood.as_ref()) })),
        Reply::Error(why) => assert!(understood.is_none() && !why.is_empty()),
        Reply::Unrecorded(why) => panic!("nothing here has a ledger: {why}"),
    }
    assert_eq!(done, understood);
}

/// What comes back, and what was done.
async fn conversation(bytes: &[u8]) -> (String, Option<Request>) {
    let (mut client, stream) = UnixStream::pair().expect("a pair of sockets");
    let done = std::sync::Mutex::new(None);
    let answer = |_, request: Request| {
        let document = json!({ "asked": format!("{:?}", Some(&request)) });
        *done.lock().expect("nothing panics with it") = Some(request);
        async move { Reply::Ok(document) }
    };
    let said = async {
        client.write_all(bytes).await.expect("it listens");
        client.shutdown().await.expect("it listens");
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.expect("a reply is text");
        reply
    };
    let (served, reply) = tokio::join!(server::converse(stream, answer), said);
    served.expect("nobody went away");
    (reply, done.into_inner().expect("nothing panics with it"))
}
