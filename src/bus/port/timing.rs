//! The time that bytes take on a serial line.

use std::time::Duration;

use crate::config::{Endpoint, Parity, SerialPort};

/// How long things take on a serial line.
#[derive(Debug, Clone, Copy)]
pub(in crate::bus) struct Timing {
    /// One character.
    character: Duration,
    /// The silence between frames.
    pub(in crate::bus) silence: Duration,
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
            }),
        }
    }

    fn at(port: &SerialPort) -> Timing {
        let parity = u32::from(port.parity != Parity::None);
        let bits = 1 + u32::from(port.data_bits) + parity + u32::from(port.stop_bits);
        let character = Duration::from_secs(1) * bits / port.baud.max(1);
        // Modbus over Serial Line V1.02, 2.5.1.1: frames are parted by 3.5 characters; above 19200 baud by a fixed
        // 1.75 ms, since timing each character would load the CPU.
        let silence = if port.baud > 19_200 { Duration::from_micros(1_750) } else { character * 7 / 2 };
        Timing { character, silence }
    }

    /// The time that so many bytes take.
    pub(in crate::bus) fn on_wire(&self, bytes: usize) -> Duration {
        self.character * u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silence_is_three_and_a_half_characters_up_to_19200_baud() {
        let port = |baud| SerialPort { path: "".into(), baud, parity: Parity::Even, data_bits: 8, stop_bits: 1 };
        // 11 bits a character.
        assert_eq!(Timing::at(&port(1200)).silence.as_micros(), 32_083);
        assert_eq!(Timing::at(&port(19_200)).silence.as_micros(), 2_005);
        assert_eq!(Timing::at(&port(38_400)).silence.as_micros(), 1_750);
        assert_eq!(Timing::at(&port(1100)).on_wire(100), Duration::from_secs(1));
        assert_eq!(Timing::at(&port(0)).on_wire(1), Duration::from_secs(11));
    }
}
