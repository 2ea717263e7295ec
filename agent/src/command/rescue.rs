//! The `rescue` extension: leaves the password where the ramdisk looks for it, and ends the agent's service.
//!
//! Source: ironic-python-agent `extensions/rescue.py` (agent protocol page, 7.1). In a ramdisk with an init of its own a path
//! unit sees the file and makes the user; where the agent is process 1, [`crate::rescue`] does.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use sha_crypt::{PasswordHasher, ShaCrypt};
use sys::Host;
use wire::Secret;

use super::ending::Ending;
use super::error::{ErrorClass, Failure};
use super::extensions::Extensions;
use super::record::Outcome;
use crate::rescue::{LONGEST_PASSWORD, MARKER, PASSWORD_FILE, is_hash};

impl Extensions {
    pub(super) fn finalize_rescue(&self, password: &Secret, hashed: bool) -> Result<Outcome, Failure> {
        let hash = if hashed { checked(password)? } else { hash(password)? };
        let host = &self.machine.context.host;
        write_password(host, &hash).map_err(|error| {
            let details = format!("writing the rescue password to {PASSWORD_FILE}: {error}");
            Failure::new(ErrorClass::CommandExecutionError, details)
        })?;
        if let Err(error) = fs::write(host.path(MARKER), "") {
            // Upstream too goes on: the marker only keeps a restarted agent from serving again.
            tracing::warn!(%error, "the marker {MARKER} can not be made");
        }
        self.machine.ending.send_replace(Some(Ending::Rescue));
        Ok(Outcome::Nothing)
    }
}

/// A hash as it may stand in a line of `/etc/shadow`.
fn checked(hash: &Secret) -> Result<String, Failure> {
    let text = hash.expose();
    let wrong = |details: &str| Err(Failure::new(ErrorClass::InvalidCommandParamsError, details));
    if text.is_empty() {
        return wrong("rescue_password is empty: everybody could log in");
    }
    if !is_hash(text) {
        return wrong(
            "rescue_password is not a crypt(3) hash, and nobody could log in; send one that starts with $y$, $6$, $5$, $2b$ or \
             another scheme of crypt(5), or a plain password without `hashed`",
        );
    }
    Ok(text.to_owned())
}

/// The SHA-512-crypt hash of a password, with a salt of its own.
fn hash(password: &Secret) -> Result<String, Failure> {
    if password.expose().is_empty() {
        let details = "rescue_password is empty: everybody could log in";
        return Err(Failure::new(ErrorClass::InvalidCommandParamsError, details));
    }
    // Hashing takes time that grows with the square of the length, and no login program takes more.
    let length = password.expose().len();
    if length > LONGEST_PASSWORD {
        let details = format!(
            "rescue_password has {length} bytes, and crypt(3) takes {LONGEST_PASSWORD}; use a shorter one, or send its hash"
        );
        return Err(Failure::new(ErrorClass::InvalidCommandParamsError, details));
    }
    // Twelve random bytes become the sixteen letters that a salt may have.
    let salt = uuid::Uuid::new_v4().into_bytes();
    let salt = salt.get(..12).unwrap_or(&salt);
    let hash = ShaCrypt::SHA512.hash_password_with_salt(password.expose().as_bytes(), salt);
    hash.map(|hash| hash.to_string()).map_err(|error| {
        Failure::new(ErrorClass::CommandExecutionError, format!("hashing the rescue password: {error}"))
    })
}

/// Writes the file for root's eyes only, in one piece: whoever waits for it must not see half of it.
fn write_password(host: &Host, hash: &str) -> io::Result<()> {
    let path = host.path(PASSWORD_FILE);
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.exists() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let unfinished = path.with_extension("new");
    let _ = fs::remove_file(&unfinished); // left by an attempt that broke off
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(hash.as_bytes())?;
    fs::rename(&unfinished, &path)
}
