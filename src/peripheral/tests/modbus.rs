//! What only registers and coils have: decimal digits, what stands for nothing, and the function that writes.

use super::*;

#[test]
fn decimal_digits_lie_in_four_bits_each_in_every_order() {
    let table: [(DataType, Order, Order, &[u16], Json); 6] = [
        (Bcd16, Big, Big, &[0x1234], json!(1234)),
        (Bcd16, Big, Little, &[0x3412], json!(1234)),
        (Bcd32, Big, Big, &[0x1234, 0x5678], json!(12_345_678)),
        (Bcd32, Little, Big, &[0x5678, 0x1234], json!(12_345_678)),
        (Bcd32, Little, Little, &[0x7856, 0x3412], json!(12_345_678)),
        (Bcd32, Big, Big, &[0x9999, 0x9999], json!(99_999_999)),
    ];
    for (kind, word_order, byte_order, registers, value) in table {
        let point = Point { word_order, byte_order, ..holding(kind) };
        assert_eq!(read(&point, registers), value, "{point:?}");
        let prepared = write(&point).prepare(Some(&value)).unwrap();
        assert_eq!((words(&prepared), prepared.written), (registers.to_vec(), Some(value)), "{point:?}");
    }
    let scaled = scaled(Bcd16, 0.1, -40.0);
    assert_eq!(words(&write(&scaled).prepare(Some(&json!(83.4))).unwrap()), [0x1234]);
    assert_eq!(read(&scaled, &[0x1234]), json!(83.4));
    for (kind, value) in [(Bcd16, json!(10_000)), (Bcd16, json!(-1)), (Bcd32, json!(100_000_000)), (Bcd32, json!(-1))] {
        assert_eq!(refusal(&write(&holding(kind)), &value).0, Code::OutOfRange, "{value}");
    }
    let (_, message) = refusal(&write(&scaled), &json!(960));
    assert!(message.contains("from -40.0 to 959.9"), "{message}");
}

#[test]
fn registers_without_decimal_digits_are_named_in_a_bad_reply() {
    let (three, long) = (Point { count: Some(3), ..holding(Bcd16) }, Point { word_order: Little, ..holding(Bcd32) });
    for (point, registers, told) in [
        (holding(Bcd16), vec![0x1A34], "the register at address 10 holds 0x1A34, where"),
        (three, vec![0x1234, 0x5678, 0xFFFF], "the register at address 12 holds 0xFFFF, where"),
        (long, vec![0x5678, 0xA234], "the registers at addresses 10 to 11 hold 0x5678 0xA234, where"),
    ] {
        let answer = Answer::Words(registers);
        let read = command(Action::Read(point.clone()));
        let why = read.interpret(&read.prepare(None).unwrap(), &answer).unwrap_err();
        assert!(why.starts_with(told) && why.contains("check the type"), "{why}");
        // What is no number confirms nothing, and denies nothing.
        let set = verified(&point);
        let value = if point.count.is_some() { json!([1, 2, 3]) } else { json!(1) };
        let why = set.found(&set.prepare(Some(&value)).unwrap(), &answer).unwrap_err();
        assert!(why.starts_with(told), "{why}");
    }
}

#[test]
fn registers_that_say_that_there_is_no_value_are_read_as_null_and_never_written() {
    let table: [(Point, u64, &[u16], Json); 7] = [
        (holding(I16), 0x8000, &[0x8000], json!(null)),
        (holding(I16), 0x8000, &[0x8001], json!(-32767)),
        (scaled(U16, 0.1, 0.0), 0xFFFF, &[0xFFFF], json!(null)),
        (holding(F32), 0x7FC0_0000, &[0x7FC0, 0], json!(null)),
        (Point { word_order: Little, ..holding(U32) }, 0x8000_0000, &[0, 0x8000], json!(null)),
        (Point { count: Some(3), ..holding(Bcd16) }, 0xFFFF, &[0x0012, 0xFFFF, 0x9999], json!([12, null, 9999])),
        (holding(U64), u64::MAX, &[0xFFFF; 4], json!(null)),
    ];
    for (point, bits, registers, value) in table {
        let with = |action| Command { unavailable: Some(bits), ..command(action) };
        let read = with(Action::Read(point.clone()));
        let answer = Answer::Words(registers.to_vec());
        assert_eq!(read.interpret(&read.prepare(None).unwrap(), &answer), Ok(Some(value)), "{point:?}");
    }
    let set = Command { unavailable: Some(0x8000), ..verified(&holding(I16)) };
    let (code, message) = refusal(&set, &json!(-32768));
    assert_eq!(code, Code::OutOfRange);
    assert_eq!(message, "-32768 would stand there as 0x8000, which says that there is no value");
    assert!(set.prepare(Some(&json!(-32767))).is_ok());
    let row = Command { unavailable: Some(7), ..write(&Point { count: Some(2), ..holding(U16) }) };
    assert_eq!(refusal(&row, &json!([6, 7])).0, Code::OutOfRange);
}

