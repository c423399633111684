//! Modbus exception codes (Modbus Application Protocol V1.1b3, section 7).

/// There is nothing at the address, or not as much as was asked for.
pub const ILLEGAL_ADDRESS: u8 = 2;
/// A value, or a length, that the peripheral does not take.
pub const ILLEGAL_VALUE: u8 = 3;
/// The peripheral has begun, and takes its time.
pub const ACKNOWLEDGE: u8 = 5;
/// The peripheral is too busy to begin.
pub const BUSY: u8 = 6;
/// A gateway has no way to the unit's line.
pub const NO_PATH: u8 = 10;
/// A gateway has sent the request on, and heard nothing.
pub const NO_RESPONSE: u8 = 11;

/// What the specification calls a code.
pub fn name(code: u8) -> &'static str {
    known(code).0
}

/// What a code says, and what to do where something can be.
pub fn meaning(code: u8) -> String {
    let (name, meaning) = known(code);
    format!("{name}; {meaning}")
}

fn known(code: u8) -> (&'static str, &'static str) {
    match code {
        1 => (
            "illegal function",
            "the peripheral does not know this kind of request; for a write, try another `function`",
        ),
        ILLEGAL_ADDRESS => ("illegal data address", "check `address` and `table`"),
        ILLEGAL_VALUE => ("illegal data value", "the peripheral does not take this value or length"),
        4 => ("server device failure", "the peripheral could not do it"),
        ACKNOWLEDGE => ("acknowledge", "the peripheral has begun and takes its time"),
        BUSY => ("server device busy", "the peripheral did not take the request"),
        // Of older peripherals (Modicon Modbus Protocol Reference Guide, PI-MBUS-300).
        7 => ("negative acknowledge", "the peripheral can't do what was asked"),
        8 => ("memory parity error", "the peripheral's memory is faulty"),
        NO_PATH => ("gateway path unavailable", "the Modbus gateway can't reach this unit's line"),
        NO_RESPONSE => (
            "gateway target device failed to respond",
            "the Modbus gateway sent the request on and heard nothing: is the unit switched on?",
        ),
        _ => ("a code of the peripheral's own", "look into its manual"),
    }
}
