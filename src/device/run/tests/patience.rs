//! How long a device's answers are waited for, how often it is asked, and how long it is left alone: as its own
//! settings say where it has some, on each kind of line.

use super::called_off::{bench, is_done, plants, Bench, Far, SECOND};
use super::*;
use crate::bus::Owed;
use crate::config::Patience;

fn deaf(bus: &config::Bus) -> Bench {
    bench(bus, Arc::new(Far::deaf()), Owed::default())
}

impl Bench {
    fn heard(&self) -> Vec<Instant> {
        self.far.heard.lock().unwrap().clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_commands_timeout_wins_over_its_devices_and_that_over_the_buss() {
    for (own, commands, waited) in [(None, None, 1), (Some(3), None, 3), (Some(3), Some(2), 2), (None, Some(2), 2)] {
        for (name, mut device, bus) in plants("").filter(|(name, ..)| *name == "once") {
            device.patience.response_timeout = own.map(Duration::from_secs);
            let command = Arc::make_mut(&mut device.commands).get_mut(name).unwrap();
            command.timeout = commands.map(Duration::from_secs);
            let bench = deaf(&bus);
            let ran = bench.run(&device, name, &mut TestGate::new(600 * SECOND)).await;
            assert!(matches!(&ran, Ran::Finished(outcome, 1) if outcome.state == State::InDoubt), "{ran:?}");
            let waits = bench.heard()[0].elapsed().as_secs();
            assert_eq!(waits, waited, "{own:?} {commands:?} on {}", bus.kind.as_str());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_is_asked_as_often_as_its_own_retries_say() {
    for (own, requests) in [(None, 2), (Some(0), 1), (Some(3), 4)] {
        for (name, mut device, bus) in plants("unreachable_after = 0").filter(|(name, ..)| *name == "again") {
            device.patience.retries = own;
            let bench = deaf(&bus);
            let ran = bench.run(&device, name, &mut TestGate::new(600 * SECOND)).await;
            assert!(matches!(&ran, Ran::Finished(outcome, _) if outcome.state == State::Failed), "{ran:?}");
            assert_eq!(bench.far.requests(), requests, "{own:?} on {}", bus.kind.as_str());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_device_owes_it_owes_for_as_long_as_its_own_timeout_makes_likely() {
    for (name, mut device, bus) in plants("").filter(|(_, _, bus)| bus.kind.as_str() != "modbus-tcp") {
        // Of the bus's it would be 4 s.
        device.patience = Patience { response_timeout: Some(3 * SECOND), retries: Some(0), turnaround: None };
        let bench = deaf(&bus);
        for _ in 0..2 {
            bench.run(&device, name, &mut TestGate::new(600 * SECOND)).await;
        }
        let heard = bench.heard();
        assert_eq!((heard[1] - heard[0]).as_secs(), 10, "{name} on {}", bus.kind.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn the_line_is_left_alone_after_each_exchange_with_a_device_for_as_long_as_that_needs() {
    for (name, neighbour, bus) in plants("") {
        let mut device = neighbour.clone();
        device.patience.turnaround = Some(8 * SECOND);
        let bench = bench(&bus, Arc::default(), Owed::default());
        let mut ended = Vec::new();
        for device in [&device, &device, &neighbour, &neighbour] {
            let ran = bench.run(device, name, &mut TestGate::new(600 * SECOND)).await;
            assert!(is_done(&ran), "{name}: {ran:?}");
            ended.push(Instant::now());
        }
        let heard = bench.heard();
        let silences = [1, 2, 3].map(|n| (heard[n] - ended[n - 1]).as_secs());
        // A line of text has a quiet time of its own.
        assert!(matches!(silences, [8, 8, 0 | 1]), "{name} on {}: {silences:?}", bus.kind.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn a_repetition_waits_for_a_while_first() {
    for (name, device, bus) in plants("retry_pause = \"3s\"").filter(|(name, ..)| *name == "again") {
        let bench = deaf(&bus);
        bench.run(&device, name, &mut TestGate::new(600 * SECOND)).await;
        let heard = bench.heard();
        assert_eq!((heard[1] - heard[0]).as_secs(), 4, "behind a timeout of 1 s on {}", bus.kind.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_sent_is_tried_again_after_a_while_whatever_it_does() {
    for (away, sent) in [(7, 1), (10_000, 0)] {
        for (name, mut device, bus) in plants("retry_pause = \"5s\"") {
            device.patience.retries = Some(2);
            let began = Instant::now();
            let bench = bench(&bus, Arc::new(Far::away_until(began + away * SECOND)), Owed::default());
            let ran = bench.run(&device, name, &mut TestGate::new(600 * SECOND)).await;
            let Ran::Finished(outcome, 3) = &ran else { panic!("{name}: {ran:?}") };
            let told = (outcome.state, outcome.fault.as_ref().map(|fault| fault.code));
            let end = if sent == 1 { (State::Succeeded, None) } else { (State::Failed, Some(Code::BusUnavailable)) };
            assert_eq!((told, bench.far.requests()), (end, sent), "{name} on {}", bus.kind.as_str());
            // A line of text is quiet first, once it is open.
            assert!((10..=11).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_sent_ends_in_the_pause_before_another_attempt_when_its_deadline_passes() {
    for (name, device, bus) in plants("retry_pause = \"5s\"") {
        let began = Instant::now();
        let bench = bench(&bus, Arc::new(Far::away_until(began + 3600 * SECOND)), Owed::default());
        let ran = bench.run(&device, name, &mut TestGate::new(3 * SECOND)).await;
        assert!(matches!(&ran, Ran::Finished(outcome, 1) if outcome.state == State::Expired), "{name}: {ran:?}");
        assert_eq!(began.elapsed().as_secs(), 3, "{name}");
    }
}
