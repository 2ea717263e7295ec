//! `ferric serve`: puts the controller together, takes up what was under way, and serves until it is told to stop.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http_server::{Bound, Limits, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::api;
use crate::cli::{Exit, Failure};
use crate::controller::{Config, Controller};
use crate::power::{Outgoing, Places, Power, QemuDriver, QemuOptions};
use crate::store::Store;
use crate::{boot, token};

/// How long requests under way may take once we are told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How often the power state of nodes at rest is looked at.
const POWER_SYNC: Duration = Duration::from_secs(10);

/// Settings of the controller.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Directory for the database, VM files, logs and uploaded images; made if missing
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
    /// Address and port of the API; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6385")]
    pub listen: SocketAddr,
    /// URL of the API as machines see it [default: http://10.0.2.2:PORT, QEMU's view of this host, when listening on loopback]
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// Directory with the ramdisk: kernel and initramfs
    #[arg(long, value_name = "DIR")]
    pub ramdisk: Option<PathBuf>,
    /// Directory with images to serve; may be given several times
    #[arg(long, value_name = "DIR")]
    pub images: Vec<PathBuf>,
    /// Seconds that agents take as the base of their heartbeat interval
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub heartbeat_timeout: u64,
    /// Seconds without a heartbeat after which an operation fails; 0 waits for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub callback_timeout: u64,
    /// Seconds between two looks at a running command, besides heartbeats
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, hide = true)]
    pub poll: f64,
    /// More kernel parameters for every boot of the ramdisk
    #[arg(long, value_name = "PARAMETERS", default_value = "")]
    pub kernel_params: String,
    /// Let agents run the grub of partition images: programs of the image, with all rights of the ramdisk
    #[arg(long)]
    pub enable_bios_bootloader_install: bool,
    /// Folder for the disks and console logs of machines of the qemu driver, besides STATE/disks, or a block device that they
    /// may have; may be given several times
    #[arg(long, value_name = "FOLDER|DEVICE")]
    pub disks: Vec<PathBuf>,
    /// The program of the qemu driver [default: the distribution's qemu-system-x86_64]
    #[arg(long, value_name = "PROGRAM")]
    pub qemu_binary: Option<PathBuf>,
    /// One more argument for every machine of the qemu driver, as --qemu-arg=-cpu; may be given several times
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub qemu_arg: Vec<String>,
    /// Which machines of the qemu driver reach other hosts, and the services of this one
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Outgoing::Never)]
    pub qemu_outgoing: Outgoing,
    /// One more host name or address by which the API may be called; may be given several times
    #[arg(long, value_name = "HOST")]
    pub host_name: Vec<String>,
    /// What is logged to stderr, as RUST_LOG
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    pub log: String,
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(arguments: ServeArguments) -> Result<Exit, Failure> {
    let filter = EnvFilter::try_new(&arguments.log)
        .map_err(|e| Failure::usage(format!("--log {}: {e}", arguments.log)))?;
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Colours on a terminal only, and there the subscriber itself honours NO_COLOR.
    if std::io::stderr().is_terminal() {
        log.init()
    } else {
        log.with_ansi(false).init()
    }

    let state = make_directory(&arguments.state)?;
    let _lock = lock(&state)?;
    let bound = http_server::bind(Some(&arguments.listen.ip().to_string()), arguments.listen.port()).map_err(|e| {
        Failure::failed(format!(
            "listening on {}: {e}; is another `ferric serve` running? choose another address with --listen",
            arguments.listen
        ))
    })?;
    let address = bound.address;
    let config = config(&arguments, state, address)?;
    let qemu = qemu_options(&arguments, &config)?;
    api::remove_partials(&config.uploads());
    let ramdisk = ramdisk_line(&config);
    let database = config.state.join("ferric.sqlite");
    let store = Store::open(&database)
        .map_err(|e| Failure::failed(format!("opening {}: {}", database.display(), crate::cli::chain(&e))))?;
    // Tokens and config drives are in there.
    if let Err(error) = fs::set_permissions(&database, fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %database.display(), %error, "the database stays readable for others");
    }
    token::announce(address, &config.state);
    let machines = http_server::bind_unix(&qemu.socket)
        .map_err(|e| Failure::failed(format!("listening on {}: {e}", qemu.socket.display())))?;
    let power = Power::new(vec![Box::new(QemuDriver::new(qemu))]);
    let controller = Controller::new(config, store, power);
    banner(&controller, address, &ramdisk);

    let resumed = controller
        .resume()
        .await
        .map_err(|e| Failure::failed(format!("reading the nodes: {}", crate::cli::chain(&e))))?;
    if resumed > 0 {
        tracing::info!(nodes = resumed, "operations that were under way go on");
    }
    let sync = tokio::spawn(sync_power(controller.clone()));
    let stopping = stop_signal(controller.clone())?;
    serve(bound, machines, controller.clone()).await;
    sync.abort();
    stopping.abort();
    tracing::info!("stopped; machines go on running");
    Ok(Exit::Success)
}

