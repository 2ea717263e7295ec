//! A bootable container onto a disk, by the programs of the ramdisk: `podman` fetches it, its own `bootc` installs it.
//! Source: data plane page, 1.13.
//!
//! A ramdisk of Ferric's own has no podman and refuses; one that was built with it does what ironic-python-agent does.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use disk::{Policy, Target};
use hwm::{Context, Error};
use serde_json::json;
use sys::{CommandLine, Host, RunError};
use wire::{Disk, Secret};

use super::{deploy, root_disk, signature};
use crate::deployment::{ConfigDrive, InstallBootc};
use crate::settings::Settings;

const PODMAN: &str = "/usr/bin/podman";
const GETENFORCE: &str = "/usr/sbin/getenforce";
/// Podman can not pivot the root of a ramdisk.
const NO_PIVOT_FILE: &str = "/etc/containers/containers.conf.d/01-ipa.conf";
const NO_PIVOT: &str = "[engine]\nno_pivot_root = true\n";
/// Left free behind the root file system, for the config drive and the EFI system partition, in MiB.
const RESERVED_MIB: u64 = 768;
const MIB: u64 = 1024 * 1024;
/// Longest fetch and longest installation; a hanging one must not hold the machine for ever.
const PULL_LIMIT: Duration = Duration::from_secs(2 * 3600);
const INSTALL_LIMIT: Duration = Duration::from_secs(2 * 3600);

/// **Installs a container image to the disk that the node's hints name**, and writes a config drive if there is one.
/// Returns the disk.
pub(crate) fn install(cx: &Context, settings: &Settings, request: &InstallBootc) -> Result<Disk, Error> {
    let host = &cx.host;
    if settings.disable_bootc_deploy {
        return refused("bootc deployments are switched off (option disable_bootc_deploy)");
    }
    if !host.path(PODMAN).exists() {
        return refused(
            "this ramdisk has no podman, so it can not install a bootable container; deploy a disk image, or boot a \
             ramdisk that has podman",
        );
    }
    signature::refuse_unsigned(host, settings, "a bootable container")?;
    let (registry, reference) = reference(&request.image_source)?;
    let drive = request.configdrive.as_ref().map(Secret::expose).filter(|text| !text.is_empty());
    let drive = drive.map(|text| deploy::decode(cx, ConfigDrive::Text(text), settings)).transpose()?;
    let disk = root_disk::wait(cx, settings)?;
    let policy = Policy::detect(host, settings.allow.clone());
    let target = Target::claim(host, &disk, &policy).map_err(|refusal| deploy::protected(&refusal))?;
    let root_mib = (target.size_bytes() / MIB).checked_sub(RESERVED_MIB).filter(|mib| *mib > 0);
    let root_mib = root_mib.ok_or_else(|| Error::ImageWrite {
        message: format!("{} is too small: {RESERVED_MIB} MiB are kept free on it", disk.name),
    })?;

    let written = |path: &str, error: io::Error| Error::other(format!("writing {path}"), error);
    write_no_pivot(host).map_err(|error| written(NO_PIVOT_FILE, error))?;
    pull(host, registry, reference, request.pull_secret.as_ref())?;
    deploy::announce(cx, &target, "installing a bootable container");
    let keys = request.instance_info.get("bootc_authorized_keys").and_then(serde_json::Value::as_str);
    let keys = keys.filter(|keys| !keys.is_empty()).map(|keys| {
        TemporaryFile::create(host, "ipa-bootc-keys", keys.as_bytes())
            .map_err(|error| written("the SSH keys", error))
    });
    let keys = keys.transpose()?;
    let install = Install {
        reference,
        device: &disk.name,
        root_mib,
        keys: keys.as_ref().map(|file| file.shown.as_str()),
        luks: request.instance_info.get("bootc_tpm2_luks") == Some(&serde_json::Value::Bool(true)),
        selinux: has_selinux(host),
    };
    run_install(host, &install)?;
    drop(keys);
    deploy::reread(cx, &target);
    deploy::table(&target, false)?;
    if let Some(bytes) = &drive {
        deploy::place_config_drive(cx, settings.rebuild(), &target, bytes)?;
    }
    Ok(disk)
}

