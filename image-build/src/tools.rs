//! `--with TOOL`: a program of the distribution in the ramdisk, with its loader and the libraries that it is linked to.
//!
//! Which libraries those are is read from the programs themselves; where they are, from the packages that the program's
//! package depends on. Nothing of the building machine goes in but what its apt downloads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use sys::Runner;

use crate::elf::Elf;
use crate::kernel::deb;
use crate::kernel::package::{Source, sha256_of};
use crate::progress::Talk;
use crate::ramdisk::tree::{Entry, Node, Tree};
use crate::{Error, Result, apt};

/// The part of the report that all this counts towards.
const PART: &str = "tools";
/// No library that a small tool needs is larger.
const LIBRARY_LIMIT: u64 = 32 << 20;

/// A program that the agent uses where it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Tool {
    /// Software RAID: the steps create_configuration, apply_configuration and delete_configuration.
    Mdadm,
}

impl Tool {
    fn package(self) -> &'static str {
        match self {
            Self::Mdadm => "mdadm",
        }
    }

    /// Where the agent looks for it; packages have it there, or in the folder of the same name without `usr`.
    fn program(self) -> &'static str {
        match self {
            Self::Mdadm => "usr/sbin/mdadm",
        }
    }
}

/// A shared library, or the loader.
struct Library {
    /// The folder that the package has it in.
    folder: String,
    bytes: Vec<u8>,
}

/// Puts a tool and all that it needs to run into the tree. Returns the packages that it came from.
pub fn put(
    tree: &mut Tree,
    tool: Tool,
    machine: &str,
    runner: &dyn Runner,
    cache: &Path,
    talk: &Talk,
) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let architecture = apt::architecture(machine);
    let mut waiting = VecDeque::from([tool.package().to_owned()]);
    let mut seen: BTreeSet<String> = waiting.iter().cloned().collect();
    let (mut program, mut libraries) = (None::<Vec<u8>>, BTreeMap::new());
    // The program's own package first; then those of libraries, one after the other, until nothing is missing.
    let needed = loop {
        if let Some(bytes) = &program {
            let needed = close(tool, bytes, &libraries)?;
            if needed.missing.is_empty() {
                break needed;
            }
            if waiting.is_empty() {
                let missing: Vec<String> = needed.missing.into_iter().collect();
                return Err(Error::Request(format!(
                    "--with {}: no package that it depends on has {}",
                    tool.package(),
                    missing.join(", ")
                )));
            }
        }
        let Some(name) = waiting.pop_front() else {
            return Err(Error::Request(format!(
                "--with {0}: package {0} has no /{1}",
                tool.package(),
                tool.program()
            )));
        };
        let (path, depends) = apt::fetch_one(runner, &name, architecture, cache, talk)?;
        let control = deb::read(&path, |file| take(tool, machine, file, &mut program, &mut libraries))?;
        sources.push(Source {
            package: control.package,
            version: control.version,
            architecture: control.architecture,
            sha256: sha256_of(&path)?,
        });
        waiting
            .extend(depends.into_iter().filter(|name| name.starts_with("lib") && seen.insert(name.clone())));
    };
    let mut add = |path: String, bytes: Vec<u8>| {
        let entry = Entry { mode: 0o755, node: Node::File(bytes), part: PART };
        tree.put(&path, entry).map(drop).map_err(Error::Request)
    };
    for name in needed.found {
        let Some(library) = libraries.remove(&name) else { continue };
        // The loader is where programs ask for it; libraries are where it looks.
        let path = match &needed.loader {
            Some(loader) if loader.ends_with(&format!("/{name}")) => loader.clone(),
            _ => format!("{}/{name}", library.folder),
        };
        add(path, library.bytes)?;
    }
    add(tool.program().to_owned(), program.unwrap_or_default())?;
    sources.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(sources)
}

/// Keeps the program, and every shared library of this machine under the name that programs know it by.
fn take(
    tool: Tool,
    machine: &str,
    file: deb::PassingFile<'_>,
    program: &mut Option<Vec<u8>>,
    libraries: &mut BTreeMap<String, Library>,
) -> Result<()> {
    let is_program = file.path == tool.program() || format!("usr/{}", file.path) == tool.program();
    let Some((folder, name)) = file.path.rsplit_once('/') else { return Ok(()) };
    let is_library = name.contains(".so") && folder.split('/').any(|part| part == "lib" || part == "lib64");
    if !(is_program || is_library) || file.length > LIBRARY_LIMIT {
        return Ok(());
    }
    let mut bytes = Vec::new();
    file.data.read_to_end(&mut bytes).map_err(Error::file("reading", Path::new(&file.path)))?;
    let Some(elf) = Elf::parse(&bytes).filter(|elf| elf.machine() == machine) else { return Ok(()) };
    if is_program {
        *program = Some(bytes);
    } else if let Some(name) = elf.library_name() {
        libraries.entry(name).or_insert(Library { folder: folder.to_owned(), bytes });
    }
    Ok(())
}

/// What a program needs, directly or through what it needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needed {
    /// The path that the program asks the kernel for.
    loader: Option<String>,
    found: BTreeSet<String>,
    missing: BTreeSet<String>,
}

