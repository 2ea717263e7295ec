//! From the modules that are wanted to all that they need: hard dependencies, soft ones, and theirs in turn.

use std::collections::{BTreeMap, BTreeSet};

use super::modinfo::normalize;
use super::package::Module;
use crate::{Error, Result};

/// Finds modules by name and by alias.
pub struct Finder<'a> {
    modules: &'a [Module],
    by_name: BTreeMap<&'a str, usize>,
    by_alias: BTreeMap<String, Vec<usize>>,
    builtin: &'a BTreeSet<String>,
}

impl<'a> Finder<'a> {
    /// Indexes `modules`; `builtin` are the names that need no module.
    pub fn new(modules: &'a [Module], builtin: &'a BTreeSet<String>) -> Finder<'a> {
        let mut by_alias: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, module) in modules.iter().enumerate() {
            for alias in &module.info.aliases {
                by_alias.entry(normalize(alias)).or_default().push(number);
            }
        }
        let by_name =
            modules.iter().enumerate().map(|(number, module)| (module.name.as_str(), number)).collect();
        Finder { modules, by_name, by_alias, builtin }
    }

    /// The module called `name` (normalized).
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// True when the kernel has `name` built in.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(name)
    }

    /// `wanted` and all they need. A hard dependency that is nowhere is an error: the module could never be loaded.
    /// A soft one that is nowhere is left out, as kmod does.
    pub fn close(&self, wanted: impl IntoIterator<Item = usize>) -> Result<BTreeSet<usize>> {
        let mut chosen = BTreeSet::new();
        let mut to_do: Vec<usize> = wanted.into_iter().collect();
        while let Some(number) = to_do.pop() {
            let Some(module) = self.modules.get(number) else { continue };
            if !chosen.insert(number) {
                continue;
            }
            for name in &module.info.depends {
                match self.by_name(name) {
                    Some(dependency) => to_do.push(dependency),
                    None if self.is_builtin(name) => {}
                    None => {
                        let advice = "give the package that has it with another --kernel-package (on Ubuntu: linux-modules-extra-*)";
                        return Err(Error::Request(format!(
                            "module {} needs {name}, which the kernel packages do not have; {advice}",
                            module.name
                        )));
                    }
                }
            }
            for name in module.info.soft_names() {
                match self.by_name(&name) {
                    Some(dependency) => to_do.push(dependency),
                    None => to_do.extend(self.by_alias.get(&name).into_iter().flatten()),
                }
            }
        }
        Ok(chosen)
    }

    /// All hard dependencies of a module, theirs included, in the order of `modules.dep`: to load, go from last to first.
    pub fn dependencies(&self, number: usize) -> Vec<usize> {
        let mut load_order = Vec::new();
        let mut seen = BTreeSet::from([number]);
        self.visit(number, &mut seen, &mut load_order);
        load_order.pop();
        load_order.reverse();
        load_order
    }

    fn visit(&self, number: usize, seen: &mut BTreeSet<usize>, load_order: &mut Vec<usize>) {
        let depends =
            self.modules.get(number).map(|module| module.info.depends.as_slice()).unwrap_or_default();
        for dependency in depends.iter().filter_map(|name| self.by_name(name)) {
            if seen.insert(dependency) {
                self.visit(dependency, seen, load_order);
            }
        }
        load_order.push(number);
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use super::super::modinfo::{ModInfo, name_of_path};
    use super::super::package::Module;

    /// A module at `path` with these `.modinfo` strings.
    pub(crate) fn module(path: &str, modinfo: &[&str]) -> Module {
        Module {
            name: name_of_path(path),
            path: path.to_owned(),
            info: ModInfo::parse(modinfo.join("\0").as_bytes()),
            ..Module::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sample::module;
    use super::*;
    use proptest::prelude::*;

    fn names(modules: &[Module], numbers: impl IntoIterator<Item = usize>) -> Vec<&str> {
        numbers.into_iter().map(|number| modules[number].name.as_str()).collect()
    }

    #[test]
    fn needs_are_followed_by_name_by_alias_and_into_the_builtin_ones() {
        let modules = [
            module("kernel/ext4.ko", &["depends=jbd2,mbcache,built-in", "softdep=pre: crypto-crc32c absent"]),
            module("kernel/jbd2.ko", &["depends=journal-base"]),
            module("kernel/mbcache.ko", &[]),
            module("kernel/journal-base.ko", &[]),
            module("kernel/crc32c_generic.ko", &["alias=crypto-crc32c"]),
            module("kernel/crc32c-intel.ko", &["alias=crypto-crc32c"]),
            module("kernel/unrelated.ko", &["depends=ext4"]),
        ];
        let builtin = BTreeSet::from(["built_in".to_owned()]);
        let finder = Finder::new(&modules, &builtin);
        let chosen = finder.close([0]).unwrap();
        assert_eq!(
            names(&modules, chosen),
            ["ext4", "jbd2", "mbcache", "journal_base", "crc32c_generic", "crc32c_intel"]
        );
        assert_eq!(names(&modules, finder.dependencies(0)), ["mbcache", "jbd2", "journal_base"]);
    }

    #[test]
    fn a_missing_hard_dependency_is_an_error_that_names_both() {
        let modules = [module("kernel/a.ko", &["depends=gone"])];
        let builtin = BTreeSet::new();
        let error = Finder::new(&modules, &builtin).close([0]).unwrap_err().to_string();
        assert!(error.contains("module a needs gone"), "{error}");
    }

    proptest! {
        #[test]
        fn dependencies_read_backwards_load_each_after_its_own(edges in proptest::collection::vec((0usize..12, 0usize..12), 0..40)) {
            let modules: Vec<Module> = (0..12usize)
                .map(|number| {
                    let of = edges.iter().filter(|(from, to)| *from == number && to < from).map(|(_, to)| format!("m{to}"));
                    module(&format!("kernel/m{number}.ko"), &[&format!("depends={}", of.collect::<Vec<_>>().join(","))])
                })
                .collect();
            let builtin = BTreeSet::new();
            let finder = Finder::new(&modules, &builtin);
            for number in 0..12 {
                let listed = finder.dependencies(number);
                let mut closed = finder.close([number]).unwrap();
                closed.remove(&number);
                prop_assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), closed);
                let mut loaded = BTreeSet::new();
                for dependency in listed.iter().rev().chain([&number]) {
                    let ready = modules[*dependency].info.depends.iter().all(|name| loaded.contains(name));
                    prop_assert!(ready);
                    loaded.insert(modules[*dependency].name.clone());
                }
            }
        }
    }
}
