//! Finds and downloads kernel packages by the machine's own apt, as an ordinary user; nothing is installed.
//!
//! `linux-image-amd64` (Debian) and `linux-image-generic` (Ubuntu) are meta packages: the real ones are followed through
//! their dependencies, as far as those are kernels too. A package that is in the cache already is not downloaded again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::{CommandLine, RunError, Runner};

use crate::kernel::package::sha256_of;
use crate::progress::Talk;
use crate::{Error, Result};

/// Meta packages tried in turn when none is named: Debian's, then Ubuntu's.
pub const USUAL_PACKAGES: &[&str] = &["linux-image-amd64", "linux-image-generic"];

const APT_GET: &str = "/usr/bin/apt-get";
const APT_CACHE: &str = "/usr/bin/apt-cache";
const KERNEL_PREFIXES: &[&str] = &["linux-image-", "linux-modules-", "linux-binary-"];
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// A slow mirror gives 100 MB in ten minutes at 170 KB/s.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(900);

const ADVICE: &str = "run `sudo apt-get update`, or give the package itself with --kernel-package FILE.deb";

/// One package as apt knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Candidate {
    package: String,
    version: String,
    architecture: String,
    sha256: String,
    depends: Vec<String>,
}

impl Candidate {
    /// The name apt-get gives the file it downloads: the colon of an epoch is escaped.
    fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.package, self.version.replace(':', "%3a"), self.architecture)
    }
}

/// The packages of the kernel that `names` (the first that apt knows) stands for, in `cache`; downloaded if need be.
pub fn fetch(runner: &dyn Runner, names: &[&str], cache: &Path, talk: &Talk) -> Result<Vec<PathBuf>> {
    let packages = resolve(runner, names)?;
    std::fs::create_dir_all(cache).map_err(Error::file("making the cache folder", cache))?;
    packages.iter().map(|package| obtain(runner, package, cache, talk)).collect()
}

/// Debian's name of an architecture, by the kernel's name of the machine; `None` where this program knows none.
pub fn architecture(machine: &str) -> Option<&'static str> {
    match machine {
        "x86_64" => Some("amd64"),
        "aarch64" => Some("arm64"),
        "riscv64" => Some("riscv64"),
        _ => None,
    }
}

/// The package of exactly this name and architecture (`None`: the building machine's), in `cache`; downloaded if need be. With it
/// the names of the packages that it depends on.
pub fn fetch_one(
    runner: &dyn Runner,
    name: &str,
    architecture: Option<&str>,
    cache: &Path,
    talk: &Talk,
) -> Result<(PathBuf, Vec<String>)> {
    let package = show(runner, name, architecture)?.ok_or_else(|| {
        Error::Request(match architecture {
            Some(architecture) => format!(
                "apt knows no package {name}:{architecture}; run `sudo apt-get update`, and where {architecture} is not this machine's own \
                 architecture, `sudo dpkg --add-architecture {architecture}` before"
            ),
            None => format!("apt knows no package {name}; {ADVICE}"),
        })
    })?;
    std::fs::create_dir_all(cache).map_err(Error::file("making the cache folder", cache))?;
    Ok((obtain(runner, &package, cache, talk)?, package.depends))
}

fn obtain(runner: &dyn Runner, package: &Candidate, cache: &Path, talk: &Talk) -> Result<PathBuf> {
    let path = cache.join(package.file_name());
    if path.is_file() && !package.sha256.is_empty() && sha256_of(&path)? == package.sha256 {
        talk.say(&format!("using {} from the cache", path.display()));
    } else {
        talk.say(&format!("downloading {} {} into {}", package.package, package.version, cache.display()));
        download(runner, package, cache, &path)?;
    }
    Ok(path)
}

fn download(runner: &dyn Runner, package: &Candidate, cache: &Path, path: &Path) -> Result<()> {
    // apt-get downloads into the working directory and has no option for another one; env -C gives it one.
    let cache_name = cache.to_str().ok_or_else(|| {
        Error::bad(cache, "the cache folder's name is not UTF-8; give another with --cache")
    })?;
    // `all` is the architecture of a file, and none that apt-get takes in a name.
    let wanted = match package.architecture.as_str() {
        "" | "all" => format!("{}={}", package.package, package.version),
        architecture => format!("{}:{architecture}={}", package.package, package.version),
    };
    let command = CommandLine::new(["/usr/bin/env", "-C", cache_name, APT_GET, "-q", "download", &wanted])
        .limit(DOWNLOAD_LIMIT);
    runner.run(&command).map_err(|error| failed(&format!("downloading {wanted}"), &error))?;
    if !path.is_file() {
        return Err(Error::bad(
            path,
            format!("apt-get said it downloaded {wanted}, but this file is not there; {ADVICE}"),
        ));
    }
    if !package.sha256.is_empty() && sha256_of(path)? != package.sha256 {
        return Err(Error::bad(
            path,
            "is not what the package index promises (SHA-256); delete it and try again",
        ));
    }
    Ok(())
}

fn resolve(runner: &dyn Runner, names: &[&str]) -> Result<Vec<Candidate>> {
    let mut unknown = Vec::new();
    for name in names {
        match show(runner, name, None)? {
            Some(candidate) => return follow(runner, candidate),
            None => unknown.push(*name),
        }
    }
    Err(Error::Request(format!("apt knows no package {}; {ADVICE}", unknown.join(" nor "))))
}

