//! The time: what this machine's clock is worth, and setting it right.
//!
//! A machine that comes out of a warehouse believes that it is 2001. Then no certificate of the conductor's is valid yet, and
//! the agent's own is refused. So the time is taken from a time server ([`sntp`]) or, without one, from the `Date` of a reply
//! that can be trusted ([`date`]); [`Timekeeper`] decides and keeps the result.
//!
//! Only in a ramdisk the machine's clock is set (the kernel seam refuses elsewhere). Everywhere else the agent says how
//! wrong it is, and judges and issues certificates by the time as it knows it. Cadence is monotonic everywhere and
//! does not notice any of this. Called by `startup`, by `conductor::Client` and, before the machine goes away, by `command`.

pub mod date;
pub mod sntp;
mod timekeeper;

pub use timekeeper::{Error, TimeServers, Timekeeper, span};

/// When this program was made, in Unix seconds: `SOURCE_DATE_EPOCH` of its build, or else the date of its source. It is
/// never earlier than this.
pub const BUILT: i64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => decimal(text),
    None => 1_780_272_000, // 2026-06-01
};

/// `str::parse` is no `const fn`. Anything but digits is 0: no date at all.
const fn decimal(text: &str) -> i64 {
    let mut bytes = text.as_bytes();
    let mut number: i64 = 0;
    while let [first, rest @ ..] = bytes {
        if !first.is_ascii_digit() || number > 99_999_999_999 {
            return 0;
        }
        number = number * 10 + (*first - b'0') as i64;
        bytes = rest;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_the_build_is_a_date_of_this_century() {
        assert_eq!(decimal("1793491200"), 1_793_491_200);
        assert_eq!(decimal("yesterday"), 0);
        assert_eq!(decimal("99999999999999999999999"), 0);
        assert!((1_700_000_000..4_000_000_000).contains(&BUILT));
    }
}
