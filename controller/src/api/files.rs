//! A small file server: whole files and single ranges, strong ETags, bounded memory however large the file is. Serves
//! `/images/...` and, through `api::boot`, the ramdisk. Names never lead out of the served directories; links in them are
//! followed, putting one there is up to whoever owns the directory. Source: RFC 9110, 13 and 14.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use axum::body::Body;
use axum::extract::{self, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::ApiError;
use crate::controller::Controller;

/// What is read at a time, and so about the memory a transfer takes.
const CHUNK: usize = 256 << 10;

/// `GET|HEAD /images/{path}`.
pub async fn image(
    State(controller): State<Controller>,
    extract::Path(path): extract::Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let relative = safe(&path).ok_or_else(|| not_there(&path))?;
    for directory in &controller.config.images {
        let file = directory.join(&relative);
        if tokio::fs::metadata(&file).await.is_ok_and(|meta| meta.is_file()) {
            if !is_outside_of_state(&controller, &file).await {
                return Err(not_there(&path));
            }
            return serve(&file, &method, &headers).await;
        }
    }
    Err(not_there(&path))
}

/// A link may lead anywhere its owner wants, but not to tokens and config drives. Uploads lie in the state directory.
async fn is_outside_of_state(controller: &Controller, file: &Path) -> bool {
    match tokio::fs::canonicalize(file).await {
        Ok(real) => {
            !real.starts_with(&controller.config.state) || real.starts_with(controller.config.uploads())
        }
        Err(_) => false,
    }
}

fn not_there(path: &str) -> ApiError {
    ApiError::missing(format!("There is no image {path} in the directories given with --images."))
}

/// A path made of plain names only; `None` for anything that could lead elsewhere.
pub fn safe(path: &str) -> Option<PathBuf> {
    if path.is_empty() || path.contains('\0') {
        return None;
    }
    let path = Path::new(path);
    path.components().all(|part| matches!(part, Component::Normal(_))).then(|| path.to_path_buf())
}

/// Answers with a file, or the part of it that was asked for.
pub async fn serve(path: &Path, method: &Method, headers: &HeaderMap) -> Result<Response, ApiError> {
    let failed = |error: std::io::Error| {
        tracing::warn!(path = %path.display(), %error, "a file can not be served");
        ApiError::missing("The file can not be read.")
    };
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    let meta = file.metadata().await.map_err(failed)?;
    let size = meta.len();
    // Strong: another content under the same name has another time of change, or is another inode.
    let etag =
        format!("\"{:x}-{:x}-{:x}\"", size, meta.mtime_nsec() + meta.mtime() * 1_000_000_000, meta.ino());
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*"))
    {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    // A range of another version of the file is no use: then the whole of this one.
    let same = text(header::IF_RANGE).is_none_or(|tag| tag == etag);
    let range = match text(header::RANGE) {
        Some(range) if same && method == Method::GET => parse_range(range, size),
        _ => Wanted::All,
    };
    let common = [
        (header::ETAG, etag),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
    ];
    let (status, start, length) = match range {
        Wanted::All => (StatusCode::OK, 0, size),
        Wanted::Part { start, length } => (StatusCode::PARTIAL_CONTENT, start, length),
        Wanted::Nothing => {
            let size = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, common, size).into_response());
        }
    };
    let mut response = (status, common, [(header::CONTENT_LENGTH, length.to_string())]).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let last = start + length - 1;
        if let Ok(value) = format!("bytes {start}-{last}/{size}").parse() {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
    }
    if method == Method::HEAD {
        return Ok(response);
    }
    if start > 0 {
        file.seek(SeekFrom::Start(start)).await.map_err(failed)?;
    }
    file.set_max_buf_size(CHUNK);
    *response.body_mut() = Body::from_stream(ReaderStream::with_capacity(file.take(length), CHUNK));
    Ok(response)
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// The whole file: no range, or none we understand.
    All,
    /// These bytes; at least one.
    Part { start: u64, length: u64 },
    /// Bytes that are not there.
    Nothing,
}

/// One range of bytes; several, or another unit, count as none, as the RFC allows.
fn parse_range(text: &str, size: u64) -> Wanted {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Wanted::All;
    };
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        return match last.parse::<u64>() {
            Ok(0) => Wanted::Nothing,
            Ok(_) if size == 0 => Wanted::Nothing,
            Ok(tail) => Wanted::Part { start: size.saturating_sub(tail), length: tail.min(size) },
            Err(_) => Wanted::All,
        };
    }
    let Ok(start) = first.parse::<u64>() else { return Wanted::All };
    let end = match last {
        "" => size,
        last => match last.parse::<u64>() {
            Ok(last) if last < start => return Wanted::All,
            Ok(last) => last.saturating_add(1).min(size),
            Err(_) => return Wanted::All,
        },
    };
    if start >= size { Wanted::Nothing } else { Wanted::Part { start, length: end - start } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_understood_as_the_rfc_says() {
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Part { start: 0, length: 1 }),
            ("bytes=2-", Wanted::Part { start: 2, length: 8 }),
            ("bytes=2-99", Wanted::Part { start: 2, length: 8 }),
            ("bytes=-3", Wanted::Part { start: 7, length: 3 }),
            ("bytes=-30", Wanted::Part { start: 0, length: 10 }),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("items=0-1", Wanted::All),
            ("bytes=a-b", Wanted::All),
        ] {
            assert_eq!(parse_range(text, 10), wanted, "{text}");
        }
        assert_eq!(parse_range("bytes=-1", 0), Wanted::Nothing);
        assert_eq!(parse_range("bytes=0-", 0), Wanted::Nothing);
    }

    proptest! {
        #[test]
        fn no_range_ever_reaches_beyond_the_file(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Wanted::Part { start, length } = parse_range(&text, size) {
                prop_assert!(length > 0);
                prop_assert!(start.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }

    #[test]
    fn names_never_lead_out() {
        for bad in ["", "..", "../x", "a/../../x", "/etc/passwd", "a/./../b", "x\0y"] {
            assert_eq!(safe(bad), None, "{bad}");
        }
        assert_eq!(safe("a/b.raw"), Some(PathBuf::from("a/b.raw")));
    }
}
