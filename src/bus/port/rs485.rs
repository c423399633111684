//! Who drives an RS-485 line: the kernel's driver of a serial port, which sets RTS while it sends (`linux/serial.h`).
//!
//! Invariant: a driver that has not taken what the configuration asks for is never relied on.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::config::Rs485;

const ENABLED: u32 = 1 << 0;
const RTS_ON_SEND: u32 = 1 << 1;
const RTS_AFTER_SEND: u32 = 1 << 2;

/// `struct serial_rs485` of `linux/serial.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    flags: u32,
    /// In milliseconds, as the next.
    delay_rts_before_send: u32,
    delay_rts_after_send: u32,
    /// Addresses, which nothing here has, and what later kernels may have a use for.
    rest: [u32; 5],
}

impl Setting {
    fn of(wanted: &Rs485) -> Setting {
        let rts = if wanted.rts_on_send { RTS_ON_SEND } else { RTS_AFTER_SEND };
        let milliseconds = |delay: Duration| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        Setting {
            flags: ENABLED | rts,
            delay_rts_before_send: milliseconds(wanted.delay_before),
            delay_rts_after_send: milliseconds(wanted.delay_after),
            rest: [0; 5],
        }
    }

    /// What a driver that has taken this instead of `wanted` can't do, with the remedy.
    fn lacks(&self, wanted: &Setting) -> Option<String> {
        let rts = RTS_ON_SEND | RTS_AFTER_SEND;
        if self.flags & ENABLED == 0 {
            return Some(NONE.into());
        }
        if self.flags & rts != wanted.flags & rts {
            let other = wanted.flags & RTS_ON_SEND == 0;
            return Some(format!("its driver sets RTS the other way round (rs485); write rts_on_send = {other}"));
        }
        let delays = [
            ("delay_before", self.delay_rts_before_send, wanted.delay_rts_before_send),
            ("delay_after", self.delay_rts_after_send, wanted.delay_rts_after_send),
        ];
        let (key, taken, _) = delays.into_iter().find(|(_, taken, wanted)| taken != wanted)?;
        Some(format!("its driver does not keep this {key} (rs485); write {key} = \"{taken}ms\""))
    }
}

/// What to say of a driver that has no such mode.
const NONE: &str =
    "its driver can't switch the direction of an RS-485 line (rs485); remove rs485 if the adapter does that \
                    by itself, as most of those for USB do, or use a port whose driver can";

/// Has the driver of an open port switch the direction of its line. The error is a clause that says what it can't do,
/// with the remedy.
pub(super) fn take(port: &impl AsRawFd, wanted: &Rs485) -> Result<(), String> {
    let wanted = Setting::of(wanted);
    let taken = ask(port, wanted).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTTY | libc::EINVAL | libc::EOPNOTSUPP) => NONE.to_owned(),
        _ => format!("its driver refuses to switch the direction of an RS-485 line (rs485): {error}; {REMEDY}"),
    })?;
    taken.lacks(&wanted).map_or(Ok(()), Err)
}

const REMEDY: &str = "remove rs485 if the adapter does that by itself";

/// Asks the kernel, which tells what it has taken.
#[allow(unsafe_code)] // No safe library asks this; it is one call on a structure of plain numbers.
fn ask(port: &impl AsRawFd, mut setting: Setting) -> io::Result<Setting> {
    // SAFETY: the port is open while it is borrowed; the call reads and writes one `struct serial_rs485`, which
    // `Setting` is, and keeps no pointer to it.
    let answer = unsafe { libc::ioctl(port.as_raw_fd(), libc::TIOCSRS485, &raw mut setting) };
    match answer {
        0 => Ok(setting),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(rts_on_send: bool, before: u64, after: u64) -> Rs485 {
        let [delay_before, delay_after] = [before, after].map(Duration::from_millis);
        Rs485 { rts_on_send, delay_before, delay_after }
    }

    /// `linux/serial.h`: `__u32 flags, delay_rts_before_send, delay_rts_after_send`, and 20 bytes of padding.
    #[test]
    fn a_setting_lies_in_memory_as_the_kernel_reads_it() {
        use std::mem::{align_of, offset_of, size_of};
        assert_eq!((size_of::<Setting>(), align_of::<Setting>()), (32, 4));
        assert_eq!(
            [
                offset_of!(Setting, flags),
                offset_of!(Setting, delay_rts_before_send),
                offset_of!(Setting, delay_rts_after_send),
                offset_of!(Setting, rest),
            ],
            [0, 4, 8, 12]
        );
        for (wanted, flags, before, after) in
            [(wanted(true, 0, 0), 0b011, 0, 0), (wanted(false, 2, 100), 0b101, 2, 100)]
        {
            let setting = Setting::of(&wanted);
            let told = (setting.flags, setting.delay_rts_before_send, setting.delay_rts_after_send);
            assert_eq!((told, setting.rest), ((flags, before, after), [0; 5]));
        }
    }

    #[test]
    fn a_driver_that_has_not_taken_what_was_asked_for_is_told_by_what_it_lacks() {
        let asked = Setting::of(&wanted(true, 2, 3));
        assert_eq!(asked.lacks(&asked), None);
        // A flag that was not asked about is the driver's affair.
        assert_eq!(Setting { flags: asked.flags | 1 << 4, ..asked }.lacks(&asked), None);
        for (taken, said) in [
            (Setting { flags: 0, ..asked }, "remove rs485"),
            (Setting { flags: ENABLED | RTS_AFTER_SEND, ..asked }, "write rts_on_send = false"),
            (Setting { delay_rts_before_send: 0, ..asked }, "write delay_before = \"0ms\""),
            (Setting { delay_rts_after_send: 100, ..asked }, "write delay_after = \"100ms\""),
        ] {
            let why = taken.lacks(&asked).unwrap();
            assert!(why.contains(said) && why.contains("rs485"), "{why}");
        }
        let other_way = Setting::of(&wanted(false, 0, 0));
        let why = Setting { flags: ENABLED | RTS_ON_SEND, ..other_way }.lacks(&other_way).unwrap();
        assert!(why.contains("rts_on_send = true"), "{why}");
    }
}
