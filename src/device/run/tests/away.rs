//! A unit that is away costs its neighbours, and whoever sends it commands, one attempt from time to time. Proves G11
//! and G13 for these on each kind of line.

use std::sync::atomic::Ordering;

use super::called_off::{bench, is_done, plants, side_by_side, Bench, Far, SECOND};
use super::*;
use crate::bus::Owed;
use crate::config::OnUnreachable;

const AWAY: &str = "unreachable_after = 2\n";

/// A bus whose far end says nothing.
fn deaf(bus: &config::Bus) -> Bench {
    bench(bus, Arc::new(Far::deaf()), Owed::default())
}

fn patient() -> TestGate {
    TestGate::new(6000 * SECOND)
}

/// The code of an end, and its attempts.
fn end(ran: &Ran) -> (State, Option<Code>, u32) {
    match ran {
        Ran::Finished(outcome, attempts) => (outcome.state, outcome.fault.as_ref().map(|fault| fault.code), *attempts),
        other => panic!("{other:?}"),
    }
}

const UNREACHABLE: (State, Option<Code>, u32) = (State::Failed, Some(Code::Unreachable), 0);

impl Bench {
    fn hears(&self) {
        self.far.deaf.store(false, Ordering::Relaxed);
    }

    /// Two requests are left unanswered.
    async fn leave(&self, device: &Device, name: &str) {
        while !self.bus.presence().is_away(&self.bus.party(device)) {
            let ran = self.run(device, name, &mut patient()).await;
            assert!(!is_done(&ran) && self.far.requests() <= 2, "{name}: {ran:?}");
        }
        assert_eq!(self.far.requests(), 2);
    }

    fn present(&self, device: &Device) -> Option<bool> {
        self.bus.presence().standing(&self.bus.party(device)).present
    }
}

