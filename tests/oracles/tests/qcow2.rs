//! What the guest sees on a qcow2 image, by four readers: all cluster sizes, versions, compressions, extended entries, zero and
//! unallocated clusters, snapshots, and layouts at random.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use fuzz_targets::qcow2_image::{Options, Order, build, random};
use oracles::readers::{ferric, imago, qcow2_rs, qemu_img, text};
use oracles::tools::{has, run, skipped};
use serde_json::Value;

const MIB: usize = 1 << 20;

/// How many images there were, and how many of them the other readers know.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    images: u32,
    imago: u32,
    qcow2_rs: u32,
}

impl Count {
    /// Compares all readers on one image. `truth` is what was put into it, where that is known.
    fn compare(&mut self, image: &Path, size: u64, truth: Option<&[u8]>, what: &str) -> Result<()> {
        self.images += 1;
        let qemu = qemu_img(image).with_context(|| what.to_owned())?;
        let (ours, written) = ferric(image, size).with_context(|| what.to_owned())?;
        same(&ours, &qemu, "ferric", what)?;
        if let Some(truth) = truth {
            same(&qemu, truth, "qemu-img", what)?;
        }
        ensure!(written.virtual_size == size, "{what}: {} bytes, not {size}", written.virtual_size);
        ensure!(written.data_bytes + written.zeroed_bytes == size, "{what}: {written:?}");
        self.compare_map(image, &written, what)?;
        if let Some(disk) = imago(image).with_context(|| what.to_owned())? {
            self.imago += 1;
            same(&disk, &qemu, "imago", what)?;
        }
        if let Some(disk) = qcow2_rs(image, size).with_context(|| what.to_owned())? {
            self.qcow2_rs += 1;
            same(&disk, &qemu, "qcow2-rs", what)?;
        }
        Ok(())
    }

    /// What qemu-img maps as data is written as data. It may be less than Ferric writes: qemu-img looks through to holes of the
    /// file itself, below what the image's tables say.
    fn compare_map(&self, image: &Path, written: &imaging::Written, what: &str) -> Result<()> {
        let map = run("qemu-img", &["map", "--output=json", "-f", "qcow2", text(image)?])?;
        let map: Vec<Value> = serde_json::from_str(&map)?;
        let mut data = 0;
        for entry in &map {
            let length = entry.get("length").and_then(Value::as_u64).context("a length")?;
            let zero = entry.get("zero").and_then(Value::as_bool).context("zero or not")?;
            data += if zero { 0 } else { length };
        }
        ensure!(data <= written.data_bytes, "{what}: qemu-img maps {data} bytes of data: {written:?}");
        Ok(())
    }

    /// The images are the same in each run, so these numbers are, too. They were counted, not computed: fewer means that
    /// somebody is no longer asked.
    fn is(&self, images: u32, imago: u32, qcow2_rs: u32) -> Result<()> {
        let qcow2_rs = if cfg!(feature = "qcow2-rs") { qcow2_rs } else { 0 };
        ensure!(*self == Self { images, imago, qcow2_rs }, "who was asked: {self:?}");
        Ok(())
    }
}

fn same(disk: &[u8], other: &[u8], who: &str, what: &str) -> Result<()> {
    ensure!(disk.len() == other.len(), "{who}, {what}: {} bytes and {}", disk.len(), other.len());
    if disk != other {
        let first = disk.iter().zip(other).position(|(a, b)| a != b).unwrap_or_default();
        anyhow::bail!("{who}, {what}: differs first at byte {first}");
    }
    Ok(())
}

/// Noise, a pattern and zeroes in turns.
fn disk_image(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut disk = Vec::with_capacity(length);
    while disk.len() < length {
        let run = usize::try_from(random(&mut state) % 300_000).unwrap_or_default() + 1;
        match random(&mut state) % 3 {
            0 => disk.resize(disk.len() + run, 0),
            1 => disk.extend((1..=250).cycle().take(run)),
            _ => (0..run / 8).for_each(|_| disk.extend(random(&mut state).to_le_bytes())),
        }
    }
    disk.truncate(length);
    disk
}

fn may_run() -> bool {
    let may = has("qemu-img") && has("qemu-io");
    if !may {
        skipped("no qemu-img and qemu-io");
    }
    may
}

#[test]
fn what_qemu_img_makes_is_read_alike() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("disk");
    let disk = disk_image(5 * MIB + 512 * 7, 1);
    std::fs::write(&raw, &disk)?;
    let mut count = Count::default();
    for cluster_bits in 9..=21 {
        let cluster = format!("cluster_size={}", 1u32 << cluster_bits);
        for (compress, options) in [
            (false, "compat=0.10"),
            (true, "compat=0.10"),
            (false, "compat=1.1"),
            (true, "compat=1.1"),
            (true, "compat=1.1,compression_type=zstd"),
            (false, "compat=1.1,extended_l2=on"),
            (true, "compat=1.1,extended_l2=on,compression_type=zstd"),
            (false, "compat=1.1,preallocation=metadata"),
            (false, "compat=1.1,lazy_refcounts=on,refcount_bits=64"),
        ] {
            if options.contains("extended_l2") && cluster_bits < 14 {
                continue;
            }
            let image = folder.path().join("image.qcow2");
            let options = format!("{options},{cluster}");
            let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", &options];
            if compress {
                arguments.push("-c");
            }
            arguments.extend([text(&raw)?, text(&image)?]);
            run("qemu-img", &arguments)?;
            count.compare(&image, u64::try_from(disk.len())?, Some(&disk), &options)?;
        }
    }
    count.is(107, 78, 60)
}