/// Serves operators and machines until the controller is told to stop.
async fn serve(bound: Bound, machines: http_server::BoundUnix, controller: Controller) {
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let settings = http_settings();
    let for_operators =
        http_server::serve(bound, api::service(controller.clone()), settings.clone(), stopping.clone());
    // Places of their own: machines cannot keep operators out.
    let for_machines =
        http_server::serve(machines, api::machine_service(controller.clone()), settings, stopping);
    let stopped = async {
        controller.shutdown.cancelled().await;
        stop.send_replace(true);
    };
    tokio::join!(for_operators, for_machines, stopped);
}

/// The server's name and bounds.
pub fn http_settings() -> Settings {
    Settings {
        name: concat!("ferric/", env!("CARGO_PKG_VERSION")),
        tls: None,
        limits: Limits { farewell: GRACE, ..Limits::default() },
        on_failure: None,
    }
}

/// What the command line says of virtual machines, with the folders of their files made.
fn qemu_options(arguments: &ServeArguments, config: &Config) -> Result<QemuOptions, Failure> {
    let mut places = Places { closed: vec![config.state.clone()], ..Places::default() };
    places.folders.push(make_directory(&config.state.join("disks"))?);
    // Images are written by operators alone, and read by every machine.
    places.closed.extend(config.images.iter().cloned());
    places.closed.extend(config.ramdisk.iter().cloned());
    for path in &arguments.disks {
        let real = existing(path, "--disks")?;
        match fs::metadata(&real).map(|meta| meta.is_dir()) {
            Ok(true) => places.folders.push(real),
            Ok(false) => places.devices.push(real),
            Err(e) => return Err(Failure::usage(format!("--disks {}: {e}", path.display()))),
        }
    }
    let program = std::env::current_exe()
        .map_err(|e| Failure::failed(format!("finding the path of this program: {e}")))?;
    Ok(QemuOptions {
        directory: config.state.join("vms"),
        binary: arguments.qemu_binary.clone(),
        more: arguments.qemu_arg.clone(),
        places,
        outgoing: arguments.qemu_outgoing,
        advertise: config.advertise.clone(),
        program,
        socket: config.state.join("machines.sock"),
    })
}

/// Hosts by which the API may be called, besides the addresses that connections come in by.
fn host_names(arguments: &ServeArguments, advertise: &str) -> Vec<String> {
    let advertised = advertise.parse::<axum::http::Uri>().ok();
    let advertised = advertised.as_ref().and_then(|uri| uri.host());
    advertised
        .into_iter()
        .chain(arguments.host_name.iter().map(String::as_str))
        .map(api::normal_host)
        .collect()
}

/// Whoever may read images must not read the state: tokens and config drives are in there.
fn check_apart(state: &Path, served: &[PathBuf]) -> Result<(), Failure> {
    for directory in served {
        if state.starts_with(directory) || directory.starts_with(state) {
            return Err(Failure::usage(format!(
                "--images {} and --state {} lie within each other, so tokens and config drives would be served: choose folders apart",
                directory.display(),
                state.display()
            )));
        }
    }
    Ok(())
}

fn config(arguments: &ServeArguments, state: PathBuf, address: SocketAddr) -> Result<Config, Failure> {
    let advertise = match &arguments.advertise {
        Some(url) => {
            let url = url.trim_end_matches('/').to_owned();
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(Failure::usage(format!("--advertise {url}: it must be an http or https URL")));
            }
            url
        }
        // Only virtual machines with QEMU's user network reach a listener on loopback, and this is how.
        None if address.ip().is_loopback() => format!("http://10.0.2.2:{}", address.port()),
        None if address.ip().is_unspecified() => {
            return Err(Failure::usage(format!(
                "listening on {address} needs --advertise URL: the API as machines see it, such as http://192.0.2.1:{}",
                address.port()
            )));
        }
        None => match address.ip() {
            IpAddr::V4(ip) => format!("http://{ip}:{}", address.port()),
            IpAddr::V6(ip) => format!("http://[{ip}]:{}", address.port()),
        },
    };
    if !arguments.poll.is_finite() || arguments.poll <= 0.0 {
        return Err(Failure::usage("--poll must be above 0"));
    }
    let mut images = Vec::new();
    for directory in &arguments.images {
        images.push(existing(directory, "--images")?);
    }
    check_apart(&state, &images)?;
    boot::check_parameters(&arguments.kernel_params)
        .map_err(|problem| Failure::usage(format!("--kernel-params: {problem}")))?;
    let token = token::load_or_make(&state)
        .map_err(|e| Failure::failed(format!("reading {}: {e}", token::path(&state).display())))?;
    let hosts = host_names(arguments, &advertise);
    let uploads = make_directory(&state.join("images"))?;
    images.push(uploads);
    let ramdisk = arguments.ramdisk.as_ref().map(|directory| existing(directory, "--ramdisk")).transpose()?;
    Ok(Config {
        state,
        advertise,
        ramdisk,
        images,
        heartbeat_timeout: arguments.heartbeat_timeout,
        callback_timeout: (arguments.callback_timeout > 0)
            .then(|| Duration::from_secs(arguments.callback_timeout)),
        kernel_params: arguments.kernel_params.clone(),
        enable_bios_bootloader_install: arguments.enable_bios_bootloader_install,
        poll: Duration::from_secs_f64(arguments.poll),
        hosts,
        token,
    })
}

