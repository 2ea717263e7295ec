//! Config drives: a directory becomes an ISO 9660 image labelled `config-2`, made in this process, gzipped and in base64, as
//! agents expect it. Source of the layout: cloud-init, data source ConfigDrive.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use hadris_iso::joliet::JolietLevel;
use hadris_iso::read::PathSeparator;
use hadris_iso::rrip::RripOptions;
use hadris_iso::write::options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{File, InputFiles, IsoImageWriter};
use serde_json::{Map, Value, json};

/// The label by which cloud-init finds the drive.
pub const LABEL: &str = "config-2";
/// Ironic's limit for a config drive.
const SIZE_LIMIT: u64 = 64 << 20;
/// Directories nested deeper than this are no config drive (and would loop with links).
const DEPTH_LIMIT: usize = 8;

/// Why there is no config drive.
#[derive(Debug, thiserror::Error)]
pub enum ConfigDriveError {
    /// Something can not be read.
    #[error("reading {path}")]
    Read {
        /// What.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The directory is no config drive.
    #[error(
        "{0} holds no openstack/ directory: give the directory that holds openstack/latest/meta_data.json (and user_data beside it)"
    )]
    NoOpenstack(String),
    /// The file is neither of the two forms.
    #[error(
        "{0} is neither an ISO 9660 image nor base64 of a gzipped one: give a directory, an ISO or such a file"
    )]
    Unknown(String),
    /// Too much.
    #[error(
        "{0} is larger than 64 MiB: a config drive is for configuration; let the system fetch the rest when it runs"
    )]
    TooLarge(String),
    /// A value of the wrong shape in a JSON config drive.
    #[error("{0}")]
    Shape(String),
    /// The ISO was not written.
    #[error("writing the ISO image: {0}")]
    Iso(String),
    /// Compressing failed.
    #[error("compressing the ISO image")]
    Compress(#[source] std::io::Error),
}

/// The config drive in `path` (a directory, an ISO, or base64 of a gzipped ISO), ready for the wire.
pub fn load(path: &Path) -> Result<String, ConfigDriveError> {
    let name = path.display().to_string();
    let read = |source| ConfigDriveError::Read { path: name.clone(), source };
    if path.is_dir() {
        if !path.join("openstack").is_dir() {
            return Err(ConfigDriveError::NoOpenstack(name));
        }
        let mut left = SIZE_LIMIT;
        let files = tree(path, 0, &mut left)?;
        return encode(&iso(files)?);
    }
    if fs::metadata(path).map_err(read)?.len() > SIZE_LIMIT {
        return Err(ConfigDriveError::TooLarge(name));
    }
    let bytes = fs::read(path).map_err(read)?;
    if bytes.get(0x8001..0x8006) == Some(b"CD001") {
        return encode(&bytes);
    }
    let text: String = String::from_utf8(bytes).unwrap_or_default().split_ascii_whitespace().collect();
    match STANDARD.decode(&text) {
        Ok(bytes) if bytes.starts_with(&[0x1f, 0x8b]) => Ok(text),
        Ok(_) | Err(_) => Err(ConfigDriveError::Unknown(name)),
    }
}

/// The config drive that Ironic's API describes as an object: `meta_data`, `network_data`, `vendor_data` (objects) and
/// `user_data` (text, or an object).
pub fn from_object(object: &Map<String, Value>, node: &str, name: &str) -> Result<String, ConfigDriveError> {
    let known = ["meta_data", "user_data", "network_data", "vendor_data"];
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(ConfigDriveError::Shape(format!(
            "configdrive has no key {key}; there are: {}",
            known.join(", ")
        )));
    }
    let mut meta = json!({ "uuid": node, "name": name, "hostname": name });
    match (object.get("meta_data"), meta.as_object_mut()) {
        (Some(Value::Object(given)), Some(meta)) => meta.extend(given.clone()),
        (None | Some(Value::Null), _) => {}
        _ => return Err(ConfigDriveError::Shape("configdrive/meta_data must be an object".into())),
    }
    let mut latest = vec![file("meta_data.json", meta.to_string().into_bytes())];
    for (key, to) in [("network_data", "network_data.json"), ("vendor_data", "vendor_data.json")] {
        match object.get(key) {
            None | Some(Value::Null) => {}
            Some(value @ Value::Object(_)) => latest.push(file(to, value.to_string().into_bytes())),
            Some(_) => return Err(ConfigDriveError::Shape(format!("configdrive/{key} must be an object"))),
        }
    }
    match object.get("user_data") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => latest.push(file("user_data", text.clone().into_bytes())),
        Some(value) => latest.push(file("user_data", value.to_string().into_bytes())),
    }
    encode(&iso(vec![directory("openstack", vec![directory("latest", latest)])])?)
}

fn file(name: &str, contents: Vec<u8>) -> File {
    File::File { name: Arc::new(name.to_owned()), contents }
}

fn directory(name: &str, children: Vec<File>) -> File {
    File::Directory { name: Arc::new(name.to_owned()), children }
}

