//! What `image_info` says about a partition image besides the image itself. Source: data plane page, 1.1.

use hwm::Error;
use serde_json::Value;
use wire::ImageInfo;

/// Sizes in MiB; 0 for a partition that is not wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionImage {
    /// Root partition, which takes the image.
    pub root_mib: u64,
    /// Swap space.
    pub swap_mib: u64,
    /// Ephemeral file system.
    pub ephemeral_mib: u64,
    /// Its kind; ext4 where nothing is said.
    pub ephemeral_format: Option<String>,
    /// Whether the ephemeral partition and all it holds stay as they are.
    pub preserve_ephemeral: bool,
}

impl PartitionImage {
    /// Reads the keys of a partition image; `None` for a whole-disk image.
    pub(crate) fn parse(info: &ImageInfo) -> Result<Option<Self>, Error> {
        if info.image_type.as_deref() != Some("partition") {
            return Ok(None);
        }
        let rest = &info.rest.0;
        let key = |name: &str| {
            let message = || format!("image_info of a partition image lacks {name}");
            rest.get(name).ok_or_else(|| Error::InvalidParameters { message: message() })
        };
        let size = |name: &str| match key(name)? {
            Value::Null => Ok(0),
            Value::Number(number) if number.is_u64() => Ok(number.as_u64().unwrap_or_default()),
            Value::String(text) if text.parse::<u64>().is_ok() => Ok(text.parse().unwrap_or_default()),
            other => Err(Error::InvalidParameters {
                message: format!("{name} of a partition image is {other}, not a number of MiB"),
            }),
        };
        Ok(Some(Self {
            root_mib: size("root_mb")?,
            swap_mib: size("swap_mb")?,
            ephemeral_mib: size("ephemeral_mb")?,
            ephemeral_format: key("ephemeral_format")?
                .as_str()
                .filter(|name| !name.is_empty())
                .map(Into::into),
            preserve_ephemeral: super::boot_mode::is_true(key("preserve_ephemeral")?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(
        change: impl FnOnce(&mut serde_json::Map<String, Value>),
    ) -> Result<Option<PartitionImage>, Error> {
        let mut info = json!({
            "id": "p", "urls": ["http://h/p"], "image_type": "partition", "root_mb": 2048, "root_gb": 2,
            "swap_mb": 64, "ephemeral_mb": 0, "ephemeral_format": null, "preserve_ephemeral": false,
        });
        change(info.as_object_mut().unwrap());
        PartitionImage::parse(&serde_json::from_value(info).unwrap())
    }

    #[test]
    fn sizes_are_read_as_the_conductor_sends_them() {
        let plain = parse(|_| ()).unwrap().unwrap();
        assert_eq!((plain.root_mib, plain.swap_mib, plain.ephemeral_mib), (2048, 64, 0));
        assert_eq!((plain.ephemeral_format, plain.preserve_ephemeral), (None, false));
        let full = parse(|info| {
            info.insert("ephemeral_mb".into(), json!("100"));
            info.insert("ephemeral_format".into(), json!("xfs"));
            info.insert("preserve_ephemeral".into(), json!(true));
        });
        let full = full.unwrap().unwrap();
        assert_eq!((full.ephemeral_mib, full.ephemeral_format.as_deref()), (100, Some("xfs")));
        assert!(full.preserve_ephemeral);
        assert_eq!(parse(|info| drop(info.insert("image_type".into(), json!("whole-disk")))).unwrap(), None);
    }

    #[test]
    fn what_is_missing_or_no_size_is_named() {
        for name in ["root_mb", "swap_mb", "ephemeral_mb", "ephemeral_format", "preserve_ephemeral"] {
            let error = parse(|info| drop(info.remove(name))).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        for wrong in [json!(-1), json!("x"), json!(1.5), json!([])] {
            let error = parse(|info| drop(info.insert("swap_mb".into(), wrong))).unwrap_err();
            assert!(matches!(error, Error::InvalidParameters { .. }), "{error}");
        }
    }
}
