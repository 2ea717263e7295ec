//! The command line of `ferric-image`: reads the arguments, calls the library, prints the outcome.
//!
//! Standard output is data (the report, the list), standard error is talk. Exit code 0 = done, 1 = failed, 2 = wrong use.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use ferric_image::kernel::profile::Profile;
use ferric_image::progress::Talk;
use ferric_image::ramdisk::add::Addition;
use ferric_image::ramdisk::compress::Compression;
use ferric_image::tools::Tool;
use ferric_image::{Error, inspect, story};

/// Where Debian, Ubuntu and others keep the certificates of their ca-certificates package.
const HOST_CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Makes Ferric's deploy ramdisk: a kernel and an initramfs that any network boot can start.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build `kernel`, `initramfs` and `manifest.json` from a Debian kernel package and the agent. Needs no root.
    #[command(after_help = BUILD_HELP)]
    Build(Box<BuildArguments>),
    /// List what is in an initramfs.
    Inspect {
        /// The initramfs; zstd, xz, gzip or not compressed.
        initramfs: PathBuf,
    },
}

const BUILD_HELP: &str = "\
Examples:
  ferric-image build --agent ferric-agent --output ramdisk
      the newest kernel of this Debian or Ubuntu, downloaded by apt into the cache; all server drivers

  ferric-image build --agent ferric-agent --output ramdisk --modules vm \\
      --kernel-package linux-image-cloud-amd64 --compression zstd --level 3
      small and quickly built, for virtual machines in tests

  ferric-image build --agent ferric-agent --output ramdisk \\
      --kernel-package linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb \\
      --ca-bundle site-ca.pem --firmware /lib/firmware --module drivers/infiniband/ \\
      --add vendor-tool:/usr/sbin/vendor-tool --add managers/:/etc/ferric/hardware-managers.d

The same input (packages, agent, certificates, files, options) gives the same bytes.";

#[derive(Args)]
struct BuildArguments {
    /// The agent's binary, statically linked; it becomes /init.
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// Folder for kernel, initramfs and manifest.json; made if it is not there. Files of an earlier build are replaced.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Kernel package: a .deb file, or a name that apt knows. Repeat it where a kernel comes in several packages.
    /// [default: linux-image-amd64, on Ubuntu linux-image-generic]
    #[arg(long, value_name = "FILE.deb|NAME")]
    kernel_package: Vec<String>,
    /// The same as --kernel-package with a name.
    #[arg(long, value_name = "NAME", conflicts_with = "kernel_package")]
    kernel_package_name: Option<String>,
    /// Where downloaded packages are kept. [default: ferric-image below $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", env = "FERRIC_IMAGE_CACHE")]
    cache: Option<PathBuf>,
    #[arg(long, env = "XDG_CACHE_HOME", hide = true)]
    xdg_cache_home: Option<PathBuf>,
    /// Which drivers go in, with all that they depend on.
    #[arg(long, value_enum, default_value_t = Profile::Server, value_name = "PROFILE")]
    modules: Profile,
    /// One more module by name (nvme-tcp), or all in a folder (drivers/infiniband/), with all that they depend on. Repeatable.
    #[arg(long, value_name = "NAME|FOLDER/")]
    module: Vec<String>,
    /// Take the firmware files that the modules ask for from this folder, laid out like /lib/firmware.
    #[arg(long, value_name = "DIR")]
    firmware: Option<PathBuf>,
    /// A program of the distribution, with its libraries, downloaded by apt: mdadm for nodes with software RAID. Repeatable.
    #[arg(long, value_enum, value_name = "TOOL")]
    with: Vec<Tool>,
    /// Put a file, or a folder with all in it, into the ramdisk: SOURCE:/DESTINATION, and :MODE in octal if wanted. Repeatable.
    #[arg(long, value_name = "SOURCE:/DESTINATION[:MODE]")]
    add: Vec<Addition>,
    /// Certificates (PEM) of the authorities the agent trusts, at least one; "none" for none. [default: this machine's, if it has any]
    #[arg(long, value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// Public key of minisign: the agent then writes only images that are signed with it, or with another such key. Repeatable.
    #[arg(long, value_name = "FILE")]
    image_key: Vec<PathBuf>,
    /// How the initramfs is compressed.
    #[arg(long, value_enum, default_value_t = Compression::Zstd)]
    compression: Compression,
    /// How strongly: zstd 1-22, xz 0-9. [default: zstd 19, xz 9]
    #[arg(long, value_name = "N")]
    level: Option<u32>,
    /// Take an agent that is not statically linked. Its loader and libraries must be added with --add.
    #[arg(long)]
    allow_dynamic: bool,
    /// Print a kernel command line to start from, at the end.
    #[arg(long)]
    cmdline_hint: bool,
    /// Say nothing but errors while working.
    #[arg(long, short)]
    quiet: bool,
}

const CMDLINE_HINT: &str = "\
kernel command line to start from (the last console= is where the agent speaks):
  rootfstype=ramfs console=tty0 console=ttyS0,115200n8 ipa-api-url=http://CONTROLLER:6385";

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Build(arguments) => build(*arguments),
        Command::Inspect { initramfs } => inspect::list(&initramfs),
    };
    match outcome {
        Ok(text) => {
            use std::io::Write;
            // A reader that went away (`| head`) is no failure of ours.
            let _ = write!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let mut text = format!("ferric-image: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn build(arguments: BuildArguments) -> Result<String, Error> {
    let talk = if arguments.quiet { Talk::quiet() } else { Talk::stderr() };
    let cache = arguments.cache.or_else(|| {
        let below = arguments
            .xdg_cache_home
            .filter(|path| path.is_absolute())
            .or(std::env::home_dir().map(|home| home.join(".cache")));
        below.map(|below| below.join("ferric-image"))
    });
    let cache = cache.ok_or_else(|| {
        Error::Request("no place for downloaded packages: HOME is not set; give --cache DIR".to_owned())
    })?;
    let cache = std::path::absolute(&cache).map_err(Error::file("finding", &cache))?;
    let ca_bundle = match arguments.ca_bundle {
        Some(path) if path == Path::new("none") => None,
        Some(path) => Some(path),
        None => Some(PathBuf::from(HOST_CA_BUNDLE)).filter(|path| path.is_file()),
    };
    let request = story::Request {
        agent: arguments.agent,
        allow_dynamic: arguments.allow_dynamic,
        kernel_packages: arguments.kernel_package_name.into_iter().chain(arguments.kernel_package).collect(),
        cache,
        profile: arguments.modules,
        modules: arguments.module,
        firmware: arguments.firmware,
        ca_bundle,
        image_keys: arguments.image_key,
        tools: arguments.with,
        additions: arguments.add,
        compression: arguments.compression,
        level: arguments.level.unwrap_or(arguments.compression.default_level()),
        output: arguments.output.clone(),
    };
    let manifest = story::build(&request, &sys::SystemRunner, &talk)?;
    let mut text = manifest.table(&arguments.output);
    if arguments.cmdline_hint {
        text.push_str(&format!("\n{CMDLINE_HINT}\n"));
    }
    Ok(text)
}
