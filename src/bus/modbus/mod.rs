//! Modbus: `pdu` knows the functions, `frame` the frames of a serial line, RTU's and ASCII's, and `late` which of them
//! was asked for; `line` and `tcp` each do one exchange, and `answer` says what it came to.

mod answer;
pub(in crate::bus) mod frame;
pub(in crate::bus) mod late;
pub(in crate::bus) mod line;
pub(in crate::bus) mod pdu;
pub(in crate::bus) mod tcp;

#[cfg(any(test, feature = "proof"))]
pub(in crate::bus) use answer::ended;
