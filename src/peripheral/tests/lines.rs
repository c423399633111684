//! What a text value may not put into a line.

use super::*;

#[test]
fn no_sign_that_stands_anywhere_behind_a_value_is_a_part_of_it() {
    for (send, value, sign) in [
        ("VOLT {value}V;", "5;OUTP ON ", Some(';')),
        ("NAME \"{value}\",1;\r\n", "a;RST", Some(';')),
        ("SET {value} TO {value:03d}!", "a!", Some('!')),
        ("A{value} B\r\n", "a.b-c", None),
        ("(A,{value}\r\n", "a(b", None),
    ] {
        let any = send_text(send);
        match (sign, any.prepare(Some(&json!(value)))) {
            (None, prepared) => assert!(prepared.is_ok(), "{send} {value}"),
            // A place of numbers takes none of these.
            (Some(_), Err(fault)) if send.contains("03d") => assert_eq!(fault.code, Code::BadValue),
            (Some(sign), Err(fault)) => assert!(fault.message.contains(&format!("without {sign:?}")), "{fault:?}"),
            (Some(_), Ok(_)) => panic!("{send} {value}"),
        }
    }
    assert!(send("VOLT {value}.0;").prepare(Some(&json!(2.5))).is_ok(), "a number is what it is");
}

#[test]
fn a_value_can_not_end_the_line_of_a_bus_whose_lines_end_with_what_can_be_typed() {
    let on = |delimiter: &str| Command { delimiter: Some(delimiter.into()), ..send_text("S {value}") };
    for (delimiter, value, may) in [
        (";", "1;RESET", false),
        (";", "1,RESET", true),
        ("#!", "1#", false),
        ("END", "1 END RESET", false),
        ("END", "1 EN", true),
    ] {
        match on(delimiter).prepare(Some(&json!(value))) {
            Ok(_) => assert!(may, "{delimiter} {value}"),
            Err(fault) => assert!(!may && fault.message.contains("which ends a line on this bus"), "{fault:?}"),
        }
    }
}
