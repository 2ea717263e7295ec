//! The content of one kernel: its image and its modules, gathered from one or several Debian packages.
//! (Debian keeps all in `linux-image-*`; Ubuntu splits off `linux-modules-*`.)
//!
//! Modules are kept in an unnamed temporary file, not in memory: a kernel has 400 MB of them and a build takes a quarter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::deb::{self, PassingFile};
use super::modinfo::{ModInfo, UNSAID, builtin_names, name_of_path};
use crate::elf::Elf;
use crate::progress::Talk;
use crate::{Error, Result};

/// One kernel module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Module {
    /// Its name as kmod writes it, with `_`.
    pub name: String,
    /// Where it is below `/lib/modules/RELEASE`, ending in `.ko` whatever the package's compression.
    pub path: String,
    /// What it says of itself.
    pub info: ModInfo,
    /// Uncompressed length in bytes.
    pub length: u64,
    pub(super) offset: u64,
}

/// One package that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Package name.
    pub package: String,
    /// Package version.
    pub version: String,
    /// Debian's name of the machine.
    pub architecture: String,
    /// SHA-256 of the `.deb`, in hex.
    pub sha256: String,
}

/// One kernel with all its modules.
#[derive(Debug)]
pub struct Kernel {
    /// The release: `6.1.0-56-amd64`.
    pub release: String,
    /// The machine of its modules, `x86_64`; `None` when there is no module.
    pub machine: Option<String>,
    /// The bootable image.
    pub image: Vec<u8>,
    /// All modules, in the order of `modules.order` (which decides between two drivers for one device), then by path.
    pub modules: Vec<Module>,
    /// `modules.builtin`, as it is in the package.
    pub builtin: String,
    /// Names and aliases that the kernel has built in.
    pub builtin_names: BTreeSet<String>,
    /// The packages it came from.
    pub sources: Vec<Source>,
    spool: File,
}

/// No file in a kernel package is longer than this; a header that says so is damaged or hostile.
const LONGEST_FILE: u64 = 512 << 20;

#[derive(Default)]
struct Gathered {
    images: BTreeMap<String, Vec<u8>>,
    modules: BTreeMap<(String, String), Module>,
    texts: BTreeMap<(String, String), Vec<u8>>,
    machine: Option<String>,
    end: u64,
}

impl Kernel {
    /// Reads `debs`. The temporary file is made in `scratch`.
    pub fn read(debs: &[PathBuf], scratch: &Path, talk: &Talk) -> Result<Kernel> {
        let mut spool =
            tempfile::tempfile_in(scratch).map_err(Error::file("making a temporary file in", scratch))?;
        let mut gathered = Gathered::default();
        let mut sources = Vec::new();
        for deb in debs {
            let length = deb.metadata().map_err(Error::file("reading", deb))?.len();
            talk.say(&format!("reading {} ({})", deb.display(), crate::report::size(length)));
            let sha256 = sha256_of(deb)?;
            let control = deb::read(deb, |file| gathered.take(deb, file, &mut spool))?;
            sources.push(Source {
                package: control.package,
                version: control.version,
                architecture: control.architecture,
                sha256,
            });
        }
        gathered.into_kernel(debs, sources, spool)
    }

    /// The bytes of one module, uncompressed, signature and all.
    pub fn module_bytes(&self, module: &Module) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(module.length).unwrap_or(usize::MAX)];
        self.spool
            .read_exact_at(&mut bytes, module.offset)
            .map_err(Error::file("reading back", Path::new(&module.path)))?;
        Ok(bytes)
    }
}

