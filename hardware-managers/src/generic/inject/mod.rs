//! The step `inject_files`: files put into, or removed from, the system that was written to the root disk.
//!
//! [`request`] reads and checks what is asked for, [`place`] finds and mounts the partition, [`template`] fills in URLs.
//! Nothing is mounted before everything that can be refused was refused. Source: data plane page, 7.5.

mod place;
mod request;
mod template;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hwm::{Context, Error, StepCall};
use imaging::{Cancel, Transport};
use sys::confined::{Confined, set_owner};

use self::place::Partitions;
use self::request::{Action, Content, File, Request};
use crate::settings::Settings;

/// **Writes and removes files on partitions of the root disk** (or of the disk that an entry names).
///
/// # Errors
/// `InvalidParameters` naming every entry that makes no sense, before anything is mounted; `DeviceNotFound` and
/// `ProtectedDevice` for the place; `Execution` naming the file that could not be written. Files before it stay.
pub(crate) fn run(cx: &Context, settings: &Settings, call: &StepCall) -> Result<(), Error> {
    let Request { files, verify_ca } = Request::read(cx, call)?;
    if files.is_empty() {
        tracing::info!("no files to inject");
        return Ok(());
    }
    let mut transport = settings.transport.clone();
    transport.insecure |= !verify_ca;
    let mut partitions = Partitions::find(cx, settings)?;
    for file in &files {
        if cx.is_cancelled() {
            return Err(Error::Failed { message: "injecting files was cancelled".into() });
        }
        let mount = partitions.mount(file)?;
        let failed =
            |why: String| Error::Execution { message: format!("injecting the file {}: {why}", file.path) };
        let confined = Confined::open(mount).map_err(|error| failed(error.to_string()))?;
        tracing::info!(path = file.path, action = file.action.verb(), "injecting a file");
        inject(cx, &confined, file, &transport).map_err(failed)?;
    }
    partitions.unmount()
}

fn inject(cx: &Context, confined: &Confined, file: &File, transport: &Transport) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let path = Path::new(&file.path);
    let content = match &file.action {
        Action::Remove => return confined.remove(path).map_err(text),
        Action::Write(content) => content,
    };
    if let Some(directory) = path.parent() {
        let in_directory = |error: std::io::Error| format!("its directory: {error}");
        let is_new = confined.create_directories(directory).map_err(in_directory)?;
        if let (true, Some(mode)) = (is_new, file.directory_mode) {
            confined.set_directory_mode(directory, mode).map_err(in_directory)?;
        }
    }
    let mut target = confined.create(path).map_err(text)?;
    match content {
        Content::Bytes(bytes) => target.write_all(bytes).map_err(text)?,
        Content::Url(url) => {
            let cancel = Cancel::from(cx.cancel_flag());
            imaging::fetch_into(url, transport, &mut target, &cancel).map_err(|error| error.report())?;
        }
    }
    // The owner first: the kernel takes set-user-id bits away when the owner changes.
    if file.owner.is_some() || file.group.is_some() {
        set_owner(&target, file.owner, file.group).map_err(text)?;
    }
    if let Some(mode) = file.mode {
        target.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(text)?;
    }
    target.sync_all().map_err(text)
}
