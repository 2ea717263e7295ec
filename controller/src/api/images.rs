//! Ferric's own: how a local image file gets an address that machines can reach. A file below a served directory has one
//! already; any other is uploaded into `STATE/images` by whoever can read it, so that the API never reads files for others.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::{ApiError, files};
use crate::controller::Controller;

/// The answer to "is this file served?".
#[derive(Debug, Serialize, Deserialize)]
pub struct Located {
    /// The URL as machines see it; null when the file is not served.
    pub url: Option<String>,
}

/// The answer to an upload.
#[derive(Debug, Serialize, Deserialize)]
pub struct Published {
    /// The URL as machines see it.
    pub url: String,
    /// Bytes received.
    pub size: u64,
}

/// `GET /ferric/v1/images?path=ABSOLUTE`.
pub async fn locate(
    State(controller): State<Controller>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Located>, ApiError> {
    let path = query.get("path").ok_or_else(|| ApiError::bad("path is missing"))?;
    let path = FilePath::new(path);
    let served = controller.config.images.iter().enumerate().find_map(|(at, directory)| {
        let relative = path.strip_prefix(directory).ok()?.to_str()?;
        files::safe(relative)?;
        // The same name in an earlier directory would be served in its place.
        let hidden = controller.config.images.iter().take(at).any(|earlier| earlier.join(relative).is_file());
        (!hidden && path.is_file()).then(|| url_of(&controller, relative))
    });
    Ok(Json(Located { url: served }))
}

/// The answer to "what is stored under this name?".
#[derive(Debug, Serialize, Deserialize)]
pub struct Stored {
    /// The URL as machines see it; null when nothing is.
    pub url: Option<String>,
    /// Its bytes.
    pub size: Option<u64>,
}

/// `GET /ferric/v1/images/{name}`: whether an upload of that name is there.
pub async fn stored(
    State(controller): State<Controller>,
    Path(name): Path<String>,
) -> Result<Json<Stored>, ApiError> {
    check_name(&name)?;
    let meta = tokio::fs::metadata(controller.config.uploads().join(&name)).await;
    let size = meta.ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
    Ok(Json(Stored { url: size.map(|_| url_of(&controller, &name)), size }))
}

/// `PUT /ferric/v1/images/{name}`: stores the body under that name. One that is there stays, unless `replace` is `true`.
pub async fn upload(
    State(controller): State<Controller>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Published>), ApiError> {
    check_name(&name)?;
    let replace = query.get("replace").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let directory = controller.config.uploads();
    let target = directory.join(&name);
    if !replace && tokio::fs::symlink_metadata(&target).await.is_ok() {
        return Err(taken(&name));
    }
    let failed = |what: &str, error: std::io::Error| {
        let status = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR, // the standard library's kinds; any other is a fault of this host
        };
        ApiError { status, text: format!("{what} in {} failed: {error}", directory.display()) }
    };
    let _place = controller.uploads.clone().try_acquire_owned().map_err(|_| ApiError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        text: "other uploads are being received; try again when one has ended".into(),
    })?;
    tokio::fs::create_dir_all(&directory).await.map_err(|e| failed("making a directory", e))?;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    check_space(&directory, announced.unwrap_or(0)).map_err(|e| failed("storing the image", e))?;
    // Readers see the old file or the new one, never half of it.
    let partial = Partial(directory.join(format!("{PARTIAL}{}", uuid::Uuid::new_v4())));
    let size = receive(&partial.0, body).await.map_err(|e| failed("storing the image", e))?;
    if replace {
        tokio::fs::rename(&partial.0, &target).await.map_err(|e| failed("storing the image", e))?;
    } else {
        // Unlike a rename, a link never replaces what another upload has put there meanwhile.
        tokio::fs::hard_link(&partial.0, &target).await.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => taken(&name),
            _ => failed("storing the image", error), // as above
        })?;
    }
    tracing::info!(name, size, "image stored");
    Ok((StatusCode::CREATED, Json(Published { url: url_of(&controller, &name), size })))
}

/// Longest name of an upload, in bytes: what file systems take.
const NAME_LIMIT: usize = 255;
/// How the names of unfinished uploads begin.
const PARTIAL: &str = ".upload-";
/// Bytes that an upload leaves free.
const LEFT_FREE: u64 = 256 << 20;
/// How often to look at the free space, in bytes received.
const SPACE_LOOK: u64 = 64 << 20;
/// Longest silence of an upload.
const SILENCE: Duration = Duration::from_secs(60);

fn check_name(name: &str) -> Result<(), ApiError> {
    if files::safe(name).is_none() || name.contains('/') || name.starts_with('.') {
        return Err(ApiError::bad(format!("\"{name}\" is not a name for an image")));
    }
    if name.len() > NAME_LIMIT {
        return Err(ApiError::bad(format!("the name of an image has at most {NAME_LIMIT} bytes")));
    }
    Ok(())
}

fn taken(name: &str) -> ApiError {
    ApiError::conflict(format!(
        "An image {name} is there already: choose another name, or replace it with ?replace=true"
    ))
}

/// An unfinished upload; the file goes when this is dropped.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "removing half an upload failed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Removes what a controller that was killed left of its uploads.
pub fn remove_partials(directory: &FilePath) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            drop(Partial(entry.path()));
        }
    }
}

/// Fails unless the file system keeps some free space after so many more bytes.
fn check_space(directory: &FilePath, bytes: u64) -> std::io::Result<()> {
    let about = nix::sys::statvfs::statvfs(directory)?;
    let free = about.blocks_available().saturating_mul(about.fragment_size());
    if bytes.saturating_add(LEFT_FREE) > free {
        let text =
            format!("{free} bytes are free, which is too little for {bytes} and a reserve of {LEFT_FREE}");
        return Err(std::io::Error::new(ErrorKind::StorageFull, text));
    }
    Ok(())
}

async fn receive(path: &FilePath, body: Body) -> std::io::Result<u64> {
    let mut file = tokio::fs::File::create_new(path).await?;
    let mut stream = body.into_data_stream();
    let (mut size, mut looked) = (0_u64, 0);
    let slow = |_| std::io::Error::new(ErrorKind::TimedOut, "no bytes came for a minute");
    while let Some(chunk) = tokio::time::timeout(SILENCE, stream.next()).await.map_err(slow)? {
        let chunk = chunk.map_err(std::io::Error::other)?;
        size = size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if size.saturating_sub(looked) >= SPACE_LOOK {
            looked = size;
            check_space(path.parent().unwrap_or(path), SPACE_LOOK)?;
        }
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    file.sync_data().await?;
    Ok(size)
}

fn url_of(controller: &Controller, relative: &str) -> String {
    let mut url = format!("{}/images/", controller.config.advertise);
    for byte in relative.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                url.push(char::from(byte))
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    url
}
