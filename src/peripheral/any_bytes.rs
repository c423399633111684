//! What must hold for any registers, any reply and any value.

use serde_json::{json, Value as Json};

use super::placeholder::Place;
use super::registers::{DataType, Encoding, Order, Pad, Point, ScaleRegister, Table};
use super::text::VALUE_BYTES_MAX;
use super::{Action, Command, Function, Meaning, Names, Pattern, Prepared, Rule, Template};
use crate::command::outcome::Code;
use crate::peripheral::exchange::{Answer, Request};
use crate::proof::bytes::Source;

/// Any registers have a meaning, and where that is exact it is written back as the same registers; any value becomes a
/// request within the protocol's limits and the command's range, or a fault; no value brings a control character onto
/// a line.
pub fn registers(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let point = point(&mut source);
    if point.check(false).is_ok() {
        what_is_read_can_be_written(&point, &mut source);
    }
    any_value_is_a_request_or_a_fault(&point, &mut source);
    no_value_leaves_its_place_in_a_line(&mut source);
    what_stands_in_a_place_of_numbers_is_read_there(&mut source);
}

fn point(source: &mut Source) -> Point {
    use DataType::{Bcd16, Bcd32, Bool, String, F32, F64, I16, I32, I64, U16, U32, U64};
    let numbers = [1.0, 0.1, 10.0, -1.0, 0.01, 0.5, 3.0];
    let any = |source: &mut Source| Some(f64::from_bits(source.u64())).filter(|number| number.is_finite());
    let order = |source: &mut Source| *source.pick(&[Order::Big, Order::Little]);
    Point {
        table: *source.pick(&[Table::Holding, Table::Input, Table::Coil, Table::Discrete]),
        address: if source.flag() { source.u16() } else { 7 },
        kind: *source.pick(&[U16, I16, U32, I32, U64, I64, F32, F64, Bool, String, Bcd16, Bcd32]),
        count: source.flag().then(|| source.within(0..=130) as u16),
        word_order: order(source),
        byte_order: order(source),
        scale: match source.u8() % 8 {
            7 => any(source).filter(|scale| *scale != 0.0).unwrap_or(1.0),
            _ => *source.pick(&numbers),
        },
        offset: match source.u8() % 4 {
            0 | 1 => 0.0,
            2 => *source.pick(&[-40.0, 0.5, 100.0, 1e6]),
            _ => any(source).unwrap_or_default(),
        },
        bit: source.u8().is_multiple_of(4).then(|| source.u8() % 17),
        scale_register: source
            .u8()
            .is_multiple_of(4)
            .then(|| ScaleRegister { table: *source.pick(&[Table::Holding, Table::Input]), address: source.u16() }),
        pad: *source.pick(&[Pad::Nul, Pad::Space]),
        encoding: *source.pick(&[Encoding::Utf8, Encoding::Latin1]),
    }
}

/// The request proper, behind what is read first, if the answer to that leads to it.
fn followed(command: &Command, prepared: Prepared, source: &mut Source) -> Option<Prepared> {
    if !prepared.is_first() {
        return Some(prepared);
    }
    let is_one_register = matches!(prepared.request, Request::ReadWords { count: 1, .. });
    assert!(is_one_register, "{:?} is no read of one register", prepared.request);
    let word = if source.flag() { source.u16() } else { (i16::from(source.u8() % 25) - 12).cast_unsigned() };
    match command.follow(&prepared, &Answer::Words(vec![word])) {
        Ok(next) => {
            assert!(!next.is_first());
            Some(next)
        }
        Err(fault) => {
            assert!(matches!(fault.code, Code::BadReply | Code::OutOfRange), "{}", fault.message);
            assert!(!fault.message.is_empty() && fault.message.len() < 1000, "{}", fault.message);
            None
        }
    }
}

fn command(action: Action, range: Option<(f64, f64)>) -> Command {
    let read_back = match &action {
        Action::Write(point) => Some(Rule::exact(point)),
        _ => None,
    };
    Command { idempotent: true, read_back, range, ..Command::new("any", action) }
}

