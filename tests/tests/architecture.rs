//! Holds the direction of the dependencies between our own crates: `docs/architecture.md`, "Dependencies run one way".
//!
//! Read from `cargo metadata`, so that what Cargo builds is what is judged; dependencies of tests count as well.

// The one way to learn what Cargo thinks is to ask it.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Each crate and what of ours it may depend on. A crate that is not here may not exist.
const ALLOWED: &[(&str, &[&str])] = &[
    ("sys", &[]),
    ("events", &[]),
    ("wire", &[]),
    ("tls", &[]),
    ("dns", &[]),
    ("http-server", &[]),
    ("disk", &["sys", "wire"]),
    ("boot", &["disk", "sys"]),
    ("imaging", &["sys", "tls", "dns", "events", "wire"]),
    ("hwm", &["sys", "events", "wire"]),
    ("hardware-managers", &["hwm", "imaging", "disk", "boot", "sys", "events", "wire"]),
    (
        "ferric-agent",
        &[
            "hardware-managers",
            "hwm",
            "imaging",
            "boot",
            "disk",
            "sys",
            "tls",
            "dns",
            "http-server",
            "events",
            "wire",
        ],
    ),
    ("ferric", &["http-server", "events", "wire"]),
    ("ferric-image", &["sys", "wire"]),
    // Whatever reads an outsider's bytes; `sys` for a machine of files.
    (
        "fuzz-targets",
        &["boot", "disk", "events", "ferric-agent", "hardware-managers", "imaging", "sys", "wire"],
    ),
    // Programs as a user has them; but the guests of vm_erase, vm_raid and vm_raid_boot are steps and a deployment themselves.
    ("e2e", &["disk", "events", "hardware-managers", "hwm", "imaging", "sys", "wire"]),
];

/// What depends on what, among the members of this workspace.
fn members() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .context("running cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("no packages")?;
    let name = |value: &Value| value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ours: BTreeSet<_> = packages.iter().map(name).collect();
    let mut members = BTreeMap::new();
    for package in packages {
        let all = package.get("dependencies").and_then(Value::as_array).context("no dependencies")?;
        let own = all.iter().map(name).filter(|name| ours.contains(name)).collect();
        members.insert(name(package), own);
    }
    Ok(members)
}

/// What breaks the rule, in words.
fn breaches(members: &BTreeMap<String, BTreeSet<String>>, allowed: &[(&str, &[&str])]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (member, dependencies) in members {
        let Some((_, may)) = allowed.iter().find(|(name, _)| name == member) else {
            breaches.push(format!("{member} is not in the house's plan"));
            continue;
        };
        for dependency in dependencies {
            if !may.contains(&dependency.as_str()) {
                breaches.push(format!("{member} must not depend on {dependency}"));
            }
        }
    }
    breaches
}

#[test]
fn dependencies_run_one_way() -> Result<()> {
    let members = members()?;
    assert!(members.len() >= ALLOWED.len(), "the plan names crates that are gone: {members:?}");
    assert_eq!(breaches(&members, ALLOWED), Vec::<String>::new());
    Ok(())
}

#[test]
fn a_dependency_against_the_plan_is_seen() {
    let members = BTreeMap::from([
        ("ferric".to_owned(), BTreeSet::from(["wire".to_owned(), "ferric-agent".to_owned()])),
        ("odd".to_owned(), BTreeSet::new()),
    ]);
    let expected = ["ferric must not depend on ferric-agent", "odd is not in the house's plan"];
    assert_eq!(breaches(&members, ALLOWED), expected);
}
