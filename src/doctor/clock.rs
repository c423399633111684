//! Whether the clock is right, as far as that can be known here. What the hub makes of it is told with the identities.

use super::Finding;
use crate::time::trust;
use crate::time::{Timestamp, EARLIEST_BELIEVABLE};

pub(super) fn check() -> Finding {
    let now = Timestamp::now();
    judge(now, trust::is_synchronised(now))
}

fn judge(now: Timestamp, is_synchronised: bool) -> Finding {
    let about = "clock";
    if now < EARLIEST_BELIEVABLE {
        let remedy = "set it (`timedatectl set-ntp true`), and see that a time server can be reached; until then \
                      nothing connects";
        return Finding::fail(about, format!("it shows {now}, which can't be")).remedy(remedy);
    }
    match is_synchronised {
        true => Finding::ok(about, format!("it shows {now}, and is synchronised")),
        false => Finding::warn(about, format!("it shows {now}, and the system does not say that it is synchronised"))
            .remedy("look at `timedatectl`; with another time service, such as chrony, look there"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_it_shows_and_by_who_set_it() {
        for (now, is_synchronised, verdict) in [
            (Timestamp(60_000), false, Verdict::Fail),
            (Timestamp(60_000), true, Verdict::Fail),
            (EARLIEST_BELIEVABLE, false, Verdict::Warn),
            (EARLIEST_BELIEVABLE, true, Verdict::Ok),
        ] {
            assert_eq!(judge(now, is_synchronised).verdict, verdict);
        }
    }
}
