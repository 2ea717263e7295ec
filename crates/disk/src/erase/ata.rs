//! The security feature set of ATA disks (ACS-4, 4.18 and 7.4x), as far as erasing needs it. Source of the order of
//! checks: data plane page, 8.2.

use std::io;
use std::time::Duration;

use sys::{ATA_SECTOR, AtaCommand, AtaTransfer};

use super::Outcome;

/// Sends one command with its data.
type Send<'a> = dyn FnMut(&AtaCommand, &mut [u8]) -> io::Result<()> + 'a;

const IDENTIFY: u8 = 0xec;
const SET_PASSWORD: u8 = 0xf1;
const UNLOCK: u8 = 0xf2;
const ERASE_PREPARE: u8 = 0xf3;
const ERASE_UNIT: u8 = 0xf4;
const DISABLE_PASSWORD: u8 = 0xf6;

/// For all but the erasing itself; a disk may have to spin up first.
const SHORT: Duration = Duration::from_secs(60);
/// Where a disk does not say how long it erases, or says "longer than can be said".
const LONGEST: Duration = Duration::from_secs(48 * 3600);
/// Bit of the erase command that asks for the enhanced mode.
const ENHANCED: u8 = 0x02;

/// What IDENTIFY DEVICE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    is_supported: bool,
    is_enabled: bool,
    is_locked: bool,
    is_frozen: bool,
    has_enhanced: bool,
    /// Zero where the disk does not say.
    minutes: u64,
    enhanced_minutes: u64,
    /// Size in bytes; `None` where it is told in words that only small disks use.
    size: Option<u64>,
}

/// **Erases.** `Err` is the reason in words; the disk may then still have the data, and is unlocked where that was possible.
pub(super) fn secure_erase(send: &mut Send<'_>, size: u64) -> Result<Outcome, String> {
    let found = match identify(send) {
        Ok(identity) => identity,
        Err(error) => return Ok(Outcome::Unsupported(format!("it does not answer as an ATA disk: {error}"))),
    };
    if !found.is_supported {
        return Ok(Outcome::Unsupported("it has no ATA security feature set".into()));
    }
    // A RAID controller or a bridge may answer for a disk behind it, which is not the one that was chosen.
    if found.size.is_some_and(|told| told != size) {
        return Ok(Outcome::Unsupported("the ATA disk that answers has another size".into()));
    }
    if found.is_frozen {
        return Err("its security state is frozen, by the firmware as a rule: switch that off in the firmware's settings, or \
                    power-cycle the disk, or allow overwriting instead (agent_continue_if_secure_erase_failed)"
            .into());
    }
    let mut now = found;
    if now.is_locked {
        tracing::info!("the disk is locked: trying the empty password");
        let unlocked = security(send, UNLOCK, 0, SHORT);
        now = identify(send).map_err(|error| format!("it stopped answering after unlocking: {error}"))?;
        if now.is_locked {
            let cause = unlocked.err().map_or_else(String::new, |error| format!(" ({error})"));
            return Err(format!("it is locked with a password that is not known{cause}"));
        }
    }
    if !now.is_enabled {
        security(send, SET_PASSWORD, 0, SHORT).map_err(|error| format!("it takes no password: {error}"))?;
    }
    let (mode, name, minutes) = match found.has_enhanced {
        true => (ENHANCED, "ATA enhanced secure erase", found.enhanced_minutes),
        false => (0, "ATA secure erase", found.minutes),
    };
    match minutes {
        0 => tracing::info!("{name} begins; the disk does not say how long it takes"),
        minutes => tracing::info!(minutes, "{name} begins; the disk says how long it takes"),
    }
    let erased = command(send, ERASE_PREPARE, SHORT)
        .and_then(|()| security(send, ERASE_UNIT, mode, time_limit(minutes)));
    if let Err(error) = erased {
        return Err(format!("{name} failed: {error}{}", free_again(send)));
    }
    match identify(send) {
        Ok(after) if !after.is_enabled => Ok(Outcome::Erased(name.into())),
        Ok(_) => Err(format!("{name} ended, and the disk still has its password{}", free_again(send))),
        Err(error) => Err(format!("{name} ended, and the disk does not answer any more: {error}")),
    }
}

/// After a failure: takes the password away, so that the disk can be written; says what could not be done.
fn free_again(send: &mut Send<'_>) -> String {
    // Not locked is an error to some disks: what counts is how it ends.
    let _ = security(send, UNLOCK, 0, SHORT);
    let disabled = security(send, DISABLE_PASSWORD, 0, SHORT);
    match (identify(send), disabled) {
        (Ok(now), _) if !now.is_enabled && !now.is_locked => String::new(),
        (_, Err(error)) => format!("; it keeps the empty user password: {error}"),
        _ => "; it keeps the empty user password".into(),
    }
}

