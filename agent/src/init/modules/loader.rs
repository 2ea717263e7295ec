//! Loads modules, a few at a time: a host adapter may take many seconds to find its disks, and the network card shall not
//! stand in line behind it. Each module is tried once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sys::Host;

use super::index::{Index, normal};
use crate::cmdline::Cmdline;

/// How many modules are loaded at the same time.
const WORKERS: usize = 4;

/// What the kernel command line says about modules.
#[derive(Debug, Default)]
pub(super) struct Policy {
    blacklist: HashSet<String>,
    parameters: HashMap<String, String>,
}

impl Policy {
    /// `modprobe.blacklist=a,b` keeps modules from being loaded by themselves; `module.parameter=value` is passed on.
    pub(super) fn new(cmdline: &Cmdline) -> Self {
        let listed =
            ["modprobe.blacklist", "module_blacklist", "rd.driver.blacklist"].map(|key| cmdline.all(key));
        let blacklist = listed.into_iter().flatten().flat_map(|list| list.split(',')).map(normal).collect();
        let mut parameters: HashMap<String, String> = HashMap::new();
        for (key, value) in cmdline.iter() {
            if let Some((module, parameter)) = key.split_once('.') {
                let all = parameters.entry(normal(module)).or_default();
                all.push_str(&format!("{}{parameter}={value}", if all.is_empty() { "" } else { " " }));
            }
        }
        Self { blacklist, parameters }
    }
}

/// The queue of wanted modules and the threads that work it off. Clones share it.
#[derive(Clone)]
pub(super) struct Loader(Arc<Shared>);

struct Shared {
    host: Host,
    index: Index,
    policy: Policy,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    queue: VecDeque<String>,
    /// Aliases and modules that were asked for before.
    seen: HashSet<String>,
    /// Modules that need not be tried again, loaded or not.
    done: HashSet<String>,
    busy: Vec<String>,
    loaded: usize,
    failed: usize,
    stirred: Instant,
}

impl Loader {
    pub(super) fn start(host: &Host, index: Index, cmdline: &Cmdline) -> Self {
        let state = State {
            queue: VecDeque::new(),
            seen: HashSet::new(),
            done: HashSet::new(),
            busy: Vec::new(),
            loaded: 0,
            failed: 0,
            stirred: Instant::now(),
        };
        let policy = Policy::new(cmdline);
        let shared =
            Shared { host: host.clone(), index, policy, state: Mutex::new(state), changed: Condvar::new() };
        let loader = Self(Arc::new(shared));
        for number in 0..WORKERS {
            let worker = loader.clone();
            crate::init::spawn(&format!("modules-{number}"), move || worker.work());
        }
        loader
    }

    /// Asks for the drivers of devices by their aliases. False when none of the aliases is new.
    pub(super) fn want_devices(&self, aliases: impl IntoIterator<Item = String>) -> bool {
        let mut news = false;
        for alias in aliases {
            if !self.state().seen.insert(alias.clone()) {
                continue;
            }
            news = true;
            for module in self.0.index.resolve(&alias) {
                self.want_module(module);
            }
        }
        news
    }

    /// Asks for a module by its name. A name without a module is passed over.
    pub(super) fn want_module(&self, name: &str) {
        let known = self.0.index.file(name).is_some();
        if !known || self.0.policy.blacklist.contains(name) {
            tracing::debug!(name, known, "not loading");
            return;
        }
        let mut state = self.state();
        if state.seen.insert(format!("module {name}")) {
            state.queue.push_back(name.to_owned());
            self.0.changed.notify_one();
        }
    }

    /// A device has announced itself: the machine is not settled.
    pub(super) fn stir(&self) {
        self.state().stirred = Instant::now();
    }

    /// How long ago the last device announced itself.
    pub(super) fn quiet_for(&self) -> Duration {
        self.state().stirred.elapsed()
    }

