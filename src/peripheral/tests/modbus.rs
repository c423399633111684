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
