//! Pauses of less than the millisecond with which tokio's timers end: the kernel's own timer, as a file that tokio
//! waits for (timerfd_create(2)).
//!
//! Invariants
//! - It never ends early.
//! - Nothing spins meanwhile: the thread is free, and sleeps if nobody else has work.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    timerfd_create, timerfd_settime, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
};
use tokio::io::unix::AsyncFd;
use tokio::io::Interest;
use tokio::time::Instant;

use super::until;

/// One timer. Who waits for it is alone in that.
#[derive(Debug)]
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    /// That is not set. Within a runtime.
    ///
    /// # Errors
    /// No handle is left, or there is no runtime for it.
    #[allow(deprecated)] // The successor of its part is `unsafe`; what that asks for, an owned handle keeps.
    pub fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Alarm(AsyncFd::with_interest(timer, Interest::READABLE)?))
    }

    /// Waits until then. What is past is not waited for. Cancel-safe.
    pub async fn until(&self, moment: Instant) {
        while let Some(left) = moment.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if let Err(error) = self.pass(left).await {
                tracing::debug!(%error, "a timer of the system fails: a pause ends with the next millisecond");
                return until(moment).await;
            }
        }
    }

    /// Waits so long, which must not be nothing.
    async fn pass(&self, time: Duration) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Timespec::try_from(time).map_err(io::Error::other)?;
        let setting = Itimerspec { it_interval: never, it_value: once };
        // Setting it anew also forgets that it has run out before.
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &setting)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut times = [0; size_of::<u64>()];
            // It may have been of before: then there is nothing to read.
            if let Ok(run_out) = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut times)?)) {
                ready.clear_ready();
                return run_out.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pause_is_never_shorter_than_it_was_asked_for() {
        let alarm = Alarm::new().unwrap();
        for micros in [1, 90, 750, 1_000, 1_750, 2_005, 4_010] {
            let moment = Instant::now() + Duration::from_micros(micros);
            alarm.until(moment).await;
            assert!(Instant::now() >= moment, "{micros} us");
        }
    }

    #[tokio::test]
    async fn what_is_past_is_not_waited_for_and_what_was_given_up_ends_no_other_pause() {
        let alarm = Alarm::new().unwrap();
        let now = Instant::now();
        for past in [now, now - Duration::from_millis(1)] {
            // Ready when it is asked the first time.
            tokio::select! {
                biased;
                () = alarm.until(past) => {}
                () = std::future::ready(()) => panic!("it waits"),
            }
        }
        for _ in 0..3 {
            let (short, long) = (Duration::from_micros(200), Duration::from_millis(3));
            tokio::select! {
                biased;
                () = alarm.until(Instant::now() + short) => {}
                () = std::future::ready(()) => {}
            }
            // It runs out with nobody there.
            until(Instant::now() + 2 * short).await;
            let moment = Instant::now() + long;
            alarm.until(moment).await;
            assert!(Instant::now() >= moment);
        }
    }
}
