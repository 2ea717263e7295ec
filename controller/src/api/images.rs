//! Ferric's own: how a local image file gets an address that machines can reach. A file below a served directory has one
//! already; any other is uploaded into `STATE/images` by whoever can read it, so that the API never reads files for others.

use std::collections::HashMap;
use std::path::Path as FilePath;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
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

/// `PUT /ferric/v1/images/{name}`: stores the body under that name, replacing what had it.
pub async fn upload(
    State(controller): State<Controller>,
    Path(name): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Published>), ApiError> {
    if files::safe(&name).is_none() || name.contains('/') || name.starts_with('.') {
        return Err(ApiError::bad(format!("\"{name}\" is no name for an image")));
    }
    let directory = controller.config.uploads();
    let failed = |what: &str, error: std::io::Error| ApiError {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        text: format!("{what} in {} failed: {error}", directory.display()),
    };
    tokio::fs::create_dir_all(&directory).await.map_err(|e| failed("making a directory", e))?;
    // Readers see the old file or the new one, never half of it.
    let partial = directory.join(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let written = receive(&partial, body).await;
    let size = match written {
        Ok(size) => size,
        Err(error) => {
            if let Err(error) = tokio::fs::remove_file(&partial).await {
                tracing::warn!(path = %partial.display(), %error, "removing half an upload failed");
            }
            return Err(failed("storing the image", error));
        }
    };
    tokio::fs::rename(&partial, directory.join(&name)).await.map_err(|e| failed("storing the image", e))?;
    tracing::info!(name, size, "image stored");
    Ok((StatusCode::CREATED, Json(Published { url: url_of(&controller, &name), size })))
}

async fn receive(path: &FilePath, body: Body) -> std::io::Result<u64> {
    let mut file = tokio::fs::File::create_new(path).await?;
    let mut stream = body.into_data_stream();
    let mut size = 0_u64;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(std::io::Error::other)?;
        size = size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
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
