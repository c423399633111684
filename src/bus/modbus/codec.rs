//! Modbus requests and answers, by way of tokio-modbus.
//!
//! The library's client talks to memory instead of to the port: it writes a request's bytes there, the bus puts them on
//! the line itself and gives the answer's bytes back. So the bus knows to the byte what left, the port stays in one
//! hand, and a client that waits for an answer can be dropped without leaving anything behind on the line.
//!
//! Invariants
//! - An answer is checked here in full. The library's own `Reader` and `Writer` check only in debug builds.
//! - A refusal is what is certain to have had no effect; an exception that isn't is no refusal.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::timeout;
use tokio_modbus::client::{rtu, tcp, Client as _, Context};
use tokio_modbus::slave::SlaveContext as _;
use tokio_modbus::{ProtocolError, Response, Slave};

use crate::bus::call::Wire;
use crate::bus::port;
use crate::peripheral::exchange::{Answer, Refusal, Request};

/// Room for any frame: RTU 256 bytes, TCP 260 (Modbus Application Protocol V1.1b3, 4.1).
const PIPE_BYTES: usize = 512;

/// A frame that is in memory is encoded or understood at once, or never.
const IN_MEMORY_MAX: Duration = Duration::from_secs(1);

/// Turns requests into frames and frames into answers.
pub(in crate::bus) struct Codec {
    client: Context,
    far: DuplexStream,
}

/// A request that was encoded and waits for its frame of an answer.
pub(in crate::bus) struct Asked<'a> {
    call: Pin<Box<dyn Future<Output = tokio_modbus::Result<Response>> + Send + 'a>>,
    far: &'a mut DuplexStream,
    unit: u8,
    request: &'a Request,
}

impl Codec {
    /// For one exchange on a serial line.
    pub(in crate::bus) fn rtu() -> Codec {
        let (near, far) = duplex(PIPE_BYTES);
        Codec { client: rtu::attach(near), far }
    }

    /// For one TCP connection, whose transaction ids it counts.
    pub(in crate::bus) fn tcp() -> Codec {
        let (near, far) = duplex(PIPE_BYTES);
        Codec { client: tcp::attach(near), far }
    }

    /// The bytes of a request. The error is a sentence.
    pub(in crate::bus) async fn ask<'a>(
        &'a mut self,
        unit: u8,
        request: &'a Request,
    ) -> Result<(Vec<u8>, Asked<'a>), String> {
        let encoded = to_library(request).ok_or("this bus speaks Modbus, not lines")?;
        self.client.set_slave(Slave(unit));
        let mut call = self.client.call(encoded);
        let mut bytes = [0; PIPE_BYTES];
        // The library writes a request in one piece before it waits for the answer.
        let len = tokio::select! {
            biased;
            ended = &mut call => return Err(format!("the request can't be encoded: {ended:?}")),
            len = timeout(IN_MEMORY_MAX, self.far.read(&mut bytes)) => match len {
                Ok(Ok(len)) if len > 0 => len,
                _ => return Err("the request can't be encoded".into()),
            },
        };
        let asked = Asked { call, far: &mut self.far, unit, request };
        Ok((bytes[..len].to_vec(), asked))
    }
}

impl Asked<'_> {
    /// What one whole frame says, whose unit and transaction are the request's.
    pub(in crate::bus) async fn answer(self, frame: &[u8]) -> Wire {
        let unit = self.unit;
        let not_understood =
            || Wire::BadReply(format!("the answer of unit {unit} can't be understood: {}", port::hex(frame)));
        if self.far.write_all(frame).await.is_err() {
            return not_understood();
        }
        let Ok(answer) = timeout(IN_MEMORY_MAX, self.call).await else {
            return Wire::BadReply("the answer is not complete".into());
        };
        match answer {
            Ok(Ok(response)) => match check(self.request, response) {
                Ok(answer) => Wire::Answered(answer),
                Err(why) => Wire::BadReply(format!("the answer of unit {unit} {why}")),
            },
            Ok(Err(exception)) => Wire::Refused(Refusal::Exception(exception.into())),
            Err(tokio_modbus::Error::Protocol(ProtocolError::HeaderMismatch { .. })) => {
                Wire::BadReply(format!("what came is not said by unit {unit} to this request: {}", port::hex(frame)))
            }
            Err(tokio_modbus::Error::Protocol(ProtocolError::FunctionCodeMismatch { .. })) => {
                Wire::BadReply(format!("the answer of unit {unit} is of another function"))
            }
            // The library's own words are for programmers.
            Err(tokio_modbus::Error::Transport(_)) => not_understood(),
        }
    }
}

