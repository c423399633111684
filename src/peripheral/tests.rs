//! From engineering values to requests and back: every type and order, the limits, and what a message may not say.

use serde_json::json;

mod lines;
mod modbus;

use super::registers::{Order, Table};
use super::*;
use DataType::{Bcd16, Bcd32, Bool, String as Text, F32, F64, I16, I32, I64, U16, U32, U64};
use Order::{Big, Little};

const NUMERIC: [DataType; 10] = [U16, I16, U32, I32, U64, I64, F32, F64, Bcd16, Bcd32];
const ORDERS: [(Order, Order); 4] = [(Big, Big), (Big, Little), (Little, Big), (Little, Little)];

fn point(table: Table, kind: DataType) -> Point {
    Point::new(table, 10, kind)
}

fn holding(kind: DataType) -> Point {
    point(Table::Holding, kind)
}

fn scaled(kind: DataType, scale: f64, offset: f64) -> Point {
    Point { scale, offset, ..holding(kind) }
}

fn command(action: Action) -> Command {
    Command { idempotent: true, ..Command::new("set-speed", action) }
}

fn write(point: &Point) -> Command {
    command(Action::Write(point.clone()))
}

fn verified(point: &Point) -> Command {
    Command { read_back: Some(Rule::exact(point)), ..write(point) }
}

/// Whether what was read back is what was written.
fn fits(command: &Command, prepared: &Prepared, answer: &Answer) -> bool {
    command.found(prepared, answer).is_ok_and(|found| found.fits)
}

fn send(template: &str) -> Command {
    command(Action::send(Template { send: template.into(), ..Template::default() }))
}

/// A line that takes any text.
fn send_text(template: &str) -> Command {
    let pattern = Some(Pattern::new("(?s).*").unwrap());
    command(Action::send(Template { send: template.into(), pattern, ..Template::default() }))
}

fn words(prepared: &Prepared) -> Vec<u16> {
    match &prepared.request {
        Request::WriteWords { words, .. } => words.clone(),
        other => panic!("not a write of registers: {other:?}"),
    }
}

fn line(prepared: &Prepared) -> String {
    match &prepared.request {
        Request::Line { bytes, .. } => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("not a line: {other:?}"),
    }
}

fn read(point: &Point, answer: &[u16]) -> Json {
    let command = command(Action::Read(point.clone()));
    let prepared = command.prepare(None).unwrap();
    command.interpret(&prepared, &Answer::Words(answer.to_vec())).unwrap().unwrap()
}

fn refusal(command: &Command, value: &Json) -> (Code, String) {
    let fault = command.prepare(Some(value)).expect_err(&value.to_string());
    (fault.code, fault.message)
}

/// Random values of one type, the extremes among them.
fn random(rng: &mut fastrand::Rng, kind: DataType) -> Json {
    match kind {
        Bool => rng.bool().into(),
        U16 => [0, u16::MAX, rng.u16(..)][rng.usize(..3)].into(),
        I16 => [i16::MIN, i16::MAX, rng.i16(..)][rng.usize(..3)].into(),
        U32 => [0, u32::MAX, rng.u32(..)][rng.usize(..3)].into(),
        I32 => [i32::MIN, i32::MAX, rng.i32(..)][rng.usize(..3)].into(),
        U64 => [0, u64::MAX, rng.u64(..)][rng.usize(..3)].into(),
        I64 => [i64::MIN, i64::MAX, rng.i64(..)][rng.usize(..3)].into(),
        Bcd16 => [0, 9_999, rng.u16(..10_000)][rng.usize(..3)].into(),
        Bcd32 => [0, 99_999_999, rng.u32(..100_000_000)][rng.usize(..3)].into(),
        F32 => {
            let float = f32::from_bits(rng.u32(..));
            let float = if float.is_finite() { float } else { f32::MAX };
            float.to_string().parse::<f64>().unwrap().into()
        }
        F64 => {
            let float = f64::from_bits(rng.u64(..));
            if float.is_finite() { float } else { f64::MIN }.into()
        }
        Text => {
            let text: String = (0..rng.usize(..8)).map(|_| rng.char('!'..='ÿ')).collect();
            text.replace(char::is_control, "?").into()
        }
    }
}

