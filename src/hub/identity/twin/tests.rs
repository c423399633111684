use super::*;
use crate::command::outcome::{Code, Fault, State};
use crate::command::Outcome;

/// A twin with a device whose command `set-speed` sets `speed`, on a connection that stands.
struct Bench {
    twin: Twin,
    commands: Commands,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        let now = Instant::now();
        let mut twin = Twin::new("pump", now);
        twin.begin(true, false, now);
        Bench { twin, commands: Commands::from([("speed".into(), "set-speed".into())]), now }
    }

    /// On a connection on which all was read, and the gateway was told of.
    fn settled(desired: Json) -> Bench {
        let mut bench = Bench::new();
        bench.stands(Some(true));
        bench.reads(json!({"desired": desired, "reported": {}}));
        bench.tells();
        bench
    }

    fn stands(&mut self, present: Option<bool>) {
        self.twin.note(Facts { configuration: "c0".into(), present });
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// What is asked for, if something is due; the gateway's turn comes at once.
    fn asks(&mut self) -> Option<TwinRequest> {
        if self.twin.wants_turn(self.now, true) {
            self.twin.take_turn(self.now);
        }
        self.twin.next(self.now, true, 0.5)
    }

    fn answered(&mut self, number: u64, status: u16, body: &str) -> Vec<Change> {
        let answer = TwinAnswer { number, status, body: body.into() };
        self.twin.answered(answer, &self.commands, self.now, 0.5)
    }

    /// All is asked for, and is this, with the gateway's mark.
    fn reads(&mut self, mut twin: Json) -> Vec<Change> {
        twin["reported"]["fieldbridge"]["mark"] = "m".into();
        self.reads_as_it_is(twin)
    }

    fn reads_as_it_is(&mut self, twin: Json) -> Vec<Change> {
        let Some(TwinRequest { number, patch: None }) = self.asks() else { panic!("all is asked for") };
        self.answered(number, 200, &twin.to_string())
    }

    /// Something is reported, and the hub takes it. Gives what.
    fn tells(&mut self) -> Json {
        let Some(TwinRequest { number, patch: Some(patch) }) = self.asks() else { panic!("something is reported") };
        assert_eq!(self.answered(number, 204, ""), []);
        serde_json::from_str(&patch).unwrap()
    }

    fn changed(&mut self, patch: Json) -> Vec<Change> {
        self.twin.changed(patch.to_string().as_bytes(), &self.commands, self.now)
    }

    /// The connection is lost, and the next one stands.
    fn reconnects(&mut self) {
        self.twin.ended();
        self.twin.begin(true, false, self.now);
    }

    fn fails(&mut self, version: u64, value: u64) {
        let wanted = Wanted { name: "speed".into(), version };
        let outcome = Outcome::ended(State::Failed, Fault::new(Code::Timeout, "no answer"));
        let told = Some(Acknowledgement::ended(&outcome, value.into(), version));
        self.twin.note_ends(vec![End { wanted, told }], true, self.now);
    }

    fn ends(&mut self, version: u64, told: Option<&Json>) {
        let wanted = Wanted { name: "speed".into(), version };
        let told = told.map(|value| Acknowledgement::ended(&Outcome::succeeded(None), value.clone(), version));
        self.twin.note_ends(vec![End { wanted, told }], true, self.now);
    }
}

fn set(version: u64, value: impl Into<Json>) -> Vec<Change> {
    vec![Change::Set(Wanted { name: "speed".into(), version }, value.into())]
}

fn acknowledged(value: u64, version: u64) -> Json {
    json!({"value": value, "ac": 200, "av": version, "ad": "done"})
}

