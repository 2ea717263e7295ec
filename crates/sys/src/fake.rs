//! A machine for tests: a directory for `/`, programs that answer as told, a kernel that only writes down what it was asked.
//! A fake fails loudly on what it was not told.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::{
    AtaCommand, CommandLine, Host, IpmiRequest, Kernel, MountRequest, NvmeCommand, Output, Power, RunError,
    Runner,
};

/// A machine rooted in `root`, with a runner that knows no program and a recording kernel.
pub fn host(root: impl Into<PathBuf>) -> Host {
    Host::new(root, Arc::new(FakeRunner::default()), Arc::new(RecordingKernel::default()))
}

/// Answers command lines from a table.
#[derive(Default)]
pub struct FakeRunner {
    answers: HashMap<String, Result<String, String>>,
}

impl FakeRunner {
    /// Answers the exact command line with this standard output.
    pub fn answer(mut self, command: &str, stdout: &str) -> Self {
        self.answers.insert(command.into(), Ok(stdout.into()));
        self
    }

    /// Fails the exact command line with this standard error.
    pub fn fail(mut self, command: &str, stderr: &str) -> Self {
        self.answers.insert(command.into(), Err(stderr.into()));
        self
    }
}

impl Runner for FakeRunner {
    fn run(&self, command: &CommandLine) -> Result<Output, RunError> {
        let command = command.to_string();
        match self.answers.get(&command) {
            Some(Ok(stdout)) => Ok(Output { stdout: stdout.clone().into_bytes(), stderr: Vec::new() }),
            Some(Err(stderr)) => {
                Err(RunError::Failed { command, status: "exit status: 1".into(), stderr: stderr.clone() })
            }
            None => {
                let source =
                    io::Error::new(io::ErrorKind::NotFound, "the fake runner was not told this command");
                Err(RunError::Start { command, source })
            }
        }
    }
}

/// A call that a [`RecordingKernel`] got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the variants are the methods of `Kernel`
pub enum Call {
    Mount(MountRequest),
    Unmount(PathBuf),
    Detach(PathBuf),
    Sync,
    Power(Power),
    LoadModule(PathBuf, String),
    RereadPartitionTable(PathBuf),
    AddPartition { device: PathBuf, number: u32, start_byte: u64, size_byte: u64 },
    DeletePartition { device: PathBuf, number: u32 },
    FlushBuffers(PathBuf),
    SetImmutable(PathBuf, bool),
    SetHostname(String),
    SetClock(SystemTime),
    SetHardwareClock,
    SetLinkDown(String),
}

/// Plays a management controller.
pub type FakeController = Box<dyn Fn(&Path, &IpmiRequest) -> io::Result<Vec<u8>> + Send + Sync>;

/// Puts something where a file system is mounted.
pub type Filler = Box<dyn Fn(&MountRequest) + Send + Sync>;

/// Writes down every call and lets it succeed.
#[derive(Default)]
pub struct RecordingKernel {
    calls: Mutex<Vec<Call>>,
    /// What `interface_addresses` answers.
    pub addresses: Vec<(String, IpAddr)>,
    /// What `permanent_address` answers, by interface; an error for others.
    pub permanent: HashMap<String, Vec<u8>>,
    /// Plays the file systems that `mount` mounts.
    pub fill: Option<Filler>,
    /// What `unmount` fails with.
    pub unmount_fails: Option<io::ErrorKind>,
    /// What `supported_link_modes` answers, by interface; an error for others.
    pub link_modes: HashMap<String, Vec<u32>>,
    /// The frame that `capture_frames` hears on an interface, whatever its type; none on others.
    pub frames: HashMap<String, Vec<u8>>,
    /// The interfaces of each call of `capture_frames`.
    pub captures: Mutex<Vec<Vec<String>>>,
    /// Who plays the management controller: device and request to its answer.
    pub controller: Option<FakeController>,
    /// What `power` fails with.
    pub power_fails: Option<io::ErrorKind>,
    /// What `set_clock` fails with.
    pub clock_fails: Option<io::ErrorKind>,
}

impl RecordingKernel {
    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, call: Call) -> io::Result<()> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        Ok(())
    }
}

impl Kernel for RecordingKernel {
    fn mount(&self, request: &MountRequest) -> io::Result<()> {
        if let Some(fill) = &self.fill {
            fill(request);
        }
        self.record(Call::Mount(request.clone()))
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        self.record(Call::Unmount(target.into()))?;
        self.unmount_fails.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn detach(&self, target: &Path) -> io::Result<()> {
        self.record(Call::Detach(target.into()))
    }

    fn sync(&self) {
        let _ = self.record(Call::Sync);
    }

    fn power(&self, action: Power) -> io::Result<()> {
        self.record(Call::Power(action))?;
        self.power_fails.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn load_module(&self, file: &Path, parameters: &str) -> io::Result<()> {
        self.record(Call::LoadModule(file.into(), parameters.into()))
    }

    fn reread_partition_table(&self, device: &Path) -> io::Result<()> {
        self.record(Call::RereadPartitionTable(device.into()))
    }

    fn add_partition(&self, device: &Path, number: u32, start_byte: u64, size_byte: u64) -> io::Result<()> {
        self.record(Call::AddPartition { device: device.into(), number, start_byte, size_byte })
    }

    fn delete_partition(&self, device: &Path, number: u32) -> io::Result<()> {
        self.record(Call::DeletePartition { device: device.into(), number })
    }

    fn flush_buffers(&self, device: &Path) -> io::Result<()> {
        self.record(Call::FlushBuffers(device.into()))
    }

    fn ata(&self, _: &Path, _: &AtaCommand, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn nvme_admin(&self, _: &Path, _: &NvmeCommand, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn nvme_namespace(&self, _: &Path) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_immutable(&self, file: &Path, immutable: bool) -> io::Result<()> {
        self.record(Call::SetImmutable(file.into(), immutable))
    }

    fn set_hostname(&self, name: &str) -> io::Result<()> {
        self.record(Call::SetHostname(name.into()))
    }

    fn set_clock(&self, time: SystemTime) -> io::Result<()> {
        self.record(Call::SetClock(time))?;
        self.clock_fails.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn set_hardware_clock(&self, _: SystemTime) -> io::Result<()> {
        self.record(Call::SetHardwareClock)
    }

    fn set_link_down(&self, interface: &str) -> io::Result<()> {
        self.record(Call::SetLinkDown(interface.into()))
    }

    fn interface_addresses(&self) -> io::Result<Vec<(String, IpAddr)>> {
        Ok(self.addresses.clone())
    }

    fn permanent_address(&self, interface: &str) -> io::Result<Vec<u8>> {
        self.permanent.get(interface).cloned().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn supported_link_modes(&self, interface: &str) -> io::Result<Vec<u32>> {
        self.link_modes.get(interface).cloned().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn capture_frames(&self, interfaces: &[String], _: u16, _: Duration) -> Vec<io::Result<Option<Vec<u8>>>> {
        self.captures.lock().unwrap_or_else(PoisonError::into_inner).push(interfaces.to_vec());
        interfaces.iter().map(|name| Ok(self.frames.get(name).cloned())).collect()
    }

    fn ipmi(&self, device: &Path, request: &IpmiRequest, _: Duration) -> io::Result<Vec<u8>> {
        match &self.controller {
            Some(controller) => controller(device, request),
            None => Err(io::Error::other("the fake kernel was not told of a management controller")),
        }
    }
}
