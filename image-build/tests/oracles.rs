//! Checks against other people's programs: cpio(1) reads our archives, depmod(8) makes the same index from the same
//! modules. Each test says so on standard error and passes when its program, or the network, is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferric_image::apt;
use ferric_image::kernel::closure::Finder;
use ferric_image::kernel::index;
use ferric_image::kernel::package::Kernel;
use ferric_image::kernel::profile::{self, Profile};
use ferric_image::progress::Talk;
use ferric_image::ramdisk::cpio::Writer;
use ferric_image::ramdisk::tree::{Entry, Node, Tree};
use sys::{CommandLine, Runner, SystemRunner};

/// Reports that a test leaves itself out, past the capture of its output: it is counted.
fn skipped(why: &str) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SKIPPED: {why}\n"));
}

fn program(name: &str) -> Option<String> {
    let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|folder| format!("{folder}/{name}"));
    let found = found.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        skipped(&format!("{name} is not installed"));
    }
    found
}

#[test]
fn cpio_lists_what_we_wrote() {
    let Some(cpio) = program("cpio") else { return };
    let mut tree = Tree::default();
    let mut put = |path: &str, mode, node| tree.put(path, Entry { mode, node, part: "test" }).unwrap();
    put("init", 0o755, Node::File(b"12345".to_vec()));
    put("dev/console", 0o600, Node::CharacterDevice { major: 5, minor: 1 });
    put("usr/bin/agent", 0o777, Node::Link("/init".to_owned()));
    put("tmp", 0o1777, Node::Folder);
    let mut writer = Writer::new(Vec::new());
    for (path, entry) in tree.iter() {
        writer.append(path, entry).unwrap();
    }
    let archive = writer.finish().unwrap();
    let command = CommandLine::new([cpio.as_str(), "-itv", "--numeric-uid-gid", "--quiet"]).stdin(archive);
    let output = SystemRunner.run(&command).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "drwxr-xr-x 2 0 0 0 Jan 1 1970 dev",
            "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
            "-rwxr-xr-x 1 0 0 5 Jan 1 1970 init",
            "drwxrwxrwt 2 0 0 0 Jan 1 1970 tmp",
            "drwxr-xr-x 2 0 0 0 Jan 1 1970 usr",
            "drwxr-xr-x 2 0 0 0 Jan 1 1970 usr/bin",
            "lrwxrwxrwx 1 0 0 5 Jan 1 1970 usr/bin/agent -> /init",
        ]
    );
}

#[test]
fn depmod_makes_the_same_index_from_the_same_modules() {
    let Some(depmod) = program("depmod") else { return };
    let Some(debs) = kernel_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    let kernel = Kernel::read(&debs, folder.path(), &Talk::quiet()).unwrap();
    let finder = Finder::new(&kernel.modules, &kernel.builtin_names);
    let wanted = profile::wanted(&kernel, &finder, Profile::Server, &[]).unwrap();
    let chosen = finder.close(wanted).unwrap();
    assert!(chosen.len() > 300, "a Debian kernel has hundreds of server drivers, not {}", chosen.len());

    let modules = folder.path().join("lib/modules").join(&kernel.release);
    for module in chosen.iter().map(|&number| &kernel.modules[number]) {
        let path = modules.join(&module.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, kernel.module_bytes(module).unwrap()).unwrap();
    }
    let ours: BTreeMap<&str, String> = index::files(&kernel, &finder, &chosen).into_iter().collect();
    fs::write(modules.join("modules.order"), &ours["modules.order"]).unwrap();
    fs::write(modules.join("modules.builtin"), &ours["modules.builtin"]).unwrap();
    let root = folder.path().to_str().unwrap();
    let command =
        CommandLine::new([depmod.as_str(), "-b", root, &kernel.release]).limit(Duration::from_secs(120));
    SystemRunner.run(&command).unwrap();
    let theirs = |name: &str| fs::read_to_string(modules.join(name)).unwrap();

    assert_eq!(ours["modules.alias"], theirs("modules.alias"));
    // Ours says a little more: what modules ask for by name without saying so.
    let soft = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (ours_soft, theirs_soft) = (soft(&ours["modules.softdep"]), soft(&theirs("modules.softdep")));
    assert!(theirs_soft.is_subset(&ours_soft));
    assert!(ours_soft.difference(&theirs_soft).all(|line| line.starts_with("softdep vfat ")));
    // The same modules in the same order, each with the same set of dependencies. Within a line the order may differ
    // where both are right, so that one is checked for what it must do: each is loaded after what it depends on.
    let (ours, theirs) = (parse(&ours["modules.dep"]), parse(&theirs("modules.dep")));
    let unordered = |lines: &[(String, Vec<String>)]| {
        let lines =
            lines.iter().map(|(path, of)| (path.clone(), of.iter().cloned().collect::<BTreeSet<_>>()));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(unordered(&ours), unordered(&theirs));
    let depends: BTreeMap<&String, &Vec<String>> = theirs.iter().map(|(path, of)| (path, of)).collect();
    for (path, dependencies) in &ours {
        let mut loaded = BTreeSet::new();
        for next in dependencies.iter().rev().chain([path]) {
            assert!(depends[next].iter().all(|of| loaded.contains(of)), "{path}: {next} comes too early");
            loaded.insert(next);
        }
    }
}

fn parse(dep: &str) -> Vec<(String, Vec<String>)> {
    let lines = dep.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(path, of)| (path.to_owned(), of.split_whitespace().map(str::to_owned).collect())).collect()
}

/// The packages the product itself would take, from the cache it would use: nothing is downloaded twice.
fn kernel_packages() -> Option<Vec<PathBuf>> {
    let cache = std::env::home_dir()?.join(".cache/ferric-image");
    let fetched = apt::fetch(&SystemRunner, apt::USUAL_PACKAGES, &cache, &Talk::quiet());
    fetched.map_err(|error| skipped(&format!("no kernel package: {error}"))).ok()
}
