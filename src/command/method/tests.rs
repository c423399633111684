use super::*;

#[test]
fn every_status_that_an_answer_can_have_is_in_the_list_of_them() {
    let ends = State::ALL.into_iter().flat_map(|state| {
        let ends =
            Code::ALL.into_iter().map(move |code| Outcome { state, value: None, fault: Some(Fault::new(code, "why")) });
        ends.chain([Outcome { state, value: None, fault: None }])
    });
    let mut seen: Vec<&str> = ends
        .map(|end| Answer::ended(&end, json!({})))
        .map(|answer| {
            assert_eq!(answer.status_word(), answer.status.to_string());
            answer.status_word()
        })
        .collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, STATUSES, "and no other is");
}

fn gist(name: &str, payload: &str) -> Gist {
    Method { name: name.into(), payload: payload.as_bytes().to_vec(), unread: None }.condense()
}

#[test]
fn an_object_of_message_id_and_value_is_the_envelope_and_anything_else_the_value() {
    for (payload, id, value) in [
        ("", None, None),
        ("null", None, None),
        ("{}", None, None),
        (" { } ", None, None),
        ("7.5", None, Some(json!(7.5))),
        ("\"on\"", None, Some(json!("on"))),
        ("[1,2]", None, Some(json!([1, 2]))),
        (r#"{"value":7}"#, None, Some(json!(7))),
        (r#"{"value":null}"#, None, None),
        (r#"{"messageId":"m"}"#, Some("m"), None),
        (r#"{"messageId":"","value":1}"#, None, Some(json!(1))),
        (r#"{"messageId":null,"value":1}"#, None, Some(json!(1))),
        (r#" {"value": [1], "messageId": "a b"} "#, Some("a b"), Some(json!([1]))),
    ] {
        let gist = gist("set", payload);
        assert_eq!((gist.id.as_deref(), &gist.value, &gist.fault), (id, &value, &None), "{payload}");
        assert_eq!(gist.command.as_deref(), Some("set"));
    }
}

#[test]
fn what_no_command_takes_is_refused_with_its_reason_under_its_id_where_that_can_be_read() {
    let long = "x".repeat(PAYLOAD_BYTES_MAX);
    for (payload, id, code, why) in [
        ("{", None, Code::BadValue, "is not JSON"),
        ("\u{1}", None, Code::BadValue, "is not JSON"),
        (r#"{"value":{}}"#, None, Code::BadValue, "an object"),
        (r#"{"value":1,"more":2}"#, None, Code::BadValue, "an object"),
        (r#"{"messageId":7,"value":1}"#, None, Code::BadValue, "is not a text"),
        (r#"{"messageId":"m","value":{"a":1}}"#, Some("m"), Code::BadValue, "an object"),
        (&format!("\"{long}\""), None, Code::TooLarge, "131074 bytes"),
    ] {
        let gist = gist("set", payload);
        let fault = gist.fault.clone().unwrap_or_else(|| panic!("{payload}"));
        assert_eq!((gist.id.as_deref(), fault.code), (id, code), "{payload}");
        assert!(fault.message.contains(why), "{}", fault.message);
    }
    let long = gist("set", &json!({ "messageId": "i".repeat(600), "value": 1 }).to_string());
    assert_eq!(long.id.map(|id| id.len()), Some(MESSAGE_ID_BYTES_MAX));
    assert_eq!(long.fault.map(|fault| fault.code), Some(Code::TooLarge));
    let nameless = gist(&"n".repeat(500), "1");
    assert_eq!(nameless.fault.map(|fault| fault.code), Some(Code::UnknownCommand));
    assert!(nameless.command.is_some_and(|name| name.len() == COMMAND_BYTES_MAX));
}

#[test]
fn the_same_command_and_the_same_value_are_the_same_call_however_they_are_written() {
    let digest = |name: &str, payload: &str| gist(name, payload).digest;
    let one = digest("set", r#"{"messageId":"m","value":42}"#);
    for same in
        [r#"{"value":42.0,"messageId":"m"}"#, "42", " 42 ", r#"{"value":4.2e1}"#, r#"{"messageId":"n","value":42}"#]
    {
        assert_eq!(digest("set", same), one, "{same}");
    }
    for other in ["43", "\"42\"", "[42]", "", "null", "{", "42.5"] {
        assert_ne!(digest("set", other), one, "{other}");
    }
    assert_ne!(digest("se", "42"), one);
    for none in ["null", "{}", r#"{"messageId":"m"}"#] {
        assert_eq!(digest("set", none), digest("set", ""), "{none}");
    }
    assert_ne!(digest("set", "{"), digest("set", "{{"));
    // No message has it.
    let message = crate::command::Message { command: Some("set".into()), body: b"42".to_vec(), ..Default::default() };
    assert_ne!(message.digest(), one);
}

#[test]
fn values_are_the_same_as_json_and_null_is_none() {
    let same = |one: Json, other: Json| is_same_value(Some(&one), Some(&other));
    assert!(same(json!(42), json!(42.0)) && same(json!([1, 2.0]), json!([1.0, 2])) && same(json!("a"), json!("a")));
    assert!(!same(json!(42), json!("42")) && !same(json!(1), json!(true)) && !same(json!(u64::MAX), json!(1.8e19)));
    assert!(
        is_same_value(None, Some(&Json::Null)) && is_same_value(None, None) && !is_same_value(None, Some(&json!(0)))
    );
    // As it is kept of one that can't be executed.
    let long = json!("x".repeat(5000));
    assert!(same(long.clone(), bounded(long.clone())) && same(bounded(long.clone()), long.clone()));
    assert!(!same(long.clone(), bounded(json!("y".repeat(5000)))));
    let many = json!(vec![1.0; 2000]);
    assert!(same(many.clone(), bounded(many.clone())) && same(many, json!(vec![1; 2000])));
    // Two that are whole differ also behind what would be kept of them.
    let mut other = "x".repeat(5000);
    other.replace_range(4990.., "yyyyyyyyyy");
    assert!(same(bounded(long.clone()), bounded(json!(other))) && !same(long, json!(other)));
}

#[test]
fn every_end_has_its_status() {
    let of = |state, code| status(&Outcome::ended(state, Fault::new(code, "because")));
    assert_eq!(status(&Outcome::succeeded(None)), 200);
    for code in [Code::BadValue, Code::OutOfRange, Code::NoMessageId] {
        assert_eq!(of(State::Rejected, code), 400);
    }
    for (code, expected) in
        [(Code::LockedOut, 403), (Code::UnknownCommand, 404), (Code::MessageIdReused, 409), (Code::TooLarge, 413)]
    {
        assert_eq!(of(State::Rejected, code), expected);
    }
    assert_eq!((of(State::Expired, Code::Expired), of(State::Expired, Code::Superseded)), (408, 408));
    assert_eq!((of(State::Failed, Code::BusUnavailable), of(State::Failed, Code::Unreachable)), (503, 503));
    for code in [Code::Timeout, Code::Exception, Code::Refused, Code::BadReply, Code::VerifyMismatch] {
        assert_eq!(of(State::Failed, code), 500);
    }
    for code in [Code::Timeout, Code::Interrupted, Code::UnknownHistory, Code::Unconfirmed] {
        assert_eq!(of(State::InDoubt, code), 500);
    }
}

#[test]
fn an_answer_is_the_result_event_and_never_larger_than_a_hub_takes() {
    let event = json!({ "messageId": "m", "status": "succeeded", "value": 7 });
    let answer = Answer::ended(&Outcome::succeeded(Some(json!(7))), event.clone());
    assert_eq!((answer.status, serde_json::from_str::<Json>(&answer.body).unwrap()), (200, event));
    let large = json!({ "messageId": "m", "status": "succeeded", "value": "v".repeat(PAYLOAD_BYTES_MAX) });
    let cut = Answer::ended(&Outcome::succeeded(None), large);
    assert!(cut.body.len() < 2000 && cut.body.contains("(131074 bytes)"), "{}", cut.body);
    let under_way = Answer::under_way(Some("m"), Some("set"), State::Executing);
    assert_eq!(under_way.status, 202);
    assert_eq!(
        serde_json::from_str::<Json>(&under_way.body).unwrap(),
        json!({ "messageId": "m", "command": "set", "status": "executing" })
    );
    let not_taken = Answer::not_taken(None, Some("set"), "too many wait");
    assert_eq!(not_taken.status, 503);
    assert!(not_taken.body.contains("\"status\":null") && not_taken.body.contains("not-taken"), "{}", not_taken.body);
}
