//! A test that leaves itself out is counted: `SKIPPED: ...` on the standard error of the process, once a test. What the print macros
//! write is captured by the test runner and dropped where the test passes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Every Rust file of the repository, but what was built.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            if name != "target" && name != "dist" && !name.starts_with('.') {
                sources(&entry.path(), found)?;
            }
        } else if name.ends_with(".rs") {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Lines that print a skip where nothing counts it, and those that return without root and print nothing.
fn silent_skips(source: &str) -> Vec<usize> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let words = line.to_lowercase();
        let prints = ["print!(", "println!(", "dbg!("].iter().any(|call| line.contains(call));
        if prints && ["skipped", "skipping"].iter().any(|word| words.contains(word)) {
            found.push(index + 1);
        }
        let leaves =
            line.trim_start().starts_with("if ") && line.contains("!nix::unistd::geteuid().is_root()");
        let next: Vec<&str> = lines.iter().skip(index + 1).take(5).copied().collect();
        if leaves
            && next.first().is_some_and(|line| line.trim_start().starts_with("return"))
            && !next.iter().any(|line| line.contains("SKIPPED") || line.contains("skip"))
        {
            found.push(index + 1);
        }
    }
    found
}

#[test]
fn every_test_that_leaves_itself_out_is_counted() -> Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut files = Vec::new();
    sources(root, &mut files)?;
    let own = Path::new(file!()).file_name();
    let mut found = Vec::new();
    for path in files.iter().filter(|path| path.file_name() != own) {
        for line in silent_skips(&fs::read_to_string(path)?) {
            found.push(format!("{}:{line}", path.display()));
        }
    }
    assert!(files.len() > 100, "{} files", files.len());
    assert_eq!(found, Vec::<String>::new(), "write SKIPPED: to std::io::stderr() instead");
    Ok(())
}

#[test]
fn skips_that_nobody_counts_are_found() {
    assert_eq!(silent_skips("    eprintln!(\"skipped: no tool\");"), [1]);
    assert_eq!(silent_skips("    return println!(\"Skipping this\");"), [1]);
    assert_eq!(silent_skips("if !nix::unistd::geteuid().is_root() {\n    return;\n}"), [1]);
    assert!(silent_skips("let _ = writeln!(std::io::stderr(), \"SKIPPED: {why}\");").is_empty());
    assert!(
        silent_skips("if !nix::unistd::geteuid().is_root() {\n    skip(\"needs root\");\n    return;\n}")
            .is_empty()
    );
}
