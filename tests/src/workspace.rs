//! Where things are: the programs in `dist/`, the Debian image, a scratch folder per test; and what is missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// `dist/NAME`: what `make build` leaves for a user.
///
/// # Errors
/// It has not been built.
pub fn dist(name: &str) -> Result<PathBuf> {
    let path = root().join("dist").join(name);
    if !path.exists() {
        bail!("{} is not there; run `make build` first (`make test` does)", path.display());
    }
    Ok(path)
}

/// A program from `PATH` or from where Debian keeps system programs.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether a VM test is to be left out: only when something it needs is missing **and** `FERRIC_TEST_SKIP_VM=1` says
/// that this is known. A test that skips in silence proves nothing, so without that word it fails.
///
/// # Errors
/// Something is missing; the error says which package to install.
pub fn skip_vm() -> Result<bool> {
    let mut missing = Vec::new();
    for (name, package) in [("qemu-system-x86_64", "qemu-system-x86"), ("qemu-img", "qemu-utils")] {
        if program(name).is_none() {
            missing.push(package);
        }
    }
    if !Path::new(crate::vm::OVMF_CODE).exists() {
        missing.push("ovmf");
    }
    if !Path::new("/usr/lib/ipxe/qemu/efi-virtio.rom").exists() {
        missing.push("ipxe-qemu");
    }
    if missing.is_empty() {
        return Ok(false);
    }
    let missing = missing.join(" ");
    if std::env::var_os("FERRIC_TEST_SKIP_VM").is_some_and(|value| value == "1") {
        skipped(&format!("virtual machines need the packages {missing}, and FERRIC_TEST_SKIP_VM=1 is set"));
        return Ok(true);
    }
    bail!(
        "virtual machines need the packages {missing}: run `make setup` or `apt-get install {missing}`; \
         FERRIC_TEST_SKIP_VM=1 skips the tests that need them"
    )
}

/// Says that a test leaves itself out, past the test runner, which would swallow it. `scripts/test.sh` counts these lines.
pub fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}"); // nowhere else to say it
}

/// The Debian disk image, with its sums.
#[derive(Clone, Debug)]
pub struct DebianImage {
    dir: PathBuf,
}

impl DebianImage {
    /// The folder that holds all of its forms.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one form: `disk.raw`, `disk.qcow2`, `disk-zlib.qcow2`, `disk-zstd.qcow2`, `disk-4kn.qcow2`, `root.qcow2`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The SHA-512 of one form in hex, from the list made with it.
    ///
    /// # Errors
    /// The list does not have it.
    pub fn sha512(&self, name: &str) -> Result<String> {
        let list = self.dir.join("SHA512SUMS");
        let text = std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
        let found = text.lines().filter_map(|line| line.split_once("  ")).find(|(_, file)| *file == name);
        let (digest, _) = found.with_context(|| format!("{} does not list {name}", list.display()))?;
        Ok(digest.to_owned())
    }
}

/// The Debian disk image; built if it is not there (about a minute), its progress on stderr.
///
/// # Errors
/// The build fails; it has said why.
pub fn debian_image() -> Result<DebianImage> {
    let script = root().join("tests/images/build-debian-image.sh");
    let output = Command::new(&script)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", script.display()))?;
    if !output.status.success() {
        bail!("{} failed ({})", script.display(), output.status);
    }
    Ok(DebianImage { dir: PathBuf::from(String::from_utf8(output.stdout)?.trim()) })
}

/// A test's own folder, `.cache/e2e/NAME`, emptied at the start.
///
/// It stays, with all logs in it, unless the test says [`Scratch::passed`].
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    end: End,
}

/// What becomes of a scratch folder.
#[derive(Clone, Copy, Debug)]
enum End {
    KeepAndSay,
    Keep,
    Remove,
}

impl Scratch {
    /// Makes the folder, **removing what an earlier run of the same test left there**.
    ///
    /// # Errors
    /// The folder can not be emptied or made.
    pub fn new(name: &str) -> Result<Self> {
        Self::at(root().join(".cache/e2e").join(name))
    }

    /// The same at another place.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn at(path: PathBuf) -> Result<Self> {
        crate::switch_off_leftovers(&path);
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("emptying {}", path.display()))?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path, end: End::KeepAndSay })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the folder.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a small file, making the folders above it.
    ///
    /// # Errors
    /// It can not be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// The test has succeeded: nobody will read the logs.
    pub fn passed(mut self) {
        self.end = End::Remove;
    }

    /// Keeps the folder without a word about it.
    pub fn keep(mut self) {
        self.end = End::Keep;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match self.end {
            End::KeepAndSay => eprintln!("logs and disks are kept in {}", self.path.display()),
            End::Keep => {}
            End::Remove => {
                let _ = std::fs::remove_dir_all(&self.path); // a leftover is emptied by the next run
            }
        }
    }
}
