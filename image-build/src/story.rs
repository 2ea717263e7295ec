//! The story of a build: packages, modules, files, archive, report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sys::Runner;

use crate::elf::Elf;
use crate::kernel::closure::Finder;
use crate::kernel::firmware;
use crate::kernel::package::Kernel;
use crate::kernel::profile::{self, Profile};
use crate::output::Output;
use crate::progress::Talk;
use crate::ramdisk::add::{self, Addition};
use crate::ramdisk::compress::{Compression, Compressor};
use crate::ramdisk::tree::{Node, Tree};
use crate::ramdisk::{certificates, cpio, layout, requirements};
use crate::report::{Manifest, OutputFile, Part, size};
use crate::tools::{self, Tool};
use crate::{Error, Result, apt};

/// All that a build is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The agent's binary.
    pub agent: PathBuf,
    /// Take an agent that needs a dynamic loader (its libraries must be added too).
    pub allow_dynamic: bool,
    /// `.deb` files, or names of packages to download; empty for the usual one.
    pub kernel_packages: Vec<String>,
    /// Where downloaded packages are kept.
    pub cache: PathBuf,
    /// Which drivers.
    pub profile: Profile,
    /// More modules: names, or folders below `kernel/`.
    pub modules: Vec<String>,
    /// Folder laid out like `/lib/firmware`.
    pub firmware: Option<PathBuf>,
    /// Certificates the agent trusts; `None` for none.
    pub ca_bundle: Option<PathBuf>,
    /// Public keys of minisign; with any, the agent writes nothing unsigned.
    pub image_keys: Vec<PathBuf>,
    /// Programs of the distribution.
    pub tools: Vec<Tool>,
    /// The user's own files.
    pub additions: Vec<Addition>,
    /// How to compress.
    pub compression: Compression,
    /// How strongly.
    pub level: u32,
    /// Where `kernel`, `initramfs` and `manifest.json` go.
    pub output: PathBuf,
}