/// An answer of the point's length.
fn answer(point: &Point, source: &mut Source) -> Answer {
    let span = point.span();
    match point.is_bits() {
        true => Answer::Bits((0..span).map(|_| source.flag()).collect()),
        false => Answer::Words((0..span).map(|_| source.u16()).collect()),
    }
}

fn what_is_read_can_be_written(point: &Point, source: &mut Source) {
    let read = command(Action::Read(point.clone()), None);
    let prepared = read.prepare(None).expect("a point that was checked can be read");
    let Some(prepared) = followed(&read, prepared, source) else { return };
    within_the_protocol(&prepared.request, point);
    let found = answer(point, source);
    let value = match read.interpret(&prepared, &found) {
        Ok(value) => value.expect("a read has a value"),
        Err(why) => {
            assert!(point.kind.is_bcd() && why.contains("a digit from 0 to 9"), "{point:?}: {why}");
            return;
        }
    };
    // One more or one less is no answer to this request.
    let longer = match &found {
        Answer::Bits(bits) => Answer::Bits([&bits[..], &[true]].concat()),
        Answer::Words(words) => Answer::Words([&words[..], &[1]].concat()),
        other => other.clone(),
    };
    assert!(read.interpret(&prepared, &longer).is_err());

    let write = command(Action::Write(point.clone()), None);
    a_spelled_value_is_the_value(&write, &value);
    if point.scale_register.is_some() {
        // By another scale it is another value.
        return;
    }
    let prepared = write.prepare(Some(&value)).ok().and_then(|prepared| followed(&write, prepared, source));
    let Some(written) = prepared else {
        assert!(point.check(true).is_err() || !is_exact(point, &found), "{value} can't be written to {point:?}");
        return;
    };
    if is_exact(point, &found) {
        assert!(
            write.found(&written, &found).is_ok_and(|found| found.fits),
            "{found:?} is {value}, written as {:?}",
            written.request
        );
        assert_eq!(written.written, Some(value));
    }
}

/// Where numbers are taken from text, a text writes what the number writes that it spells.
fn a_spelled_value_is_the_value(write: &Command, value: &Json) {
    let lenient = Command { numbers_as_text: true, ..write.clone() };
    let prepared = |value: &Json| lenient.prepare(Some(value));
    let spelled = match value {
        Json::Bool(_) | Json::Number(_) => decimal(value).into(),
        Json::Array(all) => all.iter().map(|one| one.as_str().map_or_else(|| decimal(one), str::to_owned)).collect(),
        other => other.clone(),
    };
    match (write.prepare(Some(value)), prepared(&spelled)) {
        (Ok(plain), Ok(lenient)) => {
            assert_eq!(format!("{:?}", plain.request), format!("{:?}", lenient.request), "{spelled}");
        }
        (plain, lenient) => assert_eq!(plain.is_ok(), lenient.is_ok(), "{spelled}"),
    }
}

/// A value as it is spelled without an exponent.
fn decimal(value: &Json) -> String {
    let (text, number) = (value.to_string(), value.as_f64().unwrap_or_default().to_string());
    match (text.contains('e') && value.is_number(), number.contains('.')) {
        (false, _) => text,
        (true, true) => number,
        (true, false) => number + ".0",
    }
}

/// Whether nothing is lost between these registers and their value.
fn is_exact(point: &Point, found: &Answer) -> bool {
    let plain = point.scale == 1.0 && point.offset == 0.0;
    let small_step = [0.1, 10.0, -1.0, 0.01, 0.5, 3.0].contains(&point.scale) && point.offset.abs() <= 100.0;
    match (point.kind, found) {
        (DataType::Bool, Answer::Bits(_)) => true,
        (DataType::Bool, Answer::Words(_)) => {
            point.bit.is_some() || point.unpack_all(found).iter().all(|raw| *raw <= 1)
        }
        (DataType::U16 | DataType::I16, _) => plain || (small_step && (point.offset == 0.0 || point.offset == -40.0)),
        (DataType::F32 | DataType::F64, Answer::Words(words)) => {
            let values = command(Action::Read(point.clone()), None).interpret(
                &command(Action::Read(point.clone()), None).alone(point.read()),
                &Answer::Words(words.clone()),
            );
            let text = values.ok().flatten().unwrap_or_default().to_string();
            plain && !text.contains(['N', 'I'])
        }
        (DataType::String, Answer::Words(words)) => {
            let text = point.unpack_text(words);
            point.pack_text(&text).as_ref() == Ok(words) && !text.contains(char::is_control)
        }
        _ => plain,
    }
}

