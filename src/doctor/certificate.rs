//! When a certificate begins and ends, and whether that matters. Pure.

use std::time::Duration;

use super::Finding;
use crate::certificate::parts::Parts;
use crate::time::Timestamp;

/// What ends sooner is to be renewed now.
const SOON: Duration = Duration::from_secs(30 * DAY);
const DAY: u64 = 24 * 3600;

/// When a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    begins: Timestamp,
    ends: Timestamp,
}

impl Life {
    /// Of a certificate as DER. The error is a sentence without subject.
    pub(super) fn of(der: &[u8]) -> Result<Life, String> {
        let Parts { begins, ends, .. } = Parts::of(der).map_err(|error| format!("its dates can't be read: {error}"))?;
        Ok(Life { begins, ends })
    }

    /// The shortest of a chain: from the latest beginning to the first end.
    pub(super) fn of_chain<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Result<Life, String> {
        let all = Life { begins: Timestamp(i64::MIN), ends: Timestamp(i64::MAX) };
        chain.into_iter().try_fold(all, |life, der| {
            let next = Life::of(der)?;
            Ok(Life { begins: life.begins.max(next.begins), ends: life.ends.min(next.ends) })
        })
    }

    /// Judges it at a time. `what` is a certificate's name, with which the sentence begins.
    pub(super) fn judge(self, about: &str, what: &str, now: Timestamp, remedy: &str) -> Finding {
        let Life { begins, ends } = self;
        let days = ends.since(now).as_secs() / DAY;
        if now < begins {
            let remedy = format!("is the clock right? {remedy}");
            Finding::fail(about, format!("{what} is not valid before {begins}")).remedy(remedy)
        } else if now >= ends {
            Finding::fail(about, format!("{what} has expired at {ends}")).remedy(remedy)
        } else if ends.since(now) < SOON {
            Finding::warn(about, format!("{what} expires in {days} days, at {ends}")).remedy(remedy)
        } else {
            Finding::ok(about, format!("{what} is valid until {ends}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_certificate_is_judged_by_its_dates() {
        let day = |n: u64| Timestamp(0).plus(Duration::from_secs(n * DAY));
        let life = Life { begins: day(100), ends: day(200) };
        for (now, verdict, said) in [
            (99, Verdict::Fail, "is not valid before 1970-04-11"),
            (100, Verdict::Ok, "is valid until 1970-07-20"),
            (170, Verdict::Ok, "is valid until 1970-07-20"),
            (171, Verdict::Warn, "expires in 29 days"),
            (199, Verdict::Warn, "expires in 1 days"),
            (200, Verdict::Fail, "has expired at 1970-07-20"),
        ] {
            let finding = life.judge("device d", "d.pem", day(now), "renew it");
            assert_eq!(finding.verdict, verdict, "{now}: {finding}");
            assert!(finding.said.contains(said), "{now}: {finding}");
            assert_eq!(finding.remedy.is_some(), verdict != Verdict::Ok);
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_dates() {
        for der in [&b""[..], b"\x30\x03\x02\x01\x01", b"-----BEGIN CERTIFICATE-----"] {
            assert!(Life::of(der).is_err());
        }
    }
}
