//! How fast a network interface can be at best, by the link modes that its driver says the hardware supports.
//!
//! Source: `linux/ethtool.h`, `enum ethtool_link_mode_bit_indices`. Bits that name a port, a pause or an error correction
//! are no speed.

/// First and last bit, and the speed in Mbit/s of the modes between them.
const SPEEDS: [(u32, u32, u64); 34] = [
    (0, 1, 10),
    (2, 3, 100),
    (4, 5, 1_000),
    (12, 12, 10_000),
    (15, 15, 2_500),
    (17, 17, 1_000),
    (18, 20, 10_000),
    (21, 22, 20_000),
    (23, 26, 40_000),
    (27, 30, 56_000),
    (31, 33, 25_000),
    (34, 35, 50_000),
    (36, 39, 100_000),
    (40, 40, 50_000),
    (41, 41, 1_000),
    (42, 46, 10_000),
    (47, 47, 2_500),
    (48, 48, 5_000),
    (52, 56, 50_000),
    (57, 61, 100_000),
    (62, 66, 200_000),
    (67, 67, 100),
    (68, 68, 1_000),
    (69, 73, 400_000),
    (75, 79, 100_000),
    (80, 84, 200_000),
    (85, 89, 400_000),
    (90, 91, 100),
    (92, 92, 10),
    (93, 98, 800_000),
    (99, 102, 10),
    (103, 108, 200_000),
    (109, 114, 400_000),
    (115, 120, 800_000),
];

/// The greatest speed among these modes in Mbit/s; `None` when none of them is a speed (virtual interfaces).
pub(crate) fn fastest_mbps(modes: &[u32]) -> Option<u64> {
    let speeds = modes.iter().filter_map(|mode| {
        SPEEDS.iter().find(|(first, last, _)| (*first..=*last).contains(mode)).map(|(.., speed)| *speed)
    });
    speeds.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_mode_counts_and_ports_and_pauses_do_not() {
        assert_eq!(fastest_mbps(&[0, 1, 2, 3, 5, 6, 7, 13]), Some(1_000));
        assert_eq!(fastest_mbps(&[5, 12, 10]), Some(10_000));
        assert_eq!(fastest_mbps(&[31, 36, 49, 50]), Some(100_000));
        assert_eq!(fastest_mbps(&[6, 7, 13, 14, 16, 49, 74, 500]), None);
        assert_eq!(fastest_mbps(&[]), None);
    }

    #[test]
    fn the_table_is_in_order_and_without_overlap() {
        assert!(SPEEDS.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}