#[test]
fn all_is_read_once_set_points_are_taken_and_their_ends_told() {
    let mut bench = Bench::new();
    bench.stands(None);
    let changes = bench.reads(json!({"desired": {"speed": 4, "other": 1, "$version": 7}, "reported": {}}));
    assert_eq!(changes, set(7, 4));
    let version = env!("CARGO_PKG_VERSION");
    let gateway = json!({"version": version, "configuration": "c0", "present": null});
    assert_eq!(bench.tells(), json!({"fieldbridge": gateway}));
    assert_eq!(bench.asks(), None);
    bench.ends(7, Some(&json!(4)));
    assert_eq!(bench.tells(), json!({"speed": acknowledged(4, 7)}));
    assert!(bench.asks().is_none() && bench.twin.is_idle(bench.now));
    // The next connection reads what is known.
    bench.twin.ended();
    assert_eq!(bench.twin.due(true), None);
    bench.twin.begin(true, false, bench.now);
    let reported = json!({"speed": acknowledged(4, 7), "fieldbridge": {"version": version, "configuration": "c0"}});
    assert_eq!(bench.reads(json!({"desired": {"speed": 4, "$version": 9}, "reported": reported})), []);
    assert_eq!(bench.asks(), None);
}

#[test]
fn what_has_not_ended_soon_is_told_to_be_under_way() {
    let mut bench = Bench::settled(json!({"$version": 1}));
    assert_eq!(bench.changed(json!({"speed": 4, "$version": 2})), set(2, 4));
    bench.later(4);
    assert_eq!(bench.asks(), None);
    bench.later(1);
    let told = bench.tells();
    assert_eq!(
        (&told["speed"]["ac"], &told["speed"]["av"], &told["speed"]["value"]),
        (&json!(202), &json!(2), &json!(4))
    );
    bench.ends(2, Some(&json!(4)));
    assert_eq!(bench.tells(), json!({"speed": acknowledged(4, 2)}));
}

#[test]
fn changes_are_taken_in_order_and_where_one_is_missing_all_is_read_again() {
    let mut bench = Bench::settled(json!({"$version": 3}));
    assert_eq!(bench.changed(json!({"speed": 1, "$version": 3})), [], "it is known");
    assert_eq!(bench.changed(json!({"speed": 1, "$version": 4})), set(4, 1));
    // The same value under a new version is asked for once more.
    assert_eq!(bench.changed(json!({"speed": 1, "$version": 5})), set(5, 1));
    assert_eq!(bench.changed(json!({"other": 1, "$version": 6})), []);
    assert_eq!(bench.changed(json!({"speed": 9, "$version": 8})), []);
    assert_eq!(bench.changed(json!({"speed": 10, "$version": 9})), [], "all is about to be read");
    // An old answer does not do.
    assert_eq!(bench.reads(json!({"desired": {"speed": 9, "$version": 8}})), set(8, 9));
    bench.later(16);
    assert_eq!(bench.reads(json!({"desired": {"speed": 10, "$version": 9}})), set(9, 10));
    assert_eq!(bench.changed(json!({"speed": null, "$version": 10})), [Change::Withdrawn("speed".into())]);
    assert_eq!(bench.tells().get("speed"), Some(&Json::Null));
    assert_eq!(bench.changed(json!({"speed": null, "$version": 11})), []);
}

#[test]
fn what_is_desired_no_more_is_withdrawn_and_its_acknowledgement_removed() {
    let mut bench = Bench::new();
    bench.stands(None);
    // An earlier life of the daemon has told of it.
    let twin = json!({"desired": {"$version": 9}, "reported": {"speed": acknowledged(4, 7)}});
    assert_eq!(bench.reads(twin), [Change::Withdrawn("speed".into())]);
    assert_eq!(bench.tells().get("speed"), Some(&Json::Null));
    assert_eq!(bench.asks(), None);
}

#[test]
fn what_was_given_back_is_read_again_after_a_while() {
    let mut bench = Bench::settled(json!({"speed": 4, "$version": 2}));
    bench.ends(2, None);
    bench.later(14);
    assert_eq!(bench.asks(), None);
    bench.later(1);
    assert_eq!(bench.reads(json!({"desired": {"speed": 4, "$version": 2}})), set(2, 4));
}