fn follow(runner: &dyn Runner, start: Candidate) -> Result<Vec<Candidate>> {
    let mut seen = BTreeSet::from([start.package.clone()]);
    let mut to_do = vec![start.clone()];
    let mut found = Vec::new();
    while let Some(candidate) = to_do.pop() {
        for name in candidate.depends.iter().filter(|name| after_prefix(name).is_some()) {
            if seen.insert(name.clone()) {
                to_do.extend(show(runner, name, None)?);
            }
        }
        if after_prefix(&candidate.package).is_some_and(is_versioned) {
            found.push(candidate);
        }
    }
    if found.is_empty() {
        found.push(start);
    }
    found.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(found)
}

fn after_prefix(name: &str) -> Option<&str> {
    KERNEL_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))
}

/// `6.1.0-56-amd64` and `extra-6.8.0-50-generic` name a kernel; `amd64` and `extra-generic` stand for the newest.
fn is_versioned(rest: &str) -> bool {
    rest.strip_prefix("extra-").unwrap_or(rest).starts_with(|letter: char| letter.is_ascii_digit())
}

fn show(runner: &dyn Runner, name: &str, architecture: Option<&str>) -> Result<Option<Candidate>> {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        || name.starts_with('-')
    {
        return Err(Error::Request(format!(
            "{name:?} is neither a .deb file that exists nor a package name"
        )));
    }
    let wanted =
        architecture.map_or_else(|| name.to_owned(), |architecture| format!("{name}:{architecture}"));
    let command = CommandLine::new([APT_CACHE, "show", "--no-all-versions", &wanted]).limit(ASK_LIMIT);
    match runner.run(&command) {
        Ok(output) => Ok(Some(parse(&String::from_utf8_lossy(&output.stdout)))
            .filter(|candidate| !candidate.version.is_empty())),
        Err(RunError::Failed { .. }) => Ok(None),
        Err(error) => Err(failed(&format!("asking apt for {name}"), &error)),
    }
}

fn failed(what: &str, error: &RunError) -> Error {
    if error.is_missing() {
        return Error::Command(format!(
            "{what}: there is no apt on this machine; give the package itself with --kernel-package FILE.deb"
        ));
    }
    Error::Command(format!("{what}: {error}; {ADVICE}"))
}

fn parse(stanzas: &str) -> Candidate {
    let mut candidate = Candidate::default();
    for line in stanzas.trim_start().lines().take_while(|line| !line.is_empty()) {
        let Some((key, value)) = line.split_once(": ") else { continue };
        let value = value.trim();
        match key {
            "Package" => candidate.package = value.to_owned(),
            "Version" => candidate.version = value.to_owned(),
            "Architecture" => candidate.architecture = value.to_owned(),
            "SHA256" => candidate.sha256 = value.to_owned(),
            "Depends" | "Pre-Depends" => {
                let first_choices = value.split(',').filter_map(|choice| choice.split('|').next());
                candidate.depends.extend(
                    first_choices
                        .filter_map(|choice| choice.split([' ', ':', '(']).find(|word| !word.is_empty()))
                        .map(str::to_owned),
                );
            }
            _ => {}
        }
    }
    candidate
}

#[cfg(test)]
mod tests {
    use sys::fake::FakeRunner;

    use super::*;

    fn shown(runner: FakeRunner, name: &str, depends: &str) -> FakeRunner {
        let text = format!(
            "Package: {name}\nVersion: 1:2-3\nArchitecture: amd64\nDepends: {depends}\nDescription: x\n Version: no\n\nPackage: old\n"
        );
        runner.answer(&format!("{APT_CACHE} show --no-all-versions {name}"), &text)
    }

    fn names(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.package.as_str()).collect()
    }

    #[test]
    fn debians_meta_package_leads_to_the_kernel() {
        let runner =
            shown(FakeRunner::default(), "linux-image-amd64", "linux-image-6.1.0-56-amd64 (= 6.1.192-2)");
        let runner = shown(
            runner,
            "linux-image-6.1.0-56-amd64",
            "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool",
        );
        let found = resolve(&runner, USUAL_PACKAGES).unwrap();
        assert_eq!(names(&found), ["linux-image-6.1.0-56-amd64"]);
        assert_eq!(found[0].file_name(), "linux-image-6.1.0-56-amd64_1%3a2-3_amd64.deb");
    }

    #[test]
    fn ubuntus_leads_to_the_kernel_and_both_module_packages() {
        let runner = FakeRunner::default()
            .fail(&format!("{APT_CACHE} show --no-all-versions linux-image-amd64"), "E: No packages found");
        let runner = shown(
            runner,
            "linux-image-generic",
            "linux-image-6.8.0-50-generic, linux-modules-extra-6.8.0-50-generic, linux-firmware",
        );
        let runner = shown(runner, "linux-image-6.8.0-50-generic", "kmod, linux-modules-6.8.0-50-generic");
        let runner = shown(runner, "linux-modules-6.8.0-50-generic", "");
        let runner = shown(runner, "linux-modules-extra-6.8.0-50-generic", "linux-modules-6.8.0-50-generic");
        let found = resolve(&runner, USUAL_PACKAGES).unwrap();
        assert_eq!(
            names(&found),
            [
                "linux-image-6.8.0-50-generic",
                "linux-modules-6.8.0-50-generic",
                "linux-modules-extra-6.8.0-50-generic"
            ]
        );
    }

    #[test]
    fn an_unknown_package_says_what_to_do() {
        let runner = FakeRunner::default()
            .fail(&format!("{APT_CACHE} show --no-all-versions nosuch"), "E: No packages found");
        let error = resolve(&runner, &["nosuch"]).unwrap_err().to_string();
        assert!(error.contains("no package nosuch") && error.contains("apt-get update"), "{error}");
        assert!(resolve(&runner, &["--option"]).is_err());
    }
}
