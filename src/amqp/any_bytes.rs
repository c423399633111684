//! What holds for any bytes in place of AMQP frames.

use bytes::BytesMut;

use super::frame::{decode, encode, Item, FRAME_MAX};

/// Frames: whatever they are, they end in items or in one sentence, the same ones in whatever pieces they come; what was
/// read is read again from what is written of it.
pub fn amqp(bytes: &[u8]) {
    let (items, why) = read(&mut BytesMut::from(bytes));
    if let Some(why) = &why {
        assert!(!why.is_empty() && why.len() < 1000, "{why}");
    }
    let (mut pieces, mut again) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(3) {
        pieces.extend_from_slice(piece);
        let (more, failed) = read(&mut pieces);
        again.extend(more);
        if failed.is_some() {
            assert_eq!(failed, why);
            break;
        }
    }
    assert_eq!(written(&again), written(&items));
    let (reread, why) = read(&mut written(&items));
    assert_eq!((reread.len(), why), (items.len(), None));
    assert_eq!(written(&reread), written(&items));
}

fn read(bytes: &mut BytesMut) -> (Vec<Item>, Option<String>) {
    let mut items = Vec::new();
    loop {
        match decode(bytes, FRAME_MAX) {
            Ok(Some(item)) => items.push(item),
            Ok(None) => return (items, None),
            Err(error) => return (items, Some(error.to_string())),
        }
    }
}

fn written(items: &[Item]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for item in items {
        // What was packed more tightly may be longer when it is written again.
        encode(item, 4 * FRAME_MAX, &mut bytes).expect("what was read can be written");
    }
    bytes
}
