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
}

/// The files to read, in order. Default files may be missing; named ones may not.
pub(super) fn paths(
    host: &Host,
    overrides: &Overrides,
    file: &str,
    directories: &[&str],
) -> Result<Vec<PathBuf>, Error> {
    let mut paths = overrides.files.clone();
    if paths.is_empty() && host.path(file).exists() {
        paths.push(host.path(file));
    }
    let mut directories: Vec<PathBuf> = directories.iter().map(PathBuf::from).collect();
    if !overrides.directories.is_empty() {
        directories = overrides.directories.clone();
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
            entries.push(Entry { section: section.clone(), key: key.trim().to_owned(), value });
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
    }

    #[test]
    fn a_senseless_line_is_named_by_its_number() {
        assert_eq!(parse("a = 1\nnonsense\n"), Err(2));
        assert_eq!(parse("  continued nothing\n"), Err(1));
        assert_eq!(parse("[open\n"), Err(1));
    }
}
