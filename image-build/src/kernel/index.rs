//! The text files below `/lib/modules/RELEASE` that the agent reads: the same that depmod(8) writes, restricted to the chosen modules.
//!
//! - `modules.dep`: `PATH: DEPENDENCY...`, all dependencies, to be loaded from last to first (modules.dep(5))
//! - `modules.alias`: `alias PATTERN MODULE`
//! - `modules.softdep`: `softdep MODULE pre: ... post: ...`
//! - `modules.order`, `modules.builtin`: paths

use std::collections::BTreeSet;
use std::fmt::Write;

use super::closure::Finder;
use super::package::Kernel;

/// The files, by name, for the modules in `chosen` (indexes into `kernel.modules`).
pub fn files(kernel: &Kernel, finder: &Finder<'_>, chosen: &BTreeSet<usize>) -> Vec<(&'static str, String)> {
    let mut dep = String::new();
    let mut alias = "# Aliases extracted from modules themselves.\n".to_owned();
    let mut softdep = "# Soft dependencies extracted from modules themselves.\n".to_owned();
    let mut order = String::new();
    // Writing to a String can not fail, so the results of `write!` are of no use here.
    for &number in chosen {
        let Some(module) = kernel.modules.get(number) else { continue };
        let _ = write!(dep, "{}:", module.path);
        for dependency in
            finder.dependencies(number).into_iter().filter_map(|number| kernel.modules.get(number))
        {
            let _ = write!(dep, " {}", dependency.path);
        }
        dep.push('\n');
        for pattern in &module.info.aliases {
            let _ = writeln!(alias, "alias {pattern} {}", module.name);
        }
        for soft in &module.info.softdeps {
            let _ = writeln!(softdep, "softdep {} {soft}", module.name);
        }
        let _ = writeln!(order, "{}", module.path);
    }
    vec![
        ("modules.alias", alias),
        ("modules.builtin", kernel.builtin.clone()),
        ("modules.dep", dep),
        ("modules.order", order),
        ("modules.softdep", softdep),
    ]
}
