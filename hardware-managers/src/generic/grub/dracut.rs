//! The kernel's parameters by which an initramfs of dracut starts arrays: without them it starts none. Source: data plane page,
//! 5.3, step 8.

use std::io;
use std::path::Path;

/// Larger ones are left alone.
const LIMIT: u64 = 1 << 20;
const VARIABLE: &str = "GRUB_CMDLINE_LINUX=";

/// Adds a parameter for each array, given by its UUID, to the file `grub` in the image's `/etc/default`, where it lacks them; makes the
/// file where there is none. A link is not followed.
pub(super) fn add(defaults: &Path, arrays: &[String]) -> io::Result<()> {
    let path = defaults.join("grub");
    let text = match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() && found.len() <= LIMIT => std::fs::read_to_string(&path)?,
        Ok(_) => return Err(io::Error::other("/etc/default/grub is no file of its own, or too large")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    match with(&text, arrays) {
        Some(changed) => std::fs::write(&path, changed),
        None => Ok(()),
    }
}

/// The text with what it lacks; `None` where that is nothing. The last line that sets the variable decides, as in a shell.
fn with(text: &str, arrays: &[String]) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(Into::into).collect();
    let line = lines.iter_mut().rev().find(|line| line.starts_with(VARIABLE));
    let present = line.as_deref().cloned().unwrap_or_default();
    let missing: Vec<String> = arrays
        .iter()
        .map(|array| parameter(array))
        .filter(|parameter| !present.contains(parameter.as_str()))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let missing = missing.join(" ");
    match line {
        None => lines.push(format!("{VARIABLE}\"{missing}\"")),
        Some(line) => {
            let value = line.trim_start_matches(VARIABLE).trim();
            *line = match value.chars().last().filter(|last| matches!(last, '"' | '\'') && value.len() > 1) {
                Some(quote) => {
                    let inner = value.strip_suffix(quote).unwrap_or(value);
                    let gap = if inner.len() > 1 { " " } else { "" };
                    format!("{VARIABLE}{inner}{gap}{missing}{quote}")
                }
                None if value.is_empty() => format!("{VARIABLE}\"{missing}\""),
                None => format!("{VARIABLE}\"{value} {missing}\""),
            };
        }
    }
    Some(lines.join("\n") + "\n")
}

/// As mdadm writes identifiers: four groups of eight digits.
fn parameter(array: &str) -> String {
    let digits = array.replace('-', "");
    let groups: Vec<&str> =
        [0..8, 8..16, 16..24, 24..32].into_iter().filter_map(|at| digits.get(at)).collect();
    format!("rd.md.uuid={}", groups.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "rd.md.uuid=07070707:07070707:07070707:07070707";

    fn arrays() -> [String; 1] {
        ["07070707-0707-0707-0707-070707070707".into()]
    }

    #[test]
    fn parameters_join_those_that_are_there_in_whatever_quotes() {
        for (text, expected) in [
            (
                "A=1\nGRUB_CMDLINE_LINUX=\"quiet splash\"\nB=2\n",
                format!("A=1\nGRUB_CMDLINE_LINUX=\"quiet splash {ONE}\"\nB=2\n"),
            ),
            ("GRUB_CMDLINE_LINUX='quiet'", format!("GRUB_CMDLINE_LINUX='quiet {ONE}'\n")),
            ("GRUB_CMDLINE_LINUX=\"\"\n", format!("GRUB_CMDLINE_LINUX=\"{ONE}\"\n")),
            ("GRUB_CMDLINE_LINUX=\n", format!("GRUB_CMDLINE_LINUX=\"{ONE}\"\n")),
            ("GRUB_CMDLINE_LINUX=quiet\n", format!("GRUB_CMDLINE_LINUX=\"quiet {ONE}\"\n")),
            (
                "GRUB_CMDLINE_LINUX_DEFAULT=\"x\"\n",
                format!("GRUB_CMDLINE_LINUX_DEFAULT=\"x\"\nGRUB_CMDLINE_LINUX=\"{ONE}\"\n"),
            ),
            ("", format!("GRUB_CMDLINE_LINUX=\"{ONE}\"\n")),
        ] {
            assert_eq!(with(text, &arrays()), Some(expected.clone()), "{text}");
            assert_eq!(with(&expected, &arrays()), None, "once is enough");
        }
    }

    #[test]
    fn the_file_is_made_where_it_is_missing_and_a_link_is_not_followed() {
        let defaults = tempfile::tempdir().unwrap();
        add(defaults.path(), &arrays()).unwrap();
        let path = defaults.path().join("grub");
        assert!(std::fs::read_to_string(&path).unwrap().contains(ONE));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(defaults.path().join("elsewhere"), &path).unwrap();
        assert!(add(defaults.path(), &arrays()).is_err());
        assert!(!defaults.path().join("elsewhere").exists());
    }
}
