//! The secret that opens the API: a bearer token in the state directory, and how commands on the same host find it.
//!
//! `ferric serve` makes `STATE/token` at its first start. At each start it also notes, below the user's own state directory,
//! which state directory belongs to the address that it listens on. A command looks there, so a user who runs both types no
//! token. Only the user of `ferric serve` (and root) can read either file.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use wire::Secret;

/// Least length of a token that was written by hand, in bytes.
const SHORTEST: usize = 32;
/// Most bytes that are read of a token file.
const LONGEST: u64 = 4096;

/// Returns 43 characters: URL-safe base64 of 32 random bytes.
///
/// # Errors
/// The system has no random numbers.
pub fn random() -> io::Result<Secret> {
    let mut bytes = [0_u8; 32];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
}

/// Returns whether `given` is the token; takes equally long for every text of one length.
pub fn is(token: &Secret, given: &[u8]) -> bool {
    token.expose().as_bytes().ct_eq(given).into()
}

/// Returns the path of the token in a state directory.
pub fn path(state: &Path) -> PathBuf {
    state.join("token")
}

/// Reads the token of a state directory, and makes it if there is none.
///
/// # Errors
/// The file cannot be read or made, or does not hold a token.
pub fn load_or_make(state: &Path) -> io::Result<Secret> {
    let path = path(state);
    match File::options().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let token = random()?;
            file.write_all(format!("{}\n", token.expose()).as_bytes())?;
            file.sync_all()?;
            Ok(token)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let token = read(&path)?;
            let permissions = fs::metadata(&path)?.permissions();
            if permissions.mode() & 0o077 != 0 {
                tracing::warn!(path = %path.display(), "the token was readable for other users; closing its file");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            }
            Ok(token)
        }
        Err(error) => Err(error),
    }
}

/// Reads a token file.
///
/// # Errors
/// It cannot be read, or does not hold a token.
pub fn read(path: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    parse(&text).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))
}

/// Checks the text of a token: blanks around it do not count.
///
/// # Errors
/// It is too short, or has characters that cannot stand in a header.
pub fn parse(text: &str) -> Result<Secret, String> {
    let text = text.trim();
    if text.len() < SHORTEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "not a token; a token has {SHORTEST} or more letters, digits or signs in one word"
        ));
    }
    Ok(Secret::new(text))
}

/// Notes for commands of the same user which state directory belongs to this address. A failure only costs comfort.
pub fn announce(address: SocketAddr, state: &Path) {
    let Some(directory) = announcements() else {
        tracing::warn!("HOME is not set; commands need --token-file");
        return;
    };
    for name in names(address) {
        if let Err(error) = note(&directory, &name, state) {
            tracing::warn!(path = %directory.display(), %error, "commands do not find the token; they need --token-file");
            return;
        }
    }
}

fn note(directory: &Path, name: &str, state: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let partial = directory.join(format!(".{name}.{}", std::process::id()));
    fs::write(&partial, state.as_os_str().as_encoded_bytes())?;
    fs::rename(&partial, directory.join(name))
}

/// Returns the token for the controller at `url`, if one that runs on this host has noted its state directory.
pub fn find(url: &str) -> Option<Secret> {
    find_in(&announcements()?, url)
}

fn find_in(directory: &Path, url: &str) -> Option<Secret> {
    let uri: axum::http::Uri = url.parse().ok()?;
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(default);
    let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    let addresses: Vec<IpAddr> = match host.as_str() {
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => vec![host.parse().ok()?],
    };
    addresses.iter().find_map(|ip| {
        let name = name(SocketAddr::new(*ip, port));
        let state = PathBuf::from(fs::read_to_string(directory.join(name)).ok()?);
        // Another program may listen there now: a token is shown only to a controller that runs.
        runs(&state).then(|| read(&path(&state)).ok()).flatten()
    })
}

/// Returns whether a controller holds the lock of this state directory.
fn runs(state: &Path) -> bool {
    let lock = File::open(state.join("lock"));
    lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
}

/// The addresses under which a listener is reached on its own host.
fn names(address: SocketAddr) -> Vec<String> {
    let port = address.port();
    match address.ip() {
        ip if ip.is_unspecified() => {
            let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            both.iter().map(|ip| name(SocketAddr::new(*ip, port))).collect()
        }
        _ => vec![name(address)],
    }
}

fn name(address: SocketAddr) -> String {
    format!("{}_{}", address.ip().to_canonical().to_string().replace(':', "-"), address.port())
}

/// `$XDG_STATE_HOME/ferric/controllers`, by default below `~/.local/state`.
fn announcements() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")))?;
    base.is_absolute().then(|| base.join("ferric/controllers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_made_once_and_only_its_owner_may_read_it() {
        let state = tempfile::tempdir().unwrap();
        let token = load_or_make(state.path()).unwrap();
        assert_eq!(token.expose().len(), 43);
        assert_eq!(fs::metadata(path(state.path())).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(path(state.path()), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_make(state.path()).unwrap().expose(), token.expose());
        assert_eq!(fs::metadata(path(state.path())).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(is(&token, token.expose().as_bytes()) && !is(&token, b"") && !is(&token, b"x"));
        fs::write(path(state.path()), "short\n").unwrap();
        assert!(load_or_make(state.path()).is_err());
    }

    #[test]
    fn commands_find_the_token_of_a_controller_that_runs() {
        let (home, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let token = load_or_make(state.path()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 6385));
        note(home.path(), &name(address), state.path()).unwrap();
        let found = |url: &str| find_in(home.path(), url).map(|token| token.expose().to_owned());
        assert_eq!(found("http://127.0.0.1:6385"), None, "it does not run");
        let lock = File::create(state.path().join("lock")).unwrap();
        lock.try_lock().unwrap();
        for url in ["http://127.0.0.1:6385", "http://localhost:6385/"] {
            assert_eq!(found(url).as_deref(), Some(token.expose()), "{url}");
        }
        for url in ["http://127.0.0.1:6386", "http://192.0.2.1:6385", "http://controller:6385", "nonsense"] {
            assert_eq!(found(url), None, "{url}");
        }
    }
}