#[tokio::test(start_paused = true)]
async fn commands_for_who_is_away_fail_at_once_and_say_who_that_is_and_what_to_look_at() {
    for (name, device, bus) in plants(AWAY) {
        let bench = deaf(&bus);
        assert_eq!(bench.present(&device), None);
        bench.leave(&device, name).await;
        assert_eq!(bench.present(&device), Some(false));
        sleep(3 * SECOND).await;
        let (asked, mut gate) = (Instant::now(), patient());
        let ran = bench.run(&device, name, &mut gate).await;
        assert_eq!((end(&ran), asked.elapsed(), gate.recorded), (UNREACHABLE, Duration::ZERO, false), "{name}");
        let Ran::Finished(Outcome { fault: Some(fault), .. }, _) = ran else { unreachable!() };
        let who = if bus.kind.is_modbus() { "unit 7 on bus \"b\"" } else { "device \"d\" on bus \"b\"" };
        for told in [who, "away for 3s", "last 2 requests", "power", "again in 7s", "nothing was sent"] {
            assert!(fault.message.contains(told), "{told}: {fault:?}");
        }
        assert_eq!(bench.far.requests(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_count_and_there_are_none_left_once_the_unit_is_away() {
    for (name, mut device, bus) in plants("unreachable_after = 3").filter(|(name, ..)| *name == "again") {
        device.patience.retries = Some(9);
        let bench = deaf(&bus);
        let ran = bench.run(&device, name, &mut patient()).await;
        assert_eq!(end(&ran), (State::Failed, Some(Code::Timeout), 3));
        assert_eq!((bench.far.requests(), bench.present(&device)), (3, Some(false)));
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_away_is_asked_once_in_a_while_however_many_commands_come() {
    for (name, device, bus) in plants(AWAY).filter(|(name, ..)| *name == "again") {
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        let away = Instant::now();
        let mut ends = Vec::new();
        while away.elapsed() < 200 * SECOND {
            ends.push(end(&bench.run(&device, name, &mut patient()).await));
            sleep(SECOND / 4).await;
        }
        let heard = bench.far.heard.lock().unwrap()[2..].to_vec();
        let pauses: Vec<u64> = [away].iter().chain(&heard).zip(&heard).map(|(a, b)| (*b - *a).as_secs()).collect();
        // Each attempt takes a second, and the command that it is comes at most a quarter later.
        assert_eq!(pauses, [10, 21, 41, 61, 61], "{}", bus.kind.as_str());
        let tried = ends.iter().filter(|end| **end == (State::Failed, Some(Code::Timeout), 1)).count();
        let failed = ends.iter().filter(|end| **end == UNREACHABLE).count();
        assert_eq!((tried, tried + failed), (5, ends.len()));
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_commands_one_is_the_attempt_and_with_its_answer_all_go() {
    for (name, device, bus) in plants(AWAY) {
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        sleep(10 * SECOND).await;
        let mut gates = [patient(), patient(), patient()];
        let [first, second, third] = &mut gates;
        let (tried, failed, too) = tokio::join!(
            bench.run(&device, name, first),
            bench.run(&device, name, second),
            bench.run(&device, name, third)
        );
        assert_eq!((end(&failed), end(&too), bench.far.requests()), (UNREACHABLE, UNREACHABLE, 3), "{name}: {tried:?}");
        bench.hears();
        sleep(20 * SECOND).await;
        assert!(is_done(&bench.run(&device, name, &mut patient()).await), "{name}");
        assert_eq!(bench.present(&device), Some(true));
        assert!(is_done(&bench.run(&device, name, &mut patient()).await), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn commands_that_are_held_wait_for_the_unit_or_for_their_deadline() {
    for (name, mut device, bus) in plants(AWAY) {
        device.on_unreachable = OnUnreachable::Hold;
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        let asked = Instant::now();
        let ran = bench.run(&device, name, &mut TestGate::new(4 * SECOND)).await;
        assert!(is_expired(&ran), "{name}: {ran:?}");
        let Ran::Finished(Outcome { fault: Some(fault), .. }, _) = ran else { unreachable!() };
        assert!(fault.message.contains("on bus \"b\" has been away for"), "{fault:?}");
        assert_eq!((asked.elapsed().as_secs(), bench.far.requests()), (4, 2));
        // One is the attempt when its time has come, and those behind it go when it is answered.
        bench.hears();
        let (mut one, mut other) = (patient(), patient());
        let (first, second) = tokio::join!(bench.run(&device, name, &mut one), bench.run(&device, name, &mut other));
        assert!(is_done(&first) && is_done(&second), "{name}: {first:?} {second:?}");
        // A line of text has a quiet time of its own between them.
        let both = (asked.elapsed().as_secs(), bench.far.requests());
        assert!(matches!(both, (10 | 11, 4)), "{both:?} on {}", bus.kind.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_command_that_is_the_attempt_and_is_left_unanswered_ends_as_that_has() {
    for (name, mut device, bus) in plants(AWAY) {
        device.on_unreachable = OnUnreachable::Hold;
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        let ran = bench.run(&device, name, &mut patient()).await;
        let state = if name == "once" { State::InDoubt } else { State::Failed };
        assert_eq!((end(&ran), bench.far.requests()), ((state, Some(Code::Timeout), 1), 3), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_else_ends_a_command_comes_before_that_its_unit_is_away() {
    for (name, device, bus) in plants(AWAY) {
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        let locked = patient();
        locked.locked.cancel();
        let withdrawn = patient();
        withdrawn.gone.cancel();
        for (mut gate, code) in
            [(locked, Code::LockedOut), (withdrawn, Code::Expired), (TestGate::new(Duration::ZERO), Code::Expired)]
        {
            let ran = bench.run(&device, name, &mut gate).await;
            assert_eq!(end(&ran).1, Some(code), "{name}");
        }
        let mut stops = TestGate { stops: true, ..patient() };
        assert_eq!(bench.run(&device, name, &mut stops).await, Ran::NotNow);
        assert_eq!(bench.far.requests(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_asks_for_is_tried_once_and_puts_nothing_off_for_longer() {
    for (name, device, bus) in plants(AWAY) {
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        for asked in 1..=3 {
            let ran = bench.run(&device, name, &mut TestGate { insists: true, ..patient() }).await;
            assert_eq!((end(&ran).1, bench.far.requests()), (Some(Code::Timeout), 2 + asked), "{name}");
        }
        let tried_at = bench.bus.presence().standing(&bench.bus.party(&device)).tried_at.unwrap();
        assert_eq!(tried_at - Instant::now(), 10 * SECOND);
        bench.hears();
        assert!(is_done(&bench.run(&device, name, &mut TestGate { insists: true, ..patient() }).await), "{name}");
        assert!(is_done(&bench.run(&device, name, &mut patient()).await), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn devices_that_share_a_unit_are_away_together_and_those_that_share_a_line_of_text_are_not() {
    for (name, device, bus) in plants(AWAY) {
        let sister = Device { id: "sister".into(), ..device.clone() };
        let other = Device { id: "other".into(), unit: 8, ..device.clone() };
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        let expected = if bus.kind.is_modbus() { Some(false) } else { None };
        assert_eq!((bench.present(&sister), bench.present(&other)), (expected, None), "{}", bus.kind.as_str());
        let is_refused = end(&bench.run(&sister, name, &mut patient()).await) == UNREACHABLE;
        assert_eq!(is_refused, bus.kind.is_modbus());
        assert_ne!(end(&bench.run(&other, name, &mut patient()).await), UNREACHABLE);
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_for_its_bus_is_told_when_its_unit_goes_away_meanwhile() {
    for (name, device, bus) in plants("unreachable_after = 1").filter(|(_, _, bus)| bus.kind.is_modbus()) {
        let bench = deaf(&bus);
        let sister = Device { id: "sister".into(), ..device.clone() };
        let (mut gate, mut other) = (patient(), patient());
        let began = Instant::now();
        let neighbour = async {
            tokio::task::yield_now().await;
            let ran = bench.run(&sister, name, &mut other).await;
            (end(&ran), began.elapsed().as_secs())
        };
        let (_, told) = tokio::join!(bench.run(&device, name, &mut gate), neighbour);
        assert_eq!((told, bench.far.requests()), ((UNREACHABLE, 1), 1), "{name} on {}", bus.kind.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_absent_makes_nobody_away() {
    for (name, device, bus) in plants("unreachable_after = 1") {
        let bench = bench(&bus, Arc::new(Far::away_until(Instant::now() + 900 * SECOND)), Owed::default());
        for _ in 0..5 {
            let ran = bench.run(&device, name, &mut patient()).await;
            assert_eq!(end(&ran).1, Some(Code::BusUnavailable), "{name}");
        }
        assert_eq!(bench.present(&device), None);
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_over_a_port_that_can_not_be_opened_puts_the_next_one_off_and_makes_it_no_rarer() {
    for (name, device, bus) in plants(AWAY).chain(side_by_side(AWAY)) {
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        bench.far.lost.send_replace(true);
        let (lost, mut tried) = (Instant::now(), Vec::new());
        while lost.elapsed() < 35 * SECOND {
            let ran = bench.run(&device, name, &mut patient()).await;
            match end(&ran) {
                UNREACHABLE => {}
                (State::Failed, Some(Code::BusUnavailable), 1) => tried.push(lost.elapsed().as_secs()),
                _ => panic!("{name} on {}: {ran:?}", bus.kind.as_str()),
            }
            sleep(SECOND / 4).await;
        }
        assert_eq!(tried, [10, 20, 30], "{name} on {}", bus.kind.as_str());
        assert_eq!((bench.present(&device), bench.far.requests()), (Some(false), 2));
        bench.far.lost.send_replace(false);
        bench.hears();
        sleep(10 * SECOND).await;
        assert!(is_done(&bench.run(&device, name, &mut patient()).await), "{name} on {}", bus.kind.as_str());
        assert_eq!(bench.present(&device), Some(true));
    }
}

#[tokio::test(start_paused = true)]
async fn looking_who_is_there_makes_nobody_away_and_shows_who_is() {
    for (_, device, bus) in plants("unreachable_after = 1").filter(|(_, _, bus)| bus.kind.is_modbus()) {
        let bench = deaf(&bus);
        let look = || Call::new(7, Request::WriteBits { address: 3, bits: vec![true], multiple: false });
        for _ in 0..5 {
            bench.bus.turn().await.unwrap().exchange(&look()).await;
        }
        assert_eq!((bench.present(&device), bench.far.requests()), (None, 5));
        bench.hears();
        let wire = bench.bus.turn().await.unwrap().exchange(&look()).await;
        assert_eq!(bench.present(&device), Some(true), "{wire:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_settings_of_the_bus_begin_with_nothing_known() {
    for (name, device, bus) in plants(AWAY) {
        let bench = deaf(&bus);
        bench.leave(&device, name).await;
        bench.bus.configure(&bus);
        assert_eq!(end(&bench.run(&device, name, &mut patient()).await), UNREACHABLE, "they are the same");
        bench.bus.configure(&config::Bus { retries: 0, ..bus.clone() });
        sleep(SECOND).await;
        assert_eq!(bench.present(&device), None);
        bench.hears();
        assert!(is_done(&bench.run(&device, name, &mut patient()).await), "{name}");
    }
}
