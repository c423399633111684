//! Frames as the hub writes them: every field of a performative stands in its list, null where there is nothing. One of
//! the vendor's SDKs counts on that; a list may as well end with its last field that is not null (AMQP 1.0, 1.4).

use bytes::{BufMut as _, BytesMut};

use crate::amqp::frame::{encode as encode_item, Frame, FrameError, Item};

/// Size, offset of the body, type, channel.
const HEAD: usize = 8;
const LIST_0: u8 = 0x45;
const LIST_8: u8 = 0xc0;
const LIST_32: u8 = 0xd0;
const NULL: u8 = 0x40;

/// Fields of the performative with this descriptor (AMQP 1.0, 2.7).
fn fields(descriptor: u8) -> Option<usize> {
    Some(match descriptor {
        0x10 => 10,
        0x11 => 8,
        0x12 => 14,
        0x13 | 0x14 => 11,
        0x15 => 6,
        0x16 => 3,
        0x17 | 0x18 => 1,
        _ => return None,
    })
}

/// Writes a frame of at most so many bytes, the nulls not counted.
///
/// # Errors
/// It can't be written.
pub(super) fn encode(frame: Frame, most: usize, bytes: &mut BytesMut) -> Result<(), FrameError> {
    let mut plain = BytesMut::new();
    encode_item(&Item::Frame(frame), most, &mut plain)?;
    match filled(&plain) {
        Some(whole) => bytes.extend_from_slice(&whole),
        None => bytes.extend_from_slice(&plain),
    }
    Ok(())
}

/// A frame with a null for each field that its list leaves out; `None`: it is no performative, or has them all.
fn filled(frame: &[u8]) -> Option<Vec<u8>> {
    let body = frame.get(HEAD..)?;
    let &[0, 0x53, descriptor, constructor, ref rest @ ..] = body else { return None };
    let long = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?) as usize);
    // The size counts what stands behind it, the count among it.
    let (count, begin, end) = match constructor {
        LIST_0 => (0, 0, 0),
        LIST_8 => (usize::from(*rest.get(1)?), 2, 1 + usize::from(*rest.first()?)),
        LIST_32 => (long(4)?, 8, 4 + long(0)?),
        _ => return None,
    };
    let missing = fields(descriptor)?.checked_sub(count).filter(|missing| *missing > 0)?;
    let (written, payload) = (rest.get(begin..end)?, rest.get(end..)?);
    let mut whole = Vec::with_capacity(frame.len() + 16);
    whole.extend_from_slice(&frame[..HEAD]);
    whole.extend_from_slice(&[0, 0x53, descriptor, LIST_32]);
    whole.put_u32(u32::try_from(4 + written.len() + missing).ok()?);
    whole.put_u32(u32::try_from(count + missing).ok()?);
    whole.extend_from_slice(written);
    whole.extend(std::iter::repeat_n(NULL, missing));
    whole.extend_from_slice(payload);
    let size = u32::try_from(whole.len()).ok()?;
    whole[..4].copy_from_slice(&size.to_be_bytes());
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::frame::FRAME_MAX;
    use crate::amqp::types::definitions::Handle;
    use crate::amqp::types::performatives::{Close, Detach, Performative, Transfer};

    fn written(performative: Performative, payload: &'static [u8]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        let frame = Frame { payload: payload.into(), ..Frame::of(3, performative) };
        encode(frame, FRAME_MAX, &mut bytes).unwrap();
        assert_eq!(u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
        assert_eq!(bytes[..HEAD][4..], [2, 0, 0, 3]);
        bytes[HEAD..].to_vec()
    }

    #[test]
    fn every_field_is_written_and_what_follows_the_list_stays_behind_it() {
        let close = written(Performative::Close(Close { error: None }), b"");
        assert_eq!(close, [0, 0x53, 0x18, LIST_32, 0, 0, 0, 5, 0, 0, 0, 1, NULL]);
        let detach = written(Performative::Detach(Detach { handle: Handle(7), closed: true, error: None }), b"");
        assert_eq!(detach[4..], [0, 0, 0, 8, 0, 0, 0, 3, 0x52, 7, 0x41, NULL]);
        let transfer = Transfer {
            handle: Handle(0),
            delivery_id: Some(1),
            delivery_tag: None,
            message_format: None,
            settled: Some(true),
            more: false,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        };
        let transfer = written(Performative::Transfer(transfer), b"payload");
        assert_eq!(transfer[8..12], [0, 0, 0, 11]);
        assert!(transfer.ends_with(b"\x40\x40payload"));
    }
}
