//! Holds `docs/data-plane/` to the tests: every row names tests, and each of them is there and is a test.
//!
//! A row is a line of a table whose last column names files, each followed by functions in it, all in backticks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The sections that a conductor, an image or an operator relies on; each has rows. (3.6 is 2.6.)
const SECTIONS: &[(&str, u32, &[u32])] = &[
    ("1-images.md", 1, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]),
    ("2-root-device.md", 2, &[1, 2, 3, 4, 5, 6]),
    ("3-partition-images.md", 3, &[1, 2, 3, 4, 5, 7]),
    ("4-config-drive.md", 4, &[1, 2, 3, 4]),
    ("5-boot.md", 5, &[1, 2, 3]),
    ("9-software-raid.md", 9, &[1, 2, 3, 4, 5, 6, 7]),
];

/// One row of a table: where it stands, and what its last column says.
struct Row {
    place: String,
    tests: String,
}

/// The rows of every table in a page; heads and rulers are none.
fn rows(page: &str, text: &str) -> Vec<Row> {
    let lines: Vec<&str> = text.lines().collect();
    let is_ruler = |line: &&str| line.starts_with("|--");
    let mut rows = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_head = lines.get(index + 1).is_some_and(is_ruler);
        if !line.starts_with('|') || is_ruler(line) || is_head {
            continue;
        }
        let last = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        rows.push(Row { place: format!("{page}:{}", index + 1), tests: last.to_owned() });
    }
    rows
}

/// The words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What a name stands for in a file.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    /// A function that the test runner runs.
    Test,
    /// A helper, or anything else with this name.
    Other,
    /// Nothing has this name.
    Nothing,
}

/// Looks a name up in a file of Rust or Python. A test of Rust has an attribute `#[test]` or `#[tokio::test...]` above it, with
/// nothing between but other attributes and comments; one of Python is a method whose name begins with `test_`.
fn what_is(source: &str, name: &str) -> Named {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found = Named::Nothing;
    for (index, line) in lines.iter().enumerate() {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let line = line.strip_prefix("async ").unwrap_or(line);
        let defines = |kind: &str| {
            line.strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix(name))
                .is_some_and(|rest| rest.starts_with(['(', ':', '<']))
        };
        if !["fn ", "def ", "class "].into_iter().any(defines) {
            continue;
        }
        let mut above = lines
            .iter()
            .take(index)
            .rev()
            .take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        if defines("def ") && name.starts_with("test_")
            || defines("fn ")
                && above.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
        {
            return Named::Test;
        }
        found = Named::Other;
    }
    found
}

/// What is wrong with a row, in words.
fn faults(root: &Path, row: &Row) -> Vec<String> {
    let mut faults = Vec::new();
    let mut file: Option<(&str, String)> = None;
    let mut named = 0;
    for word in quoted(&row.tests) {
        if word.contains('/') {
            match fs::read_to_string(root.join(word)) {
                Ok(source) => file = Some((word, source)),
                Err(error) => faults.push(format!("{}: {word}: {error}", row.place)),
            }
            continue;
        }
        named += 1;
        let Some((path, source)) = &file else {
            faults.push(format!("{}: {word} comes before any file", row.place));
            continue;
        };
        match what_is(source, word) {
            Named::Test => {}
            Named::Other => faults.push(format!("{}: {word} in {path} is not a test", row.place)),
            Named::Nothing => faults.push(format!("{}: no {word} in {path}", row.place)),
        }
    }
    if named == 0 {
        faults.push(format!("{}: names no test", row.place));
    }
    faults
}

#[test]
fn every_row_of_the_data_plane_names_tests_that_exist() -> Result<()> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let folder = root.join("docs/data-plane");
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).context("docs/data-plane")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for row in rows(&name, &fs::read_to_string(&path)?) {
            found.extend(faults(root, &row));
        }
    }
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

#[test]
fn every_section_has_rows() -> Result<()> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/data-plane"));
    for (page, chapter, sections) in SECTIONS {
        let text = fs::read_to_string(folder.join(page))?;
        for section in *sections {
            let heading = format!("\n## {chapter}.{section} ");
            let (_, after) = text.split_once(&heading).with_context(|| format!("{page}: no{heading}"))?;
            let body = after.split_once("\n## ").map_or(after, |(body, _)| body);
            assert!(!rows(page, body).is_empty(), "{page}: {chapter}.{section} has no row");
        }
    }
    Ok(())
}

#[test]
fn a_row_without_a_test_or_with_one_that_is_gone_is_told() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let page = "| behaviour | test |\n|---|---|\n| a | none |\n| b | `tests/tests/data_plane.rs` `rows` `gone` |\n| c | `tests/none.rs` `x` |\n| d | `tests/tests/data_plane.rs` `every_section_has_rows` |\n";
    let told: Vec<String> = rows("page.md", page).iter().flat_map(|row| faults(root, row)).collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(told[0], "page.md:3: names no test");
    assert_eq!(told[1], "page.md:4: rows in tests/tests/data_plane.rs is not a test");
    assert_eq!(told[2], "page.md:4: no gone in tests/tests/data_plane.rs");
}

#[test]
fn tests_are_told_from_helpers_and_from_longer_names() {
    let source = "#[test]\n// why\n#[allow(x)]\nfn a() {}\n\n#[tokio::test(start_paused = true)]\nasync fn b() {}\n\nfn c() {}\n#[cfg(test)]\nfn d() {}\n\
                  #[test]\nfn long_name() {}\nfn long() {}\ndef test_e(self):\ndef helper(self):\n";
    for name in ["a", "b", "long_name", "test_e"] {
        assert_eq!(what_is(source, name), Named::Test, "{name}");
    }
    for name in ["c", "d", "long", "helper"] {
        assert_eq!(what_is(source, name), Named::Other, "{name}");
    }
    assert_eq!(what_is(source, "lon"), Named::Nothing);
}