fn refused<T>(message: &str) -> Result<T, Error> {
    Err(Error::Execution { message: message.into() })
}

/// Registry and reference of `oci://registry/path:tag`.
fn reference(source: &str) -> Result<(&str, &str), Error> {
    let reference = source.split_once("://").map_or(source, |(_, rest)| rest);
    match reference.split_once('/') {
        Some((registry, path)) if !registry.is_empty() && !path.is_empty() && !reference.starts_with('-') => {
            Ok((registry, reference))
        }
        _ => Err(Error::InvalidParameters {
            message: format!("image_source `{source}` is not of the form oci://registry/path"),
        }),
    }
}

fn write_no_pivot(host: &Host) -> io::Result<()> {
    let path = host.path(NO_PIVOT_FILE);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, NO_PIVOT)
}

/// Fetches the image. The file with the credentials is gone before anything of the image can run.
fn pull(host: &Host, registry: &str, reference: &str, secret: Option<&Secret>) -> Result<(), Error> {
    let download = |message: String| Error::ImageDownload { message };
    let credentials = match secret.filter(|secret| !secret.expose().is_empty()) {
        None => None,
        Some(secret) => {
            use base64::Engine;
            let decoded = base64::engine::general_purpose::STANDARD.decode(secret.expose().trim());
            let auth = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let auth = auth.ok_or_else(|| Error::InvalidParameters {
                message: "the pull secret is not base64 of text".into(),
            })?;
            let auths = json!({"auths": {registry: {"auth": auth}}}).to_string();
            let file = TemporaryFile::create(host, "ipa-container-auth", auths.as_bytes());
            Some(file.map_err(|error| download(format!("writing the registry credentials: {error}")))?)
        }
    };
    let mut argv = vec![PODMAN.to_owned(), "pull".into()];
    argv.extend(credentials.iter().map(|file| format!("--authfile={}", file.shown)));
    argv.extend(["--retry-delay=5s".into(), reference.into()]);
    let pulled = host.runner().run(&CommandLine::new(argv).limit(PULL_LIMIT));
    drop(credentials);
    pulled.map(drop).map_err(|error| download(format!("fetching {reference}: {}", hwm::chain(&error))))
}

fn has_selinux(host: &Host) -> bool {
    let answer = host.runner().run(&CommandLine::new([GETENFORCE]));
    answer.is_ok_and(|output| {
        ["Enforcing", "Permissive"].contains(&String::from_utf8_lossy(&output.stdout).trim())
    })
}

/// What goes into the command line of the installation.
struct Install<'a> {
    reference: &'a str,
    device: &'a str,
    root_mib: u64,
    keys: Option<&'a str>,
    luks: bool,
    selinux: bool,
}

impl Install<'_> {
    fn argv(&self) -> Vec<String> {
        let mut argv: Vec<String> = [
            PODMAN,
            "--log-level=debug",
            "run",
            "--rm",
            "--privileged",
            "--pid=host",
            "--pull=never",
            "-v",
            "/var/lib/containers:/var/lib/containers",
            "-v",
            "/dev:/dev",
        ]
        .map(str::to_owned)
        .into();
        if self.keys.is_some() {
            argv.extend(["-v", "/tmp:/tmp"].map(str::to_owned));
        }
        if self.selinux {
            argv.extend(["--security-opt", "label=type:unconfined_t"].map(str::to_owned));
        }
        argv.push(self.reference.to_owned());
        argv.extend(["bootc", "install", "to-disk", "--wipe", "--skip-fetch-check"].map(str::to_owned));
        argv.push(format!("--root-size={}M", self.root_mib));
        if self.luks {
            argv.push("--block-setup=tpm2-luks".into());
        }
        argv.extend(self.keys.map(|file| format!("--root-ssh-authorized-keys={file}")));
        if !self.selinux {
            argv.push("--disable-selinux".into());
        }
        argv.push(self.device.to_owned());
        argv
    }
}