#[test]
fn every_type_and_order_comes_back_as_it_was_written() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for round in 0..4000 {
        let kind = [Bool, Text].into_iter().chain(NUMERIC).nth(round % 12).unwrap();
        let (word_order, byte_order) = ORDERS[rng.usize(..4)];
        let count = match kind {
            Text => Some(8),
            _ => rng.bool().then(|| rng.u16(1..5)),
        };
        let point = Point { word_order, byte_order, count, ..holding(kind) };
        let value: Json = match count {
            Some(count) if kind != Text => (0..count).map(|_| random(&mut rng, kind)).collect(),
            _ => random(&mut rng, kind),
        };
        let written = write(&point).prepare(Some(&value)).unwrap();
        assert_eq!(written.written.as_ref(), Some(&value), "{point:?}");
        assert_eq!(read(&point, &words(&written)), value, "{point:?}");
        assert!(fits(&verified(&point), &written, &Answer::Words(words(&written))));
    }
}

#[test]
fn bits_come_back_as_they_were_written() {
    let one = write(&point(Table::Coil, Bool));
    for value in [json!(true), json!(1), json!(1.0)] {
        let prepared = one.prepare(Some(&value)).unwrap();
        assert!(matches!(&prepared.request, Request::WriteBits { address: 10, bits, .. } if *bits == [true]));
        assert_eq!(prepared.written, Some(json!(true)));
        assert_eq!(one.interpret(&prepared, &Answer::Written).unwrap(), Some(json!(true)));
    }
    let three = Point { count: Some(3), ..point(Table::Coil, Bool) };
    let three = verified(&three);
    let prepared = three.prepare(Some(&json!([true, 0, 1]))).unwrap();
    let back = Answer::Bits(vec![true, false, true]);
    assert!(!fits(&three, &prepared, &Answer::Bits(vec![true, false, false])));
    assert_eq!(three.found(&prepared, &back).unwrap(), Found { value: json!([true, false, true]), fits: true });
}

#[test]
fn known_registers_mean_known_values() {
    let table: [(DataType, Order, Order, &[u16], Json); 16] = [
        (F32, Big, Big, &[0x3F80, 0x0000], json!(1.0)),
        (F32, Little, Big, &[0x0000, 0x3F80], json!(1.0)),
        (F32, Big, Little, &[0x803F, 0x0000], json!(1.0)),
        (F32, Little, Little, &[0x0000, 0x803F], json!(1.0)),
        (F32, Big, Big, &[0x3DCC, 0xCCCD], json!(0.1)),
        (F64, Big, Big, &[0x3FF0, 0, 0, 0], json!(1.0)),
        (F64, Little, Big, &[0x999A, 0x9999, 0x9999, 0x3FB9], json!(0.1)),
        (U16, Big, Big, &[0xFFFF], json!(65535)),
        (U16, Big, Little, &[0x3412], json!(0x1234)),
        (I16, Big, Big, &[0xFFFF], json!(-1)),
        (U32, Big, Big, &[0x1234, 0x5678], json!(0x1234_5678)),
        (U32, Little, Big, &[0x5678, 0x1234], json!(0x1234_5678)),
        (U32, Big, Little, &[0x3412, 0x7856], json!(0x1234_5678)),
        (I32, Big, Big, &[0xFFFF, 0xFFFE], json!(-2)),
        (U64, Big, Big, &[0xFFFF; 4], json!(u64::MAX)),
        (I64, Big, Big, &[0x8000, 0, 0, 0], json!(i64::MIN)),
    ];
    for (kind, word_order, byte_order, registers, value) in table {
        let point = Point { word_order, byte_order, ..holding(kind) };
        assert_eq!(read(&point, registers), value, "{point:?}");
        assert_eq!(words(&write(&point).prepare(Some(&value)).unwrap()), registers, "{point:?}");
    }
}

#[test]
fn a_text_lies_in_ascending_registers_and_ends_at_the_first_zero() {
    let text = Point { count: Some(3), word_order: Little, ..holding(Text) };
    let prepared = write(&text).prepare(Some(&json!("ABC"))).unwrap();
    assert_eq!(words(&prepared), [0x4142, 0x4300, 0]);
    assert_eq!(read(&text, &[0x4142, 0x0043, 0x4400]), json!("AB"));
    assert_eq!(read(&Point { byte_order: Little, ..text.clone() }, &[0x4241, 0x0043, 0]), "ABC");
    assert_eq!(read(&text, &[0xFF41, 0x4200, 0]), json!("\u{FF}AB"));
    assert_eq!(write(&text).prepare(Some(&json!("äöü"))).unwrap().written, Some(json!("äöü")));
    assert_eq!(refusal(&write(&text), &json!("äöüx")).0, Code::OutOfRange);
    assert_eq!(refusal(&write(&text), &json!("A\0B")).0, Code::BadValue);
    assert_eq!(refusal(&write(&text), &json!(7)).0, Code::BadValue);
}