/// What is in a directory, by name, so that the same directory makes the same image.
fn tree(path: &Path, depth: usize, left: &mut u64) -> Result<Vec<File>, ConfigDriveError> {
    let read = |source| ConfigDriveError::Read { path: path.display().to_string(), source };
    let mut entries: Vec<_> = fs::read_dir(path).map_err(read)?.collect::<Result<_, _>>().map_err(read)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let read = |source| ConfigDriveError::Read { path: path.display().to_string(), source };
        if path.is_dir() {
            if depth >= DEPTH_LIMIT {
                return Err(ConfigDriveError::Shape(format!("{} is nested too deep", path.display())));
            }
            files.push(directory(&name, tree(&path, depth + 1, left)?));
            continue;
        }
        let contents = fs::read(&path).map_err(read)?;
        let size = u64::try_from(contents.len()).unwrap_or(u64::MAX);
        *left =
            left.checked_sub(size).ok_or_else(|| ConfigDriveError::TooLarge(path.display().to_string()))?;
        files.push(file(&name, contents));
    }
    Ok(files)
}

/// An ISO with Joliet and Rock Ridge names. Rock Ridge has to be asked for in two places, or it is silently left out.
fn iso(files: Vec<File>) -> Result<Vec<u8>, ConfigDriveError> {
    let options = IsoFormatOptions {
        volume_name: LABEL.into(),
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: Some("FERRIC".into()),
        sector_size: 2048,
        features: CreationFeatures {
            filenames: BaseIsoLevel::Level1 { supports_lowercase: false, supports_rrip: true },
            joliet: Some(JolietLevel::Level3),
            rock_ridge: Some(RripOptions::default()),
            ..CreationFeatures::default()
        },
        path_separator: PathSeparator::ForwardSlash,
        // The label is lower case, which strict ISO 9660 has not.
        strict_charset: false,
    };
    let input = InputFiles { path_separator: PathSeparator::ForwardSlash, files };
    let image = IsoImageWriter::create(Cursor::new(Vec::new()), input, options)
        .map_err(|e| ConfigDriveError::Iso(e.to_string()))?;
    Ok(image.into_inner())
}

fn encode(image: &[u8]) -> Result<String, ConfigDriveError> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(image).map_err(ConfigDriveError::Compress)?;
    Ok(STANDARD.encode(gzip.finish().map_err(ConfigDriveError::Compress)?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn decode(text: &str) -> Vec<u8> {
        let mut iso = Vec::new();
        flate2::read::GzDecoder::new(&STANDARD.decode(text).unwrap()[..]).read_to_end(&mut iso).unwrap();
        iso
    }

    fn contains(iso: &[u8], needle: &[u8]) -> bool {
        iso.windows(needle.len()).any(|window| window == needle)
    }

    #[test]
    fn a_directory_becomes_a_labelled_image_with_long_names() {
        let dir = tempfile::tempdir().unwrap();
        let latest = dir.path().join("openstack/latest");
        fs::create_dir_all(&latest).unwrap();
        fs::write(latest.join("meta_data.json"), r#"{"hostname": "demo"}"#).unwrap();
        fs::write(latest.join("user_data"), "#!/bin/sh\n").unwrap();
        let text = load(dir.path()).unwrap();
        assert_eq!(text, load(dir.path()).unwrap(), "the same directory makes the same image");
        let iso = decode(&text);
        assert_eq!(iso.get(0x8028..0x8030), Some(LABEL.as_bytes()));
        assert!(contains(&iso, br#"{"hostname": "demo"}"#));
        assert!(contains(&iso, b"meta_data.json"), "no Rock Ridge name");
        let wide: Vec<u8> = "meta_data.json".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert!(contains(&iso, &wide), "no Joliet name");
        // What was made is also what passes through, in both forms.
        let file = dir.path().join("drive.iso");
        fs::write(&file, &iso).unwrap();
        assert_eq!(decode(&load(&file).unwrap()), iso);
        fs::write(&file, format!("{}\n", text)).unwrap();
        assert_eq!(load(&file).unwrap(), text);
    }

    #[test]
    fn what_is_no_config_drive_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path()), Err(ConfigDriveError::NoOpenstack(_))));
        let file = dir.path().join("x");
        fs::write(&file, "hello").unwrap();
        assert!(matches!(load(&file), Err(ConfigDriveError::Unknown(_))));
        assert!(matches!(load(&dir.path().join("absent")), Err(ConfigDriveError::Read { .. })));
    }

    #[test]
    fn an_object_becomes_an_image_with_the_nodes_identity() {
        let object = json!({ "meta_data": {"hostname": "given"}, "user_data": "#cloud-config\n" });
        let iso = decode(&from_object(object.as_object().unwrap(), "the-uuid", "the-name").unwrap());
        assert!(contains(&iso, br#""uuid":"the-uuid""#));
        assert!(contains(&iso, br#""hostname":"given""#));
        assert!(contains(&iso, b"#cloud-config"));
        let wrong = json!({ "meta_dat": {} });
        assert!(from_object(wrong.as_object().unwrap(), "u", "n").is_err());
    }
}
