//! Direct methods, against the simulator of the hub: a call is a command as a message is, in the same lane and the same
//! ledger, and only how it is told of differs. Proves G2, G3, G5, G7 and G14 for calls: also for those that are made
//! again because nobody heard the answer, after a crash, and by a message in place of a call.

use std::thread::JoinHandle;
use std::time::Duration;

use fieldbridge::demo::hub::{C2d, CallError, Cut, Fault, MethodAnswer, MethodCall, Wire, WireEvent};
use serde_json::{json, Value as Json};

use crate::support::hub::Hub;
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, pump, Daemon, Site};

/// Longer than any test holds an answer back.
const LONG: &str = "response_timeout = \"20s\"";
/// A caller's patience that is to run out.
const BRIEF: Duration = Duration::from_secs(3);

/// A site with one pump.
struct Plant {
    hub: Hub,
    slave: Slave,
    site: Site,
}

type Answered = Result<MethodAnswer, CallError>;

/// The lines of `[hub]` by which a device is reached so.
fn way(hub: &Hub, by: &str) -> String {
    let address = match by {
        "mqtt" => hub.addr(),
        "amqp" => hub.amqp_addr(),
        _ => hub.ws_addr(),
    };
    format!("transport = \"{by}\"\naddress = \"{address}\"\n")
}

impl Plant {
    fn new(by: &str, settle: &str) -> Plant {
        let (hub, slave) = (Hub::plain(&["pump"]), Slave::new());
        let head = format!("host = \"{}\"\ntls = false\n{}", hub.host(), way(&hub, by));
        let site = Site::with_hub(&head, &pump(slave.address(), settle, LONG));
        if by != "mqtt" {
            // Only MQTT's sessions show by themselves that nothing was before.
            assert!(site.command(&["ledger", "new", "--trust"]).status.success());
        }
        Plant { hub, slave, site }
    }

    /// Who calls is promised the end after a second.
    fn impatient(by: &str, settle: &str) -> Plant {
        let plant = Plant::new(by, settle);
        plant.site.configure("unit = 1\n", "unit = 1\nmethod_timeout = \"1s\"\n");
        plant
    }

    fn start(&self) -> Daemon {
        let daemon = self.site.start();
        self.listens();
        daemon
    }

    fn listens(&self) {
        eventually("the device listens for calls", || self.hub.hears_methods("pump").then_some(()));
    }

    /// A daemon that ends at a point.
    #[cfg(feature = "proof")]
    fn start_to_crash(&self, at: &str) -> Daemon {
        let daemon = self.site.spawn(&[], &[("FIELDBRIDGE_CRASH_AT", at)]);
        daemon.wait_until_ready();
        self.listens();
        daemon
    }

    fn call(&self, method: &str, payload: Json) -> Answered {
        self.hub.calls("pump", MethodCall::new(method, payload))
    }

    /// Calls, and gives the status with what came with it.
    fn ask(&self, method: &str, payload: Json) -> (i32, Json) {
        let MethodAnswer { status, payload } = self.call(method, payload).expect("the device answers");
        (status, payload)
    }

    /// Calls beside the test.
    fn begin(&self, method: &str, payload: Json) -> JoinHandle<Answered> {
        self.hub.begins_to_call("pump", MethodCall::new(method, payload))
    }

    fn send(&self, id: &str, command: &str, value: u16) {
        self.hub.send("pump", C2d::new(id, value.to_string()).property("command", command)).unwrap();
    }

    /// The bodies of the result events so far.
    fn events(&self) -> Vec<Json> {
        self.hub.telemetry().iter().map(|event| serde_json::from_slice(&event.body).unwrap()).collect()
    }

    fn wait_for_event(&self, id: &str) -> Json {
        eventually(&format!("the event of {id}"), || self.events().into_iter().find(|event| event["messageId"] == id))
    }
}