impl Point {
    /// The raw values of registers of 16 bits, in the point's byte order.
    fn unpack_all(&self, found: &Answer) -> Vec<u16> {
        let Answer::Words(words) = found else { return Vec::new() };
        match self.byte_order {
            Order::Big => words.clone(),
            Order::Little => words.iter().map(|word| word.swap_bytes()).collect(),
        }
    }
}

fn within_the_protocol(request: &Request, point: &Point) {
    let (count, most) = match request {
        Request::ReadBits { count, .. } => (usize::from(*count), 2000),
        Request::ReadWords { count, .. } => (usize::from(*count), 125),
        Request::WriteBits { bits, .. } => (bits.len(), 1968),
        Request::WriteWords { words, .. } => (words.len(), 123),
        Request::MaskWord { and, or, .. } => {
            assert!((!and).count_ones() == 1 && or & and == 0, "{and:#X} {or:#X} is not of one bit");
            (1, 1)
        }
        Request::WriteAndReadWords { words, count, .. } => {
            assert!((1..=125).contains(count));
            (words.len(), 121)
        }
        Request::Line { .. } => unreachable!("a point is no line"),
    };
    assert_eq!(count, point.span());
    assert!((1..=most).contains(&count) && usize::from(point.address) + count <= 65_536);
}

/// A value as a message may bring it.
fn value(source: &mut Source) -> Json {
    match source.u8() % 8 {
        0 => json!(source.u64()),
        1 => json!(source.u64() as i64),
        2 => json!(f64::from_bits(source.u64())),
        3 => json!(f64::from(source.u16()) / 10.0 - 1000.0),
        4 => json!(source.flag()),
        5 => json!(source.text(300)),
        6 => (0..source.within(0..=5)).map(|_| json!(source.u16())).collect(),
        _ => serde_json::from_slice(source.piece(60)).unwrap_or(Json::Null),
    }
}

fn any_value_is_a_request_or_a_fault(point: &Point, source: &mut Source) {
    let (low, high) = (f64::from(source.u16()) - 30_000.0, f64::from(source.u16()));
    let range = (source.flag() && low <= high && point.kind != DataType::String).then_some((low, high));
    let function = *source.pick(&[Function::Usual, Function::Multiple, Function::Mask, Function::WithReadBack]);
    let write = Command { function, ..command(Action::Write(point.clone()), range) };
    let value = value(source);
    match write.prepare(Some(&value)) {
        Ok(prepared) => {
            let Some(prepared) = followed(&write, prepared, source) else { return };
            within_the_protocol(&prepared.request, point);
            let written = prepared.written.clone().expect("a write has a value");
            let echo = match &prepared.request {
                Request::WriteBits { bits, .. } => Answer::Bits(bits.clone()),
                Request::WriteWords { words, .. } | Request::WriteAndReadWords { words, .. } => {
                    Answer::Words(words.clone())
                }
                Request::MaskWord { and, or, .. } => Answer::Words(vec![source.u16() & and | or & !and]),
                other => unreachable!("{other:?} writes nothing"),
            };
            let exponent = prepared.exponent;
            let read_back = write.found_by(&prepared, exponent, &echo).expect("what was written can be read");
            assert!(read_back.fits);
            if point.kind != DataType::String {
                assert_eq!(read_back.value, written);
            }
            for number in written.as_array().unwrap_or(&vec![written.clone()]).iter().filter_map(Json::as_f64) {
                assert!(range.is_none_or(|(low, high)| low <= number && number <= high), "{number} of {range:?}");
            }
        }
        Err(fault) => {
            assert!(matches!(fault.code, Code::BadValue | Code::OutOfRange));
            assert!(!fault.message.is_empty() && fault.message.len() < 1000, "{}", fault.message);
        }
    }
}