/// Builds the ramdisk. **Writes only in the output and cache folders.**
pub fn build(request: &Request, runner: &dyn Runner, talk: &Talk) -> Result<Manifest> {
    // Cheap refusals first: nothing is downloaded for an agent that can not be used.
    if !request.compression.levels().contains(&request.level) {
        let (levels, name) = (request.compression.levels(), request.compression.name());
        return Err(Error::Request(format!(
            "--level {}: {name} has levels {} to {}",
            request.level,
            levels.start(),
            levels.end()
        )));
    }
    let agent = fs::read(&request.agent).map_err(Error::file("reading the agent", &request.agent))?;
    let agent_machine = check_agent(&request.agent, &agent, request.allow_dynamic)?;
    let mut output = Output::open(&request.output)?;

    let debs = packages(request, runner, talk)?;
    let kernel = Kernel::read(&debs, output.folder(), talk)?;
    if let Some(machine) = kernel.machine.as_ref().filter(|machine| **machine != agent_machine) {
        return Err(Error::bad(
            &request.agent,
            format!(
                "built for {agent_machine}, but the kernel is for {machine}; give an agent for {machine}"
            ),
        ));
    }

    let finder = Finder::new(&kernel.modules, &kernel.builtin_names);
    let chosen = finder.close(profile::wanted(&kernel, &finder, request.profile, &request.modules)?)?;
    let agent_sha256 = hex::encode(Sha256::digest(&agent));
    let mut tree = Tree::default();
    layout::base(&mut tree, &release_file(&kernel, request.profile, &agent_sha256))?;
    layout::agent(&mut tree, agent)?;
    layout::modules(&mut tree, &kernel, &finder, &chosen)?;
    if let Some(folder) = &request.firmware {
        let found =
            firmware::collect(folder, chosen.iter().filter_map(|&number| kernel.modules.get(number)))?;
        talk.say(&format!(
            "firmware: {} files taken from {}, {} not there",
            found.found.len(),
            folder.display(),
            found.absent.len()
        ));
        layout::firmware(&mut tree, found.found)?;
    }
    let mut ca_certificates = 0;
    match &request.ca_bundle {
        Some(path) => {
            let bundle = fs::read(path).map_err(Error::file("reading the CA bundle", path))?;
            let found = certificates::count(&bundle);
            if found.certificates == 0 {
                return Err(Error::bad(
                    path,
                    "holds no certificate; give --ca-bundle a PEM file of CA certificates, or `none`",
                ));
            }
            ca_certificates = found.certificates;
            talk.say(&format!("CA certificates: {ca_certificates} from {}", path.display()));
            if found.damaged != 0 {
                talk.warn(&format!(
                    "{} certificates of {} cannot be read; the agent does not trust them",
                    found.damaged,
                    path.display()
                ));
            }
            layout::ca_bundle(&mut tree, bundle)?;
        }
        None => talk.warn(
            "no CA certificates go in: the agent can check no server's certificate; give --ca-bundle FILE",
        ),
    }
    for path in &request.image_keys {
        let key = fs::read_to_string(path).map_err(Error::file("reading the image key", path))?;
        let name = layout::image_key(&mut tree, path, &key)?;
        talk.say(&format!("image key: {} as /{name}; nothing unsigned will be written", path.display()));
    }
    let mut tool_packages = Vec::new();
    for tool in request.tools.iter().copied().collect::<BTreeSet<_>>() {
        tool_packages.extend(tools::put(&mut tree, tool, &agent_machine, runner, &request.cache, talk)?);
    }
    for addition in &request.additions {
        for path in addition.put_into(&mut tree)? {
            talk.warn(&format!("--add replaces {path}"));
        }
    }
    for sentence in requirements::unmet(&tree, add::PART, &agent_machine) {
        talk.warn(&sentence);
    }
    if tree.get(layout::LAST_FILE).is_some() {
        return Err(Error::Request(format!(
            "--add /{}: this name marks the end of the ramdisk; choose another",
            layout::LAST_FILE
        )));
    }

    output
        .create("kernel")?
        .write_all(&kernel.image)
        .map_err(Error::file("writing", &output.path("kernel")))?;
    let is_x86 = agent_machine == "x86_64";
    let archive = write_archive(&tree, request, is_x86, &mut output, talk)?;
    let manifest = Manifest {
        ferric_image: env!("CARGO_PKG_VERSION"),
        kernel_release: kernel.release.clone(),
        packages: kernel.sources.clone(),
        tool_packages,
        agent_sha256,
        ca_certificates,
        profile: request.profile.name(),
        compression: format!("{} -{}", request.compression.name(), request.level),
        outputs: vec![
            OutputFile {
                name: "kernel",
                bytes: length(&kernel.image),
                sha256: hex::encode(Sha256::digest(&kernel.image)),
            },
            archive.file,
        ],
        initramfs_raw_bytes: archive.raw_bytes,
        parts: archive.parts,
        modules: chosen
            .iter()
            .filter_map(|&number| kernel.modules.get(number))
            .map(|module| module.path.clone())
            .collect(),
    };
    let path = output.path("manifest.json");
    let mut file = output.create("manifest.json")?;
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| Error::file("writing", &path)(io::Error::other(error)))?;
    writeln!(file, "{text}").map_err(Error::file("writing", &path))?;
    output.commit()?;
    Ok(manifest)
}

/// The machine the agent was built for; refuses what could not run as PID 1 of the ramdisk.
fn check_agent(path: &Path, binary: &[u8], allow_dynamic: bool) -> Result<String> {
    let build_it = "build it with `cargo build --release --target x86_64-unknown-linux-musl -p ferric-agent`";
    let elf = Elf::parse(binary).filter(Elf::is_program);
    let elf =
        elf.ok_or_else(|| Error::bad(path, format!("not a program for Linux (64-bit ELF); {build_it}")))?;
    match elf.interpreter() {
        Some(loader) if !allow_dynamic => Err(Error::bad(
            path,
            format!(
                "needs the dynamic loader {loader}, which the ramdisk does not have; {build_it}, or add loader and libraries with --add and give --allow-dynamic"
            ),
        )),
        _ => Ok(elf.machine()),
    }
}