fn to_library(request: &Request) -> Option<tokio_modbus::Request<'_>> {
    use tokio_modbus::Request as To;
    Some(match request {
        Request::ReadBits { coils: true, address, count } => To::ReadCoils(*address, *count),
        Request::ReadBits { address, count, .. } => To::ReadDiscreteInputs(*address, *count),
        Request::ReadWords { holding: true, address, count } => To::ReadHoldingRegisters(*address, *count),
        Request::ReadWords { address, count, .. } => To::ReadInputRegisters(*address, *count),
        Request::WriteBits { address, bits } => match bits[..] {
            [on] => To::WriteSingleCoil(*address, on),
            _ => To::WriteMultipleCoils(*address, bits.into()),
        },
        Request::WriteWords { address, words } => match words[..] {
            [word] => To::WriteSingleRegister(*address, word),
            _ => To::WriteMultipleRegisters(*address, words.into()),
        },
        Request::Line { .. } => return None,
    })
}

/// Whether a response answers the request: function, amount, and the echo of what was written where. The error ends a
/// sentence that begins with the answer.
fn check(request: &Request, response: Response) -> Result<Answer, String> {
    match (request, response) {
        (Request::ReadBits { coils: true, count, .. }, Response::ReadCoils(bits))
        | (Request::ReadBits { coils: false, count, .. }, Response::ReadDiscreteInputs(bits)) => {
            // Bits come in whole bytes; what stands behind the last one asked for has no meaning.
            let count = usize::from(*count);
            if bits.len() != count.div_ceil(8) * 8 {
                return Err(format!("holds {} bits for the {count} asked for", bits.len()));
            }
            Ok(Answer::Bits(bits.into_iter().take(count).collect()))
        }
        (Request::ReadWords { holding: true, count, .. }, Response::ReadHoldingRegisters(words))
        | (Request::ReadWords { holding: false, count, .. }, Response::ReadInputRegisters(words)) => {
            if words.len() != usize::from(*count) {
                return Err(format!("holds {} registers for the {count} asked for", words.len()));
            }
            Ok(Answer::Words(words))
        }
        (Request::WriteBits { address, bits }, Response::WriteSingleCoil(at, on)) => {
            echoed(*address == at && bits[..] == [on])
        }
        (Request::WriteBits { address, bits }, Response::WriteMultipleCoils(at, count)) => {
            echoed(*address == at && bits.len() == usize::from(count) && count != 1)
        }
        (Request::WriteWords { address, words }, Response::WriteSingleRegister(at, word)) => {
            echoed(*address == at && words[..] == [word])
        }
        (Request::WriteWords { address, words }, Response::WriteMultipleRegisters(at, count)) => {
            echoed(*address == at && words.len() == usize::from(count) && count != 1)
        }
        _ => Err("is of another function".into()),
    }
}

