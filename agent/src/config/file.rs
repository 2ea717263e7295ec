//! Configuration files in oslo.config's INI dialect: which ones, and their entries. Pure but for listing directories.

use std::path::PathBuf;

use sys::Host;

use super::{Error, Overrides};

/// One `key = value`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
    /// The line it begins on, from 1.
    pub(super) line: usize,
}

const FILE: &str = "ironic-python-agent.conf";
const DIRECTORY: &str = "ironic-python-agent.conf.d";
/// Where a ramdisk built for ironic-python-agent has its own: the service there names it with `--config-dir`.
const RAMDISK_DIRECTORY: &str = "/etc/ironic-python-agent.d";

/// The files to read, in order: those of the user before those of the machine. Default files may be missing; named ones may not.
pub(super) fn paths(host: &Host, overrides: &Overrides) -> Result<Vec<PathBuf>, Error> {
    let mut paths = overrides.files.clone();
    if paths.is_empty() {
        let home = overrides.home.iter().map(|home| home.join(FILE));
        let candidates = home.chain([PathBuf::from("/etc").join(FILE)]).map(|path| host.path(path));
        paths.extend(candidates.into_iter().find(|path| path.exists()));
    }
    let mut directories = overrides.directories.clone();
    if directories.is_empty() {
        let home = overrides.home.iter().map(|home| home.join(DIRECTORY));
        let candidates = home.chain([PathBuf::from("/etc").join(DIRECTORY)]);
        directories.extend(candidates.into_iter().find(|path| host.path(path).exists()));
        directories.push(RAMDISK_DIRECTORY.into());
    }
    for directory in directories {
        let names =
            host.names(&directory).map_err(|source| Error::Read { path: directory.clone(), source })?;
        let wanted = names.into_iter().filter(|name| name.ends_with(".conf") && !name.starts_with('.'));
        paths.extend(wanted.map(|name| host.path(directory.join(name))));
    }
    Ok(paths)
}

/// The entries of a file. The error is the number of the line that makes no sense.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, usize> {
    let mut section = "DEFAULT".to_owned();
    let mut entries: Vec<Entry> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index.saturating_add(1);
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            let entry = entries.last_mut().ok_or(number)?; // a continued value
            entry.value.push_str(trimmed);
        } else if let Some(name) = trimmed.strip_prefix('[') {
            section = name.strip_suffix(']').ok_or(number)?.trim().to_owned();
        } else {
            let (key, value) = trimmed.split_once(['=', ':']).ok_or(number)?;
            let value = unquoted(value.trim()).to_owned();
            entries.push(Entry { section: section.clone(), key: key.trim().to_owned(), value, line: number });
        }
    }
    Ok(entries)
}

/// oslo.config drops one pair of quotes around a value.
fn unquoted(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_comments_quotes_and_continued_values_are_understood() {
        let text = "# c\n[DEFAULT]\napi_url = http://a,\n   http://b\n; c\n[disk_utils]\nx: 'y=z'\n";
        let entries = parse(text).unwrap();
        let shown: Vec<_> = entries.iter().map(|e| format!("{}.{}={}", e.section, e.key, e.value)).collect();
        assert_eq!(shown, ["DEFAULT.api_url=http://a,http://b", "disk_utils.x=y=z"]);
        assert_eq!(entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [3, 7]);
    }

    #[test]
    fn a_senseless_line_is_named_by_its_number() {
        assert_eq!(parse("a = 1\nnonsense\n"), Err(2));
        assert_eq!(parse("  continued nothing\n"), Err(1));
        assert_eq!(parse("[open\n"), Err(1));
    }
}
