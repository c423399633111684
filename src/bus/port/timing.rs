//! The time that bytes take on a serial line.

use std::time::Duration;

use crate::config::{Endpoint, LowLatency, Parity, SerialPort};

/// How long things take on a serial line.
#[derive(Debug, Clone, Copy)]
pub(in crate::bus) struct Timing {
    /// One character.
    character: Duration,
    /// The silence between frames.
    pub(in crate::bus) silence: Duration,
    /// How long the line's direction takes to be switched before anything is sent.
    lead: Duration,
}

impl Timing {
    /// The timing of a line. What rate a server's own line has is not known: a common one is taken, at which nothing is
    /// hurried.
    pub(in crate::bus) fn of(endpoint: &Endpoint) -> Timing {
        match endpoint {
            Endpoint::Serial(port) => Timing::at(port),
            Endpoint::Tcp(_) => Timing::at(&SerialPort {
                path: "".into(),
                baud: 9600,
                parity: Parity::Even,
                data_bits: 8,
                stop_bits: 1,
                rs485: None,
                low_latency: LowLatency::IfPossible,
            }),
        }
    }

    fn at(port: &SerialPort) -> Timing {
        let parity = u32::from(port.parity != Parity::None);
        let bits = 1 + u32::from(port.data_bits) + parity + u32::from(port.stop_bits);
        let character = Duration::from_secs(1) * bits / port.baud.max(1);
        // Modbus over Serial Line V1.02, 2.5.1.1: frames are parted by 3.5 characters; above 19200 baud by a fixed
        // 1.75 ms, since timing each character would load the CPU. Its 1.5 characters (750 us) within a frame are kept
        // by sending each in one piece; of what comes, adapters and drivers hand pieces on as they like, so that a gap
        // in an answer says nothing.
        let silence = if port.baud > 19_200 { Duration::from_micros(1_750) } else { character * 7 / 2 };
        let lead = port.rs485.map_or(Duration::ZERO, |rs485| rs485.delay_before);
        Timing { character, silence, lead }
    }

    /// The time that it takes to send so many bytes.
    pub(in crate::bus) fn sending(&self, bytes: usize) -> Duration {
        self.lead + self.on_wire(bytes)
    }

    /// The time that so many bytes take.
    pub(in crate::bus) fn on_wire(&self, bytes: usize) -> Duration {
        self.character * u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rs485;

    #[test]
    fn the_silence_is_three_and_a_half_characters_up_to_19200_baud() {
        let port = |baud| SerialPort {
            path: "".into(),
            baud,
            parity: Parity::Even,
            data_bits: 8,
            stop_bits: 1,
            rs485: None,
            low_latency: LowLatency::IfPossible,
        };
        // 11 bits a character.
        assert_eq!(Timing::at(&port(1200)).silence.as_micros(), 32_083);
        assert_eq!(Timing::at(&port(19_200)).silence.as_micros(), 2_005);
        assert_eq!(Timing::at(&port(19_201)).silence.as_micros(), 1_750);
        assert_eq!(Timing::at(&port(38_400)).silence.as_micros(), 1_750);
        assert_eq!(Timing::at(&port(1100)).on_wire(100), Duration::from_secs(1));
        assert_eq!(Timing::at(&port(0)).on_wire(1), Duration::from_secs(11));
    }

    #[test]
    fn what_is_sent_goes_out_once_the_lines_direction_is_switched() {
        let [delay_before, delay_after] = [5, 7].map(Duration::from_millis);
        let rs485 = Some(Rs485 { rts_on_send: true, delay_before, delay_after });
        let port = SerialPort {
            path: "".into(),
            baud: 1100,
            parity: Parity::Even,
            data_bits: 8,
            stop_bits: 1,
            rs485,
            low_latency: LowLatency::IfPossible,
        };
        assert_eq!(Timing::at(&port).sending(100), Duration::from_millis(1005));
        assert_eq!(Timing::at(&SerialPort { rs485: None, ..port }).sending(100), Duration::from_secs(1));
    }
}
