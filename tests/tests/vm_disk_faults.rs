//! Disks that fail under the agent's hands, and machines whose plug is pulled while it writes: nothing unverified is ever left
//! to boot, the error names the disk, and the next deployment succeeds.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Bus, Disk, Fault, FileServer, Guest, Scratch, head_is_zero, noise_file, patient, same_content, skip_vm,
};
use serde_json::json;

const MIB: u64 = 1 << 20;
/// Large enough to be interrupted in the middle of, small enough to be written often.
const IMAGE: u64 = 24 * MIB;
/// The smallest disk that is taken without a hint; its file is sparse.
const DISK: u64 = 4096 * MIB;

struct Image {
    name: &'static str,
    path: PathBuf,
    sha512: String,
}

impl Image {
    fn new(dir: &Path, name: &'static str, seed: u64) -> Result<Self> {
        let path = dir.join(name);
        noise_file(&path, IMAGE, seed)?;
        // Tests may start processes; this one is a fact that no code of ours has computed.
        #[allow(clippy::disallowed_methods)]
        let output = Command::new("/usr/bin/sha512sum").arg(&path).output()?;
        let text = String::from_utf8(output.stdout)?;
        let sha512 = text.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { name, path, sha512 })
    }

    fn begin(&self, guest: &Guest, server: &FileServer) -> Result<()> {
        guest.begin_write(&server.guest_url(self.name), &self.sha512)
    }

    /// Writes it all, and looks at the disk.
    fn deploy(&self, guest: &Guest, server: &FileServer, disk: &Path) -> Result<()> {
        self.begin(guest, server)?;
        if let Err(error) = guest.outcome(patient(120))? {
            bail!("the deployment failed: {error}\n{}", guest.vm.serial.tail());
        }
        same_content(disk, &self.path)
    }
}

/// A folder with two images and a server for them.
fn bench(name: &str) -> Result<(Scratch, FileServer, [Image; 2])> {
    let scratch = Scratch::new(name)?;
    let images = scratch.join("images");
    std::fs::create_dir_all(&images)?;
    let pair = [Image::new(&images, "old.raw", 31)?, Image::new(&images, "new.raw", 32)?];
    let server = FileServer::start(images)?;
    Ok((scratch, server, pair))
}

/// Each power loss is followed by a boot and a whole deployment. Two machines at a time.
#[test]
fn vm_power_loss_at_random_points_leaves_nothing_unverified_and_the_next_deploy_succeeds() -> Result<()> {
    if skip_vm()? {
        return Ok(());
    }
    // A switch of the test itself.
    #[allow(clippy::disallowed_methods)]
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let losses = number("FERRIC_TEST_POWER_LOSSES").unwrap_or(20);
    let seed = number("FERRIC_TEST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0) >> 16);
    println!("{losses} power losses; FERRIC_TEST_SEED={seed} repeats their points");
    let points: Vec<Point> = (0..losses).map(|n| Point::draw(seed, n, losses)).collect();
    let (first, second) = points.split_at(points.len() / 2);
    let (first, second) = std::thread::scope(|scope| {
        let other = scope.spawn(|| lose_power("power-1", first));
        let own = lose_power("power-2", second);
        (other.join().unwrap_or_else(|_| bail!("the thread of power-1 panicked")), own)
    });
    first.and(second).with_context(|| format!("FERRIC_TEST_SEED={seed} repeats it"))
}

/// When the plug is pulled.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// After so many bytes of the image were sent.
    sent: u64,
    /// And so much later: beyond the last byte there is still the end of the write, and the commit.
    after: Duration,
}

impl Point {
    /// Point number `n` of `count`: one of five lies after the last byte. Each of the others has a part of the image of its own.
    fn draw(seed: u64, n: u64, count: u64) -> Self {
        // SplitMix64 (Steele, Lea, Flood 2014)
        let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let random = z ^ (z >> 31);
        if n % 5 == 4 {
            return Self { sent: IMAGE, after: Duration::from_millis(random % 400) };
        }
        let part = IMAGE / count.max(1);
        Self { sent: n * part + random % part.max(1), after: Duration::ZERO }
    }
}

fn lose_power(name: &str, points: &[Point]) -> Result<()> {
    let (scratch, server, [old, new]) = bench(name)?;
    // Not faster than a point can be met: what is sent and not yet written is a small part of the image.
    server.fault(new.name, Fault::Pace(12 * MIB));
    let disk = scratch.join("disk");
    Disk::blank(&disk, DISK)?;
    let boot = |n: usize| Guest::boot(vec![Disk::new(&disk)], "", scratch.path(), &format!("{name}-{n}"));
    for (n, point) in points.iter().enumerate() {
        let guest = boot(n)?;
        // The next deployment after the plug was pulled, and the old system for this time.
        old.deploy(&guest, &server, &disk).with_context(|| format!("deploying before {point:?}"))?;
        let before = server.traffic(new.name).sent;
        new.begin(&guest, &server)?;
        let begun = Instant::now();
        while server.traffic(new.name).sent < before + point.sent {
            ensure!(begun.elapsed() < patient(120), "{point:?} is not reached: {}", guest.vm.serial.tail());
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(point.after);
        drop(guest);
        let state = State::of(&disk, &old, &new).with_context(|| format!("after {point:?}"))?;
        println!("{name}: {} KiB sent and {:?}: {state:?}", point.sent / 1024, point.after);
    }
    let guest = boot(points.len())?;
    old.deploy(&guest, &server, &disk).context("deploying after the last power loss")?;
    drop(guest);
    scratch.passed();
    Ok(())
}

/// What a machine whose plug was pulled may have on its disk. Everything else is an error.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The old system, whole: the write had not begun.
    Old,
    /// The head is zero or being zeroed: what follows is of the old system, or some of it of the new one.
    Headless,
    /// All of the new system but its head, which was verified and is on its way.
    Committing,
    /// The new system.
    New,
}

