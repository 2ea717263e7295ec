//! Which part of a manifest is the disk. Pure.
//!
//! An index lists manifests by platform; disk images of one platform are told apart by the annotation `disktype`. A manifest
//! lists layers; a disk image is the only one, or the only one whose title has the name of a disk image.

use serde_json::Value;

/// Annotation with a layer's file name (OCI image specification).
const TITLE: &str = "org.opencontainers.image.title";

/// Annotation with the kind of a disk in an index, as podman's machine images have it.
const DISK_TYPE: &str = "disktype";

/// Kinds of disks that can be written to a real one, the best first.
const DISK_TYPES: [&str; 4] = ["raw", "qcow2", "qemu", "applehv"];

/// Endings of disk image names, before the ending of a compression.
const DISK_NAMES: [&str; 4] = [".raw", ".img", ".qcow2", ".iso"];
const COMPRESSIONS: [&str; 4] = [".gz", ".zst", ".xz", ".bz2"];

/// What to fetch next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another manifest, by its digest.
    Manifest(String),
    /// The disk.
    Disk(Descriptor),
}

/// A blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) digest: String,
    pub(super) size: u64,
    pub(super) title: Option<String>,
}

/// Takes a manifest or an index; says what is wrong with it in words.
pub(super) fn next(manifest: &Value, architecture: &str) -> Result<Next, String> {
    let list = |key: &str| manifest.get(key).and_then(Value::as_array);
    match (list("manifests"), list("layers")) {
        (Some(manifests), _) => from_index(manifests, architecture),
        (None, Some(layers)) => disk(layers),
        (None, None) => Err("it is neither a manifest nor an index".to_owned()),
    }
}

fn from_index(manifests: &[Value], architecture: &str) -> Result<Next, String> {
    let wanted = go_architecture(architecture);
    let fitting: Vec<&Value> = manifests
        .iter()
        .filter(|entry| match text(entry, &["platform", "architecture"]) {
            // Kernel names are seen in the wild beside Go's.
            Some(found) => found == wanted || found == architecture,
            None => true,
        })
        .collect();
    let typed =
        DISK_TYPES.iter().find_map(|kind| fitting.iter().find(|entry| disk_type(entry) == Some(*kind)));
    // Where kinds are told, one without is something else (a bootable container, a signature).
    let chosen = match (typed, fitting.as_slice()) {
        (Some(entry), _) => *entry,
        (None, [only]) if disk_type(only).is_none() => only,
        (None, []) => return Err(format!("it has nothing for {architecture}")),
        (None, _) => {
            return Err(format!(
                "it has {} parts for {architecture}, and none is marked as a raw or qcow2 disk",
                fitting.len()
            ));
        }
    };
    text(chosen, &["digest"])
        .filter(|digest| is_name(digest))
        .map(|digest| Next::Manifest(digest.to_owned()))
        .ok_or_else(|| "its index names a manifest without a digest".to_owned())
}

fn disk(layers: &[Value]) -> Result<Next, String> {
    let title = |layer: &Value| text(layer, &["annotations", TITLE]).map(str::to_owned);
    let named = |layer: &&Value| title(layer).is_some_and(|title| is_disk_name(&title));
    let mut disks = layers.iter().filter(named);
    let chosen = match (layers, disks.next(), disks.next()) {
        (_, Some(disk), None) => disk,
        ([only], None, None) => only,
        ([], ..) => return Err("it has no layers".to_owned()),
        (_, Some(_), Some(_)) => return Err("it has more than one disk image".to_owned()),
        (_, None, _) => {
            return Err(format!("it has {} layers, and none is named as a disk image", layers.len()));
        }
    };
    let kind = text(chosen, &["mediaType"]).unwrap_or_default();
    if kind.contains(".tar") || kind.contains("rootfs") || kind.contains("+tar") {
        return Err(format!("it is a container image ({kind}), not a disk image"));
    }
    let digest = text(chosen, &["digest"]).filter(|digest| is_name(digest));
    let size = chosen.get("size").and_then(Value::as_u64);
    match (digest, size) {
        (Some(digest), Some(size)) => {
            Ok(Next::Disk(Descriptor { digest: digest.to_owned(), size, title: title(chosen) }))
        }
        _ => Err("its disk has no digest or no size".to_owned()),
    }
}