#[test]
fn what_is_refused_for_now_or_not_answered_is_tried_again_later_and_later_and_what_is_refused_for_good_is_not() {
    let mut bench = Bench::new();
    bench.stands(None);
    let mut pauses = Vec::new();
    for status in [429, 500, 503, 429, 429, 429, 429, 429, 429] {
        let request = bench.asks().expect("it is tried");
        assert_eq!((bench.answered(request.number, status, ""), request.patch), (vec![], None));
        let due = bench.twin.due(true).expect("it is tried again");
        pauses.push(due.duration_since(bench.now).as_secs());
        bench.now = due;
    }
    assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 900, 900, 900]);
    // No answer at all.
    let unanswered = bench.asks().unwrap();
    bench.later(59);
    assert_eq!(bench.asks(), None);
    bench.later(1);
    assert_eq!(bench.asks(), None);
    assert_eq!(bench.answered(unanswered.number, 200, "{}"), [], "it is not waited for any more");
    bench.later(900);
    assert_eq!(bench.reads(json!({"desired": {"$version": 1}})), []);
    let Some(TwinRequest { number, patch: Some(_) }) = bench.asks() else { panic!("a report") };
    bench.answered(number, 400, "");
    bench.later(3600);
    assert_eq!(bench.asks(), None, "the same would be refused again");
    bench.stands(Some(true));
    assert_eq!(bench.tells()["fieldbridge"]["present"], true);
}

#[test]
fn what_can_t_be_read_is_left_until_it_changes() {
    let mut bench = Bench::new();
    bench.stands(None);
    let number = bench.asks().unwrap().number;
    assert_eq!(bench.answered(number, 200, "{\"desired\":"), []);
    bench.tells();
    bench.later(3600);
    assert_eq!(bench.asks(), None);
    assert_eq!(bench.twin.changed(b"\xff", &bench.commands, bench.now), []);
    assert_eq!(bench.asks(), None, "whoever sends nonsense again and again is not asked each time");
    bench.later(15);
    assert_eq!(bench.reads(json!({"desired": {"speed": 4, "$version": 2}})), set(2, 4));
}

#[test]
fn whoever_flaps_is_told_of_now_and_then_and_only_the_newest() {
    let mut bench = Bench::settled(json!({"$version": 1}));
    let mut reports = 0;
    for second in 0..600 {
        bench.stands(Some(second % 2 == 0));
        if let Some(TwinRequest { number, .. }) = bench.asks() {
            bench.answered(number, 204, "");
            reports += 1;
        }
        bench.later(1);
    }
    assert!((59..=64).contains(&reports), "{reports}");
}

#[test]
fn many_set_points_are_told_of_in_several_reports() {
    let mut bench = Bench::settled(json!({"$version": 1}));
    let names = || (0..40).map(|at| format!("p{at}"));
    bench.commands = names().map(|name| (name, "set".into())).collect();
    let mut all: Map<String, Json> = names().map(|name| (name, 1.into())).collect();
    all.insert("$version".into(), 2.into());
    assert_eq!(bench.changed(all.into()).len(), 40);
    for name in names() {
        let wanted = Wanted { name, version: 2 };
        let told = Some(Acknowledgement::ended(&Outcome::succeeded(None), json!(1), 2));
        bench.twin.note_ends(vec![End { wanted, told }], true, bench.now);
    }
    let counts: Vec<usize> = (0..3)
        .map(|_| {
            bench.later(10);
            bench.tells().as_object().unwrap().len()
        })
        .collect();
    assert_eq!(counts, [16, 16, 8]);
    assert!(bench.twin.is_idle(bench.now));
}

#[test]
fn a_connection_for_a_new_token_tells_nothing_that_the_hub_has() {
    let mut bench = Bench::settled(json!({"$version": 1}));
    bench.twin.ended();
    bench.twin.begin(false, true, bench.now);
    assert_eq!(bench.asks(), None);
    bench.twin.ended();
    bench.twin.begin(false, false, bench.now);
    assert!(bench.tells()["fieldbridge"].is_object());
}

#[test]
fn commands_events_go_before_reports_and_a_connection_to_publish_only_reads_nothing() {
    let mut bench = Bench::new();
    bench.twin.hold(Facts { configuration: "c0".into(), present: Some(false) });
    assert!(bench.twin.due(false).is_none() && !bench.twin.is_idle(bench.now));
    assert_eq!(bench.tells()["fieldbridge"]["present"], false);
    assert!(bench.twin.is_idle(bench.now));
}