/// A value stays in its place, and is a number, or what a pattern or a table of names allows.
fn no_value_leaves_its_place_in_a_line(source: &mut Source) {
    let value = value(source);
    let pattern = *source.pick(&[None, Some("[A-Z]{1,8}"), Some(".*"), Some("a|ab;?c")]);
    let result = *source.pick(&[Meaning::Plain, Meaning::Text, Meaning::Number, Meaning::Hex]);
    let template = Template {
        send: "SP {value};\r\n".into(),
        pattern: pattern.map(|pattern| Pattern::new(pattern).expect("a pattern")),
        result,
        ..Template::default()
    };
    let names = Names::new(vec![("low".into(), json!(1)), ("high".into(), json!("HI"))]);
    let names = source.flag().then_some(names).filter(|_| pattern.is_none());
    let send = Command { names: names.clone(), ..command(Action::send(template), None) };
    let Ok(prepared) = send.prepare(Some(&value)) else { return };
    let Request::Line { bytes, .. } = &prepared.request else { unreachable!("a send is a line") };
    let line = std::str::from_utf8(bytes).expect("what was text is text");
    let printed = line.strip_prefix("SP ").and_then(|line| line.strip_suffix(";\r\n")).expect("the template's frame");
    assert!(printed.len() <= VALUE_BYTES_MAX && !printed.contains(char::is_control) && !printed.contains(';'));
    let is_number = printed == "true" || printed == "false" || printed.parse::<f64>().is_ok();
    match (pattern, names) {
        (None, None) => assert!(is_number, "{printed}"),
        (Some("[A-Z]{1,8}"), _) => assert!(printed.len() <= 8 && printed.bytes().all(|byte| byte.is_ascii_uppercase())),
        (Some("a|ab;?c"), _) => assert!(["a", "abc"].contains(&printed), "{printed}"),
        (_, Some(_)) => assert!(["1", "HI"].contains(&printed), "{printed}"),
        _ => {}
    }
    if value.is_number() {
        assert!(!printed.contains(['e', 'E']), "{printed} has an exponent");
        assert_eq!(printed.parse::<f64>().ok(), value.as_f64(), "{printed} stands for {value}");
    }
    let text = source.text(200);
    match send.interpret(&prepared, &Answer::Line(text.clone())) {
        Ok(reply) => assert!(reply.is_some()),
        Err(why) => assert!(matches!(result, Meaning::Number | Meaning::Hex) && why.len() < 1000, "{text}: {why}"),
    }
}

/// A number that a place takes is that number there, in as many bytes as the place has.
fn what_stands_in_a_place_of_numbers_is_read_there(source: &mut Source) {
    let forms =
        ["03d", "+5d", "d", "05.1f", "8.3f", "02X", "x", "u8", "i16le", "u32be", "i64le", "u64be", "f32le", "f64be"];
    let form = *source.pick(&forms);
    let place = Place::of(&format!(":{form}")).expect("a place");
    let value = value(source);
    let any = source.piece(12).to_vec();
    // Whatever stands there on the line has a meaning, or has none.
    let _ = place.read(&any);
    let Ok((bytes, held)) = place.write(&value) else { return };
    assert!(value.is_number() && held.is_number(), "{form} {value}");
    assert!(place.width().is_none_or(|width| width == bytes.len()), "{form} {value}: {bytes:02X?}");
    assert!(place.is_of_bytes() || bytes.iter().all(|byte| matches!(byte, b' '..=b'~')), "{form} {value}");
    let read = place.read(&bytes).expect("a number stands there");
    assert_eq!(read.as_f64(), held.as_f64(), "{form} {value}: {bytes:02X?}");
    if form != "f32le" {
        let (meant, held) = (value.as_f64().expect("a number"), held.as_f64().expect("a number"));
        assert!((meant - held).abs() <= 1e-12 * meant.abs(), "{form} {value}: {held}");
    }
}