/// Three times what the disk says, and never less than two hours: a kernel that gives up resets the disk.
fn time_limit(minutes: u64) -> Duration {
    match minutes {
        0 => LONGEST,
        minutes => Duration::from_secs(minutes * 60 * 3).clamp(Duration::from_secs(7200), LONGEST),
    }
}

fn command(send: &mut Send<'_>, opcode: u8, timeout: Duration) -> io::Result<()> {
    send(&AtaCommand { opcode, transfer: AtaTransfer::None, timeout }, &mut [])
}

/// A command with the empty user password. `mode` is the first byte of its data; bit 0 clear means the user password.
fn security(send: &mut Send<'_>, opcode: u8, mode: u8, timeout: Duration) -> io::Result<()> {
    let mut data = [0u8; ATA_SECTOR];
    data[0] = mode;
    send(&AtaCommand { opcode, transfer: AtaTransfer::Out, timeout }, &mut data)
}

fn identify(send: &mut Send<'_>) -> io::Result<Identity> {
    let mut data = [0u8; ATA_SECTOR];
    send(&AtaCommand { opcode: IDENTIFY, transfer: AtaTransfer::In, timeout: SHORT }, &mut data)?;
    Ok(parse(&data))
}

fn parse(data: &[u8; ATA_SECTOR]) -> Identity {
    let word = |number: usize| {
        let low = data.get(number * 2).copied().unwrap_or_default();
        let high = data.get(number * 2 + 1).copied().unwrap_or_default();
        u16::from_le_bytes([low, high])
    };
    let wide = |number: usize| {
        (0..4).rev().fold(0u64, |value, index| (value << 16) | u64::from(word(number + index)))
    };
    let security = word(128);
    let bit = |number: u16| security & (1 << number) != 0;
    // Word 106: bits 15 and 14 are 0 and 1 when it is valid; bit 12 says that words 117 and 118 hold the sector's length.
    let sector = match word(106) & 0xd000 {
        0x5000 => 2 * (u64::from(word(118)) << 16 | u64::from(word(117))),
        _ => 512,
    };
    let has_wide_addresses = word(83) & 0xc400 == 0x4400;
    Identity {
        // All bits set is what a bridge without an idea answers.
        is_supported: bit(0) && security != 0xffff,
        is_enabled: bit(1),
        is_locked: bit(2),
        is_frozen: bit(3),
        has_enhanced: bit(5),
        minutes: minutes(word(89)),
        enhanced_minutes: minutes(word(90)),
        size: has_wide_addresses.then(|| wide(100).saturating_mul(sector)),
    }
}

