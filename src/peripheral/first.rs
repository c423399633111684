//! What is read before the request proper, in the same turn, because the request or its value is made of it: a power of
//! ten that stands in a register, and the other bits of a register of which one is written. Pure.
//!
//! Invariants
//! - Nothing of a write is sent with it: until the request proper leaves, the peripheral is as it was.
//! - What was read serves one request: another attempt, and another look, reads it anew.

use serde_json::Value as Json;

use super::registers::{Point, ScaleRegister, Table};
use super::{Action, Command, Function, Prepared};
use crate::command::outcome::{Code, Fault};
use crate::peripheral::exchange::{Answer, Request};

/// The powers of ten that are believed: what scales more is no scale of an instrument.
const EXPONENTS: std::ops::RangeInclusive<i16> = -10..=10;

/// What stands in a scale register that is not implemented (SunSpec Device Information Model, `sunssf`).
const NOT_IMPLEMENTED: i16 = i16::MIN;

/// What is read first.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum First {
    /// The power of ten of a value, and the value that is to be written by it.
    Scale(Option<Json>),
    /// The register of which one bit is to become this.
    Word(bool),
}

impl ScaleRegister {
    /// The request that reads it.
    pub fn read(&self) -> Request {
        Request::ReadWords { holding: self.table == Table::Holding, address: self.address, count: 1 }
    }

    /// The power of ten in the answer to that.
    ///
    /// # Errors
    /// A sentence: none from -10 to 10 stands there.
    pub fn exponent(&self, answer: &Answer) -> Result<i8, String> {
        let Answer::Words(words) = answer else {
            return Err("the answer is of another kind than was asked for".into());
        };
        let [word] = words[..] else { return Err(format!("the answer holds {} registers instead of 1", words.len())) };
        let (address, exponent) = (self.address, word.cast_signed());
        match exponent {
            NOT_IMPLEMENTED => Err(format!(
                "the scale register at address {address} holds 0x8000, by which the peripheral says that it has no such \
                 value"
            )),
            _ if EXPONENTS.contains(&exponent) => Ok(i8::try_from(exponent).unwrap_or_default()),
            _ => Err(format!(
                "the scale register at address {address} holds {exponent}, and a power of ten from {} to {} \
                 is to stand there: check its address",
                EXPONENTS.start(),
                EXPONENTS.end(),
            )),
        }
    }
}

impl Point {
    /// The same with this power of ten in its scale.
    pub(super) fn by_power(&self, exponent: i8) -> Point {
        let scale = match exponent {
            0 => self.scale,
            // As a decimal number, so that 0.1 and -1 are 0.01: a product would have the noise of both.
            _ => format!("{}e{exponent}", self.scale).parse().unwrap_or(self.scale),
        };
        Point { scale, ..self.clone() }
    }
}

impl Prepared {
    /// Whether its request only reads what the request proper is made of: [`Command::follow`] has that.
    pub fn is_first(&self) -> bool {
        self.first.is_some()
    }
}

impl Command {
    /// Whether it is a write before which something is read.
    pub fn reads_first(&self) -> bool {
        let Action::Write(point) = &self.action else { return false };
        point.scale_register.is_some() || point.bit.is_some() && self.function != Function::Mask
    }

    /// What is asked when the answer to a first read has come.
    ///
    /// # Errors
    /// `bad-reply`: that is no answer that leads on. `out-of-range`: what was to be written does not fit the register
    /// by the scale that stands at the peripheral.
    pub fn follow(&self, prepared: &Prepared, answer: &Answer) -> Result<Prepared, Fault> {
        let no_answer = |why| Fault::new(Code::BadReply, why);
        let (Action::Read(point) | Action::Write(point)) = &self.action else {
            return Err(no_answer(format!("nothing follows from what {} reads first", self.name)));
        };
        match (&prepared.first, point.scale_register, answer) {
            (Some(First::Scale(value)), Some(place), answer) => {
                let exponent = place.exponent(answer).map_err(no_answer)?;
                match value {
                    None => Ok(Prepared { request: point.read(), exponent, first: None, ..prepared.clone() }),
                    Some(value) => self.by_exponent(point, value, exponent),
                }
            }
            (Some(First::Word(on)), _, Answer::Words(words)) if words.len() == 1 => {
                let mask = point.mask().unwrap_or_default();
                let word = words[0] & !mask | if *on { mask } else { 0 };
                let request = self.write_words(point.address, vec![word]);
                Ok(Prepared { request, first: None, ..prepared.clone() })
            }
            _ => Err(no_answer(self.of_another_kind())),
        }
    }