impl Gathered {
    fn take(&mut self, deb: &Path, file: PassingFile<'_>, spool: &mut File) -> Result<()> {
        let read = |file: PassingFile<'_>| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let damaged = |error: io::Error| {
                Error::bad(
                    deb,
                    format!("reading {} ({error}); the package is damaged: download it again", file.path),
                )
            };
            file.data.take(LONGEST_FILE).read_to_end(&mut bytes).map_err(damaged)?;
            Ok(bytes)
        };
        if let Some(release) = file
            .path
            .strip_prefix("boot/")
            .and_then(|name| name.strip_prefix("vmlinuz-").or(name.strip_prefix("vmlinux-")))
        {
            let release = release.to_owned();
            self.images.insert(release, read(file)?);
            return Ok(());
        }
        let below = file.path.strip_prefix("usr/").unwrap_or(&file.path).strip_prefix("lib/modules/");
        let Some((release, path)) = below.and_then(|below| below.split_once('/')) else { return Ok(()) };
        let (release, path) = (release.to_owned(), path.to_owned());
        if let Some((stem, compression)) = path.rsplit_once(".ko") {
            let bytes = uncompressed(compression, read(file)?)
                .map_err(|problem| Error::bad(deb, format!("{path}: {problem}")))?;
            let elf = Elf::parse(&bytes).ok_or_else(|| {
                Error::bad(deb, format!("{path} is not a kernel module; the package is damaged"))
            })?;
            self.machine.get_or_insert_with(|| elf.machine());
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let path = format!("{stem}.ko");
            let module = Module {
                name: name_of_path(&path),
                info: ModInfo::parse(elf.section(".modinfo").unwrap_or_default()),
                path: path.clone(),
                length,
                offset: self.end,
            };
            spool.write_all(&bytes).map_err(Error::file("keeping (is the disk full?)", Path::new(&path)))?;
            self.end = self.end.saturating_add(length);
            self.modules.insert((release, path), module);
        } else if matches!(path.as_str(), "modules.order" | "modules.builtin" | "modules.builtin.modinfo") {
            self.texts.insert((release, path), read(file)?);
        }
        Ok(())
    }

    fn into_kernel(mut self, debs: &[PathBuf], sources: Vec<Source>, spool: File) -> Result<Kernel> {
        let first = debs.first().map_or(Path::new("(no package)"), PathBuf::as_path);
        let names = || sources.iter().map(|source| source.package.clone()).collect::<Vec<_>>().join(", ");
        let Some((release, image)) = self.images.pop_last() else {
            let problem = format!(
                "no kernel (boot/vmlinuz-*) in {}; give a linux-image-VERSION package, not a meta package or headers",
                names()
            );
            return Err(Error::bad(first, problem));
        };
        if let Some(other) = self.images.keys().next() {
            return Err(Error::bad(
                first,
                format!("two kernels in {}: {other} and {release}; give the packages of one", names()),
            ));
        }
        let mut modules: Vec<Module> = self
            .modules
            .into_iter()
            .filter(|((of, _), _)| *of == release)
            .map(|(_, module)| module)
            .collect();
        if modules.is_empty() {
            let problem = format!(
                "no modules of {release} in {}; give linux-modules-{release} (and -extra) with another --kernel-package",
                names()
            );
            return Err(Error::bad(first, problem));
        }
        let mut text =
            |name: &str| self.texts.remove(&(release.clone(), name.to_owned())).unwrap_or_default();
        let order = String::from_utf8_lossy(&text("modules.order")).into_owned();
        let builtin = String::from_utf8_lossy(&text("modules.builtin")).into_owned();
        let builtin_names = builtin_names(&builtin, &text("modules.builtin.modinfo"));
        for (name, softdep) in UNSAID {
            if let Some(module) = modules.iter_mut().find(|module| module.name == *name) {
                module.info.softdeps.push((*softdep).to_owned());
            }
        }
        let rank: BTreeMap<String, usize> =
            order.lines().enumerate().map(|(rank, path)| (name_of_path(path), rank)).collect();
        modules.sort_by_cached_key(|module| {
            (rank.get(&module.name).copied().unwrap_or(usize::MAX), module.path.clone())
        });
        Ok(Kernel { release, machine: self.machine, image, modules, builtin, builtin_names, sources, spool })
    }
}

/// Undoes `.ko.xz`, `.ko.zst`, `.ko.gz`: the initramfs is compressed as a whole, and so the agent needs no decompressor.
pub(super) fn uncompressed(ending: &str, bytes: Vec<u8>) -> std::result::Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let done = match ending {
        "" => return Ok(bytes),
        ".xz" => liblzma::read::XzDecoder::new(&bytes[..]).take(LONGEST_FILE).read_to_end(&mut out),
        ".zst" => zstd::stream::read::Decoder::new(&bytes[..])
            .and_then(|decoder| decoder.take(LONGEST_FILE).read_to_end(&mut out)),
        ".gz" => flate2::read::GzDecoder::new(&bytes[..]).take(LONGEST_FILE).read_to_end(&mut out),
        other => return Err(format!("compressed in an unknown way ({other})")),
    };
    done.map(|_| out).map_err(|error| format!("decompressing ({error})"))
}

