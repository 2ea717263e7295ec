//! Finding an image's digest in a checksum file such as `SHA256SUMS`. Pure.
//!
//! It takes what ironic-python-agent takes (data plane page, 1.6 and A.1), and what coreutils, BSD, OpenSSL and PGP write:
//! paths before the names, tags before the digests, escaped names, signed files, other encodings. An image's name is compared
//! as text, not as a regular expression. What could be read in two ways is refused.

use std::collections::BTreeSet;

use imaging::Algorithm;

/// Hexadecimal digits of the digests that are told by their length: md5, sha256, sha512.
const TOLD_BY_LENGTH: [Algorithm; 3] = [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512];

/// A digest, and the name that it stands beside where that is not the image's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Hexadecimal, as it stands in the file.
    pub(super) digest: String,
    pub(super) other_name: Option<String>,
}

/// The digest in `file` for the image that `url` names, as it stands there.
///
/// A file of one word is a digest by itself, and in a file that names one file, that is the image. Otherwise the first line
/// that names the image and holds a digest counts: one of `algorithm` where that is known, else one of 32, 64 or 128
/// hexadecimal digits.
///
/// # Errors
/// What is wrong with the file, as a clause.
pub fn find_digest(file: &[u8], url: &str, algorithm: Option<Algorithm>) -> Result<String, String> {
    find(file, url, algorithm).map(|found| found.digest)
}

/// As [`find_digest`], with the name that the digest has in the file.
pub(super) fn find(file: &[u8], url: &str, algorithm: Option<Algorithm>) -> Result<Found, String> {
    let text = decode(file);
    let lines = lines(&text);
    let known = algorithm.map(|algorithm| [algorithm]);
    let algorithms = known.as_ref().map_or(&TOLD_BY_LENGTH[..], |known| &known[..]);
    let digits = either(algorithms);
    match lines.as_slice() {
        [] => return Err("it is empty".into()),
        [only] if !only.contains([' ', '\t', '(', '=']) && Entry::parse(only).is_none() => {
            return Err(format!("its only word is not a digest of {digits} hexadecimal digits"));
        }
        _ => {}
    }
    let entries: Vec<Entry> = lines.iter().filter_map(|line| Entry::parse(line)).collect();
    let usable: Vec<&Entry> = entries.iter().filter(|entry| entry.is_of(algorithms)).collect();
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name = path.rsplit_once('/').map_or("", |(_, name)| name);
    for nearness in [Nearness::Same, Nearness::Folder, Nearness::Name] {
        let mut near: Vec<_> = usable.iter().filter(|entry| entry.names(path, name, nearness)).collect();
        if matches!(nearness, Nearness::Folder) {
            let longest = near.iter().map(|entry| entry.name.len()).max();
            near.retain(|entry| Some(entry.name.len()) == longest);
        }
        let Some(first) = near.first() else { continue };
        let is_other =
            |entry: &&&&Entry| entry.digest.len() == first.digest.len() && !entry.has_digest_of(first);
        if let Some(other) = near.iter().find(is_other) {
            return Err(format!(
                "it has two digests for {name}, {} and {}; give the digest itself",
                first.digest, other.digest
            ));
        }
        return Ok(Found { digest: first.digest.clone(), other_name: None });
    }
    // No line names the image. Where the file speaks of one file only, that is the image.
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    if let ([only], 1) = (usable.as_slice(), names.len()) {
        let other_name = Some(only.name.clone()).filter(|name| !name.is_empty());
        return Ok(Found { digest: only.digest.clone(), other_name });
    }
    if name.is_empty() {
        return Err("the image's URL ends in no file name to look for".into());
    }
    Err(format!("it holds no digest of {digits} hexadecimal digits for {name}"))
}

fn either(algorithms: &[Algorithm]) -> String {
    let words: Vec<String> =
        algorithms.iter().map(|algorithm| (algorithm.length() * 2).to_string()).collect();
    words.join(" or ")
}

