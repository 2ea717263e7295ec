//! The user `rescue`, as ironic-python-agent-builder's script makes it: with the password that the conductor gave, and root's
//! rights.
//!
//! Where the ramdisk has sudo, the user is an ordinary one that may do everything through it. Where it has none, the user is
//! root under another name: anything else could look at the machine, and mend nothing.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};

use sys::Host;

use super::PASSWORD_FILE;

const NAME: &str = "rescue";
/// Of the user and its group where there is sudo.
const ID: u32 = 1000;
const SUDO: &str = "/usr/bin/sudo";
/// The user's shell: the first that is there.
const SHELLS: [&str; 3] = ["/bin/bash", "/bin/sh", "/bin/ash"];

/// What kind of user it became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Root under another name.
    Root,
    /// With sudo.
    Ordinary,
}

/// Something about the user could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}")]
pub(super) struct AccountError {
    action: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

/// Makes the user, or sets the password of one that is there.
pub(super) fn create(host: &Host) -> Result<Account, AccountError> {
    let reading = |source| AccountError { action: "reading", path: PASSWORD_FILE.into(), source };
    let hash = fs::read_to_string(host.path(PASSWORD_FILE)).map_err(reading)?;
    let hash = hash.trim();
    let account = if host.path(SUDO).exists() { Account::Ordinary } else { Account::Root };
    let shell = SHELLS.into_iter().find(|shell| host.path(shell).exists()).unwrap_or("/bin/sh");
    let (id, home) = match account {
        Account::Root => (0, "/root"),
        Account::Ordinary => (ID, "/home/rescue"),
    };

    let user = format!("{NAME}:x:{id}:{id}:rescue:{home}:{shell}");
    edit(host, "/etc/passwd", 0o644, |text| with_entry(text, NAME, &user))?;
    edit(host, "/etc/group", 0o644, |text| match account {
        Account::Root => with_entry(text, "root", "root:x:0:"),
        Account::Ordinary => {
            let text = with_entry(text, NAME, &format!("{NAME}:x:{id}:"));
            with_member(&with_member(&text, "sudo"), "wheel")
        }
    })?;
    let shadow = format!("{NAME}:{hash}::0:99999:7:::");
    edit(host, "/etc/shadow", 0o600, |text| with_entry(text, NAME, &shadow))?;
    // SSH servers refuse users whose shell is not listed.
    edit(host, "/etc/shells", 0o644, |text| with_line(text, shell))?;
    if account == Account::Ordinary {
        edit(host, "/etc/sudoers.d/rescue", 0o440, |_| format!("{NAME} ALL=(ALL) NOPASSWD: ALL\n"))?;
    }
    let at_home = |source| AccountError { action: "making", path: home.into(), source };
    fs::create_dir_all(host.path(home)).map_err(at_home)?;
    fs::set_permissions(host.path(home), fs::Permissions::from_mode(0o700)).map_err(at_home)?;
    if account == Account::Ordinary
        && let Err(error) = chown(host.path(home), Some(id), Some(id))
    {
        tracing::warn!(%error, home, "the rescue user does not own its home");
    }
    Ok(account)
}

/// Replaces a file by its edited text, in one piece; one that is not there counts as empty.
fn edit(host: &Host, path: &str, mode: u32, change: impl FnOnce(&str) -> String) -> Result<(), AccountError> {
    let failed = |source| AccountError { action: "writing", path: path.into(), source };
    let real = host.path(path);
    let text = match fs::read(&real) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    let write = || {
        if let Some(folder) = real.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = real.with_extension("ferric-new");
        let _ = fs::remove_file(&new); // left by an attempt that broke off
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(change(&text).as_bytes())?;
        fs::rename(&new, &real)
    };
    write().map_err(failed)
}

/// A colon-separated table with this entry under this name: in its old place, or at the end.
fn with_entry(table: &str, name: &str, entry: &str) -> String {
    let is_it = |line: &str| line.split(':').next() == Some(name);
    let mut lines: Vec<&str> = table.lines().filter(|line| !line.is_empty()).collect();
    match lines.iter_mut().find(|line| is_it(line)) {
        Some(line) => *line = entry,
        None => lines.push(entry),
    }
    lines.join("\n") + "\n"
}

/// A group table where the user is a member of this group, if there is such a group.
fn with_member(table: &str, group: &str) -> String {
    let line = |line: &str| {
        let members = match line.rsplit_once(':') {
            Some((head, members)) if head.split(':').next() == Some(group) => members,
            _ => return line.to_owned(),
        };
        if members.split(',').any(|member| member == NAME) {
            return line.to_owned();
        }
        let comma = if members.is_empty() { "" } else { "," };
        format!("{line}{comma}{NAME}")
    };
    table.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

fn with_line(text: &str, line: &str) -> String {
    if text.lines().any(|known| known == line) {
        return text.to_owned();
    }
    let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{newline}{line}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramdisk(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = sys::fake::host(root.path());
        for (path, text) in files.iter().chain([(PASSWORD_FILE, "$6$salt$hash")].iter()) {
            let path = host.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (root, host)
    }

    fn read(host: &Host, path: &str) -> String {
        fs::read_to_string(host.path(path)).unwrap()
    }

    #[test]
    fn without_sudo_the_user_is_root_under_another_name() {
        let (_root, host) = ramdisk(&[("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("/bin/sh", "")]);
        for _ in 0..2 {
            assert_eq!(create(&host).unwrap(), Account::Root); // twice: the same result
        }
        assert_eq!(
            read(&host, "/etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nrescue:x:0:0:rescue:/root:/bin/sh\n"
        );
        assert_eq!(read(&host, "/etc/shadow"), "rescue:$6$salt$hash::0:99999:7:::\n");
        assert_eq!(read(&host, "/etc/group"), "root:x:0:\n");
        assert_eq!(read(&host, "/etc/shells"), "/bin/sh\n");
        let mode = fs::metadata(host.path("/etc/shadow")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(host.path("/root").is_dir() && !host.path("/etc/sudoers.d/rescue").exists());
    }

    #[test]
    fn with_sudo_the_user_is_an_ordinary_one_that_may_do_everything() {
        let groups = "root:x:0:\nsudo:x:27:admin\nwheel:x:10:\nnogroup:x:65534:\n";
        let shadow = "root:*:1:0:99999:7:::\nrescue:!:1:0:99999:7:::\nlast:*:::::::";
        let (_root, host) = ramdisk(&[
            ("/etc/group", groups),
            ("/etc/shadow", shadow),
            ("/etc/shells", "/bin/sh"),
            (SUDO, ""),
            ("/bin/bash", ""),
            ("/bin/sh", ""),
        ]);
        assert_eq!(create(&host).unwrap(), Account::Ordinary);
        assert_eq!(create(&host).unwrap(), Account::Ordinary);
        assert_eq!(read(&host, "/etc/passwd"), "rescue:x:1000:1000:rescue:/home/rescue:/bin/bash\n");
        assert_eq!(
            read(&host, "/etc/group"),
            "root:x:0:\nsudo:x:27:admin,rescue\nwheel:x:10:rescue\nnogroup:x:65534:\nrescue:x:1000:\n"
        );
        assert_eq!(
            read(&host, "/etc/shadow"),
            "root:*:1:0:99999:7:::\nrescue:$6$salt$hash::0:99999:7:::\nlast:*:::::::\n"
        );
        assert_eq!(read(&host, "/etc/shells"), "/bin/sh\n/bin/bash\n");
        assert_eq!(read(&host, "/etc/sudoers.d/rescue"), "rescue ALL=(ALL) NOPASSWD: ALL\n");
    }

    #[test]
    fn without_a_password_there_is_no_user() {
        let root = tempfile::tempdir().unwrap();
        let host = sys::fake::host(root.path());
        assert!(create(&host).is_err());
        assert!(!host.path("/etc/passwd").exists());
    }
}
