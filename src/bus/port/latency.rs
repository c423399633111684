//! How soon an adapter passes on what has come: `ASYNC_LOW_LATENCY` of a serial port (`linux/tty_flags.h`,
//! setserial(8)). The chips of FTDI collect what comes for 16 ms else (their application note AN232B-04), and so each
//! answer is late by that; asked for it, their driver (`ftdi_sio`) makes it 1 ms.
//!
//! Invariant: a port that knows nothing of it is used as it is.

use std::io;
use std::os::fd::AsRawFd;

/// `ASYNCB_LOW_LATENCY`, bit 13.
const LOW_LATENCY: libc::c_int = 1 << 13;

/// `struct serial_struct` of `linux/serial.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Setting {
    /// The driver's affair: type, line, port, irq.
    kind: [libc::c_int; 4],
    flags: libc::c_int,
    /// xmit_fifo_size, custom_divisor, baud_base.
    speed: [libc::c_int; 3],
    close_delay: libc::c_ushort,
    io_type: [libc::c_char; 2],
    hub6: libc::c_int,
    closing_wait: [libc::c_ushort; 2],
    iomem_base: usize,
    iomem_reg_shift: libc::c_ushort,
    port_high: libc::c_uint,
    iomap_base: libc::c_ulong,
}

impl Setting {
    const NONE: Setting = Setting {
        kind: [0; 4],
        flags: 0,
        speed: [0; 3],
        close_delay: 0,
        io_type: [0; 2],
        hub6: 0,
        closing_wait: [0; 2],
        iomem_base: 0,
        iomem_reg_shift: 0,
        port_high: 0,
        iomap_base: 0,
    };

    fn is_low(&self) -> bool {
        self.flags & LOW_LATENCY != 0
    }

    /// The same with low latency, or without.
    fn with(self, low: bool) -> Setting {
        let others = self.flags & !LOW_LATENCY;
        Setting { flags: if low { others | LOW_LATENCY } else { others }, ..self }
    }
}

/// Asks the driver of an open port for low latency, or for none.
///
/// # Errors
/// It can't do that, and the port is as it was.
pub(super) fn take(port: &impl AsRawFd, low: bool) -> io::Result<()> {
    let found = get(port)?;
    if found.is_low() != low {
        set(port, found.with(low))?;
        // A driver may take the structure and leave the flag.
        if get(port)?.is_low() != low {
            return Err(io::ErrorKind::Unsupported.into());
        }
    }
    Ok(())
}

#[allow(unsafe_code)] // No safe library asks this; it is one call that fills a structure of plain numbers.
fn get(port: &impl AsRawFd) -> io::Result<Setting> {
    let mut setting = Setting::NONE;
    // SAFETY: the port is open while it is borrowed; the call writes one `struct serial_struct`, which `Setting` is,
    // and keeps no pointer to it. What it tells of memory is a number here, and never followed.
    let answer = unsafe { libc::ioctl(port.as_raw_fd(), libc::TIOCGSERIAL, &raw mut setting) };
    if answer == 0 {
        Ok(setting)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[allow(unsafe_code)] // As above, and it only reads the structure.
fn set(port: &impl AsRawFd, setting: Setting) -> io::Result<()> {
    // SAFETY: the port is open while it is borrowed; the call reads one `struct serial_struct`, which `Setting` is, and
    // keeps no pointer to it. All but one bit is what the driver has told itself.
    let answer = unsafe { libc::ioctl(port.as_raw_fd(), libc::TIOCSSERIAL, &raw const setting) };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `linux/serial.h`; the last fields lie behind a pointer, and after what aligns it.
    #[test]
    fn a_setting_lies_in_memory_as_the_kernel_reads_it() {
        use std::mem::{offset_of, size_of};
        let pointer = size_of::<usize>();
        let base = if pointer == 8 { 48 } else { 44 };
        let offsets = [
            offset_of!(Setting, flags),
            offset_of!(Setting, speed),
            offset_of!(Setting, close_delay),
            offset_of!(Setting, io_type),
            offset_of!(Setting, hub6),
            offset_of!(Setting, closing_wait),
            offset_of!(Setting, iomem_base),
            offset_of!(Setting, iomem_reg_shift),
            offset_of!(Setting, port_high),
            offset_of!(Setting, iomap_base),
        ];
        let behind = base + pointer;
        assert_eq!(offsets, [16, 20, 32, 34, 36, 40, base, behind, behind + 4, behind + 8]);
        assert_eq!(size_of::<Setting>(), behind + 8 + pointer);
    }

    #[test]
    fn one_bit_is_set_or_taken_away_and_everything_else_stays() {
        let found = Setting { flags: 0x0100_0040, close_delay: 50, ..Setting::NONE };
        assert_eq!(found.with(true), Setting { flags: 0x0100_2040, ..found });
        assert_eq!(found.with(true).with(false), found);
    }

    #[tokio::test]
    async fn a_port_that_knows_nothing_of_it_says_so() {
        let (_far, near) = tokio_serial::SerialStream::pair().unwrap();
        for low in [true, false] {
            assert_eq!(take(&near, low).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        }
    }
}