fn packages(request: &Request, runner: &dyn Runner, talk: &Talk) -> Result<Vec<PathBuf>> {
    if request.kernel_packages.is_empty() {
        talk.say(&format!("no --kernel-package given: taking {} by apt", apt::USUAL_PACKAGES.join(" or ")));
        return apt::fetch(runner, apt::USUAL_PACKAGES, &request.cache, talk);
    }
    let mut debs = Vec::new();
    for package in &request.kernel_packages {
        if package.contains('/') || package.ends_with(".deb") {
            debs.push(PathBuf::from(package));
        } else {
            debs.extend(apt::fetch(runner, &[package], &request.cache, talk)?);
        }
    }
    Ok(debs)
}

fn release_file(kernel: &Kernel, profile: Profile, agent_sha256: &str) -> String {
    let packages = kernel
        .sources
        .iter()
        .map(|source| format!("{}={}", source.package, source.version))
        .collect::<Vec<_>>();
    format!(
        "NAME=\"Ferric ramdisk\"\nID=ferric\nVERSION_ID={}\nFERRIC_KERNEL={}\nFERRIC_KERNEL_PACKAGES=\"{}\"\nFERRIC_PROFILE={}\nFERRIC_AGENT_SHA256={agent_sha256}\nFERRIC_LAST_FILE=/{}\n",
        env!("CARGO_PKG_VERSION"),
        kernel.release,
        packages.join(" "),
        profile.name(),
        layout::LAST_FILE,
    )
}

struct Archive {
    file: OutputFile,
    raw_bytes: u64,
    parts: Vec<Part>,
}

fn write_archive(
    tree: &Tree,
    request: &Request,
    x86: bool,
    output: &mut Output,
    talk: &Talk,
) -> Result<Archive> {
    let last = layout::last_entry();
    let entries = || tree.iter().chain(std::iter::once((layout::LAST_FILE, &last)));
    let raw_bytes = cpio::length(entries());
    let mut bar = talk.bar("compressing the initramfs", raw_bytes);
    let file = BufWriter::new(output.create("initramfs")?);
    let compressor =
        Compressor::new(request.compression, request.level, x86, file).map_err(Error::Compress)?;
    let mut writer = cpio::Writer::new(compressor);
    let mut parts = Parts::default();
    for (path, entry) in entries() {
        if parts.current != Some(entry.part) {
            let compressed = writer.output().mark().map_err(Error::Compress)?;
            parts.turn_to(entry.part, compressed);
        }
        writer.append(path, entry).map_err(Error::Compress)?;
        let raw =
            cpio::length(std::iter::once((path, entry))).saturating_sub(cpio::length(std::iter::empty()));
        parts.count(entry.part, raw, entry.node != Node::Folder);
        bar.advance(raw);
    }
    let compressor = writer.finish().map_err(Error::Compress)?;
    let (mut file, bytes, sha256) = compressor.finish().map_err(Error::Compress)?;
    file.flush().map_err(Error::Compress)?;
    parts.turn_to(layout::BASE, bytes);
    drop(bar);
    talk.say(&format!("initramfs: {} compressed to {}", size(raw_bytes), size(bytes)));
    Ok(Archive { file: OutputFile { name: "initramfs", bytes, sha256 }, raw_bytes, parts: parts.sorted() })
}

/// Counts what each part takes, raw and compressed.
#[derive(Default)]
struct Parts {
    current: Option<&'static str>,
    compressed_before: u64,
    by_name: BTreeMap<&'static str, Part>,
}

impl Parts {
    fn part(&mut self, name: &'static str) -> &mut Part {
        self.by_name.entry(name).or_insert(Part { name, files: 0, raw_bytes: 0, compressed_bytes: 0 })
    }

    /// What was put out since the last turn belongs to the part that was current; from now on `name` is.
    fn turn_to(&mut self, name: &'static str, compressed: u64) {
        let grown = compressed.saturating_sub(self.compressed_before);
        if let Some(current) = self.current {
            let part = self.part(current);
            part.compressed_bytes = part.compressed_bytes.saturating_add(grown);
        }
        self.compressed_before = compressed;
        self.current = Some(name);
    }

    fn count(&mut self, name: &'static str, raw: u64, is_file: bool) {
        let part = self.part(name);
        part.raw_bytes = part.raw_bytes.saturating_add(raw);
        part.files = part.files.saturating_add(u64::from(is_file));
    }