/// Each of these tests for each transport that has calls.
macro_rules! by_each_transport {
    ($($(#[$when:meta])? $test:ident: $play:path,)+) => {
        mod by_mqtt {
            $($(#[$when])? #[test] fn $test() { $play("mqtt"); })+
        }
        mod by_amqp {
            $($(#[$when])? #[test] fn $test() { $play("amqp"); })+
        }
        mod by_amqp_in_a_websocket {
            $($(#[$when])? #[test] fn $test() { $play("amqp-ws"); })+
        }
    };
}

by_each_transport! {
    a_call_becomes_one_write_one_row_one_event_and_its_answer_and_again_the_same_answer:
        super::becomes_one_write,
    messages_and_calls_share_their_ids: super::share_their_ids,
    who_can_t_be_kept_waiting_is_promised_the_end_which_comes_as_the_event: super::is_promised_the_end,
    calls_and_messages_are_done_in_the_order_in_which_they_came: super::are_done_in_order,
    a_caller_who_is_gone_ends_nothing_that_has_begun_and_learns_the_end_by_calling_again: super::goes_away,
    an_answer_that_is_lost_at_the_hub_is_given_again_and_the_command_not_repeated: super::is_lost_at_the_hub,
    a_promise_outlives_a_stop_in_order: super::outlives_a_stop,
    #[cfg(feature = "proof")]
    whenever_the_daemon_dies_a_call_that_is_made_again_is_not_done_twice: super::crashes::is_not_done_twice,
    #[cfg(feature = "proof")]
    what_may_be_repeated_and_was_not_recorded_is_done_when_it_is_called_again: super::crashes::is_done_again,
    #[cfg(feature = "proof")]
    a_promise_outlives_a_crash: super::crashes::outlives_a_crash,
}

fn asked(id: &str, value: impl Into<Json>) -> Json {
    json!({ "messageId": id, "value": value.into() })
}

fn becomes_one_write(by: &str) {
    for settle in ["after-execution", "after-accept"] {
        let plant = Plant::new(by, settle);
        let daemon = plant.start();
        let (status, body) = plant.ask("pulse", asked("c-1", 7));
        assert_eq!((status, &body["status"], &body["value"]), (200, &"succeeded".into(), &7.into()));
        assert_eq!(plant.wait_for_event("c-1"), body, "the body is the event");
        assert_eq!(plant.ask("pulse", asked("c-1", 7.0)), (200, body.clone()));
        // A life later the ledger knows it still.
        daemon.kill();
        let _daemon = plant.start();
        assert_eq!(plant.ask("pulse", json!({ "value": 7, "messageId": "c-1" })), (200, body.clone()));
        assert_eq!(plant.slave.writes(), [(2, 7)]);
        let rows = plant.site.rows();
        assert_eq!(rows.len(), 1);
        assert_eq!((&rows[0]["source"], &rows[0]["requested"]), (&"method".into(), &7.into()));
        // The daemon died, and may not have known yet that the hub has it.
        assert!(plant.events().iter().all(|event| *event == body));
        // That it came again is noted with the next commit; the daemon died with the first of these notes.
        assert_eq!(plant.ask("set", asked("c-2", 1)).0, 200);
        let deliveries = || plant.site.rows()[0]["deliveries"].as_u64();
        eventually("it is noted", || deliveries().filter(|count| (2..4).contains(count)));
    }
}

#[test]
fn a_call_without_an_id_is_a_command_each_time_and_may_not_ask_for_what_must_not_be_repeated() {
    let plant = Plant::new("mqtt", "after-execution");
    let _daemon = plant.start();
    for value in [3, 3] {
        let (status, body) = plant.ask("set", value.into());
        assert_eq!((status, &body["messageId"], &body["value"]), (200, &Json::Null, &value.into()));
    }
    let (status, body) = plant.ask("read", Json::Null);
    assert_eq!((status, &body["value"]), (200, &3.into()));
    let (status, body) = plant.ask("pulse", 3.into());
    assert_eq!((status, &body["error"]["code"]), (400, &"no-message-id".into()));
    assert_eq!(plant.slave.writes(), [(0, 3), (0, 3)]);
    eventually("an event for each", || (plant.events().len() == 4).then_some(()));
}

#[test]
fn what_is_not_done_has_the_status_of_its_reason_and_a_row() {
    let plant = Plant::new("mqtt", "after-execution");
    let _daemon = plant.start();
    assert_eq!(plant.ask("pulse", asked("used", 1)).0, 200);
    plant.slave.next_mood(Mood::Refusing(4));
    let mut expected = vec!["succeeded".to_owned()];
    for (method, payload, status, code) in [
        ("pulse", asked("c-1", 5), 500, "exception"),
        ("open", asked("c-2", 5), 404, "unknown-command"),
        ("set", asked("c-3", "x"), 400, "bad-value"),
        ("set", asked("c-4", 70_000), 400, "out-of-range"),
        ("set", json!({ "messageId": "c-5", "value": 1, "more": 1 }), 400, "bad-value"),
        ("pulse", asked("used", 2), 409, "message-id-reused"),
        ("set", asked("used", 1), 409, "message-id-reused"),
    ] {
        let (found, body) = plant.ask(method, payload.clone());
        assert_eq!((found, &body["error"]["code"]), (status, &code.into()), "{method} {payload}: {body}");
        expected.push(code.to_owned());
    }
    assert!(plant.site.command(&["lock", "pump"]).status.success());
    let (status, body) = plant.ask("pulse", asked("c-6", 6));
    assert_eq!((status, &body["error"]["code"]), (403, &"locked-out".into()));
    expected.push("locked-out".into());
    let end = |row: &Json| row["error"]["code"].as_str().or(row["state"].as_str()).unwrap().to_owned();
    assert_eq!(plant.site.rows().iter().map(end).collect::<Vec<_>>(), expected);
    // The same refusal again, from the ledger.
    assert_eq!(plant.ask("open", asked("c-2", 5)).0, 404);
    let counted = json!({ "200": 1, "400": 3, "403": 1, "404": 2, "409": 2, "500": 1 });
    eventually("each answer is counted", || (plant.site.device_status("pump")["calls"] == counted).then_some(()));
    let shown = plant.site.command(&["status"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("  10, 9 failed  "), "{shown}");
    let told = plant.site.command(&["status", "--format", "prometheus"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("fieldbridge_method_calls_total{device=\"pump\",status=\"409\"} 2\n"), "{told}");
    assert_eq!(plant.site.rows().len(), expected.len());
    assert_eq!(plant.slave.writes(), [(2, 1)]);
}

fn share_their_ids(by: &str) {
    let plant = Plant::new(by, "after-execution");
    let _daemon = plant.start();
    plant.send("m-1", "pulse", 5);
    plant.wait_for_event("m-1");
    let (status, body) = plant.ask("pulse", asked("m-1", 5));
    assert_eq!((status, &body), (200, &plant.wait_for_event("m-1")));
    assert_eq!(plant.ask("pulse", asked("m-1", 6)).0, 409);
    // The other way round: the message is completed, and not done.
    assert_eq!(plant.ask("pulse", asked("c-2", 9)).0, 200);
    plant.send("c-2", "pulse", 9);
    eventually("an empty queue", || (plant.hub.queue_len("pump") == 0).then_some(()));
    plant.send("c-2", "pulse", 8);
    eventually("an empty queue", || (plant.hub.queue_len("pump") == 0).then_some(()));
    let reused = |event: &Json| event["error"]["code"] == "message-id-reused";
    eventually("two refusals", || (plant.events().iter().filter(|event| reused(event)).count() == 2).then_some(()));
    assert_eq!(plant.slave.writes(), [(2, 5), (2, 9)]);
}

fn is_promised_the_end(by: &str) {
    for (method, register, state) in [("set", 0, "accepted"), ("pulse", 2, "executing")] {
        let plant = Plant::impatient(by, "after-execution");
        let _daemon = plant.start();
        plant.slave.set_mood(Mood::Held);
        let promised = json!({ "messageId": "c-1", "command": method, "status": state });
        assert_eq!(plant.ask(method, asked("c-1", 7)), (202, promised.clone()));
        plant.site.wait_for_row("c-1", state);
        // Whoever calls again waits for the same command, and is promised the same.
        assert_eq!(plant.ask(method, asked("c-1", 7)), (202, promised));
        // One behind it waits for its turn, and is promised its end as well.
        let (status, body) = plant.ask("set", asked("c-2", 8));
        assert_eq!((status, &body["status"]), (202, &"accepted".into()));
        assert_eq!(plant.events(), [] as [Json; 0]);
        plant.slave.set_mood(Mood::Good);
        plant.slave.let_one_go();
        let (first, second) = (plant.wait_for_event("c-1"), plant.wait_for_event("c-2"));
        assert_eq!(
            (plant.ask(method, asked("c-1", 7)), plant.ask("set", asked("c-2", 8))),
            ((200, first), (200, second))
        );
        assert_eq!(plant.slave.writes(), [(register, 7), (0, 8)]);
    }
}

fn are_done_in_order(by: &str) {
    let plant = Plant::new(by, "after-execution");
    let _daemon = plant.start();
    plant.slave.set_mood(Mood::Held);
    plant.send("m-1", "pulse", 1);
    plant.slave.wait_for_write(1);
    let second = plant.begin("set", asked("c-2", 2));
    let received = |count: u64| plant.site.device_status("pump")["received"] == count;
    eventually("the call is received", || received(2).then_some(()));
    plant.send("m-3", "set", 3);
    eventually("the message is received", || received(3).then_some(()));
    plant.slave.set_mood(Mood::Good);
    plant.slave.let_one_go();
    assert_eq!(second.join().unwrap().unwrap().status, 200);
    plant.wait_for_event("m-3");
    assert_eq!(plant.slave.writes(), [(2, 1), (0, 2), (0, 3)]);
}

fn goes_away(by: &str) {
    let plant = Plant::new(by, "after-execution");
    let _daemon = plant.start();
    plant.slave.set_mood(Mood::Held);
    let lost = plant.begin("pulse", asked("c-1", 7));
    plant.slave.wait_for_write(7);
    // One that has not begun ends with the connection that nobody hears the answer on.
    let not_begun = plant.begin("set", asked("c-2", 8));
    eventually("both are received", || (plant.site.device_status("pump")["received"] == 2).then_some(()));
    plant.hub.cut("pump", Cut::Reset);
    eventually("it is connected anew", || plant.hub.hears_methods("pump").then_some(()));
    plant.slave.set_mood(Mood::Good);
    plant.slave.let_one_go();
    let event = plant.wait_for_event("c-1");
    assert_eq!(plant.ask("pulse", asked("c-1", 7)), (200, event));
    assert_eq!(plant.ask("set", asked("c-2", 9)).0, 200, "nothing was recorded under this id");
    assert_eq!(plant.slave.writes(), [(2, 7), (0, 9)]);
    drop((lost, not_begun));
}

fn is_lost_at_the_hub(by: &str) {
    let plant = Plant::new(by, "after-execution");
    let _daemon = plant.start();
    plant.hub.fault("pump", Fault::LoseMethodAnswer);
    let lost = plant.hub.calls("pump", MethodCall::new("pulse", asked("c-1", 7)).within(BRIEF));
    assert_eq!(lost, Err(CallError::NoAnswer));
    let (status, body) = plant.ask("pulse", asked("c-1", 7));
    assert_eq!((status, &body), (200, &plant.wait_for_event("c-1")));
    assert_eq!(plant.slave.writes(), [(2, 7)]);
}

fn outlives_a_stop(by: &str) {
    let plant = Plant::impatient(by, "after-execution");
    let daemon = plant.start();
    plant.slave.set_mood(Mood::Held);
    plant.send("m-1", "set", 1);
    plant.slave.wait_for_write(1);
    assert_eq!(plant.ask("pulse", asked("c-2", 2)).0, 202);
    plant.slave.set_mood(Mood::Good);
    let stopped = std::thread::spawn(move || daemon.terminate());
    plant.slave.let_one_go();
    assert!(stopped.join().unwrap().success());
    let _daemon = plant.start();
    let event = plant.wait_for_event("c-2");
    assert_eq!((plant.ask("pulse", asked("c-2", 2)), plant.slave.count(2, 2)), ((200, event), 1));
}

/// How often links with this address were attached, over AMQP.
fn links(plant: &Plant, wanted: &str) -> usize {
    let is_one = |event: &&WireEvent| matches!(&event.what, Wire::Attached { address } if address == wanted);
    plant.hub.wire().iter().filter(is_one).count()
}

const CALLS: &str = "/devices/pump/methods/devicebound";
const MESSAGES: &str = "/devices/pump/messages/devicebound";

#[test]
fn a_call_that_is_made_again_after_the_device_has_changed_its_transport_is_answered_from_the_ledger() {
    let plant = Plant::new("mqtt", "after-execution");
    let mut last = "mqtt";
    for (number, by) in ["mqtt", "amqp", "amqp-ws", "mqtt"].into_iter().enumerate() {
        plant.site.configure(&way(&plant.hub, last), &way(&plant.hub, by));
        last = by;
        let daemon = plant.start();
        let id = format!("c-{number}");
        assert_eq!(plant.ask("pulse", asked(&id, number as u16)).0, 200, "{by}");
        for before in 0..=number {
            let (status, body) = plant.ask("pulse", asked(&format!("c-{before}"), before as u16));
            assert_eq!((status, &body["value"]), (200, &before.into()), "{by}: {body}");
        }
        assert!(daemon.terminate().success());
    }
    assert_eq!(plant.slave.writes(), [(2, 0), (2, 1), (2, 2), (2, 3)]);
}

#[test]
fn links_for_calls_that_the_hub_ends_are_made_anew_and_messages_go_on_meanwhile() {
    for condition in ["amqp:internal-error", "amqp:link:stolen", "amqp:unauthorized-access"] {
        let plant = Plant::new("amqp", "after-execution");
        let _daemon = plant.start();
        assert_eq!(plant.ask("pulse", asked("c-1", 1)).0, 200);
        let before = links(&plant, CALLS);
        plant.hub.detach_links_of(CALLS, condition);
        plant.send("m-2", "pulse", 2);
        plant.wait_for_event("m-2");
        eventually("they are made anew", || (links(&plant, CALLS) == before + 2).then_some(()));
        plant.listens();
        assert_eq!(plant.ask("pulse", asked("c-1", 1)).0, 200);
        assert_eq!(plant.ask("pulse", asked("c-3", 3)).0, 200);
        assert_eq!(plant.slave.writes(), [(2, 1), (2, 2), (2, 3)]);
        assert_eq!(links(&plant, MESSAGES), 1, "{condition}");
    }
}

#[test]
fn an_answer_whose_links_have_ended_goes_nowhere_and_is_given_to_who_calls_again() {
    let plant = Plant::new("amqp", "after-execution");
    let _daemon = plant.start();
    plant.slave.set_mood(Mood::Held);
    let lost = plant.hub.begins_to_call("pump", MethodCall::new("pulse", asked("c-1", 7)).within(BRIEF));
    plant.slave.wait_for_write(7);
    let before = links(&plant, CALLS);
    plant.hub.detach_links_of(CALLS, "amqp:internal-error");
    eventually("they are made anew", || (links(&plant, CALLS) == before + 2).then_some(()));
    plant.slave.set_mood(Mood::Good);
    plant.slave.let_one_go();
    let event = plant.wait_for_event("c-1");
    assert_eq!(plant.ask("pulse", asked("c-1", 7)), (200, event));
    assert_eq!(lost.join().unwrap(), Err(CallError::NoAnswer));
    assert_eq!(plant.slave.writes(), [(2, 7)]);
}

#[test]
fn more_calls_than_a_device_takes_are_told_to_wait_and_the_others_are_done() {
    for by in ["mqtt", "amqp"] {
        let plant = Plant::new(by, "after-execution");
        let _daemon = plant.start();
        plant.slave.set_mood(Mood::Held);
        let calls: Vec<_> = (0..40).map(|number| plant.begin("set", asked(&format!("c-{number}"), number))).collect();
        let is_received = || plant.site.device_status("pump")["received"] == 40;
        eventually("all are received", || is_received().then_some(()));
        plant.slave.set_mood(Mood::Good);
        plant.slave.let_one_go();
        let status: Vec<i32> = calls.into_iter().map(|call| call.join().unwrap().unwrap().status).collect();
        let count = |wanted| status.iter().filter(|status| **status == wanted).count();
        assert_eq!((count(200), count(503)), (32, 8), "{by}: {status:?}");
        assert_eq!(plant.slave.writes().len(), 32);
    }
}

#[cfg(feature = "proof")]
mod crashes {
    use super::*;

    /// Calls, and the daemon dies meanwhile; then another one lives. Gives what the same call is answered.
    fn call_again(plant: &Plant, at: &str, method: &str) -> (i32, Json) {
        let mut daemon = plant.start_to_crash(at);
        let calls = plant.hub.begins_to_call("pump", MethodCall::new(method, asked("c-1", 7)).within(BRIEF));
        assert!(!daemon.wait().success(), "{at}");
        let _daemon = plant.start();
        let answer = plant.ask(method, asked("c-1", 7));
        if at != "answer-written" {
            assert!(calls.join().unwrap().is_err(), "{at}: nobody has answered");
        }
        plant.wait_for_event("c-1");
        assert_eq!(plant.site.rows().len(), 1, "{at}");
        answer
    }

    pub fn is_not_done_twice(by: &str) {
        for (at, method, status, code) in [
            ("call-passed-on", "pulse", 200, Json::Null),
            ("before-executing", "pulse", 200, Json::Null),
            ("executing-known", "pulse", 500, "interrupted".into()),
            ("request-written", "pulse", 500, "interrupted".into()),
            ("request-written", "pulse-verified", 200, Json::Null),
            ("outcome-known", "pulse", 200, Json::Null),
            ("answer-taken", "pulse", 200, Json::Null),
            ("answer-written", "pulse", 200, Json::Null),
            ("answer-taken", "set", 200, Json::Null),
        ] {
            let plant = Plant::new(by, "after-execution");
            // From now on nothing of before is left at the hub.
            plant.start().terminate();
            let (found, body) = call_again(&plant, at, method);
            assert_eq!((found, &body["error"]["code"]), (status, &code), "{at}, {method}: {body}");
            let writes = plant.slave.writes().len();
            assert!(writes <= 1 && (writes == 1 || status != 200), "{at}, {method}: {writes}");
        }
    }

    pub fn is_done_again(by: &str) {
        for at in ["request-written", "before-outcome"] {
            let plant = Plant::new(by, "after-execution");
            plant.start().terminate();
            assert_eq!(call_again(&plant, at, "set").0, 200);
        }
    }

    pub fn outlives_a_crash(by: &str) {
        let plant = Plant::impatient(by, "after-execution");
        let daemon = plant.start();
        plant.slave.set_mood(Mood::Held);
        plant.send("m-1", "set", 1);
        plant.slave.wait_for_write(1);
        assert_eq!(plant.ask("pulse", asked("c-2", 2)).0, 202);
        daemon.kill();
        plant.slave.set_mood(Mood::Good);
        let _daemon = plant.start();
        let event = plant.wait_for_event("c-2");
        assert_eq!((plant.ask("pulse", asked("c-2", 2)), plant.slave.count(2, 2)), ((200, event), 1));
    }
}
