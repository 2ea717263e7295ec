//! What programs in the ramdisk need and do not find there: a loader, shared libraries, the interpreter of a script. The kernel
//! reports a missing loader as "not found" for the program itself, so it is reported when the ramdisk is built.

use std::collections::BTreeSet;

use super::tree::{Node, Tree};
use crate::elf::Elf;

/// Links that are followed for one path; the kernel follows 40.
const MOST_LINKS: u8 = 40;

/// Returns one sentence for each program or library of `part` that cannot run in this ramdisk as it is.
pub fn unmet(tree: &Tree, part: &str, machine: &str) -> Vec<String> {
    let names: BTreeSet<&str> = tree.iter().filter_map(|(path, _)| path.rsplit('/').next()).collect();
    let mut unmet = Vec::new();
    for (path, entry) in tree.iter().filter(|(_, entry)| entry.part == part) {
        let Node::File(bytes) = &entry.node else { continue };
        if let Some(interpreter) = script_interpreter(bytes).filter(|_| entry.mode & 0o111 != 0) {
            if !exists(tree, &interpreter) {
                unmet.push(format!("/{path} needs {interpreter}, which the ramdisk does not have"));
            }
            continue;
        }
        let Some(elf) = Elf::parse(bytes) else { continue };
        if elf.machine() != machine {
            unmet.push(format!("/{path} is for {}, the ramdisk for {machine}", elf.machine()));
            continue;
        }
        let mut missing: Vec<String> =
            elf.interpreter().into_iter().filter(|loader| !exists(tree, loader)).collect();
        // Where the loader looks is its own matter (configuration, RPATH): a library counts wherever it is.
        missing.extend(elf.needed().into_iter().filter(|name| !names.contains(name.as_str())));
        if !missing.is_empty() {
            unmet.push(format!(
                "/{path} is dynamic and needs {}, which the ramdisk does not have; add them or a static build",
                missing.join(", ")
            ));
        }
    }
    unmet
}

/// The program that a script's first line names.
fn script_interpreter(bytes: &[u8]) -> Option<String> {
    let line = bytes.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line.get(..line.len().min(256))?).ok()?;
    line.split_whitespace().next().filter(|word| word.starts_with('/')).map(str::to_owned)
}

/// Whether a path leads to a file, links followed.
fn exists(tree: &Tree, path: &str) -> bool {
    let mut left = MOST_LINKS;
    let mut waiting: Vec<String> = components(path);
    let mut at: Vec<String> = Vec::new();
    while let Some(name) = waiting.pop() {
        match name.as_str() {
            "." => continue,
            ".." => drop(at.pop()),
            _ => at.push(name),
        }
        match tree.get(&at.join("/")).map(|entry| &entry.node) {
            Some(Node::Link(target)) => {
                let Some(rest) = left.checked_sub(1) else { return false };
                left = rest;
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                waiting.extend(components(target));
            }
            Some(Node::Folder | Node::File(_) | Node::CharacterDevice { .. }) => {}
            None if at.is_empty() => {}
            None => return false,
        }
    }
    matches!(tree.get(&at.join("/")).map(|entry| &entry.node), Some(Node::File(_)))
}

/// The names of a path, last first.
fn components(path: &str) -> Vec<String> {
    path.split('/').rev().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::sample;
    use crate::ramdisk::tree::Entry;

    fn put(tree: &mut Tree, path: &str, node: Node) {
        tree.put(path, Entry { mode: 0o755, node, part: "test" }).unwrap();
    }

    fn tool() -> Vec<u8> {
        sample::dynamic(Some("/lib64/ld.so.2"), None, &["liba.so.1", "libc.so.6"])
    }

    #[test]
    fn a_dynamic_program_is_named_with_its_loader_and_libraries() {
        let mut tree = Tree::default();
        put(&mut tree, "usr/sbin/tool", Node::File(tool()));
        let text = unmet(&tree, "test", "x86_64").join("\n");
        for part in ["/usr/sbin/tool", "/lib64/ld.so.2", "liba.so.1", "libc.so.6"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(unmet(&tree, "another part", "x86_64"), Vec::<String>::new());
    }

    #[test]
    fn what_is_there_is_not_missing_and_libraries_have_needs_too() {
        let mut tree = Tree::default();
        put(&mut tree, "tool", Node::File(tool()));
        put(&mut tree, "usr/lib/x/ld-2.36.so", Node::File(sample::dynamic(None, Some("ld.so.2"), &[])));
        put(&mut tree, "lib", Node::Link("usr/lib".into()));
        put(&mut tree, "lib64", Node::Link("/lib/x".into()));
        put(&mut tree, "usr/lib/x/ld.so.2", Node::Link("ld-2.36.so".into()));
        put(&mut tree, "usr/lib/x/libc.so.6", Node::File(sample::dynamic(None, Some("libc.so.6"), &[])));
        put(&mut tree, "opt/liba.so.1", Node::File(sample::dynamic(None, Some("liba.so.1"), &["libb.so.2"])));
        let text = unmet(&tree, "test", "x86_64");
        assert_eq!(text.len(), 1, "{text:?}");
        assert!(text[0].starts_with("/opt/liba.so.1") && text[0].contains("libb.so.2"), "{text:?}");
    }

    #[test]
    fn a_script_without_its_interpreter_and_a_program_of_another_machine_are_named() {
        let mut tree = Tree::default();
        put(&mut tree, "a", Node::File(b"#! /bin/sh -e\nexit\n".to_vec()));
        put(&mut tree, "b", Node::File(sample::program(None)));
        let text = unmet(&tree, "test", "aarch64").join("\n");
        assert!(text.contains("/a needs /bin/sh") && text.contains("/b is for x86_64"), "{text}");
        put(&mut tree, "bin/busybox", Node::File(sample::program(None)));
        put(&mut tree, "bin/sh", Node::Link("busybox".into()));
        assert_eq!(unmet(&tree, "test", "x86_64"), Vec::<String>::new());
    }

    #[test]
    fn links_in_a_circle_lead_nowhere() {
        let mut tree = Tree::default();
        put(&mut tree, "x", Node::Link("y".into()));
        put(&mut tree, "y", Node::Link("/x".into()));
        assert!(!exists(&tree, "/x"));
        assert!(!exists(&tree, "/"));
    }
}
