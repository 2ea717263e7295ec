//! The hardware clock (`/dev/rtc0`), which keeps the time while the machine is off. Source: `linux/rtc.h`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `struct rtc_time`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RtcTime {
    second: libc::c_int,
    minute: libc::c_int,
    hour: libc::c_int,
    day: libc::c_int,
    /// From 0.
    month: libc::c_int,
    /// Since 1900.
    year: libc::c_int,
    /// Of no use here: the kernel ignores these three when it sets a clock.
    rest: [libc::c_int; 3],
}

nix::ioctl_write_ptr!(rtc_set_time, b'p', 0x0a, RtcTime);

/// **Sets the clock**, in UTC. The clock counts from the start of a second, so this waits for one: up to a second.
pub(crate) fn set(device: &Path, time: SystemTime) -> io::Result<()> {
    let file = File::open(device)?;
    let since = time.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    let part = Duration::from_nanos(since.subsec_nanos().into());
    let mut seconds = since.as_secs();
    if !part.is_zero() {
        std::thread::sleep(Duration::from_secs(1).saturating_sub(part));
        seconds = seconds.saturating_add(1);
    }
    let time =
        civil(seconds).ok_or_else(|| io::Error::other("the time is beyond what a hardware clock knows"))?;
    // SAFETY: the kernel reads one `rtc_time` from `time`, which outlives the call; the layout is that of `linux/rtc.h`.
    unsafe { rtc_set_time(file.as_raw_fd(), &time) }?;
    Ok(())
}

/// Unix seconds as date and time of day, in UTC.
fn civil(unix: u64) -> Option<RtcTime> {
    // A `time_t`: its name is deprecated where musl is the C library.
    let unix = unix.try_into().ok()?;
    let mut tm = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: the C library reads one `time_t` and writes one `tm`; both outlive the call, and all zeroes are a valid `tm`.
    let tm = unsafe {
        if libc::gmtime_r(&unix, tm.as_mut_ptr()).is_null() {
            return None;
        }
        tm.assume_init()
    };
    Some(RtcTime {
        second: tm.tm_sec,
        minute: tm.tm_min,
        hour: tm.tm_hour,
        day: tm.tm_mday,
        month: tm.tm_mon,
        year: tm.tm_year,
        rest: [0; 3],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds_become_dates() {
        for (unix, (year, month, day), (hour, minute, second)) in [
            (0, (1970, 1, 1), (0, 0, 0)),
            (951_782_399, (2000, 2, 28), (23, 59, 59)),
            (951_782_400, (2000, 2, 29), (0, 0, 0)),
            (1_709_164_800, (2024, 2, 29), (0, 0, 0)),
            (1_795_205_906, (2026, 11, 20), (20, 18, 26)),
            (4_107_542_399, (2100, 2, 28), (23, 59, 59)),
            (4_107_542_400, (2100, 3, 1), (0, 0, 0)),
        ] {
            let time = civil(unix).unwrap();
            assert_eq!((time.year + 1900, time.month + 1, time.day), (year, month, day), "{unix}");
            assert_eq!((time.hour, time.minute, time.second), (hour, minute, second), "{unix}");
        }
        assert_eq!(civil(u64::MAX), None);
    }

    #[test]
    fn a_device_that_is_no_clock_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(set(file.path(), UNIX_EPOCH).is_err());
        assert!(set(Path::new("/nowhere/rtc0"), UNIX_EPOCH).is_err());
    }
}
