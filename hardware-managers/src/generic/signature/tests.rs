use events::Events;
use imaging::{ExpectedDigest, Format, Proxies, Transport};
use serde_json::{Value, json};

use super::super::image::Checksum;
use super::*;
use crate::settings::Signatures;

const KEY: &str = include_str!("../../../../crates/imaging/tests/signatures/key.pub");
const OTHER_KEY: &str = include_str!("../../../../crates/imaging/tests/signatures/other.pub");
const SIGNATURE: &str = include_str!("../../../../crates/imaging/tests/signatures/image.minisig");
const OTHER_SIGNATURE: &str = include_str!("../../../../crates/imaging/tests/signatures/other.minisig");
const LEGACY: &str = include_str!("../../../../crates/imaging/tests/signatures/legacy.minisig");

fn keys(texts: &[&str]) -> TrustedKeys {
    TrustedKeys(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn image(source: &str, signature: ImageSignature) -> Image {
    Image {
        label: "disk.raw".into(),
        sources: vec![source.into()],
        checksum: Checksum::Digest(ExpectedDigest::from_hex(&"a".repeat(64)).unwrap()),
        translate_sector_size: None,
        allow_no_partition_table: false,
        format: Format::Raw,
        authorization: None,
        proxies: Proxies::default(),
        signature,
        verify: false,
        partition: None,
    }
}

fn inline(text: &str, given: &[&str]) -> Image {
    let signature = ImageSignature { text: Some(text.into()), keys: keys(given), url: None };
    image("http://h/disk.raw", signature)
}

fn unsigned() -> Image {
    image("http://h/disk.raw", ImageSignature::default())
}

/// A ramdisk with these key files, and these options.
struct Bench {
    root: tempfile::TempDir,
    settings: Settings,
}

impl Bench {
    fn new(baked: &[&str], require: bool, options: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(IMAGE_KEYS.trim_start_matches('/'));
        std::fs::create_dir_all(&folder).unwrap();
        for (number, key) in baked.iter().enumerate() {
            std::fs::write(folder.join(format!("{number}.pub")), key).unwrap();
        }
        let transport = Transport { attempts: 1, ..Transport::default() };
        let signatures = Signatures { require, keys: keys(options) };
        Self { root, settings: Settings { signatures, transport, ..Settings::default() } }
    }

    fn expected(&self, image: &Image) -> Result<Option<ExpectedSignature>, String> {
        let cx = Context::new(sys::fake::host(self.root.path()), Events::default());
        expected(&cx, &self.settings, image).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refuses(&self, image: &Image, words: &str) {
        let error = self.expected(image).unwrap_err();
        assert!(error.contains(words) && error.contains("disk.raw"), "{error}");
    }
}

#[test]
fn an_image_needs_no_signature_where_nobody_asks_for_one() {
    assert_eq!(Bench::new(&[], false, &[]).expected(&unsigned()), Ok(None));
    assert_eq!(Bench::new(&[], false, &[KEY]).expected(&unsigned()), Ok(None));
}

#[test]
fn a_signature_that_is_given_is_never_passed_over() {
    Bench::new(&[], false, &[]).refuses(&inline(SIGNATURE, &[]), "no key to check it with");
    assert!(Bench::new(&[], false, &[KEY]).expected(&inline(SIGNATURE, &[])).unwrap().is_some());
    assert!(Bench::new(&[], false, &[]).expected(&inline(SIGNATURE, &[KEY])).unwrap().is_some());
    let legacy = inline(LEGACY, &[]);
    Bench::new(&[], false, &[KEY]).refuses(&legacy, "legacy");
}

#[test]
fn a_key_in_the_ramdisk_makes_signatures_mandatory_and_no_option_takes_that_back() {
    let bench = Bench::new(&[KEY], false, &[]);
    let error = bench.expected(&unsigned()).unwrap_err();
    assert!(error.contains("must be signed") && error.contains("minisig"), "{error}");
    assert!(bench.expected(&inline(SIGNATURE, &[])).unwrap().is_some());
}

#[test]
fn whoever_is_further_out_does_not_widen_what_is_restricted_further_in() {
    // Neither an option nor the conductor adds a key to those of the ramdisk.
    let baked = Bench::new(&[KEY], false, &[OTHER_KEY]);
    baked.refuses(&inline(OTHER_SIGNATURE, &[OTHER_KEY]), "not trusted here");
    // Nor the conductor to those of the options, required or not.
    for require in [false, true] {
        let options = Bench::new(&[], require, &[KEY]);
        options.refuses(&inline(OTHER_SIGNATURE, &[OTHER_KEY]), "not trusted here");
        assert!(options.expected(&inline(SIGNATURE, &[OTHER_KEY])).unwrap().is_some());
    }
}

#[test]
fn required_without_any_key_nothing_is_written() {
    Bench::new(&[], true, &[]).refuses(&unsigned(), "no key to check it with");
    Bench::new(&[], true, &[]).refuses(&inline(SIGNATURE, &[]), "no key to check it with");
}

#[test]
fn a_key_file_that_is_none_stops_every_image() {
    let bench = Bench::new(&["rubbish"], false, &[KEY]);
    let error = bench.expected(&unsigned()).unwrap_err();
    assert!(error.contains("0.pub") && error.contains("minisign"), "{error}");
}

#[test]
fn a_signature_is_found_beside_its_image_or_where_it_is_said_to_be() {
    let bench = Bench::new(&[KEY], false, &[]);
    let folder = bench.root.path();
    std::fs::write(folder.join("disk.raw.minisig"), SIGNATURE).unwrap();
    std::fs::write(folder.join("elsewhere"), OTHER_SIGNATURE).unwrap();
    let url = |name: &str| format!("file://{}", folder.join(name).display());
    let plain = image(&url("disk.raw"), ImageSignature::default());
    assert!(bench.expected(&plain).unwrap().is_some());
    let signature = ImageSignature { url: Some(url("elsewhere")), ..ImageSignature::default() };
    bench.refuses(&image(&url("disk.raw"), signature), "not trusted here");
    bench.refuses(&image(&url("unsigned.raw"), ImageSignature::default()), "unsigned.raw.minisig");
}

#[test]
fn a_signature_of_an_image_in_a_registry_has_to_be_given() {
    const REFERENCE: &str = "oci://registry.invalid/disk:1";
    let bench = Bench::new(&[KEY], false, &[]);
    // Nobody is asked: the name has no address.
    let error = bench.expected(&image(REFERENCE, ImageSignature::default())).unwrap_err();
    for word in
        ["disk.raw must be signed", "registry", "image_info", "image_signature_url", "write --signature"]
    {
        assert!(error.contains(word), "no {word} in: {error}");
    }
    let file = bench.root.path().join("disk.raw.minisig");
    std::fs::write(&file, SIGNATURE).unwrap();
    let by_url =
        ImageSignature { url: Some(format!("file://{}", file.display())), ..ImageSignature::default() };
    let inline = ImageSignature { text: Some(SIGNATURE.into()), ..ImageSignature::default() };
    for given in [by_url, inline] {
        assert!(bench.expected(&image(REFERENCE, given)).unwrap().is_some());
    }
    // Another source of the same image has a place beside it.
    let mut both = image(REFERENCE, ImageSignature::default());
    both.sources.push(format!("file://{}", file.with_extension("").display()));
    assert!(bench.expected(&both).unwrap().is_some());
}

#[test]
fn a_bootable_container_is_refused_where_everything_must_be_signed() {
    for (bench, refused) in [
        (Bench::new(&[], false, &[KEY]), false),
        (Bench::new(&[], true, &[]), true),
        (Bench::new(&[KEY], false, &[]), true),
    ] {
        let host = sys::fake::host(bench.root.path());
        let answer = refuse_unsigned(&host, &bench.settings, "a bootable container");
        assert_eq!(answer.is_err(), refused, "{answer:?}");
    }
}

#[test]
fn image_info_brings_signature_place_and_keys() {
    let parse = |extra: Value| {
        let mut info = json!({"id": "disk.raw", "urls": ["http://h/disk.raw"]});
        info.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        ImageSignature::parse(&serde_json::from_value(info).unwrap()).map_err(|error| error.to_string())
    };
    assert_eq!(parse(json!({})), Ok(ImageSignature::default()));
    assert_eq!(parse(json!({"signature": " ", "signature_url": ""})), Ok(ImageSignature::default()));
    let full = json!({"signature": SIGNATURE, "signature_url": "https://h/s", "signature_keys": [KEY]});
    let full = parse(full).unwrap();
    assert_eq!((full.text.as_deref(), full.url.as_deref()), (Some(SIGNATURE), Some("https://h/s")));
    assert_eq!(full.keys, keys(&[KEY]));
    assert!(parse(json!({"signature_url": "file:///etc/shadow"})).unwrap_err().contains("neither http"));
    assert!(parse(json!({"signature_keys": ["RWQ"]})).unwrap_err().contains("signature_keys"));
}

#[test]
fn names_and_servers_are_cut_from_urls() {
    assert_eq!(beside("https://h/a.raw?token=x").as_deref(), Some("https://h/a.raw.minisig?token=x"));
    assert_eq!(beside("http://h/a.raw#part").as_deref(), Some("http://h/a.raw.minisig"));
    assert_eq!((beside("oci://h/a"), beside("nonsense")), (None, None));
    assert_eq!(server("https://h:1/a/b"), Some("https://h:1"));
    assert_eq!(server("https://h"), Some("https://h"));
    assert_ne!(server("https://h/a"), server("https://h.evil/a"));
}
