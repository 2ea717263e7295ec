//! `ferric serve`: puts the controller together, takes up what was under way, and serves until it is told to stop.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::ServiceExt;
use axum::extract::Request;
use axum::serve::ListenerExt;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::api;
use crate::cli::{Exit, Failure};
use crate::controller::{Config, Controller};
use crate::power::{Power, QemuDriver};
use crate::store::Store;

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
    let listener = TcpListener::bind(arguments.listen).await.map_err(|e| {
        Failure::failed(format!(
            "listening on {}: {e}; is another `ferric serve` running? choose another address with --listen",
            arguments.listen
        ))
    })?;
    let address = listener
        .local_addr()
        .map_err(|e| Failure::failed(format!("reading the address listened on: {e}")))?;
    let config = config(&arguments, state, address)?;
    let ramdisk = ramdisk_line(&config);
    let database = config.state.join("ferric.sqlite");
    let store = Store::open(&database)
        .map_err(|e| Failure::failed(format!("opening {}: {}", database.display(), crate::cli::chain(&e))))?;
    // Tokens and config drives are in there.
    if let Err(error) = fs::set_permissions(&database, fs::Permissions::from_mode(0o600)) {
        tracing::warn!(path = %database.display(), %error, "the database stays readable for others");
    }
    let power = Power::new(vec![Box::new(QemuDriver::new(config.state.join("vms")))]);
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
    // Small replies to many small requests: no waiting for more to send.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY");
        }
    });
    let service = ServiceExt::<Request>::into_make_service(api::service(controller.clone()));
    let shutdown = controller.shutdown.clone();
    let server = axum::serve(listener, service)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .into_future();
    tokio::pin!(server);
    let late = async {
        controller.shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let ended = tokio::select! {
        ended = &mut server => ended,
        () = late => Ok(()),
    };
    sync.abort();
    stopping.abort();
    ended.map_err(|e| Failure::failed(format!("serving: {e}")))?;
    tracing::info!("stopped; machines go on running");
    Ok(Exit::Success)
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
    println!("{ramdisk}");
    for directory in &config.images {
        println!("images from {}", directory.display());
    }
    println!("make a node known:  ferric node create NAME --mac MAC --driver-info qemu_disk=FILE");
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