fn echoed(as_written: bool) -> Result<Answer, String> {
    if as_written {
        return Ok(Answer::Written);
    }
    Err("confirms another write than the one it was sent".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::modbus::frame::tests::sealed;

    async fn rtu(request: Request, answer: &[u8]) -> (Vec<u8>, Wire) {
        let mut codec = Codec::rtu();
        let (bytes, asked) = codec.ask(7, &request).await.unwrap();
        (bytes, asked.answer(&sealed(answer)).await)
    }

    #[tokio::test]
    async fn every_request_has_the_bytes_of_the_specification() {
        let table: [(Request, &[u8], &[u8], Answer); 8] = [
            (
                Request::ReadBits { coils: true, address: 1, count: 3 },
                &[7, 1, 0, 1, 0, 3],
                &[7, 1, 1, 0b1111_1101],
                Answer::Bits(vec![true, false, true]),
            ),
            (
                Request::ReadBits { coils: false, address: 1, count: 9 },
                &[7, 2, 0, 1, 0, 9],
                &[7, 2, 2, 0, 1],
                Answer::Bits([vec![false; 8], vec![true]].concat()),
            ),
            (
                Request::ReadWords { holding: true, address: 2, count: 1 },
                &[7, 3, 0, 2, 0, 1],
                &[7, 3, 2, 1, 2],
                Answer::Words(vec![0x0102]),
            ),
            (
                Request::ReadWords { holding: false, address: 2, count: 2 },
                &[7, 4, 0, 2, 0, 2],
                &[7, 4, 4, 1, 2, 3, 4],
                Answer::Words(vec![0x0102, 0x0304]),
            ),
            (
                Request::WriteBits { address: 3, bits: vec![true] },
                &[7, 5, 0, 3, 0xFF, 0],
                &[7, 5, 0, 3, 0xFF, 0],
                Answer::Written,
            ),
            (
                Request::WriteWords { address: 4, words: vec![5] },
                &[7, 6, 0, 4, 0, 5],
                &[7, 6, 0, 4, 0, 5],
                Answer::Written,
            ),
            (
                Request::WriteBits { address: 3, bits: vec![true, false, true] },
                &[7, 15, 0, 3, 0, 3, 1, 0b101],
                &[7, 15, 0, 3, 0, 3],
                Answer::Written,
            ),
            (
                Request::WriteWords { address: 4, words: vec![5, 6] },
                &[7, 16, 0, 4, 0, 2, 4, 0, 5, 0, 6],
                &[7, 16, 0, 4, 0, 2],
                Answer::Written,
            ),
        ];
        for (request, sent, came, answer) in table {
            assert_eq!(rtu(request, came).await, (sealed(sent), Wire::Answered(answer)));
        }
    }

    #[tokio::test]
    async fn an_answer_to_something_else_is_a_bad_reply() {
        let read = || Request::ReadWords { holding: true, address: 2, count: 2 };
        let write = || Request::WriteWords { address: 4, words: vec![5, 6] };
        let table: [(Request, &[u8]); 7] = [
            (read(), &[8, 3, 4, 1, 2, 3, 4]),
            (read(), &[7, 4, 4, 1, 2, 3, 4]),
            (read(), &[7, 3, 2, 1, 2]),
            (read(), &[7, 3, 3, 1, 2, 3]),
            (write(), &[7, 16, 0, 5, 0, 2]),
            (write(), &[7, 16, 0, 4, 0, 3]),
            (write(), &[7, 6, 0, 4, 0, 5]),
        ];
        for (request, came) in table {
            let (_, wire) = rtu(request, came).await;
            assert!(matches!(wire, Wire::BadReply(_)), "{came:?}: {wire:?}");
        }
    }

    #[tokio::test]
    async fn every_exception_code_is_handed_on() {
        for code in 0..=255 {
            let request = Request::WriteWords { address: 4, words: vec![5] };
            let (_, wire) = rtu(request, &[7, 0x86, code]).await;
            assert_eq!(wire, Wire::Refused(Refusal::Exception(code)));
        }
    }

    #[tokio::test]
    async fn what_can_not_be_encoded_is_said_and_not_sent() {
        let line = Request::line(vec![], None, None);
        assert!(Codec::rtu().ask(1, &line).await.is_err());
        let long = Request::WriteWords { address: 0, words: vec![0; 200] };
        assert!(Codec::tcp().ask(1, &long).await.is_err());
    }

    #[tokio::test]
    async fn transactions_are_counted_over_a_connection() {
        let mut codec = Codec::tcp();
        let request = Request::ReadWords { holding: true, address: 0, count: 1 };
        for transaction in 0..3 {
            let (bytes, asked) = codec.ask(9, &request).await.unwrap();
            assert_eq!(bytes, [0, transaction, 0, 0, 0, 6, 9, 3, 0, 0, 0, 1]);
            let answer = [0, transaction, 0, 0, 0, 5, 9, 3, 2, 0, 8];
            assert_eq!(asked.answer(&answer).await, Wire::Answered(Answer::Words(vec![8])));
        }
    }
}