#[test]
fn what_says_that_there_is_no_value_neither_confirms_a_write_nor_denies_it() {
    let shown = |kind| Rule { tolerance: 0.5, ..Rule::exact(&Point { address: 30, ..holding(kind) }) };
    for rule in [Rule::exact(&holding(I16)), shown(I16), shown(U16)] {
        let set = Command { read_back: Some(rule), unavailable: Some(0x8000), ..write(&holding(I16)) };
        let prepared = set.prepare(Some(&json!(5))).unwrap();
        let why = set.found(&prepared, &Answer::Words(vec![0x8000])).unwrap_err();
        assert_eq!(why, "where it is to show stands 0x8000, which says that there is no value");
        assert!(fits(&set, &prepared, &Answer::Words(vec![5])));
        assert!(!fits(&set, &prepared, &Answer::Words(vec![6])));
    }
    // As many bits, or they mean something else.
    let set = Command { read_back: Some(shown(U32)), unavailable: Some(0x8000), ..write(&holding(U16)) };
    let prepared = set.prepare(Some(&json!(5))).unwrap();
    assert_eq!(set.found(&prepared, &Answer::Words(vec![0, 0x8000])).unwrap().value, 0x8000);
}

#[test]
fn the_function_that_writes_goes_with_the_request_and_what_is_read_back_is_compared_all_the_same() {
    for (function, multiple) in [(Function::Usual, false), (Function::Multiple, true)] {
        let set = Command { function, ..verified(&holding(U16)) };
        let prepared = set.prepare(Some(&json!(7))).unwrap();
        assert!(matches!(&prepared.request, Request::WriteWords { multiple: found, .. } if *found == multiple));
        assert!(fits(&set, &prepared, &Answer::Words(vec![7])) && !fits(&set, &prepared, &Answer::Words(vec![8])));
        let set = Command { function, ..verified(&point(Table::Coil, Bool)) };
        let prepared = set.prepare(Some(&json!(true))).unwrap();
        assert!(matches!(&prepared.request, Request::WriteBits { multiple: found, .. } if *found == multiple));
        assert!(fits(&set, &prepared, &Answer::Bits(vec![true])) && !fits(&set, &prepared, &Answer::Bits(vec![false])));
    }
    let text = Command { function: Function::Multiple, ..write(&Point { count: Some(1), ..holding(Text) }) };
    let prepared = text.prepare(Some(&json!("AB"))).unwrap();
    assert!(matches!(&prepared.request, Request::WriteWords { multiple: true, .. }));
}

#[test]
fn a_write_with_its_read_back_carries_both_and_its_answer_shows_what_stands_there() {
    let point = Point { word_order: Little, ..holding(U32) };
    let elsewhere = Point { address: 40, scale: 0.5, ..holding(I16) };
    for (rule, count, good, bad) in [
        (Rule::exact(&point), 2, vec![7, 0], vec![0, 7]),
        (Rule { tolerance: 1.0, ..Rule::exact(&elsewhere) }, 1, vec![16], vec![17]),
    ] {
        let read_back = Some(rule.clone());
        let set = Command { function: Function::WithReadBack, read_back, ..write(&point) };
        let prepared = set.prepare(Some(&json!(7))).unwrap();
        let Request::WriteAndReadWords { address, words, read_address, count: asked } = &prepared.request else {
            panic!("{prepared:?}")
        };
        assert_eq!((*address, &words[..]), (10, &[7, 0][..]));
        assert_eq!((*read_address, *asked), (rule.point.address, count));
        for (answer, shown) in [(good, true), (bad, false)] {
            let answer = Answer::Words(answer);
            // Either says that it was written.
            assert_eq!(set.interpret(&prepared, &answer), Ok(Some(json!(7))));
            assert_eq!(set.is_shown_by(&prepared, &answer), shown, "{answer:?}");
        }
        for none in [Answer::Words(vec![7; 3]), Answer::Bits(vec![true])] {
            assert!(set.interpret(&prepared, &none).is_err() && !set.is_shown_by(&prepared, &none), "{none:?}");
        }
    }
    let plain = verified(&point);
    let prepared = plain.prepare(Some(&json!(7))).unwrap();
    assert!(!plain.is_shown_by(&prepared, &Answer::Written), "that says nothing of what stands there");
    let long = Point { count: Some(122), ..holding(U16) };
    let set = Command { function: Function::WithReadBack, ..verified(&long) };
    let (code, message) = refusal(&set, &json!(vec![1; 122]));
    assert_eq!(code, Code::BadValue);
    assert!(message.contains("1 to 121"), "{message}");
}
