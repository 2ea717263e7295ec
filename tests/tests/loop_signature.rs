//! Images signed by the program minisign itself, written by `ferric-agent write` onto a loop device that the test made.

// Tests start the programs they test.
#![allow(clippy::disallowed_methods)]

use std::ops::Deref;
use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};
use e2e::{WriteBench, head_is_zero, noise_file, same_content, words};

const MIB: u64 = 1 << 20;

struct Bench(WriteBench);

impl Deref for Bench {
    type Target = WriteBench;

    fn deref(&self) -> &WriteBench {
        &self.0
    }
}

impl Bench {
    /// An image and two keys, and a device of 32 MiB.
    fn new(name: &str) -> Result<Option<Self>> {
        let Some(base) = WriteBench::used(name, 32 * MIB)? else { return Ok(None) };
        noise_file(&base.image("image.raw"), 24 * MIB, 11)?;
        let bench = Self(base);
        for name in ["key", "other"] {
            bench.minisign(&[
                "-G",
                "-W",
                "-p",
                &bench.path(&format!("{name}.pub")),
                "-s",
                &bench.path(name),
            ])?;
        }
        Ok(Some(bench))
    }

    fn path(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn minisign(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("/usr/bin/minisign").args(arguments).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "minisign {arguments:?} (package minisign): {}", words(&output));
        Ok(())
    }

    /// Signs the image; the file is not beside it, but at `into`.
    fn sign(&self, key: &str, into: &str, more: &[&str]) -> Result<()> {
        let image = self.path("images/image.raw");
        let (key, into) = (self.path(key), self.path(into));
        let common = ["-S", "-s", &key, "-m", &image, "-x", &into, "-t", "release 7 of the noise"];
        self.minisign(&[&common[..], more].concat())
    }

    fn write(&self, more: &[&str]) -> Result<Output> {
        let mut command = self.command("image.raw", Some(self.device.path()))?;
        Ok(command.args(["--format", "raw", "--progress", "json"]).args(more).output()?)
    }

    /// Fails unless the write was refused with this code and these words, before the disk was touched.
    fn refused(&self, more: &[&str], code: i32, words_wanted: &str) -> Result<()> {
        let before = std::fs::read(self.device.path())?;
        let output = self.write(more)?;
        ensure!(output.status.code() == Some(code), "{more:?}: {:?}: {}", output.status, words(&output));
        ensure!(words(&output).contains(words_wanted), "no word of {words_wanted:?}: {}", words(&output));
        ensure!(std::fs::read(self.device.path())? == before, "{more:?}: the disk was changed");
        Ok(())
    }
}

#[test]
fn loop_image_that_minisign_signed_is_written_and_its_comment_shown() -> Result<()> {
    let Some(bench) = Bench::new("signed")? else { return Ok(()) };
    bench.sign("key", "images/image.raw.minisig", &[])?;
    let key = bench.path("key.pub");
    // Beside the image, by URL, and as a file.
    let (url, file) = (bench.server.url("image.raw.minisig"), bench.path("images/image.raw.minisig"));
    for more in [&[][..], &["--signature", &url], &["--signature", &file]] {
        let output = bench.write(&[&["--require-signature", "--image-key", &key], more].concat())?;
        ensure!(output.status.success(), "{more:?}: {}", words(&output));
        let events = String::from_utf8_lossy(&output.stdout);
        ensure!(events.contains("release 7 of the noise"), "no trusted comment: {events}");
        same_content(bench.device.path(), &bench.image("image.raw"))?;
    }
    bench.0.passed();
    Ok(())
}

#[test]
fn loop_signatures_that_do_not_count_are_refused_before_the_disk_is_touched() -> Result<()> {
    let Some(bench) = Bench::new("signed-not")? else { return Ok(()) };
    let key = bench.path("key.pub");
    let trusted = ["--image-key", &key];
    bench.refused(&trusted, 4, "image.raw.minisig")?;
    bench.refused(&["--require-signature"], 2, "no key to check it with")?;
    for (name, signer, more, code, wanted) in [
        ("legacy", "key", &["-l"][..], 5, "minisign -S -H"),
        ("foreign", "other", &["-H"], 5, "not trusted here"),
    ] {
        bench.sign(signer, name, more)?;
        let file = bench.path(name);
        bench.refused(&[&trusted[..], &["--signature", &file]].concat(), code, wanted)?;
    }
    bench.sign("key", "changed", &[])?;
    let changed = bench.path("changed");
    let text = std::fs::read_to_string(&changed)?.replace("release 7", "release 8");
    std::fs::write(&changed, text)?;
    bench.refused(&[&trusted[..], &["--signature", &changed]].concat(), 5, "trusted comment")?;
    bench.0.passed();
    Ok(())
}

#[test]
fn loop_image_that_was_changed_after_signing_leaves_no_head() -> Result<()> {
    let Some(bench) = Bench::new("signed-changed")? else { return Ok(()) };
    bench.sign("key", "images/image.raw.minisig", &[])?;
    // One bit, and a digest to match: whoever can change the image can publish a checksum.
    let file = std::fs::File::options().read(true).write(true).open(bench.image("image.raw"))?;
    std::os::unix::fs::FileExt::write_all_at(&file, b"!", 20 * MIB + 3)?;
    let key = bench.path("key.pub");
    let output = bench.write(&["--image-key", &key])?;
    ensure!(output.status.code() == Some(5), "{:?}: {}", output.status, words(&output));
    ensure!(words(&output).contains("is not what the key"), "{}", words(&output));
    head_is_zero(bench.device.path())?;
    bench.0.passed();
    Ok(())
}