    /// Whether nothing is being loaded or waits for it.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.queue.is_empty() && state.busy.is_empty()
    }

    /// The modules that are being loaded.
    pub(super) fn busy(&self) -> Vec<String> {
        self.state().busy.clone()
    }

    /// How many modules were loaded, and how many could not be.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state();
        (state.loaded, state.failed)
    }

    fn work(&self) {
        loop {
            let wanted = self.next();
            for module in self.0.index.load_order(&wanted) {
                if self.state().done.contains(module) {
                    continue;
                }
                let answer = load(&self.0.host, &self.0.index, &self.0.policy, module);
                let mut state = self.state();
                // Two workers may have had the same dependency in hand: it counts once.
                if state.done.insert(module.to_owned()) {
                    match answer {
                        Ok(()) => state.loaded += 1,
                        Err(_) => state.failed += 1,
                    }
                }
            }
            let mut state = self.state();
            if let Some(position) = state.busy.iter().position(|module| *module == wanted) {
                state.busy.remove(position);
            }
        }
    }

    /// The next wanted module, when there is one.
    fn next(&self) -> String {
        let mut state = self.state();
        loop {
            if let Some(module) = state.queue.pop_front() {
                state.busy.push(module.clone());
                return module;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Loads one module, without what it needs. Loaded already is fine.
pub(super) fn load(host: &Host, index: &Index, policy: &Policy, module: &str) -> io::Result<()> {
    let Some(file) = index.file(module) else { return Err(io::ErrorKind::NotFound.into()) };
    let parameters = policy.parameters.get(module).map(String::as_str).unwrap_or_default();
    let started = Instant::now();
    match host.kernel().load_module(file, parameters) {
        Ok(()) => {
            tracing::debug!(module, parameters, milliseconds = started.elapsed().as_millis(), "loaded");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => {
            // No such device (ENODEV) is what a driver says that finds nothing to do; busy, that somebody else was loading the
            // same module at that moment and it found nothing to do.
            const NO_DEVICE: i32 = 19;
            let usual = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy);
            if usual || error.raw_os_error() == Some(NO_DEVICE) {
                tracing::debug!(module, %error, "not loaded");
            } else {
                tracing::warn!(module, %error, "not loaded");
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::fake::{Call, FakeRunner, RecordingKernel};

    fn load_all(cmdline: &str, devices: &[&str], modules: &[&str]) -> Vec<(String, String)> {
        let root = super::super::index::tests::fixture();
        let kernel = Arc::new(RecordingKernel::default());
        let host = Host::new(root.path(), Arc::new(FakeRunner::default()), kernel.clone());
        let index = Index::read(&host, "6.1.0");
        let loader = Loader::start(&host, index, &Cmdline::parse(cmdline));
        loader.want_devices(devices.iter().map(|alias| (*alias).to_owned()));
        for module in modules {
            loader.want_module(module);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !loader.is_idle() {
            assert!(Instant::now() < deadline, "busy with {:?}", loader.busy());
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut loaded = Vec::new();
        for call in kernel.calls() {
            let Call::LoadModule(file, parameters) = call else { panic!("{call:?}") };
            loaded.push((file.file_stem().unwrap().to_string_lossy().into_owned(), parameters));
        }
        loaded
    }

    #[test]
    fn a_device_gets_its_driver_with_dependencies_and_parameters() {
        let loaded =
            load_all("virtio_net.napi_tx=0 virtio-net.csum=1 a=b", &["virtio:d00000001v00001AF4"], &[]);
        let names: Vec<_> = loaded.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.last(), Some(&"virtio_net"));
        let parameters = &loaded.last().unwrap().1;
        assert!(parameters.contains("napi_tx=0") && parameters.contains("csum=1"), "{parameters}");
    }

    #[test]
    fn each_module_is_tried_once_and_unknown_ones_never() {
        let loaded = load_all("", &["scsi:t-0x00", "scsi:t-0x00", "pci:unknown"], &["sd_mod", "no_such"]);
        assert_eq!(loaded, [("sd_mod".to_owned(), String::new())]);
    }

    #[test]
    fn a_blacklisted_module_is_not_loaded_by_itself_but_as_a_dependency() {
        assert_eq!(load_all("modprobe.blacklist=sd-mod,ext4", &["scsi:t-0x00"], &["ext4"]), []);
        let loaded = load_all("modprobe.blacklist=jbd2", &[], &["ext4"]);
        assert!(loaded.iter().any(|(name, _)| name == "jbd2"), "{loaded:?}");
    }
}