/// Writes, zeroes and discards at random, and snapshots in between: what qemu itself makes of an image that was in use.
#[test]
fn images_that_were_in_use_are_read_alike() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image.qcow2");
    let mut count = Count::default();
    for seed in 1..=40u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut number = |below: u64| random(&mut state) % below;
        let bits = 9 + number(10);
        let extended = bits >= 14 && number(2) == 0;
        let compat = if !extended && number(4) == 0 { "0.10" } else { "1.1" };
        let zstd = if compat == "1.1" && number(3) == 0 { ",compression_type=zstd" } else { "" };
        let l2 = if extended { ",extended_l2=on" } else { "" };
        let options = format!("compat={compat},cluster_size={}{zstd}{l2}", 1 << bits);
        let size = (1 + number(8)) << 20 | number(64) << 9;
        let _ = std::fs::remove_file(&image);
        run("qemu-img", &["create", "-f", "qcow2", "-o", &options, text(&image)?, &size.to_string()])?;
        // Compressed first: qemu compresses into clusters that were never written, and into no other.
        let cluster = 1 << bits;
        let compressed: BTreeSet<u64> = (0..4).map(|_| number(size / cluster)).collect();
        let mut commands: Vec<String> = compressed
            .into_iter()
            .map(|index| format!("write -c -P {} {} {cluster}", 1 + number(255), index * cluster))
            .collect();
        for _ in 0..20 + number(30) {
            let at = number(size) & !511;
            let length = ((1 + number(200_000)) & !511).max(512).min(size - at);
            commands.push(match number(6) {
                0 => format!("write -z {at} {length}"),
                1 => format!("write -zu {at} {length}"),
                2 => format!("discard {at} {length}"),
                _ => format!("write -P {} {at} {length}", 1 + number(255)),
            });
        }
        let half = commands.len() / 2;
        for (part, commands) in commands.chunks(half.max(1)).enumerate() {
            let mut arguments = vec!["-f", "qcow2"];
            commands.iter().for_each(|command| arguments.extend(["-c", command.as_str()]));
            arguments.push(text(&image)?);
            run("qemu-io", &arguments)?;
            if seed % 3 == 0 && part == 0 {
                run("qemu-img", &["snapshot", "-c", "before", text(&image)?])?;
            }
        }
        run("qemu-img", &["check", "-q", "-f", "qcow2", text(&image)?])?;
        count.compare(&image, size, None, &format!("seed {seed}: {options}, {size} bytes"))?;
    }
    count.is(40, 15, 9)
}

/// Adds an empty table of reference counts, without which qemu opens no image. Ferric reads none.
fn with_reference_counts(mut file: Vec<u8>, cluster_bits: u32) -> Vec<u8> {
    let cluster = 1usize << cluster_bits;
    let offset = file.len().next_multiple_of(cluster);
    file.resize(offset + cluster, 0);
    file[48..56].copy_from_slice(&u64::try_from(offset).unwrap_or_default().to_be_bytes());
    file[56..60].copy_from_slice(&1u32.to_be_bytes());
    file
}

/// Layouts that qemu-img never writes: tables after data, everything shuffled, plain and compressed clusters mixed.
#[test]
fn layouts_of_our_own_maker_are_read_alike() -> Result<()> {
    if !may_run() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image.qcow2");
    let mut count = Count::default();
    for seed in 1..=80u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut number = |below: u64| random(&mut state) % below;
        let version = if number(3) == 0 { 2 } else { 3 };
        let cluster_bits = 9 + u32::try_from(number(13))?;
        let options = Options {
            version,
            cluster_bits,
            zstd: [None, Some(false), Some(version == 3)][usize::try_from(number(3))?],
            compressed: 1 + number(10),
            order: [Order::Natural, Order::DataFirst, Order::Shuffled(seed)][usize::try_from(number(3))?],
            zero_clusters: number(2) == 0,
            extended: version == 3 && cluster_bits >= 14 && number(2) == 0,
        };
        let disk = disk_image(512 * (1 + usize::try_from(number(10_000))?), seed);
        std::fs::write(&image, with_reference_counts(build(&disk, options), cluster_bits))?;
        count.compare(&image, u64::try_from(disk.len())?, Some(&disk), &format!("{options:?}"))?;
    }
    count.is(80, 56, 41)
}

/// The comparison itself: a test that can not fail is a defect.
#[test]
fn a_comparison_that_fails_is_seen() -> Result<()> {
    ensure!(same(&[1, 2], &[1, 2], "a", "b").is_ok());
    let wrong = same(&[1, 2], &[1, 3], "reader", "image").map_err(|error| error.to_string());
    ensure!(wrong == Err("reader, image: differs first at byte 1".to_owned()), "{wrong:?}");
    ensure!(same(&[1], &[1, 3], "reader", "image").is_err());
    Ok(())
}