/// Reads UTF-8 and UTF-16, with a byte order mark or without. What is neither becomes replacement characters.
fn decode(file: &[u8]) -> String {
    let utf16 = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| read(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    match file {
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        // A checksum file has no zero bytes otherwise, and begins with an ASCII character.
        [first, 0, ..] if *first != 0 => utf16(file, u16::from_le_bytes),
        [0, first, ..] if *first != 0 => utf16(file, u16::from_be_bytes),
        _ => String::from_utf8_lossy(file).into_owned(),
    }
}

/// Returns the lines that may hold digests: without comments, and of a file signed by PGP only what is signed.
fn lines(text: &str) -> Vec<&str> {
    let lines = text.split(['\n', '\r']).map(str::trim);
    // A signed line that begins with a dash has another dash and a space before it (RFC 9580 section 7.2).
    let lines = lines.take_while(|line| !line.starts_with("-----BEGIN PGP SIGNATURE"));
    let lines = lines.map(|line| line.strip_prefix("- ").unwrap_or(line));
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// How well an entry's name fits an image.
#[derive(Clone, Copy)]
enum Nearness {
    /// It is the image's name.
    Same,
    /// It is the end of the URL's path, folders included.
    Folder,
    /// It ends in the image's name.
    Name,
}

/// A line with a digest.
#[derive(Debug)]
struct Entry {
    digest: String,
    /// What the line says about the algorithm; the inner `None` is one that is not known here.
    tag: Option<Option<Algorithm>>,
    /// Empty where the line has none.
    name: String,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        Self::tagged(line).or_else(|| Self::digest_first(line)).or_else(|| Self::digest_last(line))
    }

    /// `ALGORITHM (name) = DIGEST` of BSD, `ALGORITHM(name)= DIGEST` of OpenSSL.
    fn tagged(line: &str) -> Option<Self> {
        let (line, is_escaped) = unmarked(line);
        let (before, digest) = line.rsplit_once('=')?;
        let (tag, name) = before.trim_end().strip_suffix(')')?.split_once('(')?;
        let (tag, digest) = (tag.trim(), digest.trim());
        let is_tag = !tag.is_empty() && !tag.contains(char::is_whitespace);
        (is_tag && is_hex(digest)).then(|| Self {
            digest: digest.to_owned(),
            tag: Some(algorithm(tag)),
            name: if is_escaped { unescaped(name) } else { name.to_owned() },
        })
    }

    /// `DIGEST  name`, `DIGEST *name`, `ALGORITHM:DIGEST  name`, or the digest alone.
    fn digest_first(line: &str) -> Option<Self> {
        let (line, is_escaped) = unmarked(line);
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (tag, digest) = match word.rsplit_once(':') {
            Some((tag, digest)) => (Some(algorithm(tag)), digest),
            None => (None, word),
        };
        let name = rest.trim_start();
        let name = name.strip_prefix('*').unwrap_or(name);
        let name = if is_escaped { unescaped(name) } else { name.to_owned() };
        is_hex(digest).then(|| Self { digest: digest.to_owned(), tag, name })
    }

    /// `name  DIGEST`, `name: DIGEST`, `ALGORITHM: DIGEST`.
    fn digest_last(line: &str) -> Option<Self> {
        let (rest, digest) = line.rsplit_once(|c: char| c.is_whitespace() || c == '=')?;
        if !is_hex(digest) {
            return None;
        }
        let name = rest.trim_end().trim_end_matches([':', '=']).trim_end();
        let (tag, name) = match algorithm(name) {
            Some(algorithm) => (Some(Some(algorithm)), ""),
            None => (None, name),
        };
        Some(Self { digest: digest.to_owned(), tag, name: name.to_owned() })
    }

    fn is_of(&self, algorithms: &[Algorithm]) -> bool {
        algorithms.iter().any(|algorithm| {
            algorithm.length() * 2 == self.digest.len() && self.tag.is_none_or(|tag| tag == Some(*algorithm))
        })
    }

    fn has_digest_of(&self, other: &Entry) -> bool {
        self.digest.eq_ignore_ascii_case(&other.digest)
    }

    /// Returns whether its name fits an image that fully: the last part `name` of the URL's `path`.
    fn names(&self, path: &str, name: &str, nearness: Nearness) -> bool {
        let own = self.name.replace('\\', "/");
        let own = own.trim_start_matches("./");
        let last = own.rsplit_once('/').map_or(own, |(_, last)| last);
        if name.is_empty() || last.is_empty() {
            return false;
        }
        match nearness {
            Nearness::Same => is_same(own, name),
            Nearness::Folder => {
                let own = format!("/{}", own.trim_start_matches('/'));
                path.ends_with(&own) || decoded(path).ends_with(&decoded(&own))
            }
            Nearness::Name => is_same(last, name),
        }
    }
}

/// Returns whether names are the same, as they are or without percent-encoding.
fn is_same(one: &str, other: &str) -> bool {
    one == other || decoded(one) == decoded(other)
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&imaging::percent_decoded(text)).into_owned()
}

/// Takes the backslash off by which coreutils mark a line whose name is escaped.
fn unmarked(line: &str) -> (&str, bool) {
    match line.strip_prefix('\\') {
        Some(line) => (line, true),
        None => (line, false),
    }
}

fn unescaped(name: &str) -> String {
    let mut plain = String::new();
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        match (character, characters.clone().next()) {
            ('\\', Some(escaped @ ('\\' | 'n' | 'r'))) => {
                characters.next();
                plain.push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    _ => '\\',
                });
            }
            _ => plain.push(character),
        }
    }
    plain
}

