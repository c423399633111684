//! What the manuals of instruments that speak lines or frames have, byte by byte. Sums are computed apart from the code
//! under test.

use super::{read, refused, write, OfLines, Step};

/// What SCPI says where there was no error, as the result of a command.
const NONE: &str = r#""+0,\"No error\"""#;

/// A line and its reply, as they are.
fn plain(step: Step, hears: &str, says: &str) -> (Step, Vec<u8>, Vec<u8>) {
    (step, hears.as_bytes().to_vec(), says.as_bytes().to_vec())
}

pub fn profiles() -> Vec<OfLines> {
    vec![scale(), supply(), pump(), module(), indicator(), display()]
}

fn scale() -> OfLines {
    let steps = vec![
        plain(read("read-weight", "100"), "S\r\n", "S S     100.00 g\r\n"),
        plain(read("read-weight-now", "99.98"), "SI\r\n", "S D      99.98 g\r\n"),
        plain(read("tare", "100"), "T\r\n", "T S     100.00 g\r\n"),
        plain(refused("tare", "", "refused"), "T\r\n", "T I\r\n"),
        plain(read("zero", "\"Z A\""), "Z\r\n", "Z A\r\n"),
    ];
    OfLines { profile: "mt-sics", steps }
}

fn supply() -> OfLines {
    let none = "+0,\"No error\"\r\n";
    let steps = vec![
        plain(write("set-remote", "", NONE), "*CLS;:SYST:REM;:SYST:ERR?\n", none),
        plain(write("set-voltage", "12.5", NONE), "*CLS;:VOLT 12.5;:SYST:ERR?\n", none),
        plain(refused("set-voltage", "59", "refused"), "*CLS;:VOLT 59;:SYST:ERR?\n", "-222,\"Data out of range\"\r\n"),
        plain(write("set-current", "0.75", NONE), "*CLS;:CURR 0.75;:SYST:ERR?\n", none),
        plain(write("switch-on", "", NONE), "*CLS;:OUTP ON;:SYST:ERR?\n", none),
        plain(write("switch-off", "", NONE), "*CLS;:OUTP OFF;:SYST:ERR?\n", none),
        plain(read("read-voltage", "12.4998"), "MEAS:VOLT?\n", "+1.24998000E+01\r\n"),
        plain(read("read-current", "0.05"), "MEAS:CURR?\n", "+5.00000000E-02\r\n"),
        plain(read("read-output", "1"), "OUTP?\n", "1\r\n"),
    ];
    OfLines { profile: "scpi-supply", steps }
}

fn pump() -> OfLines {
    let steps = vec![
        // The manual's own example.
        plain(write("set-speed", "9876", "\"*\""), "1S009876\r", "*"),
        plain(write("set-direction", "counter-clockwise", "\"*\""), "1K\r", "*"),
        plain(write("set-direction", "clockwise", "\"*\""), "1J\r", "*"),
        plain(write("start", "", "\"*\""), "1H\r", "*"),
        plain(refused("start", "", "refused"), "1H\r", "-"),
        plain(write("stop", "", "\"*\""), "1I\r", "*"),
        plain(read("read-volume", "\"4.983 ml\""), "1:\r", "4.983 ml\r\n"),
        plain(write("reset-volume", "", "\"*\""), "1W\r", "*"),
    ];
    OfLines { profile: "ismatec-reglo-icc", steps }
}

fn module() -> OfLines {
    let steps = vec![
        plain(write("set-relay-1", "on", "\">\""), "#011001\r", ">\r"),
        plain(write("set-relay-2", "off", "\">\""), "#011100\r", ">\r"),
        plain(write("set-relay-3", "on", "\">\""), "#011201\r", ">\r"),
        plain(write("set-relay-4", "on", "\">\""), "#011301\r", ">\r"),
        plain(refused("set-relay-4", "on", "refused"), "#011301\r", "!\r"),
        plain(write("set-relays", "10", "\">\""), "@01A\r", ">\r"),
        plain(read("read-state", "\"0F00\""), "$016\r", "!0F0000\r"),
    ];
    OfLines { profile: "icpdas-i7060", steps }
}

/// STX, the text, ETX and the exclusive or of the text and ETX.
fn compo_way(text: &str) -> Vec<u8> {
    let sum = text.bytes().fold(0x03, |sum, byte| sum ^ byte);
    [&[0x02], text.as_bytes(), &[0x03, sum]].concat()
}

fn indicator() -> OfLines {
    // The manual's own example of a sum.
    assert_eq!(compo_way("000000500"), b"\x02000000500\x036");
    let asked = |address| compo_way(&format!("010000101C0{address}000001"));
    let told = |text| compo_way(&format!("0100{text}"));
    let steps = vec![
        (read("read-value", "1050"), asked("0002"), told("00010100000000041A")),
        (read("read-largest", "1100"), asked("0003"), told("00010100000000044C")),
        (read("read-smallest", "4294967291"), asked("0004"), told("0001010000FFFFFFFB")),
        // In its setting area, and asked with a sum that it found wrong.
        (refused("read-value", "", "refused"), asked("0002"), told("0001012203")),
        (refused("read-largest", "", "refused"), asked("0003"), told("13")),
    ];
    OfLines { profile: "omron-k3hb", steps }
}

fn display() -> OfLines {
    let ended = |payload: &[u8]| [payload, &[0xFF, 0xFF, 0xFF]].concat();
    let steps = vec![
        (write("show-number", "4711", "\"01\""), ended(b"n0.val=4711"), ended(&[1])),
        (write("show-text", "Tank 3: 50% full", "\"01\""), ended(b"t0.txt=\"Tank 3: 50% full\""), ended(&[1])),
        (write("show-page", "2", "\"01\""), ended(b"page 2"), ended(&[1])),
        (refused("show-page", "20", "refused"), ended(b"page 20"), ended(&[3])),
        (write("set-brightness", "80", "\"01\""), ended(b"dim=80"), ended(&[1])),
        (read("read-number", "4711"), ended(b"get n0.val"), ended(&[0x71, 0x67, 0x12, 0, 0])),
    ];
    OfLines { profile: "nextion", steps }
}
