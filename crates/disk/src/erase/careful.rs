//! Working on a range of a disk with bad sectors: what fails is halved down to a sector, and what still fails is put down and
//! passed over, so that the rest of the disk is written.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::damage::Damage;

/// How much time failures of one disk may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Care {
    /// After so long, a range that fails is passed over whole.
    pub(crate) halving: Duration,
    /// After so long, the rest of the disk is passed over.
    pub(crate) total: Duration,
}

impl Default for Care {
    /// A disk tries a bad sector for up to half a minute before it gives up.
    fn default() -> Self {
        Self { halving: Duration::from_secs(20 * 60), total: Duration::from_secs(60 * 60) }
    }
}

/// Runs attempts on ranges and keeps what failed.
#[derive(Debug)]
pub(crate) struct Careful {
    care: Care,
    sector: u64,
    spent: Duration,
    is_lost: bool,
}

impl Careful {
    pub(crate) fn new(care: Care, sector: u64) -> Self {
        Self { care, sector: sector.max(1), spent: Duration::ZERO, is_lost: false }
    }

    /// Tries a range (start, length), then its halves, down to a sector. What fails goes to `damage`. `tick` is called before each
    /// attempt and can end the work.
    pub(crate) fn run(
        &mut self,
        range: (u64, u64),
        damage: &mut Damage,
        tick: &mut dyn FnMut(u64) -> ControlFlow<()>,
        attempt: &mut dyn FnMut(u64, u64) -> io::Result<()>,
    ) -> ControlFlow<()> {
        let mut rest = vec![range];
        while let Some((start, length)) = rest.pop() {
            tick(start)?;
            let started = Instant::now();
            let Err(error) = attempt(start, length) else { continue };
            self.spent += started.elapsed();
            self.is_lost |= is_gone(&error) || self.spent >= self.care.total;
            let half = (length / 2).div_ceil(self.sector) * self.sector;
            if self.is_lost || self.spent >= self.care.halving || half >= length {
                damage.add(start, length, &error);
            } else {
                rest.push((start + half, length - half));
                rest.push((start, half));
            }
            if self.is_lost {
                rest.drain(..).for_each(|(start, length)| damage.add(start, length, &error));
            }
        }
        ControlFlow::Continue(())
    }

    /// Returns whether the disk is gone, or has failed for so long that no more is tried.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }
}

/// The device was taken away, or can only be read now: every further write fails.
fn is_gone(error: &io::Error) -> bool {
    const GONE: [i32; 4] = [6, 19, 30, 1]; // ENXIO, ENODEV, EROFS, EPERM
    error.raw_os_error().is_some_and(|code| GONE.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works on one MiB whose sectors of 512 bytes fail where `is_bad` says so. Returns what was done and what was not.
    fn work(care: Care, is_bad: impl Fn(u64) -> Option<i32>) -> (Vec<bool>, Damage, bool) {
        let mut careful = Careful::new(care, 512);
        let (mut done, mut damage) = (vec![false; 2048], Damage::default());
        let ended =
            careful.run((0, 1 << 20), &mut damage, &mut |_| ControlFlow::Continue(()), &mut |at, length| {
                let sectors = at / 512..(at + length) / 512;
                if let Some(code) = sectors.clone().find_map(&is_bad) {
                    return Err(io::Error::from_raw_os_error(code));
                }
                sectors.for_each(|sector| done[usize::try_from(sector).unwrap()] = true);
                Ok(())
            });
        assert!(ended.is_continue());
        (done, damage, careful.is_lost())
    }

    const EIO: i32 = 5;

    #[test]
    fn only_the_bad_sectors_are_left_out() {
        let bad = [0, 7, 8, 1000, 2047];
        let (done, damage, is_lost) = work(Care::default(), |sector| bad.contains(&sector).then_some(EIO));
        for (sector, done) in (0..).zip(done) {
            assert_eq!(done, !bad.contains(&sector), "sector {sector}");
            assert_eq!(damage.holds(sector * 512), bad.contains(&sector), "sector {sector}");
        }
        assert!(damage.text().starts_with("4 ranges, 2560 bytes"), "{}", damage.text());
        assert!(!is_lost);
    }

    #[test]
    fn without_time_for_halving_a_range_that_fails_is_left_out_whole() {
        let care = Care { halving: Duration::ZERO, ..Care::default() };
        let (done, damage, is_lost) = work(care, |sector| (sector == 9).then_some(EIO));
        assert!(!done.contains(&true));
        assert!(damage.text().starts_with("1 range, 1048576 bytes"), "{}", damage.text());
        assert!(!is_lost);
    }

    #[test]
    fn a_disk_that_is_gone_is_not_tried_again() {
        let (done, damage, is_lost) = work(Care::default(), |sector| (sector >= 100).then_some(19));
        assert!(!done.contains(&true));
        assert!(damage.text().starts_with("1 range, 1048576 bytes"), "{}", damage.text());
        assert!(is_lost);
        let care = Care { total: Duration::ZERO, ..Care::default() };
        assert!(work(care, |sector| (sector == 9).then_some(EIO)).2, "too long is gone as well");
    }

    #[test]
    fn work_that_is_stopped_ends_between_two_attempts() {
        let mut careful = Careful::new(Care::default(), 512);
        let mut attempts = 0;
        let ended = careful.run(
            (0, 1 << 20),
            &mut Damage::default(),
            &mut |at| if at > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) },
            &mut |_, length| {
                attempts += 1;
                if length > 4096 { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
            },
        );
        assert!(ended.is_break());
        assert_eq!(attempts, 9, "down to 4096 bytes and no further");
    }
}