    /// A value ready to be written by the power of ten that stands at the peripheral.
    pub(super) fn by_exponent(&self, point: &Point, value: &Json, exponent: i8) -> Result<Prepared, Fault> {
        let (request, written) = self.encode(&point.by_power(exponent), value).map_err(|fault| Fault {
            message: format!("{}; its scale register says 10^{exponent}", fault.message),
            ..fault
        })?;
        Ok(Prepared { written: Some(self.named(written)), exponent, ..self.alone(request) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::registers::{DataType, Order};
    use super::super::{Names, Rule};
    use super::*;

    const PLACE: ScaleRegister = ScaleRegister { table: Table::Holding, address: 5 };

    fn command(action: Action) -> Command {
        Command { idempotent: true, ..Command::new("set", action) }
    }

    fn of_bit(bit: u8, byte_order: Order) -> Point {
        Point { bit: Some(bit), byte_order, ..Point::new(Table::Holding, 3, DataType::Bool) }
    }

    fn words(word: u16) -> Answer {
        Answer::Words(vec![word])
    }

    #[test]
    fn one_bit_is_written_over_the_others_as_they_were_read() {
        for (bit, order, on, before, after) in [
            (0, Order::Big, true, 0xFF00, 0xFF01),
            (0, Order::Big, false, 0xFFFF, 0xFFFE),
            (15, Order::Big, true, 0x0000, 0x8000),
            (3, Order::Big, true, 0x0008, 0x0008),
            (0, Order::Little, true, 0x0000, 0x0100),
            (9, Order::Little, false, 0xFFFF, 0xFFFD),
        ] {
            let write = command(Action::Write(of_bit(bit, order)));
            let prepared = write.prepare(Some(&json!(on))).unwrap();
            assert!(prepared.is_first());
            assert!(matches!(prepared.request, Request::ReadWords { holding: true, address: 3, count: 1 }));
            assert_eq!(prepared.written, Some(json!(on)));
            let next = write.follow(&prepared, &words(before)).unwrap();
            assert!(!next.is_first());
            let Request::WriteWords { address: 3, words: written, multiple: false } = &next.request else {
                panic!("{next:?}")
            };
            assert_eq!(*written, [after], "bit {bit}");
            let read = command(Action::Read(of_bit(bit, order)));
            let found = read.interpret(&read.prepare(None).unwrap(), &words(after)).unwrap();
            assert_eq!(found, Some(json!(on)), "bit {bit}");
        }
        let write = command(Action::Write(of_bit(0, Order::Big)));
        let prepared = write.prepare(Some(&json!(true))).unwrap();
        for none in [Answer::Written, Answer::Bits(vec![true]), Answer::Words(vec![1, 2]), Answer::Words(vec![])] {
            assert_eq!(write.follow(&prepared, &none).unwrap_err().code, Code::BadReply, "{none:?}");
        }
    }

    #[test]
    fn one_bit_is_written_without_a_read_by_the_function_that_masks() {
        for (bit, order, on, and, or) in [
            (0, Order::Big, true, 0xFFFE, 0x0001),
            (0, Order::Big, false, 0xFFFE, 0x0000),
            (15, Order::Big, true, 0x7FFF, 0x8000),
            (0, Order::Little, true, 0xFEFF, 0x0100),
        ] {
            let write = Command { function: Function::Mask, ..command(Action::Write(of_bit(bit, order))) };
            let prepared = write.prepare(Some(&json!(on))).unwrap();
            assert!(!prepared.is_first());
            let Request::MaskWord { address: 3, and: by_and, or: by_or } = prepared.request else {
                panic!("{prepared:?}")
            };
            assert_eq!((by_and, by_or), (and, or), "bit {bit}");
        }
    }

    #[test]
    fn a_read_back_looks_at_the_bit_only_and_names_are_of_it() {
        let point = of_bit(2, Order::Big);
        let names = Names::new(vec![("off".into(), json!(0)), ("on".into(), json!(1))]);
        let write = Command {
            names: Some(names.clone()),
            read_back: Some(Rule::exact(&point)),
            ..command(Action::Write(point.clone()))
        };
        let first = write.prepare(Some(&json!("on"))).unwrap();
        let prepared = write.follow(&first, &words(0x00F0)).unwrap();
        assert_eq!(prepared.written, Some(json!("on")));
        // After a crash nobody knows what the other bits were.
        for prepared in [first, prepared] {
            for (word, fits) in [(0x00F4, true), (0x0004, true), (0x00F0, false), (0, false)] {
                let found = write.found(&prepared, &words(word)).unwrap();
                assert_eq!(found.fits, fits, "{word:#X}");
                assert_eq!(found.value, json!(if fits { "on" } else { "off" }));
            }
        }
        let read = Command { names: Some(names), ..command(Action::Read(point)) };
        let prepared = read.prepare(None).unwrap();
        assert_eq!(read.interpret(&prepared, &words(0xFFFB)), Ok(Some(json!("off"))));
    }

    fn scaled(kind: DataType, scale: f64) -> Point {
        Point { scale, scale_register: Some(PLACE), ..Point::new(Table::Holding, 3, kind) }
    }

    #[test]
    fn a_power_of_ten_is_read_before_the_value_is_scaled_by_it() {
        let read = command(Action::Read(scaled(DataType::I16, 1.0)));
        let first = read.prepare(None).unwrap();
        assert!(first.is_first());
        assert!(matches!(first.request, Request::ReadWords { holding: true, address: 5, count: 1 }));
        for (exponent, value) in [(-1_i16, json!(230.5)), (0, json!(2305)), (2, json!(230500.0)), (-3, json!(2.305))] {
            let prepared = read.follow(&first, &words(exponent.cast_unsigned())).unwrap();
            assert!(matches!(prepared.request, Request::ReadWords { address: 3, .. }));
            assert_eq!(read.interpret(&prepared, &words(2305)), Ok(Some(value)), "10^{exponent}");
        }
        let by_both = scaled(DataType::U16, 0.1).by_power(-1);
        assert_eq!(by_both.scale.to_string(), "0.01", "a product of the two has noise");
        let write = command(Action::Write(scaled(DataType::I16, 1.0)));
        let first = write.prepare(Some(&json!(230.46))).unwrap();
        let prepared = write.follow(&first, &words(-1_i16 as u16)).unwrap();
        let Request::WriteWords { words: written, .. } = &prepared.request else { panic!("{prepared:?}") };
        assert_eq!((written, &prepared.written), (&vec![2305], &Some(json!(230.5))));
    }

    #[test]
    fn what_is_no_power_of_ten_is_told_with_what_stands_there() {
        for (word, told) in [(0x8000, "0x8000"), (11, "holds 11"), (-11_i16 as u16, "holds -11"), (400, "holds 400")] {
            for (action, value) in [
                (Action::Read(scaled(DataType::I16, 1.0)), None),
                (Action::Write(scaled(DataType::I16, 1.0)), Some(json!(1))),
            ] {
                let command = command(action);
                let first = command.prepare(value.as_ref()).unwrap();
                let fault = command.follow(&first, &words(word)).unwrap_err();
                assert_eq!(fault.code, Code::BadReply);
                assert!(fault.message.contains(told) && fault.message.contains("address 5"), "{}", fault.message);
            }
        }
        for exponent in [-10, 10] {
            assert_eq!(PLACE.exponent(&words((exponent as i16).cast_unsigned())), Ok(exponent));
        }
    }

    #[test]
    fn a_value_is_limited_before_the_scale_is_read_and_after() {
        let write = Command { range: Some((0.0, 5000.0)), ..command(Action::Write(scaled(DataType::I16, 1.0))) };
        for value in [json!(-1), json!(5001)] {
            assert_eq!(write.prepare(Some(&value)).unwrap_err().code, Code::OutOfRange, "{value}");
        }
        assert_eq!(write.prepare(Some(&json!("much"))).unwrap_err().code, Code::BadValue);
        let first = write.prepare(Some(&json!(4000))).unwrap();
        assert!(write.follow(&first, &words(0)).is_ok());
        let fault = write.follow(&first, &words(-1_i16 as u16)).unwrap_err();
        assert_eq!(fault.code, Code::OutOfRange);
        assert!(fault.message.contains("10^-1") && fault.message.contains("3276.7"), "{}", fault.message);
        // A step of the peripheral's may lead out of the range.
        let narrow = Command { range: Some((0.0, 45.0)), ..write };
        let first = narrow.prepare(Some(&json!(45))).unwrap();
        assert_eq!(narrow.follow(&first, &words(2)).map(|_| ()), Ok(()), "0 is within");
        let fault = narrow.follow(&narrow.prepare(Some(&json!(45))).unwrap(), &words(1)).unwrap_err();
        assert_eq!(fault.code, Code::OutOfRange, "{}", fault.message);
    }

    #[test]
    fn a_write_by_a_scale_register_is_read_back_by_what_it_says_then() {
        let point = scaled(DataType::I16, 1.0);
        let write = Command { read_back: Some(Rule::exact(&point)), ..command(Action::Write(point)) };
        let first = write.prepare(Some(&json!(230.46))).unwrap();
        let prepared = write.follow(&first, &words(-1_i16 as u16)).unwrap();
        let fits = |prepared: &Prepared, exponent, word| write.found_by(prepared, exponent, &words(word)).unwrap().fits;
        assert!(fits(&prepared, -1, 2305) && !fits(&prepared, -1, 2304));
        // The peripheral has changed its scale meanwhile.
        assert!(fits(&prepared, -2, 23050) && !fits(&prepared, 0, 2305));
        // After a crash nobody knows by which scale it was written: by the one that stands there now.
        assert!(fits(&first, -1, 2305) && fits(&first, 0, 230) && !fits(&first, 0, 231));
        let prepared = write.follow(&first, &words(0)).unwrap();
        assert_eq!(prepared.written, Some(json!(230)), "who asks does not know in which steps it is written");
    }
}
