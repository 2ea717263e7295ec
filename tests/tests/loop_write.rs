//! `ferric-agent write` as a person uses it, onto loop devices that the test made.

// Tests start the programs they test.
#![allow(clippy::disallowed_methods)]

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{Fault, LoopDevice, WriteBench, head_is_zero, noise_file, patient, same_content, until, words};

const MIB: u64 = 1 << 20;
const IMAGE: u64 = 48 * MIB;

struct Bench {
    base: WriteBench,
    raw: PathBuf,
}

impl Deref for Bench {
    type Target = WriteBench;

    fn deref(&self) -> &WriteBench {
        &self.base
    }
}

impl Bench {
    /// An image of noise with holes, and a device of 64 MiB.
    fn new(name: &str) -> Result<Option<Self>> {
        let Some(base) = WriteBench::used(name, 64 * MIB)? else { return Ok(None) };
        let raw = base.image("image.raw");
        noise_file(&raw, IMAGE, 7)?;
        // Holes, so that qcow2 has unallocated clusters: 8 MiB of zeros in the middle.
        let file = std::fs::File::options().write(true).open(&raw)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; 8 << 20], 16 * MIB)?;
        Ok(Some(Self { base, raw }))
    }

    fn convert(&self, name: &str, options: &[&str]) -> Result<()> {
        let target = self.image(name);
        let output = Command::new("qemu-img")
            .args(["convert", "-O", "qcow2"])
            .args(options)
            .arg(&self.raw)
            .arg(target)
            .output()?;
        ensure!(output.status.success(), "qemu-img: {}", words(&output));
        Ok(())
    }

    fn command(&self, name: &str, allowed: Option<&Path>) -> Result<Command> {
        let mut command = self.base.command(name, allowed)?;
        let format = if name.ends_with(".raw") { "raw" } else { "qcow2" };
        command.args(["--format", format, "--progress", "none"]);
        Ok(command)
    }

    fn write(&self, name: &str) -> Result<Output> {
        Ok(self.command(name, Some(self.device.path()))?.output()?)
    }
}

#[test]
fn loop_every_form_of_an_image_gives_the_same_disk() -> Result<()> {
    let Some(bench) = Bench::new("loop-forms")? else { return Ok(()) };
    bench.convert("plain.qcow2", &[])?;
    bench.convert("zlib.qcow2", &["-c"])?;
    bench.convert("zstd.qcow2", &["-c", "-o", "compression_type=zstd"])?;
    bench.convert("old.qcow2", &["-o", "compat=0.10"])?;
    for name in ["image.raw", "plain.qcow2", "zlib.qcow2", "zstd.qcow2", "old.qcow2"] {
        noise_file(bench.device.path(), 64 * MIB, 9)?;
        let output = bench.write(name)?;
        ensure!(output.status.success(), "{name}: {}", words(&output));
        same_content(bench.device.path(), &bench.raw).with_context(|| name.to_owned())?;
    }
    bench.base.passed();
    Ok(())
}

#[test]
fn loop_flipped_bit_leaves_no_head_and_names_the_digest() -> Result<()> {
    let Some(bench) = Bench::new("loop-flip")? else { return Ok(()) };
    bench.server.fault("image.raw", Fault::FlipByte(40 * MIB + 5));
    let output = bench.write("image.raw")?;
    ensure!(!output.status.success(), "a wrong image was taken");
    let expected = bench.sha256("image.raw")?;
    ensure!(words(&output).contains(&expected), "the error must name the digest: {}", words(&output));
    head_is_zero(bench.device.path())?;
    bench.base.passed();
    Ok(())
}

#[test]
fn loop_cut_connection_is_resumed_where_it_was() -> Result<()> {
    let Some(bench) = Bench::new("loop-cut")? else { return Ok(()) };
    bench.convert("zlib.qcow2", &["-c"])?;
    for name in ["image.raw", "zlib.qcow2"] {
        let size = std::fs::metadata(bench.image(name))?.len();
        bench.server.fault(name, Fault::CutOnce(size * 9 / 10));
        let output = bench.write(name)?;
        ensure!(output.status.success(), "{name}: {}", words(&output));
        same_content(bench.device.path(), &bench.raw)?;
        let traffic = bench.server.traffic(name);
        ensure!(traffic.sent < size * 11 / 10, "{name}: {traffic:?}");
    }
    bench.base.passed();
    Ok(())
}

#[test]
fn loop_disk_outside_the_allow_list_is_not_written() -> Result<()> {
    let Some(bench) = Bench::new("loop-allow")? else { return Ok(()) };
    let before = std::fs::read(bench.device.path())?;
    let other = LoopDevice::create(&bench.scratch.join("other"), 64 * MIB)?;
    // Without an allow-list, and with one that names another disk: outside of a ramdisk both are refused.
    for allowed in [None, Some(other.path())] {
        let output = bench.command("image.raw", allowed)?.output()?;
        ensure!(output.status.code() == Some(3), "{allowed:?}: {:?}: {}", output.status, words(&output));
        ensure!(
            words(&output).contains("allow-list"),
            "the refusal must name what would allow it: {}",
            words(&output)
        );
    }
    ensure!(std::fs::read(bench.device.path())? == before, "the disk was changed");
    ensure!(
        bench.server.traffic("image.raw").sent < MIB,
        "the image was fetched for a disk that is not allowed"
    );
    bench.base.passed();
    Ok(())
}

#[test]
fn loop_memory_stays_under_48_mib() -> Result<()> {
    let Some(bench) = Bench::new("loop-memory")? else { return Ok(()) };
    bench.convert("zstd.qcow2", &["-c", "-o", "compression_type=zstd"])?;
    for name in ["image.raw", "zstd.qcow2"] {
        // Slow enough to be measured, stalled at the end so that the peak can be read.
        let size = std::fs::metadata(bench.image(name))?.len();
        bench.server.fault(name, Fault::Stall(size - 1, Duration::from_secs(2)));
        let mut command = bench.command(name, Some(bench.device.path()))?;
        let mut child = command.stderr(Stdio::inherit()).spawn()?;
        let status = format!("/proc/{}/status", child.id());
        let mut peak_kib = 0;
        let ended = until("the write to end", patient(60), || {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let now = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
            peak_kib = peak_kib.max(now.unwrap_or(0));
            Ok(child.try_wait()?)
        });
        let _ = child.kill(); // if it has not ended
        let _ = child.wait();
        ensure!(ended?.success(), "writing {name} failed");
        println!("peak memory writing {name}: {peak_kib} KiB");
        ensure!(peak_kib > 0, "memory was not measured");
        ensure!(peak_kib < 48 * 1024, "writing {name} took {peak_kib} KiB");
    }
    bench.base.passed();
    Ok(())
}