fn existing(directory: &Path, flag: &str) -> Result<PathBuf, Failure> {
    directory.canonicalize().map_err(|e| Failure::usage(format!("{flag} {}: {e}", directory.display())))
}

/// Makes a directory that only we may look into, and returns its absolute path.
fn make_directory(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("making the directory {}: {e}", path.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    path.canonicalize().map_err(failed)
}

/// Two controllers on one database would both work on every node.
fn lock(state: &Path) -> Result<File, Failure> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(|e| Failure::failed(format!("making {}: {e}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Failure::failed(format!(
            "another `ferric serve` uses {}: stop it, or choose another --state",
            state.display()
        ))),
        Err(fs::TryLockError::Error(e)) => Err(Failure::failed(format!("locking {}: {e}", path.display()))),
    }
}

fn ramdisk_line(config: &Config) -> String {
    match (&config.ramdisk, config.ramdisk_files()) {
        (_, Some((kernel, initramfs))) => {
            let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len()) >> 10;
            format!("ramdisk: kernel {} KiB, initramfs {} KiB", size(&kernel), size(&initramfs))
        }
        (Some(directory), None) => format!(
            "ramdisk: MISSING, {} does not hold kernel and initramfs (make them with `ferric-image build`)",
            directory.display()
        ),
        (None, None) => "ramdisk: none, so nothing can be deployed (give --ramdisk DIR)".into(),
    }
}

fn banner(controller: &Controller, address: SocketAddr, ramdisk: &str) {
    let config = &controller.config;
    println!("listening on http://{address}");
    println!("machines reach it at {}", config.advertise);
    println!("state in {}", config.state.display());
    println!(
        "token in {} (commands on this host find it by themselves)",
        token::path(&config.state).display()
    );
    println!("{ramdisk}");
    for directory in &config.images {
        println!("images from {}", directory.display());
    }
    println!(
        "make a node known:  ferric node create NAME --mac MAC --driver-info qemu_disk={}/NAME.raw",
        config.state.join("disks").display()
    );
}

fn stop_signal(controller: Controller) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("listening for signals: {e}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        controller.shutdown.cancel();
    }))
}

/// Looks at the power of nodes at rest now and then: a machine may be switched off by its own system.
async fn sync_power(controller: Controller) {
    loop {
        tokio::time::sleep(POWER_SYNC).await;
        let nodes = match controller.store.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "reading the nodes failed");
                continue;
            }
        };
        for record in nodes {
            let state = record.node.provision_state;
            if state.is_transient() || state == wire::ProvisionState::Enroll {
                continue;
            }
            let seen = match controller.power(&record, |driver, machine| driver.power_state(machine)).await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::debug!(node = %record.node.label(), error = &error as &dyn std::error::Error, "no power state");
                    continue;
                }
            };
            if record.node.power_state == Some(seen) {
                continue;
            }
            tracing::info!(node = %record.node.label(), power = %seen, "the power state changed by itself");
            // Only if nobody has begun anything meanwhile.
            let noted = controller
                .change(&record, move |record| {
                    record.node.power_state = Some(seen);
                    Ok(())
                })
                .await;
            if let Err(error) = noted {
                tracing::warn!(error = &error as &dyn std::error::Error, "noting a power state failed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_not_served() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["srv/ferric", "images", "state/below"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("srv"), root.join("link")).unwrap();
        let check = |state: &str, images: &str| {
            let images = existing(&root.join(images), "--images").unwrap();
            check_apart(&make_directory(&root.join(state)).unwrap(), &[images])
        };
        assert!(check("srv/ferric", "images").is_ok());
        for (state, images) in
            [("srv/ferric", "srv"), ("srv", "srv"), ("srv/ferric", "link"), ("state", "state/below")]
        {
            assert!(check(state, images).is_err(), "{state} {images}");
        }
    }
}
