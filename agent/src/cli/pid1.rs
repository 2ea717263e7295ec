//! The agent as the first process of a ramdisk: bring the machine up, run, and never end.

use std::error::Error;

use events::Events;
use hwm::HardwareManager;
use sys::Host;

use super::run::{self, Setup};
use crate::cmdline::Cmdline;
use crate::command::Ending;
use crate::config::{Config, Overrides};
use crate::init::{self, Console, Identity, Machine};
use crate::lockdown;
use crate::logging::{self, Output};
use crate::progress;
use crate::rescue;
use crate::vlan;

/// Never returns, unless this turns out to be no ramdisk: then the managers come back, for an ordinary run.
pub(super) fn run(host: &Host, managers: Vec<Box<dyn HardwareManager>>) -> Vec<Box<dyn HardwareManager>> {
    let prepared = init::prepare(host);
    if matches!(prepared, Err(init::Error::NotInit)) {
        return managers;
    }
    let events = Events::default();
    let console = Console::start(host, &events);
    console.show_panics();
    let cmdline = match prepared {
        Ok(cmdline) => cmdline,
        Err(error) => {
            let advice = "this kernel lacks something that the agent needs; build the ramdisk with `ferric-image build`";
            init::fatal(host, &Cmdline::default(), &console, "setting up the ramdisk", &error, advice)
        }
    };
    if let Err(error) = init::complete::check(host, &cmdline) {
        init::fatal(host, &cmdline, &console, "unpacking the ramdisk", &error, init::complete::ADVICE)
    }
    init::supervise(host, &cmdline, &console, || agent(host, &cmdline, &console, events, managers))
}

fn agent(
    host: &Host,
    cmdline: &Cmdline,
    console: &Console,
    events: Events,
    managers: Vec<Box<dyn HardwareManager>>,
) -> Result<(), Box<dyn Error>> {
    // Files may come from virtual media, which needs drivers: until then the kernel command line alone says how much to log.
    let early = Config::from_cmdline(cmdline);
    let logging = logging::start(&Output::Console(console.clone()), None, *early.debug);
    logging.ring.secrets().add_cmdline(cmdline);
    progress::log_events(&events);
    let Machine { network, cmdline } = init::bring_up(host, cmdline, &events)?;
    logging.ring.secrets().add_cmdline(&cmdline);
    let (config, warnings) = Config::load(host, &cmdline, &Overrides::default())?;
    config.tell_secrets(logging.ring.secrets());
    logging.configure(*config.debug, config.log_path().as_deref());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    for name in vlan::create(host, &config) {
        network.adopt(host, &name);
    }
    console.banner(&Identity::collect(host, Some(&config), Some(&network)));
    network.find_way(&config.api_url);
    let log = logging.ring;
    // Nobody starts process 1 again: what may come right with time is tried for ever.
    let leased_time_servers = network.interfaces().into_iter().flat_map(|up| up.ntp).collect();
    let setup =
        Setup { host: host.clone(), config, events, log, managers, leased_time_servers, keep_trying: true };
    match run::to_the_end(setup, std::future::pending)? {
        None => Ok(()),
        Some(Ending::Rescue) => rescue::stay(host, console, &network),
        Some(Ending::Lockdown) => lockdown::stay(host, console),
    }
}