#[test]
fn a_scaled_value_is_rounded_to_the_device_step_and_reported_as_written() {
    let table = [
        (scaled(U16, 0.1, 0.0), json!(42.3), 423, json!(42.3)),
        (scaled(U16, 0.1, 0.0), json!(42.34), 423, json!(42.3)),
        (scaled(U16, 0.1, 0.0), json!(0.15), 2, json!(0.2)),
        (scaled(U16, 0.1, -100.0), json!(0.1), 1001, json!(0.1)),
        (scaled(I16, -0.5, 0.0), json!(3), 0xFFFA, json!(3.0)),
        (scaled(U16, 0.001, 20.0), json!(20.123), 123, json!(20.123)),
        (scaled(U16, 1.0, 0.5), json!(7.5), 7, json!(7.5)),
        (scaled(U16, 10.0, 0.0), json!(1234), 123, json!(1230.0)),
        (scaled(U16, 1.0, -40.0), json!(-40), 0, json!(-40)),
    ];
    for (point, value, raw, written) in table {
        let prepared = write(&point).prepare(Some(&value)).unwrap();
        assert_eq!(words(&prepared), [raw], "{value} at {point:?}");
        assert_eq!(prepared.written, Some(written.clone()), "{value} at {point:?}");
        assert_eq!(read(&point, &[raw]), written);
    }
    // Every step of a tenth prints with one decimal.
    for raw in 0..=u16::MAX {
        let shown = read(&scaled(U16, 0.1, 0.0), &[raw]).to_string();
        assert_eq!(shown, format!("{}.{}", raw / 10, raw % 10));
    }
}

#[test]
fn integers_without_a_scale_are_exact_to_the_last_bit() {
    let point = scaled(U64, 1.0, 0.0);
    for value in [u64::MAX, u64::MAX - 1, (1 << 53) + 1] {
        let prepared = write(&point).prepare(Some(&json!(value))).unwrap();
        assert_eq!(prepared.written, Some(json!(value)));
        assert_eq!(read(&point, &words(&prepared)), json!(value));
    }
    assert_eq!(write(&holding(I16)).prepare(Some(&json!(5.0))).unwrap().written, Some(json!(5)));
    let (code, message) = refusal(&write(&holding(U16)), &json!(1.5));
    assert_eq!((code, message.as_str()), (Code::BadValue, "expected a whole number, got 1.5"));
}

#[test]
fn what_the_type_does_not_hold_is_out_of_range() {
    let table = [
        (holding(U16), json!(65536)),
        (holding(U16), json!(-1)),
        (holding(I16), json!(32768)),
        (holding(I16), json!(-32769)),
        (holding(U32), json!(4_294_967_296_u64)),
        (holding(I32), json!(-2_147_483_649_i64)),
        (holding(I64), json!(u64::MAX)),
        (holding(U64), json!(-1)),
        (holding(U64), json!(1e30)),
        (holding(F32), json!(1e39)),
        (scaled(F64, 1e-300, 0.0), json!(1e300)),
        (scaled(U16, 0.1, 0.0), json!(6553.6)),
        (scaled(U16, 1.0, -40.0), json!(-41)),
    ];
    for (point, value) in table {
        assert_eq!(refusal(&write(&point), &value).0, Code::OutOfRange, "{value} at {point:?}");
    }
    let (_, message) = refusal(&write(&scaled(I16, 0.1, 0.0)), &json!(5000));
    assert!(message.contains("from -3276.8 to 3276.7"), "{message}");
    let (_, message) = refusal(&write(&scaled(U16, -1.0, 0.0)), &json!(1));
    assert!(message.contains("from -65535.0 to 0.0"), "{message}");
}