fn close(tool: Tool, program: &[u8], libraries: &BTreeMap<String, Library>) -> Result<Needed> {
    let damaged = || Error::Request(format!("--with {}: its program is damaged", tool.package()));
    let elf = Elf::parse(program).ok_or_else(damaged)?;
    let mut needed = Needed { loader: elf.interpreter(), ..Needed::default() };
    let mut waiting = elf.needed();
    waiting.extend(needed.loader.as_ref().and_then(|path| path.rsplit('/').next()).map(str::to_owned));
    while let Some(name) = waiting.pop() {
        match libraries.get(&name) {
            None => drop(needed.missing.insert(name)),
            Some(library) if needed.found.insert(name) => {
                waiting.extend(Elf::parse(&library.bytes).map(|elf| elf.needed()).unwrap_or_default());
            }
            Some(_) => {}
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use sys::fake::FakeRunner;

    use super::*;
    use crate::elf::sample;
    use std::fs;

    /// Name, what it depends on, and files.
    type Package<'a> = (&'a str, &'a str, &'a [(&'a str, &'a [u8])]);

    /// A cache that has these packages already, and an apt that knows them.
    fn packages(cache: &Path, listed: &[Package<'_>]) -> FakeRunner {
        let mut runner = FakeRunner::default();
        for (name, depends, files) in listed {
            let path = cache.join(format!("{name}_1.2-3_amd64.deb"));
            fs::write(&path, deb::sample::package(name, "xz", files)).unwrap();
            let digest = sha256_of(&path).unwrap();
            let text = format!(
                "Package: {name}\nVersion: 1.2-3\nArchitecture: amd64\nSHA256: {digest}\nDepends: {depends}\n"
            );
            let ask = format!("/usr/bin/apt-cache show --no-all-versions {name}:amd64");
            runner = runner.answer(&ask, &text);
        }
        runner
    }

    #[test]
    fn a_tool_comes_with_its_loader_and_every_library_that_is_needed() {
        let cache = tempfile::tempdir().unwrap();
        let tool = sample::dynamic(Some("/lib64/ld-x.so.2"), None, &["libudev.so.1", "libc.so.6"]);
        let udev = sample::dynamic(None, Some("libudev.so.1"), &["libc.so.6"]);
        let libc = sample::dynamic(None, Some("libc.so.6"), &["ld-x.so.2"]);
        let loader = sample::dynamic(None, Some("ld-x.so.2"), &[]);
        let unused = sample::dynamic(None, Some("libm.so.6"), &[]);
        let mut foreign = sample::dynamic(None, Some("libc.so.6"), &[]);
        foreign[18] = 183;
        let runner = packages(
            cache.path(),
            &[
                ("mdadm", "debconf, libc6 (>= 2.34), libudev1 (>= 183), udev", &[("./sbin/mdadm", &tool)]),
                (
                    "libc6",
                    "libgcc-s1",
                    &[
                        ("./lib/other/lib/libc.so.6", &foreign),
                        ("./lib/x/ld-x.so.2", &loader),
                        ("./lib/x/libc.so.6", &libc),
                        ("./lib/x/libm.so.6", &unused),
                    ],
                ),
                ("libudev1", "libc6", &[("./usr/lib/x/libudev.so.1.7", &udev)]),
            ],
        );
        let mut tree = Tree::default();
        let sources = put(&mut tree, Tool::Mdadm, "x86_64", &runner, cache.path(), &Talk::quiet()).unwrap();
        let files: Vec<&str> =
            tree.iter().filter(|(_, entry)| entry.node != Node::Folder).map(|(path, _)| path).collect();
        assert_eq!(files, ["lib/x/libc.so.6", "lib64/ld-x.so.2", "usr/lib/x/libudev.so.1", "usr/sbin/mdadm"]);
        assert_eq!(tree.get("usr/sbin/mdadm").unwrap().node, Node::File(tool));
        assert_eq!(tree.get("lib/x/libc.so.6").unwrap().node, Node::File(libc));
        // libgcc-s1 is not asked for: apt does not know it here.
        let names: Vec<&str> = sources.iter().map(|source| source.package.as_str()).collect();
        assert_eq!(names, ["libc6", "libudev1", "mdadm"]);
    }

    #[test]
    fn apt_is_asked_for_the_agents_architecture() {
        let cache = tempfile::tempdir().unwrap();
        let mut tool = sample::program(None);
        tool[18] = 183;
        let path = cache.path().join("mdadm_1.2-3_arm64.deb");
        fs::write(&path, deb::sample::package("mdadm", "xz", &[("./sbin/mdadm", &tool)])).unwrap();
        let text = format!(
            "Package: mdadm\nVersion: 1.2-3\nArchitecture: arm64\nSHA256: {}\n",
            sha256_of(&path).unwrap()
        );
        let ask = "/usr/bin/apt-cache show --no-all-versions mdadm:arm64";
        let put = |runner: FakeRunner| {
            put(&mut Tree::default(), Tool::Mdadm, "aarch64", &runner, cache.path(), &Talk::quiet())
        };
        assert_eq!(put(FakeRunner::default().answer(ask, &text)).unwrap().len(), 1);
        let error = put(FakeRunner::default().fail(ask, "E: No packages found")).unwrap_err().to_string();
        assert!(error.contains("mdadm:arm64") && error.contains("dpkg --add-architecture arm64"), "{error}");
    }

    #[test]
    fn a_library_that_no_package_has_is_named() {
        let cache = tempfile::tempdir().unwrap();
        let tool = sample::dynamic(None, None, &["libudev.so.1"]);
        let runner = packages(cache.path(), &[("mdadm", "debconf", &[("./usr/sbin/mdadm", &tool)])]);
        let put =
            |runner| put(&mut Tree::default(), Tool::Mdadm, "x86_64", runner, cache.path(), &Talk::quiet());
        let error = put(&runner).unwrap_err().to_string();
        assert!(error.contains("libudev.so.1"), "{error}");
        let runner = packages(cache.path(), &[("mdadm", "", &[("./usr/share/doc/mdadm", b"x")])]);
        let error = put(&runner).unwrap_err().to_string();
        assert!(error.contains("/usr/sbin/mdadm"), "{error}");
    }
}
