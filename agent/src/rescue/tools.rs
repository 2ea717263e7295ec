//! What a ramdisk may bring for a person: busybox, an SSH server, login prompts. Each is used where it is there, and named on
//! the consoles where it is not. `ferric-image build --add` puts them in.

use std::fs;
use std::time::Duration;

use sys::{CommandLine, Host};

use super::accounts::Account;

const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
const DROPBEAR: [&str; 2] = ["/usr/sbin/dropbear", "/usr/local/sbin/dropbear"];
const SSHD: [&str; 2] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"];
const KEYGEN: &str = "/usr/bin/ssh-keygen";
/// Servers go to the background by themselves; making host keys comes before.
const START_LIMIT: Duration = Duration::from_secs(60);

fn first<'a>(host: &Host, paths: &[&'a str]) -> Option<&'a str> {
    paths.iter().copied().find(|path| host.path(path).exists())
}

/// Gives busybox's programs their names, and returns where it is. Names that are taken stay what they are.
pub(super) fn install_busybox(host: &Host) -> Option<String> {
    let busybox = first(host, &BUSYBOX)?;
    if let Err(error) = host.runner().run(&CommandLine::new([busybox, "--install", "-s", "/bin"])) {
        tracing::warn!(error = hwm::chain(&error), "busybox's programs have no names of their own");
    }
    Some(busybox.to_owned())
}

/// Starts an SSH server, if there is one. Returns what to say about it.
pub(super) fn start_ssh(host: &Host, account: Account) -> String {
    let started = if let Some(dropbear) = first(host, &DROPBEAR) {
        dropbear_keys(host).map(|()| vec![dropbear.to_owned(), "-R".into(), "-p".into(), "22".into()])
    } else if let Some(sshd) = first(host, &SSHD) {
        prepare_sshd(host).map(|()| sshd_arguments(sshd, account))
    } else {
        return "no SSH server in this ramdisk (dropbear or sshd)".into();
    };
    let started = started.and_then(|argv| {
        let command = CommandLine::new(argv).limit(START_LIMIT);
        host.runner().run(&command).map(drop).map_err(|error| hwm::chain(&error))
    });
    match started {
        Ok(()) => "SSH server on port 22".into(),
        Err(error) => {
            tracing::error!(error, "no SSH server");
            format!("the SSH server does not start: {error}")
        }
    }
}

/// Dropbear makes its own keys, but not their folder.
fn dropbear_keys(host: &Host) -> Result<(), String> {
    fs::create_dir_all(host.path("/etc/dropbear")).map_err(|error| format!("making /etc/dropbear: {error}"))
}

fn prepare_sshd(host: &Host) -> Result<(), String> {
    fs::create_dir_all(host.path("/run/sshd")).map_err(|error| format!("making /run/sshd: {error}"))?;
    let keys = CommandLine::new([KEYGEN, "-A"]).limit(START_LIMIT);
    host.runner().run(&keys).map(drop).map_err(|error| hwm::chain(&error))
}

/// The password is what the user was given, whatever the ramdisk's own configuration says.
fn sshd_arguments(sshd: &str, account: Account) -> Vec<String> {
    let mut argv = vec![sshd.to_owned()];
    let mut option = |text: &str| argv.extend(["-o".to_owned(), text.to_owned()]);
    option("PasswordAuthentication=yes");
    match account {
        Account::Root => option("PermitRootLogin=yes"),
        Account::Ordinary => {}
    }
    argv
}

/// Starts a login prompt on every console, if there is a program for it. Returns what to say about it.
pub(super) fn start_logins(host: &Host, busybox: Option<&str>) -> String {
    let Some(busybox) = busybox else { return "no login prompt: no busybox in this ramdisk".into() };
    let consoles = host.attribute("/sys/class/tty/console/active").unwrap_or_default();
    let mut started = Vec::new();
    for console in consoles.split_whitespace() {
        // tty0 is whichever is shown; a prompt needs one of its own.
        let console = if console == "tty0" { "tty1" } else { console };
        match host.runner().run(&CommandLine::new(prompt(busybox, console)).limit(START_LIMIT)) {
            Ok(_) => started.push(console.to_owned()),
            Err(error) => tracing::error!(console, error = hwm::chain(&error), "no login prompt"),
        }
    }
    match started.is_empty() {
        true => "no login prompt could be started".into(),
        false => format!("login prompt on {}", started.join(", ")),
    }
}

/// A session of its own that starts the prompt again after each log-out; `setsid` itself ends at once.
fn prompt(busybox: &str, console: &str) -> Vec<String> {
    let again = format!("while :; do {busybox} getty -L 115200 {console} linux; {busybox} sleep 1; done");
    [busybox, "setsid", busybox, "sh", "-c", &again].map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use sys::fake::{FakeRunner, RecordingKernel};

    fn ramdisk(files: &[&str], runner: FakeRunner) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), Arc::new(runner), Arc::new(RecordingKernel::default()));
        for path in files.iter().chain(["/sys/class/tty/console/active"].iter()) {
            let path = host.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "tty0 ttyS0\n").unwrap();
        }
        (root, host)
    }

    #[test]
    fn the_server_that_is_there_is_started() {
        let runner = FakeRunner::default().answer("/usr/sbin/dropbear -R -p 22", "");
        let (_root, host) = ramdisk(&["/usr/sbin/dropbear", "/usr/sbin/sshd"], runner);
        assert_eq!(start_ssh(&host, Account::Root), "SSH server on port 22");
        assert!(host.path("/etc/dropbear").is_dir());

        let command = "/usr/sbin/sshd -o PasswordAuthentication=yes -o PermitRootLogin=yes";
        let runner = FakeRunner::default().answer("/usr/bin/ssh-keygen -A", "").answer(command, "");
        let (_root, host) = ramdisk(&["/usr/sbin/sshd"], runner);
        assert_eq!(start_ssh(&host, Account::Root), "SSH server on port 22");
        assert!(start_ssh(&host, Account::Ordinary).contains("does not start"), "another command line");
    }

    #[test]
    fn every_console_gets_a_prompt() {
        let command = |console: &str| prompt("/bin/busybox", console).join(" ");
        let runner = FakeRunner::default()
            .answer("/bin/busybox --install -s /bin", "")
            .answer(&command("tty1"), "")
            .answer(&command("ttyS0"), "");
        let (_root, host) = ramdisk(&["/bin/busybox"], runner);
        let busybox = install_busybox(&host);
        assert_eq!(start_logins(&host, busybox.as_deref()), "login prompt on tty1, ttyS0");
    }
}
