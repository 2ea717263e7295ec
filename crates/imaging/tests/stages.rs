//! A disk that fails, dies or loses power at each step of a write: what is left never boots unverified data, and the next
//! write on the same disk succeeds.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use std::sync::OnceLock;

use events::Events;
use imaging::{
    BlockSink, Cancel, Error, ErrorKind, Format, FrailSink, ImageRequest, MemorySink, Trouble, Written,
};
use proptest::prelude::*;
use support::*;

const DISK: usize = 5 * MIB;
/// Ends inside a sector, and its end does not touch the end of the disk.
const IMAGE: usize = 3 * MIB + 5000;
const SECTOR: usize = 512;
const OLD: u8 = 0xa5;

/// An image in a file, so that nothing but the disk can fail.
struct Bench {
    image: Vec<u8>,
    request: ImageRequest,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = disk_image(IMAGE, seed);
        let path = folder.path().join("image.raw");
        std::fs::write(&path, &image).unwrap();
        let request = request(format!("file://{}", path.display()), &image, Format::Raw);
        Self { image, request, _folder: folder }
    }

    /// Writes to a disk in trouble; how many operations came.
    fn write(&self, disk: &MemorySink, trouble: Option<Trouble>) -> (Result<Written, Error>, u32) {
        let sink = FrailSink::new(disk, trouble);
        let (events, cancel) = (Events::default(), Cancel::new());
        let given = Box::new(sink.clone());
        let result = imaging::write_image(&self.request, &transport(), given, &events, &cancel);
        (result, sink.operations())
    }

    /// How many operations a write has.
    fn steps(&self) -> u32 {
        let (result, steps) = self.write(&MemorySink::new(DISK, OLD), None);
        result.unwrap();
        assert!(steps > 8, "wipe, body and commit have {steps} operations");
        steps
    }

    /// The rule: bytes of the image that could boot, at either end, are on the disk only when all of the image between the
    /// ends is; and the old system's ends are there only as long as nothing of the image is.
    fn assert_sound(&self, disk: &MemorySink, when: Trouble) {
        let contents = disk.contents();
        let image_tail = IMAGE - MIB;
        let (head, body, tail) = (&contents[..MIB], &contents[MIB..image_tail], &contents[DISK - MIB..]);
        let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        if zero(head) && zero(tail) {
            let end = image_tail.next_multiple_of(4096);
            let early = contents[end..IMAGE] == self.image[end..] && body != &self.image[MIB..image_tail];
            assert!(!early, "{when:?}: the end of the image came before the rest");
            return;
        }
        let whole = *body == self.image[MIB..image_tail];
        let untouched = contents[MIB..DISK - MIB].iter().all(|byte| *byte == OLD);
        assert!(whole || untouched, "{when:?}: an end that could boot, and a body that is not whole");
        if whole && !zero(head) {
            // What is there of the head is the image's, sector by sector, and the old system's end is gone.
            let of_image = head.chunks(SECTOR).zip(self.image.chunks(SECTOR));
            assert!(
                of_image.into_iter().all(|(a, b)| zero(a) || a == b),
                "{when:?}: a head of something else"
            );
            assert!(zero(tail), "{when:?}: the old end of the disk is still there");
        }
    }

    fn assert_next_succeeds(&self, disk: &MemorySink) {
        self.write(disk, None).0.unwrap();
        assert!(disk.contents()[..IMAGE] == self.image, "the next write did not arrive");
        assert!(disk.contents()[DISK - MIB..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_disk_that_fails_once_at_any_step_has_no_head_and_takes_the_next_image() {
    let bench = Bench::new(61);
    for step in 1..=bench.steps() {
        let disk = MemorySink::new(DISK, OLD);
        let (result, _) = bench.write(&disk, Some(Trouble::Once(step)));
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Write, "step {step}: {}", error.report());
        assert!(error.report().contains("offset"), "step {step}: {}", error.report());
        bench.assert_sound(&disk, Trouble::Once(step));
        if error.left_disk_unbootable() {
            assert_unbootable(&disk);
        } else {
            // Clearing failed: the text does not promise what nobody can.
            assert!(error.report().contains("may still boot the old system"), "{}", error.report());
            let body = &disk.contents()[MIB..DISK - MIB];
            assert!(body.iter().all(|byte| *byte == OLD), "step {step}: written after a failed wipe");
        }
        bench.assert_next_succeeds(&disk);
    }
}

#[test]
fn a_disk_that_dies_at_any_step_boots_nothing_unverified_and_takes_the_next_image() {
    let bench = Bench::new(62);
    for step in 1..=bench.steps() {
        let disk = MemorySink::new(DISK, OLD);
        let (result, _) = bench.write(&disk, Some(Trouble::Dies(step)));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Write, "step {step}");
        bench.assert_sound(&disk, Trouble::Dies(step));
        bench.assert_next_succeeds(&disk);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn power_loss_at_any_step_boots_nothing_unverified_whatever_the_disk_forgets(
        step in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        static STEPS: OnceLock<u32> = OnceLock::new();
        let bench = Bench::new(63);
        let step = 1 + step.index(*STEPS.get_or_init(|| bench.steps()) as usize) as u32;
        let disk = MemorySink::new(DISK, OLD);
        let trouble = Trouble::PowerLoss(step, seed);
        prop_assert!(bench.write(&disk, Some(trouble)).0.is_err());
        bench.assert_sound(&disk, trouble);
        bench.assert_next_succeeds(&disk);
    }
}

#[test]
fn the_rule_tells_a_disk_that_was_committed_early() {
    let bench = Bench::new(64);
    let disk = MemorySink::new(DISK, 0);
    disk.clone().write_at(0, &bench.image[..MIB]).unwrap();
    let found = std::panic::catch_unwind(|| bench.assert_sound(&disk, Trouble::Once(0)));
    assert!(found.is_err(), "a head without a body passed");
}
