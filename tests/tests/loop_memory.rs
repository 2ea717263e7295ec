//! The whole agent in a control group of 48 MiB, with every format and its most demanding variants: the kernel kills it
//! where it takes more.

// Tests start the programs they test.
#![allow(clippy::disallowed_methods)]

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::{MemoryLimit, WriteBench, noise_file, same_content, skipped, words};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 48 * MIB;
/// Twice the limit, and room for every buffer to be used.
const IMAGE: u64 = 96 * MIB;
const DISK: u64 = 128 * MIB;
const SIGKILL: i32 = 9;

/// How each image is made from `image.raw`: file name, and a shell command that writes `$2` from `$1`.
const IMAGES: [(&str, &str); 12] = [
    ("plain.qcow2", "qemu-img convert -O qcow2 $1 $2"),
    ("zlib.qcow2", "qemu-img convert -c -O qcow2 $1 $2"),
    ("zstd.qcow2", "qemu-img convert -c -O qcow2 -o compression_type=zstd $1 $2"),
    ("large-clusters.qcow2", "qemu-img convert -O qcow2 -o cluster_size=2M $1 $2"),
    ("large-zlib.qcow2", "qemu-img convert -c -O qcow2 -o cluster_size=2M $1 $2"),
    ("large-zstd.qcow2", "qemu-img convert -c -O qcow2 -o cluster_size=2M,compression_type=zstd $1 $2"),
    ("small-clusters.qcow2", "qemu-img convert -O qcow2 -o cluster_size=512 $1 $2"),
    ("extended.qcow2", "qemu-img convert -O qcow2 -o extended_l2=on,cluster_size=128k $1 $2"),
    ("image.gz", "gzip -1 -c $1 >$2"),
    // Its window is the largest that the default of image_decoder_memory admits.
    ("window.zst", "zstd -q -3 --long=24 -c $1 >$2"),
    // The largest dictionary that leaves room for what else the decoder needs.
    ("dictionary.xz", "xz -0 --lzma2=preset=0,dict=16MiB -c $1 >$2"),
    ("image.bz2", "bzip2 -c $1 >$2"),
];

struct Bench(WriteBench);

impl Deref for Bench {
    type Target = WriteBench;

    fn deref(&self) -> &WriteBench {
        &self.0
    }
}

impl Bench {
    fn new(name: &str, disk: u64) -> Result<Option<Self>> {
        Self::with_sectors(name, disk, 512)
    }

    fn with_sectors(name: &str, disk: u64, sector: u32) -> Result<Option<Self>> {
        let Some(base) = WriteBench::blank(name, disk, sector)? else { return Ok(None) };
        // So that what the device writes is not charged to the group as page cache. A file system that can not do that
        // only makes the test harder.
        let _ = Command::new("/usr/sbin/losetup").arg("--direct-io=on").arg(base.device.path()).output();
        Ok(Some(Self(base)))
    }

    fn make(&self, name: &str, line: &str) -> Result<()> {
        let script = format!("set -e; {line}");
        let output = Command::new("sh")
            .args(["-c", &script, "sh"])
            .args([self.image("image.raw"), self.image(name)])
            .output()?;
        ensure!(output.status.success(), "{name}: {}", words(&output));
        Ok(())
    }

    fn write(&self, name: &str, more: &[&str], limit: &MemoryLimit) -> Result<Output> {
        let mut command = self.command(name, Some(self.device.path()))?;
        command.args(["--progress", "none"]).args(more);
        Ok(limit.enter(&command).stdin(Stdio::null()).output()?)
    }

    /// Writes an image in a group of its own, and says its peak.
    fn write_limited(&self, name: &str, more: &[&str]) -> Result<u64> {
        let limit = MemoryLimit::new(name, LIMIT).context("a group of memory can no longer be made")?;
        let output = self.write(name, more, &limit)?;
        let peak = limit.peak()?;
        ensure!(output.status.success(), "{name}: {} after {peak} bytes: {}", output.status, words(&output));
        println!("{name}: at most {} KiB, page cache included", peak / 1024);
        ensure!(peak <= LIMIT, "{name}: {peak} bytes");
        Ok(peak)
    }
}

fn limits_memory() -> bool {
    let there = MemoryLimit::new("probe", LIMIT).is_some();
    if !there {
        skipped("no control group that limits memory can be made here");
    }
    there
}

/// Noise of four bits a byte, which every compression halves, with a hole.
fn compressible(path: &Path, bytes: u64) -> Result<()> {
    noise_file(path, bytes, 7)?;
    let file = File::options().read(true).write(true).open(path)?;
    let mut part = vec![0; usize::try_from(MIB)?];
    for at in (MIB..bytes).step_by(part.len()) {
        file.read_exact_at(&mut part, at)?;
        let hole = (40 * MIB..48 * MIB).contains(&at);
        part.iter_mut().for_each(|byte| *byte = if hole { 0 } else { *byte & 0x0f });
        file.write_all_at(&part, at)?;
    }
    Ok(())
}

#[test]
fn loop_every_format_is_written_within_48_mib() -> Result<()> {
    if !limits_memory() {
        return Ok(());
    }
    let Some(bench) = Bench::new("loop-memory-limit", DISK)? else { return Ok(()) };
    compressible(&bench.image("image.raw"), IMAGE)?;
    bench.write_limited("image.raw", &[])?;
    same_content(bench.device.path(), &bench.image("image.raw"))?;
    for (name, line) in IMAGES {
        bench.make(name, line)?;
        noise_file(bench.device.path(), DISK, 9)?;
        bench.write_limited(name, &[])?;
        same_content(bench.device.path(), &bench.image("image.raw")).with_context(|| name.to_owned())?;
        fs::remove_file(bench.image(name))?;
    }
    bench.0.passed();
    Ok(())
}