#[test]
fn the_range_holds_for_every_element_and_for_what_is_really_written() {
    let mut one = write(&scaled(U16, 0.4, 0.0));
    one.range = Some((0.0, 1.0));
    assert_eq!(one.prepare(Some(&json!(0.9))).unwrap().written, Some(json!(0.8)));
    assert_eq!(refusal(&one, &json!(1.1)).0, Code::OutOfRange);
    // The device's nearest step to 1.0 is 1.2, which the range forbids.
    assert_eq!(refusal(&one, &json!(1.0)).0, Code::OutOfRange);

    let mut many = write(&Point { count: Some(3), ..holding(I16) });
    many.range = Some((-5.0, 5.0));
    assert!(many.prepare(Some(&json!([-5, 0, 5]))).is_ok());
    let (code, message) = refusal(&many, &json!([0, 6, 0]));
    assert_eq!((code, message.as_str()), (Code::OutOfRange, "expected a number from -5 to 5, got 6"));

    let mut text = send("S {value}\r\n");
    text.range = Some((0.0, 10.0));
    assert!(text.prepare(Some(&json!(10))).is_ok());
    assert_eq!(refusal(&text, &json!(11)).0, Code::OutOfRange);
    assert_eq!(refusal(&text, &json!("5")).0, Code::BadValue);
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_what_is_expected() {
    let array = Point { count: Some(2), ..holding(U16) };
    let table = [
        (write(&holding(U16)), json!("42"), "a number"),
        (write(&holding(U16)), json!(true), "a number"),
        (write(&holding(F32)), json!({"a": 1}), "a number"),
        (write(&holding(U16)), json!([1]), "a single value"),
        (write(&array), json!(1), "an array of 2 values"),
        (write(&array), json!([1]), "an array of 2 values, got 1"),
        (write(&array), json!([1, null]), "a number, got null"),
        (write(&holding(Bool)), json!(2), "true or false"),
        (write(&point(Table::Coil, Bool)), json!("on"), "true or false"),
        (send("{value}"), json!([1]), "a number, true, false or a text"),
        (send("{value}"), json!({}), "a number, true, false or a text"),
        (send("{value}"), json!("on"), "takes numbers, true and false"),
        (send("T\r\n"), json!(1), "takes no value"),
        (command(Action::Read(holding(U16))), json!(1), "takes no value"),
    ];
    for (command, value, expected) in table {
        let (code, message) = refusal(&command, &value);
        assert_eq!(code, Code::BadValue, "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let needy = write(&holding(U16));
    for none in [None, Some(&Json::Null)] {
        assert_eq!(needy.prepare(none).unwrap_err().code, Code::BadValue);
        assert!(command(Action::Read(holding(U16))).prepare(none).is_ok());
        assert!(send("T\r\n").prepare(none).is_ok());
    }
}

#[test]
fn a_line_is_sent_for_its_reply_if_it_may_be_repeated_carries_nothing_and_a_part_of_the_reply_is_wanted() {
    let table = [
        ("S\r\n", Some("([0-9.]+) kg"), true, true),
        ("S\r\n", Some("([0-9.]+) kg"), false, false),
        ("S {value}\r\n", Some("([0-9.]+) kg"), true, false),
        ("S\r\n", Some("^(?:OK|READY)"), true, false),
        ("S\r\n", None, true, false),
    ];
    for (template, expect, idempotent, is_reading) in table {
        let expect = expect.map(|pattern| regex_lite::Regex::new(pattern).unwrap());
        let template = Template { send: template.into(), expect, ..Template::default() };
        let value = template.send.takes_value().then(|| json!(1));
        let command = Command { idempotent, ..command(Action::send(template.clone())) };
        let request = command.prepare(value.as_ref()).unwrap().request;
        assert!(matches!(request, Request::Line { is_reading: found, .. } if found == is_reading), "{template:?}");
    }
}

#[test]
fn a_fixed_value_is_written_and_another_is_refused() {
    let mut reset = write(&point(Table::Coil, Bool));
    reset.fixed = Some(json!(true));
    for value in [None, Some(json!(true)), Some(Json::Null)] {
        let prepared = reset.prepare(value.as_ref()).unwrap();
        assert!(matches!(&prepared.request, Request::WriteBits { bits, .. } if *bits == [true]));
    }
    assert_eq!(refusal(&reset, &json!(false)).0, Code::BadValue);
    let mut set = write(&holding(F32));
    set.fixed = Some(json!(1));
    assert!(set.prepare(Some(&json!(1.0))).is_ok());
    assert_eq!(refusal(&set, &json!(1.5)).0, Code::BadValue);
}

#[test]
fn a_write_that_is_verified_brings_the_read_of_the_same_points() {
    let mut set = write(&Point { count: Some(2), ..holding(U32) });
    assert!(set.prepare(Some(&json!([1, 2]))).unwrap().read_back.is_none());
    set.read_back = verified(&Point { count: Some(2), ..holding(U32) }).read_back;
    let prepared = set.prepare(Some(&json!([1, 2]))).unwrap();
    assert!(matches!(prepared.read_back, Some(Request::ReadWords { holding: true, address: 10, count: 4 })));
    assert!(fits(&set, &prepared, &Answer::Words(vec![0, 1, 0, 2])));
    let other = Answer::Words(vec![0, 1, 0, 3]);
    assert_eq!(set.found(&prepared, &other).unwrap(), Found { value: json!([1, 3]), fits: false });
    assert!(!fits(&set, &prepared, &Answer::Written));
}

#[test]
fn a_line_takes_the_value_in_the_instruments_writing() {
    let table = [
        (json!(42), "S 42\r\n"),
        (json!(-7), "S -7\r\n"),
        (json!(u64::MAX), "S 18446744073709551615\r\n"),
        (json!(42.0), "S 42\r\n"),
        (json!(0.1), "S 0.1\r\n"),
        (json!(1e-7), "S 0.0000001\r\n"),
        (json!(1e15), "S 1000000000000000\r\n"),
        (json!(-0.0), "S 0\r\n"),
        (json!(true), "S true\r\n"),
        (json!("auto é"), "S auto é\r\n"),
    ];
    for (value, expected) in table {
        let prepared = send_text("S {value}\r\n").prepare(Some(&value)).unwrap();
        assert_eq!(line(&prepared), expected);
        assert_eq!(prepared.written, Some(value));
    }
    // JSON's reader has rounded such an integer already.
    let rounded: Json = serde_json::from_str("12345678901234567890123").unwrap();
    assert_eq!(send("S {value}").prepare(Some(&rounded)).unwrap_err().code, Code::OutOfRange);
    // A value that spells the placeholder is not filled in again.
    let prepared = send_text("{value} {value}").prepare(Some(&json!("{value}"))).unwrap();
    assert_eq!(line(&prepared), "{value} {value}");
}

#[test]
fn a_value_can_not_smuggle_in_a_second_command() {
    for code in (0..0x20).chain(0x7F..0xA0) {
        let text = format!("1{}RESET", char::from_u32(code).unwrap());
        assert_eq!(refusal(&send_text("S {value}\r\n"), &json!(text)).0, Code::BadValue, "{code:#x}");
    }
    assert!(send_text("{value}").prepare(Some(&json!("x".repeat(1024)))).is_ok());
    assert_eq!(refusal(&send_text("{value}"), &json!("x".repeat(1025))).0, Code::OutOfRange);
    // Nor with a sign that stands behind it in the line, even if any text is allowed.
    let (code, message) = refusal(&send_text("VOLT {value};"), &json!("5;OUTP ON"));
    assert_eq!((code, message.contains("a text without ';'")), (Code::BadValue, true), "{message}");
    assert_eq!(refusal(&send_text("NAME \"{value}\"\r\n"), &json!("a\" RESET \"")).0, Code::BadValue);
    assert!(send_text("VOLT {value};").prepare(Some(&json!("5 V"))).is_ok());
}

#[test]
fn without_a_pattern_or_names_a_line_takes_numbers_and_booleans() {
    let volt = send("VOLT {value};");
    for value in [json!(5), json!(-2.5), json!(true), json!(false)] {
        assert!(volt.prepare(Some(&value)).is_ok(), "{value}");
    }
    for value in [json!("5;OUTP ON"), json!("5"), json!("")] {
        let (code, message) = refusal(&volt, &value);
        assert_eq!(code, Code::BadValue);
        for part in ["set-speed takes numbers, true and false", "pattern = \"", "values = {"] {
            assert!(message.contains(part), "{message}");
        }
    }
    // What the profile says itself needs no leave.
    let fixed = Command { fixed: Some(json!("AUTO")), ..send("MODE {value}\r\n") };
    assert_eq!(line(&fixed.prepare(None).unwrap()), "MODE AUTO\r\n");
    assert_eq!(refusal(&fixed, &json!("MANUAL")).0, Code::BadValue);
}

#[test]
fn a_pattern_must_match_the_whole_value() {
    let with = |pattern: &str| {
        let pattern = Some(Pattern::new(pattern).unwrap());
        command(Action::send(Template { send: "M {value}\r\n".into(), pattern, ..Template::default() }))
    };
    for (pattern, value, may) in [
        ("[A-Z]+", json!("AUTO"), true),
        ("[A-Z]+", json!("AUTO;RESET"), false),
        ("[A-Z]+", json!("auto"), false),
        ("A|AB", json!("AB"), true),
        ("A|AB", json!("ABC"), false),
        ("(?m)^[A-Z]+$", json!("A"), true),
        ("[0-9]{1,3}", json!(250), true),
        ("[0-9]{1,3}", json!(2500), false),
        ("[0-9]{1,3}", json!(true), false),
    ] {
        match with(pattern).prepare(Some(&value)) {
            Ok(_) => assert!(may, "{value} by {pattern}"),
            Err(fault) => assert!(!may && fault.code == Code::BadValue && fault.message.contains(pattern), "{fault:?}"),
        }
    }
    assert!(Pattern::new("a)|(b").is_err());
}

#[test]
fn names_stand_for_values_in_both_directions() {
    let names = || Some(Names::new(vec![("off".into(), json!(0)), ("on".into(), json!(1)), ("auto".into(), json!(2))]));
    let mode = Command { names: names(), ..write(&holding(U16)) };
    for given in [json!("auto"), json!(2)] {
        let prepared = mode.prepare(Some(&given)).unwrap();
        assert_eq!((words(&prepared), prepared.written.clone()), (vec![2], Some(json!("auto"))));
        assert_eq!(mode.interpret(&prepared, &Answer::Written).unwrap(), Some(json!("auto")));
    }
    let read = Command { names: names(), ..command(Action::Read(holding(U16))) };
    let prepared = read.prepare(None).unwrap();
    for (found, told) in [(1, json!("on")), (7, json!(7))] {
        assert_eq!(read.interpret(&prepared, &Answer::Words(vec![found])).unwrap(), Some(told));
    }
    // Elsewhere, where it is compared by its meaning.
    let shown = Rule { tolerance: 0.5, ..Rule::exact(&holding(I16)) };
    let checked = Command { read_back: Some(shown), ..mode.clone() };
    let prepared = checked.prepare(Some(&json!("auto"))).unwrap();
    let found = |word: u16| checked.found(&prepared, &Answer::Words(vec![word])).unwrap();
    assert_eq!((found(2).fits, found(2).value), (true, json!("auto")));
    assert_eq!((found(1).fits, found(1).value), (false, json!("on")));
    for other in [json!("AUTO"), json!(3), json!(true)] {
        assert_eq!(refusal(&mode, &other).0, Code::OutOfRange);
    }
    let coil = Command { names: names(), ..write(&point(Table::Coil, Bool)) };
    let prepared = coil.prepare(Some(&json!("on"))).unwrap();
    assert!(matches!(&prepared.request, Request::WriteBits { bits, .. } if *bits == [true]));
    assert_eq!(prepared.written, Some(json!("on")));

    let texts = Names::new(vec![("warm".into(), json!("W1")), ("cold".into(), json!("C"))]);
    let heat = Command { names: Some(texts), ..send("H {value}\r\n") };
    let prepared = heat.prepare(Some(&json!("warm"))).unwrap();
    assert_eq!((line(&prepared).as_str(), prepared.written.clone()), ("H W1\r\n", Some(json!("warm"))));
    assert_eq!(heat.interpret(&prepared, &Answer::Line("C".into())).unwrap(), Some(json!("cold")));
    assert_eq!(heat.interpret(&prepared, &Answer::Line("X".into())).unwrap(), Some(json!("X")));
    assert_eq!(refusal(&heat, &json!("W1")).0, Code::OutOfRange);
}

#[test]
fn a_captured_text_is_a_number_only_where_it_is_spelt_as_nothing_else() {
    let table = [
        ("42", json!(42)),
        (" 12.50 ", json!(12.5)),
        ("+12.5", json!(12.5)),
        ("-3", json!(-3)),
        ("0", json!(0)),
        ("0.5", json!(0.5)),
        ("-0.0", json!(0.0)),
        ("18446744073709551615", json!(u64::MAX)),
        ("18446744073709551616", json!("18446744073709551616")),
        ("0.1234567890123456", json!("0.1234567890123456")),
        ("+0012.50", json!("+0012.50")),
        ("007", json!("007")),
        ("00E6", json!("00E6")),
        ("01E2", json!("01E2")),
        ("12E4", json!("12E4")),
        ("1e3", json!("1e3")),
        (".5", json!(".5")),
        ("5.", json!("5.")),
        ("--5", json!("--5")),
        ("1.2.3", json!("1.2.3")),
        ("inf", json!("inf")),
        ("NaN", json!("NaN")),
        ("", json!("")),
        ("OK 5", json!("OK 5")),
        ("0x1F", json!("0x1F")),
        (" text ", json!(" text ")),
    ];
    let command = send("R\r\n");
    let prepared = command.prepare(None).unwrap();
    for (text, value) in table {
        let answer = Answer::Line(text.into());
        assert_eq!(command.interpret(&prepared, &answer).unwrap(), Some(value), "{text:?}");
    }
}

#[test]
fn a_captured_text_is_what_the_profile_says() {
    use Meaning::{Hex, Number, Text};
    let table = [
        (Text, "42", Some(json!("42"))),
        (Text, " 42 ", Some(json!(" 42 "))),
        (Number, " +0012.50", Some(json!(12.5))),
        (Number, "007", Some(json!(7))),
        (Number, "1e3", Some(json!(1000.0))),
        (Number, ".5", Some(json!(0.5))),
        (Number, "-0.0", Some(json!(0.0))),
        (Number, "OVER", None),
        (Number, "1e999", None),
        (Number, "NaN", None),
        (Number, "", None),
        (Hex, "00B7", Some(json!(183))),
        (Hex, "00e6", Some(json!(230))),
        (Hex, "12E4", Some(json!(4836))),
        (Hex, "FFFFFFFFFFFFFFFF", Some(json!(u64::MAX))),
        (Hex, "10000000000000000", None),
        (Hex, "0x1F", None),
        (Hex, "+1F", None),
        (Hex, "", None),
    ];
    for (result, text, value) in table {
        let template = Template { send: "R\r\n".into(), result, ..Template::default() };
        let command = command(Action::send(template));
        let prepared = command.prepare(None).unwrap();
        let found = command.interpret(&prepared, &Answer::Line(text.into()));
        assert_eq!(found.clone().ok().flatten(), value, "{text:?}: {found:?}");
    }
}

#[test]
fn a_float_that_is_no_number_is_told_as_text() {
    assert_eq!(read(&holding(F32), &[0x7FC0, 0]), json!("NaN"));
    assert_eq!(read(&holding(F32), &[0x7F80, 0]), json!("Infinity"));
    assert_eq!(read(&holding(F64), &[0xFFF0, 0, 0, 0]), json!("-Infinity"));
    assert_eq!(read(&scaled(F32, 0.1, 1.0), &[0x7FC0, 0]), json!("NaN"));
    assert_eq!(read(&scaled(F32, 10.0, 0.0), &[0x3DCC, 0xCCCD]), json!(1.0));
}

#[test]
fn an_answer_of_another_kind_or_length_is_an_error_and_no_panic() {
    let answers = [
        Answer::Bits(vec![]),
        Answer::Bits(vec![true; 2]),
        Answer::Words(vec![]),
        Answer::Words(vec![0; 3]),
        Answer::Line("x".into()),
    ];
    for action in [Action::Read(holding(U32)), Action::Read(point(Table::Discrete, Bool))] {
        let command = command(action);
        let prepared = command.prepare(None).unwrap();
        for answer in &answers {
            assert!(command.interpret(&prepared, answer).is_err(), "{answer:?}");
            assert!(!fits(&command, &prepared, answer));
        }
    }
}

#[test]
fn a_point_that_the_protocol_can_not_carry_never_reaches_the_wire() {
    let table = [
        Point { count: Some(126), ..holding(U16) },
        Point { count: Some(0), ..holding(U16) },
        Point { address: 65535, ..holding(U32) },
        point(Table::Coil, U16),
        Point { count: Some(2001), ..point(Table::Coil, Bool) },
    ];
    for point in table {
        let fault = command(Action::Read(point)).prepare(None).unwrap_err();
        assert_eq!(fault.code, Code::BadValue);
    }
    let (_, message) = refusal(&write(&point(Table::Input, U16)), &json!(1));
    assert!(message.contains("read-only"), "{message}");
}