/// The algorithm of a tag; OpenSSL 3 calls SHA-256 `SHA2-256`.
fn algorithm(tag: &str) -> Option<Algorithm> {
    let tag = tag.to_ascii_lowercase();
    let short = tag.strip_prefix("sha2-").map_or(tag.clone(), |bits| format!("sha{bits}"));
    short.parse().ok()
}

/// Returns whether a word is a digest of some algorithm.
fn is_hex(word: &str) -> bool {
    let lengths = Algorithm::ALL.map(|algorithm| algorithm.length() * 2);
    lengths.contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const URL: &str = "http://images.example/dir/img.qcow2";

    fn find_text(text: &str, url: &str, algorithm: Option<Algorithm>) -> Result<String, String> {
        find_digest(text.as_bytes(), url, algorithm)
    }

    /// `S`, `M`, `H` stand for digests of 64, 32 and 128 digits, `X` for 40.
    fn expand(text: &str) -> String {
        let replace = |text: String, key: &str, digit: &str, length| {
            text.split_inclusive(|c: char| !c.is_alphanumeric())
                .map(|word| {
                    let bare = word.trim_end_matches(|c: char| !c.is_alphanumeric());
                    if bare == key { word.replacen(key, &digit.repeat(length), 1) } else { word.to_owned() }
                })
                .collect::<String>()
        };
        let text = replace(text.to_owned(), "S", "a", 64);
        let text = replace(text, "M", "b", 32);
        let text = replace(text, "H", "c", 128);
        replace(text, "X", "d", 40)
    }

    #[test]
    fn upstream_vectors() {
        for (body, digest) in [
            ("S", Some("S")),
            ("S\r\n", Some("S")),
            ("M", Some("M")),
            ("H", Some("H")),
            ("zz", None),
            ("", None),
            ("\n \n", None),
            ("S  img.qcow2", Some("S")),
            ("S\timg.qcow2", Some("S")),
            ("S\timg.qcow2\nM  other", Some("S")),
            ("M  other\nS *img.qcow2", Some("S")),
            ("SHA256 (img.qcow2) = S", Some("S")),
            ("# img.qcow2: 123 bytes\nSHA256 (img.qcow2) = S", Some("S")),
            ("S  other", Some("S")),
            ("S  other\nM  third", None),
            ("S\nS", None),
            ("S  ./img.qcow2", Some("S")),
            ("M  dir/img.qcow2\nS  img.qcow2", Some("S")),
            ("MD5 (img.qcow2) = M\nSHA256 (img.qcow2) = S", Some("M")),
            ("X  img.qcow2", None),
        ] {
            let found = find_digest(expand(body).as_bytes(), URL, None);
            assert_eq!(found.ok(), digest.map(expand), "{body:?}");
        }
    }

    #[test]
    fn query_is_no_part_of_the_name_and_a_name_must_be_there() {
        let body = expand("S  img.qcow2\nM  x");
        assert!(find_text(&body, "https://h/x/img.qcow2?sig=a/b#c", None).is_ok());
        assert!(find_text(&body, "https://h/x/", None).is_err());
        let upper = "A".repeat(32);
        assert_eq!(find_text(&upper, URL, None), Ok(upper));
        let percent = expand("S  img%20one.raw");
        assert!(find_text(&percent, "https://h/img%20one.raw", None).is_ok(), "as it is");
        for name in ["img one.raw", "img%20one.raw"] {
            for url in ["https://h/img%20one.raw", "https://h/img one.raw"] {
                let body = expand(&format!("M  x\nS  {name}"));
                assert_eq!(find_text(&body, url, None), Ok(expand("S")), "{name} {url}");
            }
        }
    }

    #[test]
    fn lines_of_another_algorithm_are_passed_over_where_the_algorithm_is_known() {
        let both = expand("MD5 (img.qcow2) = M\nSHA256 (img.qcow2) = S");
        assert_eq!(find_text(&both, URL, Some(Algorithm::Sha256)), Ok(expand("S")));
        assert_eq!(find_text(&expand("X  img.qcow2"), URL, Some(Algorithm::Sha1)), Ok(expand("X")));
        assert_eq!(find_text(&expand("X"), URL, Some(Algorithm::Sha1)), Ok(expand("X")));
        let report = find_text(&expand("S  img.qcow2"), URL, Some(Algorithm::Sha512)).unwrap_err();
        assert!(report.contains("128 hexadecimal digits for img.qcow2"), "{report}");
        assert!(find_text(&expand("S"), URL, Some(Algorithm::Sha512)).is_err());
    }

    /// Many lines of other images, and one in question.
    fn among_others(line: &str) -> String {
        expand(&format!("{}  other.raw\n{line}\n{}  third.raw\n", "0".repeat(64), "1".repeat(64)))
    }

    #[test]
    fn names_may_have_paths_marks_tags_and_escapes() {
        for line in [
            "S  ./img.qcow2",
            "S  /srv/images/img.qcow2",
            "S *sub/dir/img.qcow2",
            "S  .\\dir\\img.qcow2",
            "SHA256(img.qcow2)= S",
            "SHA256(./out/img.qcow2)= S",
            "SHA2-256(img.qcow2)= S",
            "SHA256 (img.qcow2) = S",
            "sha256:S  img.qcow2",
            "img.qcow2: S",
            "img.qcow2 = S",
            "\\S  img.qcow2",
            "S  img.qcow2\r",
        ] {
            assert_eq!(find_text(&among_others(line), URL, None), Ok(expand("S")), "{line}");
            assert_eq!(find_text(&expand(line), URL, Some(Algorithm::Sha256)), Ok(expand("S")), "{line}");
        }
        let escaped = among_others("\\S  a\\\\b.raw");
        assert_eq!(find_text(&escaped, "http://h/a%5Cb.raw", None).ok(), None, "a folder of Windows");
        for line in [
            "S  img.qcow2.sig",
            "S  myimg.qcow2",
            "BLAKE2b-256 (img.qcow2) = S",
            "SHA512/256 (img.qcow2) = S",
        ] {
            assert!(find_text(&among_others(line), URL, Some(Algorithm::Sha256)).is_err(), "{line}");
        }
    }

    #[test]
    fn byte_order_marks_and_utf_16_are_read() {
        let text = among_others("S  img.qcow2").replace('\n', "\r\n");
        let units: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for file in [
            [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat(),
            [&[0xff, 0xfe], little.as_slice()].concat(),
            [&[0xfe, 0xff], big.as_slice()].concat(),
            little.clone(),
            big.clone(),
        ] {
            assert_eq!(find_digest(&file, URL, None), Ok(expand("S")), "{:?}", &file[..4]);
        }
        let word = [&[0xef, 0xbb, 0xbf], expand("S").as_bytes()].concat();
        assert_eq!(find_digest(&word, URL, None), Ok(expand("S")));
    }

    #[test]
    fn a_signed_file_counts_up_to_its_signature() {
        let file = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# img.qcow2: 5 bytes\n{}- S  dash\n\
             -----BEGIN PGP SIGNATURE-----\n\nS  late.raw\nM  late.raw\n-----END PGP SIGNATURE-----\n",
            among_others("SHA256 (img.qcow2) = S")
        );
        assert_eq!(find_text(&expand(&file), URL, None), Ok(expand("S")));
        assert!(find_text(&expand(&file), "http://h/late.raw", None).is_err());
    }

    #[test]
    fn the_nearest_name_counts_and_two_digests_of_one_name_are_refused() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let file = format!("{one}  old/dir/img.qcow2\n{two}  dir/img.qcow2\n");
        assert_eq!(find_text(&file, URL, None), Ok(two.clone()));
        assert_eq!(
            find_text(&file, "http://h/old/dir/img.qcow2", None),
            Ok(one.clone()),
            "the longest path wins"
        );
        let report = find_text(&file, "http://h/img.qcow2", None).unwrap_err();
        assert!(report.contains("two digests for img.qcow2"), "{report}");
        let twice = format!("{one}  img.qcow2\n{two}  img.qcow2\n");
        assert!(find_text(&twice, URL, None).is_err());
        let same = format!("{}  img.qcow2\n{}  ./img.qcow2\n", "a".repeat(64), "A".repeat(64));
        assert_eq!(find_text(&same, URL, None), Ok("a".repeat(64)));
    }

    #[test]
    fn a_file_that_speaks_of_one_file_is_of_the_image() {
        let other = |text: &str| find(expand(text).as_bytes(), URL, None).map(|found| found.other_name);
        assert_eq!(other("S  build-17.raw"), Ok(Some("build-17.raw".to_owned())));
        assert_eq!(other("# made today\nS  -"), Ok(Some("-".to_owned())));
        assert_eq!(other("SHA256: S"), Ok(None));
        let both = expand("SHA256 (b.raw) = S\nSHA512 (b.raw) = H");
        assert_eq!(find_text(&both, URL, Some(Algorithm::Sha512)), Ok(expand("H")));
        assert!(find_text(&both, URL, None).is_err());
        assert!(other("S  b.raw\nS  c.raw").is_err());
        assert!(find_text("<html>login</html>", URL, None).is_err());
    }

    #[test]
    fn a_dot_in_the_name_is_a_dot() {
        assert!(find_text(&expand("S  imgXqcow2\nM  x"), URL, None).is_err());
    }

    proptest! {
        #[test]
        fn what_is_found_is_always_a_digest(text in "[0-9a-fSM()*# \\n\\timgqcow2.]{0,200}") {
            if let Ok(digest) = find_text(&expand(&text), URL, None) {
                prop_assert!(is_hex(&digest) && digest.len() != 40);
            }
        }
    }
}