#[test]
fn nothing_is_taken_from_a_twin_before_it_is_marked_and_one_with_another_mark_is_heeded_anew() {
    let desired = json!({"speed": 4, "$version": 2});
    let mut bench = Bench::new();
    bench.stands(Some(true));
    assert_eq!(bench.reads_as_it_is(json!({ "desired": desired })), []);
    let first = bench.tells();
    let mark = first["fieldbridge"]["mark"].clone();
    assert!(mark.is_string(), "{first}");
    let reported = json!({ "fieldbridge": first["fieldbridge"] });
    assert_eq!(bench.reads_as_it_is(json!({"desired": desired, "reported": reported})), set(2, 4));
    assert_eq!(bench.twin.mark(), mark);
    assert_eq!(bench.asks(), None, "it is told once");
    // The device is registered anew, before the hub was told of the end.
    bench.ends(2, Some(&json!(4)));
    bench.reconnects();
    assert_eq!(bench.reads_as_it_is(json!({"desired": desired, "reported": {}})), []);
    let second = bench.tells();
    assert_eq!(second.as_object().map(Map::len), Some(1), "what became of the earlier one's is told of that: {second}");
    assert_eq!(bench.reads(json!({ "desired": desired })), set(2, 4), "whoever has marked it");
    assert_eq!(bench.twin.mark(), "m");
}

#[test]
fn a_new_twin_that_takes_no_mark_is_heeded_without_one_and_that_of_an_earlier_one_is_not_told() {
    let mut bench = Bench::settled(json!({"$version": 1}));
    bench.twin.ended();
    bench.twin.begin(false, false, bench.now);
    assert_eq!(bench.tells()["fieldbridge"].get("mark"), None, "it may be another twin by now");
    bench.reconnects();
    let twin = json!({"desired": {"speed": 4, "$version": 2}});
    assert_eq!(bench.reads_as_it_is(twin.clone()), []);
    let Some(TwinRequest { number, patch: Some(patch) }) = bench.asks() else { panic!("a report") };
    assert!(patch.contains("mark"), "{patch}");
    bench.answered(number, 413, "");
    assert_eq!((bench.reads_as_it_is(twin), bench.twin.mark()), (set(2, 4), ""));
}

#[test]
fn what_an_earlier_life_has_told_the_end_of_is_not_asked_for_again_whatever_the_ledger_has_forgotten() {
    let of = |told: Json| {
        let mut bench = Bench::new();
        bench.stands(None);
        bench.reads(json!({"desired": {"speed": 4, "$version": 7}, "reported": {"speed": told}}))
    };
    assert_eq!(of(acknowledged(4, 7)), []);
    assert_eq!(of(json!({"value": 4, "ac": 500, "av": 7, "ad": "no answer"})), []);
    assert_eq!(of(json!({"value": 4, "ac": 202, "av": 7, "ad": "it waits"})), set(7, 4));
    assert_eq!(of(acknowledged(4, 6)), set(7, 4));
    assert_eq!(of(acknowledged(5, 7)), set(7, 4));
}

#[test]
fn what_was_not_done_is_done_once_more_if_something_was_written_meanwhile_and_what_was_done_is_not() {
    let desired = |version: u64| json!({"speed": 1, "$version": version});
    let failed = json!({"value": 1, "ac": 500, "av": 2, "ad": "no answer"});
    let mut bench = Bench::settled(desired(2));
    bench.fails(2, 1);
    assert_eq!(bench.tells(), json!({ "speed": failed }));
    bench.reconnects();
    assert_eq!(bench.reads(json!({"desired": desired(2), "reported": {"speed": failed}})), [], "nothing was written");
    bench.reconnects();
    assert_eq!(bench.reads(json!({"desired": desired(3), "reported": {"speed": failed}})), set(3, 1));
    // It is being done when the next is written.
    bench.reconnects();
    assert_eq!(bench.reads(json!({"desired": desired(3), "reported": {"speed": failed}})), []);
    bench.reconnects();
    assert_eq!(bench.reads(json!({"desired": desired(4), "reported": {"speed": failed}})), set(4, 1));
    bench.fails(3, 1);
    bench.ends(4, Some(&json!(1)));
    assert_eq!(bench.tells()["speed"], acknowledged(1, 4), "of the older nobody wants to know");
    bench.reconnects();
    let done = json!({"speed": acknowledged(1, 4)});
    assert_eq!(bench.reads(json!({"desired": desired(5), "reported": done})), []);
}

