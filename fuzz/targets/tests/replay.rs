//! Everything that fuzzing found, through the same functions, with the stable compiler and without a fuzzer: every input of
//! `fuzz/corpus` and `fuzz/regressions`, each within a bound of time and of memory.
//!
//! One test, so that the memory that it measures is that of one input.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz_targets::TARGETS;

/// The longest that an input may take: measured below 0.5 s on a busy machine without optimization.
const TIME: Duration = Duration::from_secs(10);

/// The most memory that an input may add, in KiB: an unpacked config drive of 64 MiB and its copy, and some.
const MEMORY_KIB: u64 = 192 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The inputs of a target, oldest finds first.
fn inputs(target: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for kind in ["regressions", "corpus"] {
        let folder = fuzz().join(kind).join(target);
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        found.extend(files);
    }
    found
}

fn kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Makes the peak of the resident memory the present one (`proc_pid_clear_refs`); false where that is not allowed.
fn forget_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

#[test]
fn every_input_that_fuzzing_found_passes_within_its_bounds() {
    let measured = forget_peak();
    for target in TARGETS {
        let inputs = inputs(target.name);
        assert!(!inputs.is_empty(), "no input for {}: is fuzz/corpus there?", target.name);
        let (mut longest, mut largest) = (Duration::ZERO, 0);
        for path in &inputs {
            let data = fs::read(path).unwrap();
            // Read by whoever looks for the input at which this test died.
            println!("{}", path.display());
            forget_peak();
            let (before, start) = (kib("VmRSS:"), Instant::now());
            assert!(fuzz_targets::run(target.name, &data), "{} is too long", path.display());
            let took = start.elapsed();
            assert!(took < TIME, "{} took {took:?}", path.display());
            longest = longest.max(took);
            if measured {
                let more = kib("VmHWM:").saturating_sub(before);
                assert!(more < MEMORY_KIB, "{} took {more} KiB of memory", path.display());
                largest = largest.max(more);
            }
        }
        println!("{}: {} inputs, {longest:?}, {largest} KiB at the most", target.name, inputs.len());
    }
}

#[test]
fn every_folder_of_inputs_belongs_to_a_target_and_every_target_to_a_program() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    for kind in ["regressions", "corpus"] {
        for entry in fs::read_dir(fuzz().join(kind)).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            assert!(names.contains(&name.as_str()), "no target replays fuzz/{kind}/{name}");
        }
    }
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let programs: Vec<&str> =
        manifest.split("[[bin]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(programs, names, "the programs of fuzz/Cargo.toml");
}

#[test]
#[should_panic(expected = "there is no fuzz target nothing")]
fn a_name_that_is_no_target_is_an_error() {
    fuzz_targets::run("nothing", b"");
}