impl State {
    fn of(disk: &Path, old: &Image, new: &Image) -> Result<Self> {
        let length = usize::try_from(IMAGE)?;
        let mut found = vec![0; length];
        File::open(disk)?.read_exact_at(&mut found, 0)?;
        let (old, new) = (std::fs::read(&old.path)?, std::fs::read(&new.path)?);
        let head = usize::try_from(MIB)?;
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let (found_head, found_rest) = found.split_at_checked(head).context("the disk is short")?;
        let (old_rest, new_rest) = (old.get(head..), new.get(head..));
        if found == old {
            Ok(Self::Old)
        } else if found == new {
            Ok(Self::New)
        } else if is_zero(found_head) {
            // The end of the image is held back as well, and so is the end of the disk.
            let tail = length - head;
            let (end, image_end) = (found.get(tail..), new.get(tail..));
            ensure!(
                end != image_end || Some(found_rest) == new_rest,
                "the end of the image was written early"
            );
            Ok(if Some(found_rest) == new_rest { Self::Committing } else { Self::Headless })
        } else if Some(found_rest) == new_rest {
            Ok(Self::Committing)
        } else if Some(found_rest) == old_rest {
            Ok(Self::Headless)
        } else {
            bail!("the head is not zero, and what follows is neither the old system nor the new one")
        }
    }
}

#[test]
fn vm_sector_that_can_not_be_written_fails_the_deploy_by_disk_and_offset() -> Result<()> {
    if skip_vm()? {
        return Ok(());
    }
    let (scratch, server, [_, image]) = bench("bad-sector")?;
    let disk = scratch.join("disk");
    let bad = 13 * MIB + 4096;
    let blank = Disk { bad: Some(bad), ..Disk::blank(&disk, DISK)? };
    let guest = Guest::boot(vec![blank], "", scratch.path(), "bad-sector")?;
    image.begin(&guest, &server)?;
    let error = guest.outcome(patient(120))?.err().context("a disk with a bad sector was taken")?;
    // EIO; the words for it are those of the C library that the agent was linked with.
    for word in ["/dev/vda", "(os error 5)", "does not boot"] {
        ensure!(error.contains(word), "no {word} in {error}");
    }
    let offset =
        error.split("offset ").nth(1).and_then(|rest| rest.split([' ', ',']).next()?.parse::<u64>().ok());
    let offset = offset.with_context(|| format!("no offset in {error}"))?;
    ensure!((offset..offset + 2 * MIB).contains(&bad), "offset {offset} for a bad sector at {bad}: {error}");
    drop(guest);
    head_is_zero(&disk)?;
    // Another disk of the kind, and the deployment succeeds.
    let guest = Guest::boot(vec![Disk::new(&disk)], "", scratch.path(), "mended")?;
    image.deploy(&guest, &server, &disk)?;
    drop(guest);
    scratch.passed();
    Ok(())
}

#[test]
fn vm_disk_that_is_pulled_fails_the_deploy_and_has_no_head() -> Result<()> {
    if skip_vm()? {
        return Ok(());
    }
    let (scratch, server, [_, image]) = bench("pulled")?;
    let disk = scratch.join("disk");
    let blank = Disk { bus: Bus::Scsi, ..Disk::blank(&disk, DISK)? };
    let guest = Guest::boot(vec![blank], "", scratch.path(), "pulled")?;
    server.fault(image.name, Fault::Pace(6 * MIB));
    image.begin(&guest, &server)?;
    let begun = Instant::now();
    while server.traffic(image.name).sent < IMAGE / 2 {
        ensure!(
            begun.elapsed() < patient(120),
            "half of the image is not reached: {}",
            guest.vm.serial.tail()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    guest.vm.qmp()?.execute("device_del", json!({"id": "disk0"}))?;
    let error = guest.outcome(patient(120))?.err().context("a disk that was pulled was taken")?;
    for word in ["/dev/sda", "offset", "does not boot"] {
        ensure!(error.contains(word), "no {word} in {error}");
    }
    drop(guest);
    head_is_zero(&disk)?;
    let again = Disk { bus: Bus::Scsi, ..Disk::new(&disk) };
    let guest = Guest::boot(vec![again], "", scratch.path(), "plugged")?;
    server.heal(image.name);
    image.deploy(&guest, &server, &disk)?;
    drop(guest);
    scratch.passed();
    Ok(())
}