/// SHA-256 of a file, in hex.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::file("opening", path))?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::file("reading", path))? {
            0 => return Ok(hex::encode(digest.finalize())),
            count => digest.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::sample;

    fn read(packages: &[Vec<u8>]) -> Result<Kernel> {
        let folder = tempfile::tempdir().unwrap();
        let mut debs = Vec::new();
        for (number, package) in packages.iter().enumerate() {
            let path = folder.path().join(format!("{number}.deb"));
            std::fs::write(&path, package).unwrap();
            debs.push(path);
        }
        Kernel::read(&debs, folder.path(), &Talk::quiet())
    }

    #[test]
    fn a_package_gives_its_image_and_its_modules_in_load_order() {
        let (a, b) = (sample::module(&["alias=fs-a", "depends=b"]), sample::module(&["name=b"]));
        let b_compressed = zstd::stream::encode_all(&b[..], 1).unwrap();
        let package = deb::sample::package(
            "linux-image-1-x",
            "xz",
            &[
                ("./boot/vmlinuz-1-x", b"image"),
                ("./lib/modules/1-x/kernel/a.ko", &a),
                ("./lib/modules/1-x/kernel/b.ko.zst", &b_compressed),
                ("./lib/modules/1-x/modules.order", b"kernel/b.ko\nkernel/a.ko\n"),
                ("./lib/modules/1-x/modules.builtin", b"kernel/c-d.ko\n"),
            ],
        );
        let kernel = read(&[package]).unwrap();
        assert_eq!(
            (kernel.release.as_str(), &kernel.image[..], kernel.machine.as_deref()),
            ("1-x", &b"image"[..], Some("x86_64"))
        );
        assert_eq!(
            kernel.modules.iter().map(|module| module.path.as_str()).collect::<Vec<_>>(),
            ["kernel/b.ko", "kernel/a.ko"]
        );
        assert_eq!(kernel.module_bytes(&kernel.modules[0]).unwrap(), b);
        assert_eq!(kernel.module_bytes(&kernel.modules[1]).unwrap(), a);
        assert!(kernel.builtin_names.contains("c_d"));
    }

    #[test]
    fn image_and_modules_may_come_in_two_packages() {
        let image = deb::sample::package("linux-image-1-x", "zst", &[("./boot/vmlinuz-1-x", b"image")]);
        let modules = deb::sample::package(
            "linux-modules-1-x",
            "zst",
            &[("./usr/lib/modules/1-x/kernel/a.ko", &sample::module(&[]))],
        );
        assert_eq!(read(&[image.clone(), modules]).unwrap().modules.len(), 1);
        let error = read(&[image]).unwrap_err().to_string();
        assert!(error.contains("give linux-modules-1-x"), "{error}");
    }

    #[test]
    fn a_package_without_a_kernel_is_refused_by_name() {
        let error =
            read(&[deb::sample::package("bash", "xz", &[("./bin/bash", b"")])]).unwrap_err().to_string();
        assert!(error.contains("no kernel (boot/vmlinuz-*) in bash"), "{error}");
    }

    #[test]
    fn what_vfat_asks_for_without_saying_so_is_written_down() {
        let files: &[(&str, &[u8])] = &[
            ("./boot/vmlinuz-1", b"image"),
            ("./lib/modules/1/kernel/fs/fat/vfat.ko", &sample::module(&["depends=fat"])),
        ];
        let kernel = read(&[deb::sample::package("linux-image-1", "xz", files)]).unwrap();
        assert!(kernel.modules[0].info.soft_names().any(|name| name == "nls_cp437"));
    }

    #[test]
    fn two_kernels_at_once_are_refused() {
        let image = |release: &str| {
            deb::sample::package("linux-image", "zst", &[(&format!("./boot/vmlinuz-{release}"), b"image")])
        };
        let error = read(&[image("1"), image("2")]).unwrap_err().to_string();
        assert!(error.contains("two kernels"), "{error}");
    }
}
