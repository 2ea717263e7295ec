//! A test program as the first process of a machine: it is put into the ramdisk beside the agent and started as `/guest`,
//! where it knows itself by its process id. What happens inside is told on the console.

#![allow(dead_code)] // each test uses a part of this

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{Boot, Scratch, dist};
use sys::{Host, MountRequest, Power};

/// The last line of a guest that did all it was asked.
pub const DONE: &str = "GUEST done";

/// Whether this process is the one inside the machine.
pub fn is_here() -> bool {
    std::process::id() == 1
}

/// A machine that starts from a ramdisk with this program and the libraries that it is linked to; `more` are further
/// arguments of `ferric-image build`.
pub fn boot(scratch: &Scratch, more: &[&str]) -> Result<Boot> {
    let output = scratch.join("ramdisk");
    // The tests may start programs.
    #[allow(clippy::disallowed_methods)]
    let mut build = Command::new(dist("ferric-image")?);
    build.arg("build").arg("--agent").arg(dist("ferric-agent")?).arg("--output").arg(&output);
    build.args(["--modules", "vm", "--level", "1"]).args(more);
    build.arg("--cache").arg(e2e::root().join(".cache/packages"));
    build.arg("--add").arg(format!("{}:/guest:755", std::env::current_exe()?.display()));
    for library in libraries()? {
        // The file may be reached through links; the loader looks where the program says.
        let source = fs::canonicalize(&library)?;
        build.arg("--add").arg(format!("{}:{}:755", source.display(), library.display()));
    }
    let built = build.output().context("running ferric-image")?;
    ensure!(built.status.success(), "ferric-image: {}", String::from_utf8_lossy(&built.stderr));
    Ok(Boot::Direct {
        kernel: output.join("kernel"),
        initramfs: output.join("initramfs"),
        command_line: "rootfstype=ramfs console=ttyS0 rdinit=/guest panic=-1 quiet".into(),
    })
}

/// The shared libraries of this process, under the names that the loader looks for.
fn libraries() -> Result<Vec<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut libraries: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    libraries.sort();
    libraries.dedup();
    // The loader itself is named by an absolute path of its own.
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    if !libraries.is_empty() && loader.exists() {
        libraries.push(loader.to_owned());
    }
    Ok(libraries)
}

/// Inside: mounts what everybody needs, loads the modules whose names begin so, and waits for so many disks.
pub fn prepare(host: &Host, modules: &[&str], disks: usize) {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")] {
        let _ = fs::create_dir_all(place);
        let _ = host.kernel().mount(&MountRequest::new(kind, place, kind)); // said below, by what is missing
    }
    load(host, modules);
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        if disk::list(host, None).is_ok_and(|found| found.len() >= disks) {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    say(&format!("GUEST sees {:?}", host.names("/sys/block")));
}

/// Loads round after round until nothing new goes in: modules depend on each other in whatever order.
fn load(host: &Host, prefixes: &[&str]) {
    let mut files = Vec::new();
    find(Path::new("/lib/modules"), &mut files);
    let stem =
        |file: &PathBuf| file.file_stem().and_then(|name| name.to_str()).unwrap_or("").replace('-', "_");
    files.retain(|file| prefixes.iter().any(|prefix| stem(file).starts_with(prefix)));
    for _ in 0..8 {
        files.retain(|file| host.kernel().load_module(file, "").is_err());
    }
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.extension().and_then(|name| name.to_str()) {
            Some("ko") => files.push(path),
            _ if path.is_dir() && !path.is_symlink() => find(&path, files),
            _ => {}
        }
    }
}

/// Inside: a line on the console.
pub fn say(text: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).open("/dev/console") {
        let _ = writeln!(console, "{text}");
    }
}

/// Inside: says how it went, and switches the machine off.
pub fn end(host: &Host, outcome: std::result::Result<(), String>) -> ! {
    match outcome {
        Ok(()) => say(DONE),
        Err(problem) => say(&format!("GUEST failed: {problem}")),
    }
    host.kernel().sync();
    std::thread::sleep(Duration::from_secs(1)); // the console
    let _ = host.kernel().power(Power::Off);
    std::process::exit(1) // the kernel panics, and the machine ends
}