#[test]
fn the_end_of_what_was_taken_anew_or_is_desired_no_more_is_passed_over() {
    let mut bench = Bench::settled(json!({"speed": 1, "$version": 2}));
    assert_eq!(bench.changed(json!({"speed": 2, "$version": 3})), set(3, 2));
    bench.ends(2, Some(&json!(1)));
    bench.ends(2, None);
    assert_eq!(bench.asks(), None);
    bench.ends(3, Some(&json!(2)));
    assert_eq!(bench.tells(), json!({"speed": acknowledged(2, 3)}));
    bench.changed(json!({"speed": null, "$version": 4}));
    bench.ends(3, Some(&json!(2)));
    assert_eq!(bench.tells(), json!({"speed": null}));
}

#[test]
fn whoever_is_held_back_comes_again_later_and_later_for_what_the_hub_did_not_take() {
    let mut bench = Bench::settled(json!({"$version": 1}));
    assert_eq!(bench.twin.untold_at(), None);
    let mut pauses = Vec::new();
    for _ in 0..4 {
        bench.twin.ended();
        bench.twin.begin(false, false, bench.now);
        bench.twin.hold(Facts { configuration: "c0".into(), present: Some(false) });
        assert!(!bench.twin.is_idle(bench.now), "it is not told yet");
        let Some(TwinRequest { number, patch: Some(_) }) = bench.asks() else { panic!("a report") };
        assert!(!bench.twin.is_idle(bench.now));
        bench.answered(number, 429, "");
        assert!(bench.twin.is_idle(bench.now), "the connection ends");
        let at = bench.twin.untold_at().expect("there is to be another");
        pauses.push((at - bench.now).as_secs());
        bench.now = at;
    }
    assert_eq!(pauses, [15, 30, 60, 120]);
    bench.twin.ended();
    bench.twin.begin(false, false, bench.now);
    assert_eq!(bench.tells()["fieldbridge"]["present"], false);
    assert_eq!(bench.twin.untold_at(), None);
    bench.stands(Some(true));
    assert!(bench.twin.untold_at().is_some());
    bench.twin.is_not_there();
    assert_eq!(bench.twin.untold_at(), None, "nobody comes for a twin that is not there");
}

#[test]
fn a_turn_that_has_not_come_counts_on_the_next_connection_too() {
    let mut bench = Bench::new();
    assert!(bench.twin.wants_turn(bench.now, true));
    bench.twin.take_turn(bench.now + Duration::from_secs(9));
    for _ in 0..3 {
        bench.reconnects();
        bench.later(2);
        assert!(!bench.twin.wants_turn(bench.now, true), "it has one");
    }
    bench.later(3);
    assert!(bench.asks().is_some());
    bench.reconnects();
    bench.twin.take_turn(bench.now + Duration::from_secs(9));
    bench.later(9);
    bench.reconnects();
    assert!(bench.twin.wants_turn(bench.now, true), "its time has gone by");
}

#[test]
fn of_what_is_refused_together_each_is_told_by_itself_and_what_is_not_taken_is_left_out() {
    let mut bench = Bench::settled(json!({"speed": 1, "$version": 2}));
    bench.stands(Some(false));
    bench.ends(2, Some(&json!(1)));
    let together = bench.asks().unwrap();
    assert!(together.patch.is_some_and(|patch| patch.contains("speed") && patch.contains("fieldbridge")));
    bench.answered(together.number, 400, "");
    let alone = bench.asks().unwrap();
    assert!(alone.patch.is_some_and(|patch| !patch.contains("speed")));
    bench.answered(alone.number, 400, "");
    let complaint = bench.twin.complained.clone();
    assert!(complaint.is_some(), "it was logged, and is not each time");
    bench.later(10);
    assert_eq!(bench.tells(), json!({"speed": acknowledged(1, 2)}));
    bench.later(3600);
    assert!(bench.asks().is_none() && bench.twin.is_idle(bench.now));
}