    fn sorted(self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.by_name.into_values().collect();
        parts.sort_by(|a, b| b.raw_bytes.cmp(&a.raw_bytes).then(a.name.cmp(b.name)));
        parts
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use sys::fake::FakeRunner;

    use super::*;
    use crate::elf::sample;
    use crate::inspect;
    use crate::kernel::deb;
    use crate::ramdisk::sample::CERTIFICATE;

    fn request(folder: &Path, agent: &[u8]) -> Request {
        let module = sample::module(&["alias=virtio:d00000002v*", "depends=helper", "license=GPL"]);
        let deb = deb::sample::package(
            "linux-image-1-x",
            "xz",
            &[
                ("./boot/vmlinuz-1-x", b"image"),
                ("./lib/modules/1-x/kernel/drivers/block/virtio_blk.ko", &module),
                ("./lib/modules/1-x/kernel/lib/helper.ko", &sample::module(&[])),
                ("./lib/modules/1-x/kernel/sound/unwanted.ko", &sample::module(&[])),
                (
                    "./lib/modules/1-x/modules.order",
                    b"kernel/lib/helper.ko\nkernel/drivers/block/virtio_blk.ko\n",
                ),
            ],
        );
        fs::write(folder.join("k.deb"), deb).unwrap();
        fs::write(folder.join("agent"), agent).unwrap();
        fs::write(folder.join("ca.crt"), CERTIFICATE).unwrap();
        Request {
            agent: folder.join("agent"),
            allow_dynamic: false,
            kernel_packages: vec![folder.join("k.deb").to_str().unwrap().to_owned()],
            cache: folder.join("cache"),
            profile: Profile::Vm,
            modules: Vec::new(),
            firmware: None,
            ca_bundle: Some(folder.join("ca.crt")),
            image_keys: Vec::new(),
            tools: Vec::new(),
            additions: Vec::new(),
            compression: Compression::Zstd,
            level: 3,
            output: folder.join("out"),
        }
    }

    fn run(request: &Request) -> Result<Manifest> {
        build(request, &FakeRunner::default(), &Talk::quiet())
    }

    #[test]
    fn the_agent_its_modules_and_their_index_go_in_and_the_manifest_is_true() {
        let folder = tempfile::tempdir().unwrap();
        let request = request(folder.path(), &sample::program(None));
        let manifest = run(&request).unwrap();
        assert_eq!(fs::read(request.output.join("kernel")).unwrap(), b"image");
        assert_eq!(manifest.modules, ["kernel/lib/helper.ko", "kernel/drivers/block/virtio_blk.ko"]);
        let initramfs = request.output.join("initramfs");
        assert_eq!(manifest.outputs[1].sha256, crate::kernel::package::sha256_of(&initramfs).unwrap());
        assert_eq!(manifest.outputs[1].bytes, initramfs.metadata().unwrap().len());
        let sum = manifest.parts.iter().map(|part| part.compressed_bytes).sum::<u64>();
        assert_eq!(sum, manifest.outputs[1].bytes, "the parts are the whole");

        let list = inspect::list(&initramfs).unwrap();
        for line in [
            "-0755        120 /init",
            "l0777            /usr/bin/ferric-agent -> /init",
            "c0600        5,1 /dev/console",
            "d1777            /tmp/",
            "/lib/modules/1-x/kernel/drivers/block/virtio_blk.ko",
            "/etc/ssl/certs/ca-certificates.crt",
        ] {
            assert!(list.contains(line), "{line:?} is not in\n{list}");
        }
        assert!(!list.contains("unwanted"));
        let tool = |name: &str| {
            let bytes = fs::read(&initramfs).unwrap();
            let mut reader = &zstd::stream::decode_all(&bytes[..]).unwrap()[..];
            loop {
                let found = cpio::read_next(&mut reader).unwrap().unwrap();
                if let (true, Node::File(bytes)) = (found.path.ends_with(name), found.node) {
                    return String::from_utf8(bytes).unwrap();
                }
            }
        };
        assert_eq!(
            tool("modules.dep"),
            "kernel/lib/helper.ko:\nkernel/drivers/block/virtio_blk.ko: kernel/lib/helper.ko\n"
        );
        assert!(tool("modules.alias").ends_with("alias virtio:d00000002v* virtio_blk\n"));
        assert!(tool("etc/ferric-release").contains("FERRIC_KERNEL=1-x\n"));
    }

    #[test]
    fn image_keys_go_in_under_their_id_and_what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), &sample::program(None));
        let (key, rubbish) = (folder.path().join("key"), folder.path().join("rubbish"));
        let text = include_str!("../../crates/imaging/tests/signatures/key.pub");
        fs::write(&key, text).unwrap();
        fs::write(&rubbish, "untrusted comment: minisign public key\nRWQ\n").unwrap();
        request.image_keys = vec![key];
        run(&request).unwrap();
        let list = inspect::list(&request.output.join("initramfs")).unwrap();
        assert!(list.contains("/etc/ferric/image-keys.d/F3BF3C2BC8C25998.pub"), "{list}");
        request.image_keys.push(rubbish);
        let error = run(&request).unwrap_err().to_string();
        assert!(error.contains("rubbish") && error.contains("minisign -G"), "{error}");
    }

    #[test]
    fn certificates_are_counted_and_a_bundle_without_any_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), &sample::program(None));
        assert_eq!(run(&request).unwrap().ca_certificates, 1);
        for wrong in ["", "certificates\n", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            fs::write(folder.path().join("ca.crt"), wrong).unwrap();
            let error = run(&request).unwrap_err().to_string();
            assert!(error.contains("ca.crt") && error.contains("no certificate"), "{error}");
        }
        request.ca_bundle = None;
        assert_eq!(run(&request).unwrap().ca_certificates, 0);
    }

    #[test]
    fn the_last_file_of_the_archive_is_the_mark_that_the_release_file_names() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), &sample::program(None));
        run(&request).unwrap();
        let list = inspect::list(&request.output.join("initramfs")).unwrap();
        let last = list.lines().rev().find(|line| line.contains(" /")).unwrap();
        assert!(last.ends_with(" /etc/ferric-ramdisk-complete"), "{list}");
        request.additions = vec![
            format!("{}:/etc/ferric-ramdisk-complete", folder.path().join("ca.crt").display())
                .parse()
                .unwrap(),
        ];
        assert!(run(&request).unwrap_err().to_string().contains("choose another"));
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_wherever_it_is_built() {
        let read = |compression| {
            let folder = tempfile::tempdir().unwrap();
            let mut request = request(folder.path(), &sample::program(None));
            request.compression = compression;
            run(&request).unwrap();
            ["kernel", "initramfs", "manifest.json"].map(|name| fs::read(request.output.join(name)).unwrap())
        };
        for compression in [Compression::Zstd, Compression::Xz] {
            assert!(read(compression) == read(compression));
        }
    }

    #[test]
    fn a_dynamic_agent_is_refused_unless_it_is_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), &sample::program(Some("/lib64/ld.so")));
        let error = run(&request).unwrap_err().to_string();
        assert!(
            error.contains("/lib64/ld.so") && error.contains("musl") && error.contains("--allow-dynamic"),
            "{error}"
        );
        assert!(!request.output.exists(), "refused before anything is made");
        request.allow_dynamic = true;
        run(&request).unwrap();
    }

    #[test]
    fn an_agent_that_is_no_program_or_for_another_machine_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(&request(folder.path(), b"#!/bin/sh\n")).unwrap_err().to_string();
        assert!(error.contains("not a program for Linux"), "{error}");
        let mut other = sample::program(None);
        other[18] = 183;
        let error = run(&request(folder.path(), &other)).unwrap_err().to_string();
        assert!(error.contains("built for aarch64, but the kernel is for x86_64"), "{error}");
    }

    #[test]
    fn modules_firmware_and_files_can_be_added_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut request = request(folder.path(), &sample::program(None));
        request.modules = vec!["sound/".to_owned()];
        request.additions =
            vec![format!("{}:/etc/hosts:0600", folder.path().join("ca.crt").display()).parse().unwrap()];
        assert_eq!(run(&request).unwrap().modules.len(), 3);
        assert!(
            inspect::list(&request.output.join("initramfs"))
                .unwrap()
                .contains(&format!("-0600 {:>10} /etc/hosts", CERTIFICATE.len()))
        );
        request.modules = vec!["no-such".to_owned()];
        assert!(run(&request).unwrap_err().to_string().contains("--module no-such"));
    }
}