/// **Destroys what is on the device.**
fn run_install(host: &Host, install: &Install<'_>) -> Result<(), Error> {
    let Err(error) = host.runner().run(&CommandLine::new(install.argv()).limit(INSTALL_LIMIT)) else {
        return Ok(());
    };
    let message = format!("installing {} to {}: {}", install.reference, install.device, hwm::chain(&error));
    let lacks_bootc = match &error {
        RunError::Failed { stderr, .. } => {
            stderr.contains("bootc") && (stderr.contains("not found") || stderr.contains("No such file"))
        }
        RunError::Start { .. } | RunError::TimedOut { .. } => false,
    };
    if lacks_bootc {
        return Err(Error::ImageDownload { message: format!("the container has no bootc: {message}") });
    }
    Err(Error::ImageWrite { message })
}

/// A file for root's eyes only, gone when the value is.
struct TemporaryFile {
    path: PathBuf,
    /// As programs of the ramdisk see it.
    shown: String,
}

impl TemporaryFile {
    fn create(host: &Host, name: &str, contents: &[u8]) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
        let shown = format!("/tmp/{name}-{now}.json");
        let path = host.path(&shown);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let created = Self { path, shown };
        file.write_all(contents)?;
        Ok(created)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::error!(path = self.shown, %error, "a temporary file with a secret could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use sys::fake::{FakeRunner, RecordingKernel};
    use sys::{Output, Runner};

    fn request() -> InstallBootc {
        InstallBootc {
            image_source: "oci://quay.io/acme/os:1".into(),
            instance_info: serde_json::Map::new(),
            pull_secret: Some(Secret::new("dXNlcjpwYXNz")),
            configdrive: None,
        }
    }

    fn context(root: &std::path::Path, runner: impl Runner + 'static) -> Context {
        let host = Host::new(root, Arc::new(runner), Arc::new(RecordingKernel::default()));
        Context::new(host, events::Events::default())
    }

    #[test]
    fn it_is_refused_where_it_is_switched_off_or_there_is_no_podman() {
        let root = tempfile::tempdir().unwrap();
        let cx = context(root.path(), FakeRunner::default());
        let off = Settings { disable_bootc_deploy: true, ..Settings::default() };
        for (settings, word) in [(off, "disable_bootc_deploy"), (Settings::default(), "no podman")] {
            let error = install(&cx, &settings, &request()).unwrap_err();
            assert!(matches!(error, Error::Execution { .. }), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_config_drive_that_can_not_be_read_ends_it_before_anything_is_fetched() {
        let root = tempfile::tempdir().unwrap();
        let podman = root.path().join(PODMAN.trim_start_matches('/'));
        fs::create_dir_all(podman.parent().unwrap()).unwrap();
        fs::write(&podman, "").unwrap();
        // A program that is run makes this runner panic.
        let cx = context(root.path(), FakeRunner::default());
        let drive = |text: &str| InstallBootc { configdrive: Some(Secret::new(text)), ..request() };
        let error = install(&cx, &Settings::default(), &drive("no base64!")).unwrap_err();
        assert!(matches!(error, Error::Deployment { .. }), "{error:?}");
        let settings = Settings { disk_wait_attempts: 1, ..Settings::default() };
        let error = install(&cx, &settings, &drive("")).unwrap_err();
        assert!(matches!(error, Error::DeviceNotFound { .. }), "an empty one is none: {error:?}");
    }

    #[test]
    fn sources_are_references_of_a_registry() {
        assert_eq!(reference("oci://quay.io/acme/os:1").unwrap(), ("quay.io", "quay.io/acme/os:1"));
        assert_eq!(reference("quay.io:5000/os").unwrap(), ("quay.io:5000", "quay.io:5000/os"));
        for wrong in ["", "os", "oci:///os", "oci://quay.io/", "oci://--help/x"] {
            assert!(matches!(reference(wrong), Err(Error::InvalidParameters { .. })), "{wrong}");
        }
    }

    /// Looks at the credentials while podman "runs".
    struct Podman {
        root: PathBuf,
        seen: Arc<Mutex<Vec<(String, String)>>>,
    }

    impl Runner for Podman {
        fn run(&self, command: &CommandLine) -> Result<Output, RunError> {
            let file = command.argv.iter().find_map(|word| word.strip_prefix("--authfile=")).unwrap();
            let path = self.root.join(file.trim_start_matches('/'));
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600);
            self.seen.lock().unwrap().push((command.to_string(), fs::read_to_string(path).unwrap()));
            Err(RunError::Failed { command: "podman".into(), status: "1".into(), stderr: "denied".into() })
        }
    }

    #[test]
    fn credentials_go_through_a_private_file_that_does_not_outlive_the_fetch() {
        let root = tempfile::tempdir().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let cx = context(root.path(), Podman { root: root.path().into(), seen: seen.clone() });
        let secret = Secret::new("dXNlcjpwYXNz");
        let error = pull(&cx.host, "quay.io", "quay.io/acme/os:1", Some(&secret)).unwrap_err();
        assert!(matches!(error, Error::ImageDownload { .. }), "{error:?}");
        let seen = seen.lock().unwrap();
        assert!(seen[0].0.ends_with("--retry-delay=5s quay.io/acme/os:1"), "{}", seen[0].0);
        assert_eq!(seen[0].1, r#"{"auths":{"quay.io":{"auth":"user:pass"}}}"#);
        assert!(fs::read_dir(root.path().join("tmp")).unwrap().next().is_none(), "the file is still there");
    }

    #[test]
    fn an_installation_that_fails_says_what_it_lacked() {
        struct Fails(&'static str);
        impl Runner for Fails {
            fn run(&self, command: &CommandLine) -> Result<Output, RunError> {
                let (command, status) = (command.to_string(), "exit status: 127".into());
                Err(RunError::Failed { command, status, stderr: self.0.into() })
            }
        }
        let root = tempfile::tempdir().unwrap();
        let install = Install {
            reference: "quay.io/os",
            device: "/dev/sda",
            root_mib: 1000,
            keys: None,
            luks: false,
            selinux: false,
        };
        let missing = "Error: executable file `bootc` not found in $PATH";
        let error = run_install(&context(root.path(), Fails(missing)).host, &install).unwrap_err();
        assert!(matches!(error, Error::ImageDownload { .. }), "{error:?}");
        assert!(error.to_string().contains("the container has no bootc"), "{error}");
        let error = run_install(&context(root.path(), Fails("no space left")).host, &install).unwrap_err();
        assert!(matches!(error, Error::ImageWrite { .. }), "{error:?}");
        for word in ["quay.io/os", "/dev/sda", "no space left"] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn the_installation_is_told_everything_that_the_node_says() {
        let all = Install {
            reference: "quay.io/os",
            device: "/dev/sda",
            root_mib: 1000,
            keys: Some("/tmp/keys"),
            luks: true,
            selinux: true,
        };
        assert_eq!(
            all.argv().join(" "),
            "/usr/bin/podman --log-level=debug run --rm --privileged --pid=host --pull=never \
             -v /var/lib/containers:/var/lib/containers -v /dev:/dev -v /tmp:/tmp \
             --security-opt label=type:unconfined_t quay.io/os bootc install to-disk --wipe --skip-fetch-check \
             --root-size=1000M --block-setup=tpm2-luks --root-ssh-authorized-keys=/tmp/keys /dev/sda"
        );
        let least = Install { keys: None, luks: false, selinux: false, ..all };
        assert!(least.argv().join(" ").ends_with("--root-size=1000M --disable-selinux /dev/sda"));
    }
}