/// What may stand in a path: nothing that leads elsewhere.
fn is_name(digest: &str) -> bool {
    digest.contains(':') && digest.chars().all(|c| c.is_ascii_alphanumeric() || ":+._-".contains(c))
}

fn is_disk_name(title: &str) -> bool {
    let name = title.to_ascii_lowercase();
    let name = COMPRESSIONS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    DISK_NAMES.iter().any(|ending| name.ends_with(ending))
}

/// The kernel's name of an architecture in Go's words, which registries use.
fn go_architecture(kernel: &str) -> &str {
    match kernel {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn disk_type(entry: &Value) -> Option<&str> {
    text(entry, &["annotations", DISK_TYPE])
}

fn text<'v>(value: &'v Value, path: &[&str]) -> Option<&'v str> {
    path.iter().try_fold(value, |value, key| value.get(key))?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layer(title: Option<&str>, kind: &str) -> Value {
        let mut layer = json!({"mediaType": kind, "digest": "sha256:aa", "size": 5});
        if let (Some(title), Some(map)) = (title, layer.as_object_mut()) {
            map.insert("annotations".into(), json!({TITLE: title}));
        }
        layer
    }

    fn layers(layers: &[Value]) -> Result<Next, String> {
        next(&json!({"schemaVersion": 2, "layers": layers}), "x86_64")
    }

    #[test]
    fn the_disk_is_the_only_layer_or_the_only_one_named_so() {
        let found = |result: Result<Next, String>| match result {
            Ok(Next::Disk(disk)) => disk.title,
            other => panic!("{other:?}"),
        };
        assert_eq!(found(layers(&[layer(None, "application/octet-stream")])), None);
        let both =
            [layer(Some("README.md"), "text/plain"), layer(Some("Disk.QCOW2.zst"), "application/zstd")];
        assert_eq!(found(layers(&both)).as_deref(), Some("Disk.QCOW2.zst"));
        for wrong in [
            vec![],
            vec![layer(Some("a"), "x"), layer(Some("b"), "x")],
            vec![layer(Some("a.raw"), "x"), layer(Some("b.img.gz"), "x")],
            vec![layer(None, "application/vnd.oci.image.layer.v1.tar+gzip")],
            vec![json!({"digest": "sha256:../../x", "size": 5})],
            vec![json!({"digest": "sha256:aa"})],
        ] {
            assert!(layers(&wrong).is_err(), "{wrong:?}");
        }
        assert!(next(&json!([]), "x86_64").is_err());
        assert!(next(&json!({"layers": {}}), "x86_64").is_err());
    }

    fn entry(digest: &str, architecture: &str, disk_type: Option<&str>) -> Value {
        let mut entry = json!({"digest": format!("sha256:{digest}"), "platform": {"architecture": architecture, "os": "linux"}});
        if let (Some(kind), Some(map)) = (disk_type, entry.as_object_mut()) {
            map.insert("annotations".into(), json!({DISK_TYPE: kind}));
        }
        entry
    }

    #[test]
    fn an_index_is_searched_by_platform_and_kind() {
        let index = |entries: &[Value]| next(&json!({"manifests": entries}), "x86_64");
        let is = |digest: &str| Ok(Next::Manifest(format!("sha256:{digest}")));
        assert_eq!(index(&[entry("1", "arm64", None), entry("2", "amd64", None)]), is("2"));
        assert_eq!(index(&[entry("1", "x86_64", None)]), is("1"));
        let machine = [
            entry("1", "amd64", None),
            entry("2", "x86_64", Some("hyperv")),
            entry("3", "x86_64", Some("qemu")),
            entry("4", "aarch64", Some("qemu")),
        ];
        assert_eq!(index(&machine), is("3"));
        assert!(index(&[entry("1", "arm64", None)]).unwrap_err().contains("nothing for x86_64"));
        assert!(index(&[entry("1", "amd64", None), entry("2", "amd64", None)]).is_err());
        assert!(index(&[entry("1", "amd64", Some("hyperv"))]).is_err());
    }
}