/// The virtual disk is larger than the memory of most machines, and its tables are spread over all of it.
#[test]
fn loop_an_image_of_64_gib_is_written_within_48_mib() -> Result<()> {
    const LARGE: u64 = 64 << 30;
    if !limits_memory() {
        return Ok(());
    }
    let Some(bench) = Bench::new("loop-memory-large", LARGE + MIB)? else { return Ok(()) };
    let raw = bench.image("image.raw");
    noise_file(&raw, 4 * MIB, 5)?;
    let file = File::options().read(true).write(true).open(&raw)?;
    file.set_len(LARGE)?;
    let mark = |at: u64| at.to_le_bytes().repeat(512);
    let places: Vec<u64> = (1..64).map(|gib| (gib << 30) + gib * 4096).collect();
    for at in &places {
        file.write_all_at(&mark(*at), *at)?;
    }
    let disk = File::options().read(true).write(true).open(bench.device.path())?;
    for at in &places {
        // Old content, beside what the image has there, that must be zero afterwards.
        disk.write_all_at(&[0xa5; 8192], at + 8192)?;
    }
    disk.sync_all()?;
    for (name, line) in [
        ("plain.qcow2", "qemu-img convert -O qcow2 $1 $2"),
        ("zstd.qcow2", "qemu-img convert -c -O qcow2 -o compression_type=zstd $1 $2"),
    ] {
        bench.make(name, line)?;
        bench.write_limited(name, &[])?;
        for at in &places {
            let mut found = vec![0xff; 4096 * 4];
            disk.read_exact_at(&mut found, *at)?;
            ensure!(found.get(..4096) == Some(mark(*at).as_slice()), "{name}: wrong data at {at}");
            let after = found.get(4096..).unwrap_or_default();
            ensure!(after.iter().all(|byte| *byte == 0), "{name}: no zeroes after {at}");
        }
    }
    bench.0.passed();
    Ok(())
}

/// The volume that is made anew is kept in memory until it is whole: as many bytes of files as are taken, in one and in many.
#[test]
fn loop_a_translated_image_is_written_within_48_mib() -> Result<()> {
    const ESP: u64 = 272 * MIB;
    /// Makes `$1` an image for sectors of 512 bytes, with `$2` files of `$3` bytes from `$1.file` in its EFI system partition.
    const MAKE: &str = "set -e; PATH=$PATH:/usr/sbin; rm -f $1 $1.esp; truncate -s 320M $1
        sgdisk --new=1:2048:+272M --typecode=1:ef00 --new=2:0:+32M $1 >/dev/null
        truncate -s 272M $1.esp; mkfs.vfat -F 32 -n ESP $1.esp >/dev/null
        mkdir $1.dir; for number in $(seq $2); do
            head -c $3 $1.file >\"$1.dir/a file of many, number $number\"
        done; mcopy -i $1.esp -s $1.dir ::EFI; rm -r $1.dir
        dd if=$1.esp of=$1 bs=1M seek=1 conv=notrunc,sparse status=none; rm $1.esp";
    if !limits_memory() {
        return Ok(());
    }
    let disk = 336 * MIB;
    let Some(bench) = Bench::with_sectors("loop-memory-translated", disk, 4096)? else { return Ok(()) };
    let image = bench.image("image.raw");
    noise_file(&bench.image("image.raw.file"), 16 * MIB, 11)?;
    for (files, bytes) in [(1, 16 * MIB), (500, 32 * 1024)] {
        let arguments = [files.to_string(), bytes.to_string()];
        let made = Command::new("sh").args(["-c", MAKE, "sh"]).arg(&image).args(&arguments).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let started = std::time::Instant::now();
        bench.write_limited("image.raw", &["--translate-sector-size", "--verify"])?;
        println!("{files} files of {bytes} bytes took {:.1} s", started.elapsed().as_secs_f64());
        let mut esp = File::open(bench.device.path())?;
        let mut part = File::create(bench.scratch.join("esp"))?;
        esp.seek(SeekFrom::Start(MIB))?;
        std::io::copy(&mut esp.take(ESP), &mut part)?;
        for number in [1, files] {
            let name = format!("::EFI/a file of many, number {number}");
            let copy = bench.scratch.join("copy");
            let copied = Command::new("mcopy")
                .arg("-ni")
                .arg(bench.scratch.join("esp"))
                .arg(name)
                .arg(&copy)
                .output()?;
            ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
            let expected = fs::read(bench.image("image.raw.file"))?;
            ensure!(
                fs::read(&copy)? == expected.get(..usize::try_from(bytes)?).unwrap_or_default(),
                "file {number}"
            );
        }
    }
    bench.0.passed();
    Ok(())
}

#[test]
fn loop_the_memory_limit_bites() -> Result<()> {
    if !limits_memory() {
        return Ok(());
    }
    let Some(bench) = Bench::new("loop-memory-bites", DISK)? else { return Ok(()) };
    compressible(&bench.image("image.raw"), IMAGE)?;
    let limit = MemoryLimit::new("small", 6 * MIB).context("a group of memory can no longer be made")?;
    let output = bench.write("image.raw", &[], &limit)?;
    ensure!(output.status.signal() == Some(SIGKILL), "ended with {}, not killed", output.status);
    bench.0.passed();
    Ok(())
}
