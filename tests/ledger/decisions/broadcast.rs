//! What goes to all units of a line, which nobody confirms.

use super::*;

#[test]
fn what_went_to_all_units_is_sent_once_and_in_doubt_unless_it_shows() {
    let all = Attempt::Broadcast(fault(Code::Unconfirmed));
    for route in routes(3) {
        let unconfirmed = (State::InDoubt, Some(Code::Unconfirmed), 1);
        if route.verify.is_none() {
            assert_eq!(end(route, &all, None), unconfirmed, "{route:?}");
            continue;
        }
        assert_eq!(end(route, &all, Some(&ReadBack::Same)), (State::Succeeded, None, 1));
        for found in [ReadBack::Other("unit 3: 8".into()), ReadBack::Unknown(fault(Code::Timeout))] {
            assert_eq!(end(route, &all, Some(&found)), unconfirmed, "{route:?}");
        }
    }
    // That it could not be sent at first is no reason to send it twice.
    let mut execution = Execution::new(route(true, false, 3));
    assert_eq!(execution.begin(), Step::Send);
    let step = execution.attempted(Attempt::NotSent(fault(Code::BusUnavailable)));
    assert!(matches!(step, Step::AgainAfter(_)), "{step:?}");
    assert_eq!(execution.again(), Step::Send);
    let step = execution.attempted(all);
    assert_eq!(step, Step::Finish(Outcome::ended(State::InDoubt, fault(Code::Unconfirmed))));
}
