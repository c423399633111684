//! What holds for any bytes in place of a message by AMQP.

use super::message::{answer, c2d, called, read_answer};
use crate::amqp::message;
use crate::command::message::Form;
use crate::command::Answer;

/// A message is read or called malformed; its texts are no longer than they can be, and none of them is empty. What
/// says how a token was taken is read or not, and is short. A call is answered under the id that it came with, or not
/// at all.
pub fn amqp_message(bytes: &[u8]) {
    let message = c2d(bytes, true);
    if let Some(why) = &message.malformed {
        assert!(!why.is_empty() && why.len() < 1000, "{why}");
    }
    for text in
        [&message.id, &message.command, &message.correlation_id, &message.content_encoding].into_iter().flatten()
    {
        // The longest that a few bytes become is a small float in decimal.
        assert!(!text.is_empty() && text.len() <= 3 * bytes.len() + 400, "{text}");
    }
    assert!(message.body.len() <= bytes.len() + 400);
    assert!(message.unread_expiry.as_ref().is_none_or(|text| text.len() <= 60));
    assert!(c2d(bytes, false).malformed.is_some());
    if let Some(answer) = read_answer(bytes) {
        assert!(answer.description.len() <= 200);
    }
    // It is condensed whatever it is.
    let _ = message.condense(&Form::default());
    for is_whole in [true, false] {
        let Ok((id, method)) = called(bytes, is_whole) else { continue };
        assert!(!method.name.is_empty() && method.name.len() <= 3 * bytes.len() + 400);
        assert!(is_whole || method.unread.is_some());
        let written = answer(&id, &Answer { status: 200, body: "{}".into() }).expect("it can be answered");
        assert_eq!(message::read(&written).0.correlation_id, message::read(bytes).0.correlation_id);
        let _ = method.condense();
    }
}