/// Words 89 and 90: units of two minutes, in 8 bits, or in 15 where the top bit is set. The largest value means "longer".
fn minutes(word: u16) -> u64 {
    let (value, largest) = if word & 0x8000 != 0 { (word & 0x7fff, 0x7fff) } else { (word & 0xff, 0xff) };
    if value == largest { 0 } else { u64::from(value) * 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 30;

    /// A disk that behaves as the standard says, with defects on demand.
    #[derive(Clone, Debug, Default)]
    struct Drive {
        security: u16,
        password: Option<u8>,
        is_prepared: bool,
        is_erased: bool,
        refuses: Vec<u8>,
        size: Option<u64>,
        commands: Vec<u8>,
    }

    const SUPPORTED: u16 = 1;
    const ENABLED: u16 = 2;
    const LOCKED: u16 = 4;
    const FROZEN: u16 = 8;
    const HAS_ENHANCED: u16 = 0x20;

    impl Drive {
        fn new(security: u16) -> Self {
            Self { security, ..Self::default() }
        }

        fn answer(&mut self, command: &AtaCommand, data: &mut [u8]) -> io::Result<()> {
            self.commands.push(command.opcode);
            if self.refuses.contains(&command.opcode) {
                return Err(io::Error::other("aborted"));
            }
            let given = data.get(2).copied();
            match command.opcode {
                IDENTIFY => {
                    let mut put = |word: usize, value: u16| {
                        data[word * 2..word * 2 + 2].copy_from_slice(&value.to_le_bytes());
                    };
                    put(83, 0x4400);
                    put(128, self.security);
                    put(89, 3);
                    put(90, 0x8000 | 600);
                    let sectors = self.size.unwrap_or(SIZE) / 512;
                    for index in 0..4 {
                        put(100 + index, u16::try_from(sectors >> (16 * index) & 0xffff).unwrap());
                    }
                }
                SET_PASSWORD => {
                    self.password = given;
                    self.security |= ENABLED;
                }
                UNLOCK if given == self.password => self.security &= !LOCKED,
                DISABLE_PASSWORD if given == self.password => self.security &= !ENABLED,
                UNLOCK | DISABLE_PASSWORD => return Err(io::Error::other("wrong password")),
                ERASE_PREPARE => self.is_prepared = true,
                ERASE_UNIT => {
                    assert!(self.is_prepared && self.security & LOCKED == 0 && given == self.password);
                    assert_eq!(data[0] & ENHANCED != 0, self.security & HAS_ENHANCED != 0);
                    self.is_erased = true;
                    self.security &= !ENABLED;
                }
                other => panic!("unexpected command {other:#x}"),
            }
            Ok(())
        }

        fn run(&mut self) -> Result<Outcome, String> {
            secure_erase(&mut |command, data| self.answer(command, data), SIZE)
        }
    }

    #[test]
    fn a_disk_is_erased_and_free_of_its_password_afterwards() {
        for (security, name) in
            [(SUPPORTED, "ATA secure erase"), (SUPPORTED | HAS_ENHANCED, "ATA enhanced secure erase")]
        {
            let mut drive = Drive::new(security);
            assert_eq!(drive.run(), Ok(Outcome::Erased(name.into())));
            assert!(drive.is_erased);
            assert_eq!(drive.commands, [IDENTIFY, SET_PASSWORD, ERASE_PREPARE, ERASE_UNIT, IDENTIFY]);
        }
    }

    #[test]
    fn a_disk_locked_with_the_empty_password_is_unlocked_first() {
        let mut drive = Drive { password: Some(0), ..Drive::new(SUPPORTED | ENABLED | LOCKED) };
        assert_eq!(drive.run(), Ok(Outcome::Erased("ATA secure erase".into())));
        assert!(!drive.commands.contains(&SET_PASSWORD));
    }

    #[test]
    fn what_a_disk_does_not_support_changes_nothing_on_it() {
        for drive in [
            Drive::new(0),
            Drive::new(0xffff),
            Drive { refuses: vec![IDENTIFY], ..Drive::new(SUPPORTED) },
            Drive { size: Some(SIZE * 2), ..Drive::new(SUPPORTED) },
        ] {
            let mut drive = drive;
            assert!(matches!(drive.run(), Ok(Outcome::Unsupported(_))), "{drive:?}");
            assert_eq!(drive.commands, [IDENTIFY]);
        }
    }

    #[test]
    fn frozen_and_locked_disks_are_errors_that_say_what_to_do() {
        let mut frozen = Drive::new(SUPPORTED | FROZEN);
        assert!(frozen.run().unwrap_err().contains("frozen"));
        assert_eq!(frozen.commands, [IDENTIFY]);
        let mut locked = Drive { password: Some(7), ..Drive::new(SUPPORTED | ENABLED | LOCKED) };
        assert!(locked.run().unwrap_err().contains("password that is not known"));
        assert!(!locked.is_erased);
    }

    #[test]
    fn after_a_failed_erase_the_password_is_taken_away() {
        let mut drive = Drive { refuses: vec![ERASE_UNIT], ..Drive::new(SUPPORTED) };
        let reason = drive.run().unwrap_err();
        assert!(reason.contains("aborted") && !reason.contains("keeps"), "{reason}");
        assert_eq!(drive.security, SUPPORTED);
        let mut drive = Drive { refuses: vec![ERASE_UNIT, DISABLE_PASSWORD], ..Drive::new(SUPPORTED) };
        assert!(drive.run().unwrap_err().contains("keeps the empty user password"));
    }

    #[test]
    fn times_and_sizes_are_read_as_the_standard_gives_them() {
        assert_eq!((minutes(3), minutes(0x8000 | 600), minutes(0xff), minutes(0xffff)), (6, 1200, 0, 0));
        assert_eq!(time_limit(0), LONGEST);
        assert_eq!(time_limit(6), Duration::from_secs(7200));
        assert_eq!(time_limit(1200), Duration::from_secs(LONGEST.as_secs()));
        assert_eq!(time_limit(100), Duration::from_secs(18_000));
        let mut data = [0u8; 512];
        let mut put = |word: usize, value: u16| {
            data[word * 2..word * 2 + 2].copy_from_slice(&value.to_le_bytes());
        };
        put(83, 0x4400);
        put(100, 1000);
        put(106, 0x5000);
        put(117, 2048); // words: sectors of 4096 bytes
        assert_eq!(parse(&data).size, Some(4_096_000));
        assert_eq!(parse(&[0; 512]).size, None);
    }
}
