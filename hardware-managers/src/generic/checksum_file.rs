//! Finding an image's digest in a checksum file such as `SHA256SUMS`. Pure.
//!
//! The grammar is that of ironic-python-agent (data plane page, 1.6 and A.1), except that an image's name is compared as
//! text, not as a regular expression.

use imaging::Algorithm;

/// Hexadecimal digits of the digests that are told by their length: md5, sha256, sha512.
const TOLD_BY_LENGTH: [usize; 3] = [32, 64, 128];

/// The digest in `text` for the image that `url` names, as it stands there.
///
/// A file of one word is a digest by itself. Otherwise the first line that names the image and holds a digest counts: one of
/// `algorithm` where that is known, else one of 32, 64 or 128 hexadecimal digits.
///
/// # Errors
/// What is wrong with the file, as a clause.
pub fn find_digest(text: &str, url: &str, algorithm: Option<Algorithm>) -> Result<String, String> {
    let known = algorithm.map(|algorithm| [algorithm.length() * 2]);
    let lengths = known.as_ref().map_or(&TOLD_BY_LENGTH[..], |known| &known[..]);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [] => return Err("it is empty".into()),
        [only] if !only.contains(' ') => {
            return if is_digest(only, lengths) {
                Ok((*only).to_owned())
            } else {
                Err(format!("its only word is not a digest of {} hexadecimal digits", either(lengths)))
            };
        }
        _ => {}
    }
    let name = image_name(url).ok_or("the image's URL ends in no file name to look for")?;
    let mut named = lines.iter().filter(|line| !line.starts_with('#') && names_image(line, name));
    named
        .find_map(|line| digest_in(line, lengths))
        .ok_or_else(|| format!("it holds no digest of {} hexadecimal digits for {name}", either(lengths)))
}

fn either(lengths: &[usize]) -> String {
    let words: Vec<String> = lengths.iter().map(usize::to_string).collect();
    words.join(" or ")
}

/// The last path component of a URL, without query and fragment.
fn image_name(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next()?;
    let (_, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then_some(name)
}

/// `DIGEST  name`, `DIGEST *name`, or `ALGORITHM (name) = DIGEST`.
fn names_image(line: &str, name: &str) -> bool {
    let ends = line.strip_suffix(name).is_some_and(|rest| {
        let rest = rest.strip_suffix('*').unwrap_or(rest);
        rest.ends_with(char::is_whitespace)
    });
    ends || line.split_whitespace().skip(1).any(|word| {
        word.strip_prefix('(').and_then(|word| word.strip_suffix(')')).is_some_and(|inner| inner == name)
    })
}

/// The first or last word of a line that is a digest; shorter digests first, as upstream tries them.
fn digest_in(line: &str, lengths: &[usize]) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ends = [words.first()?, words.last()?];
    lengths.iter().find_map(|length| {
        let found = ends.iter().find(|word| is_digest(word, &[*length]))?;
        Some((**found).to_string())
    })
}

fn is_digest(word: &str, lengths: &[usize]) -> bool {
    lengths.contains(&word.len()) && word.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const URL: &str = "http://images.example/dir/img.qcow2";

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
            ("S\timg.qcow2", None),
            ("S\timg.qcow2\nM  other", Some("S")),
            ("M  other\nS *img.qcow2", Some("S")),
            ("SHA256 (img.qcow2) = S", Some("S")),
            ("# img.qcow2: 123 bytes\nSHA256 (img.qcow2) = S", Some("S")),
            ("S  other", None),
            ("S\nS", None),
            ("S  ./img.qcow2", None),
            ("M  dir/img.qcow2\nS  img.qcow2", Some("S")),
            ("MD5 (img.qcow2) = M\nSHA256 (img.qcow2) = S", Some("M")),
            ("X  img.qcow2", None),
        ] {
            let found = find_digest(&expand(body), URL, None);
            assert_eq!(found.ok(), digest.map(expand), "{body:?}");
        }
    }

    #[test]
    fn query_is_no_part_of_the_name_and_a_name_must_be_there() {
        let body = expand("S  img.qcow2");
        assert!(find_digest(&body, "https://h/x/img.qcow2?sig=a/b#c", None).is_ok());
        assert!(find_digest(&body, "https://h/x/", None).is_err());
        let upper = "A".repeat(32);
        assert_eq!(find_digest(&upper, URL, None), Ok(upper));
        let percent = expand("S  img%20one.raw");
        assert!(find_digest(&percent, "https://h/img%20one.raw", None).is_ok(), "not decoded");
        assert!(find_digest(&expand("S  img one.raw\nM  x"), "https://h/img%20one.raw", None).is_err());
    }

    #[test]
    fn lines_of_another_algorithm_are_passed_over_where_the_algorithm_is_known() {
        let both = expand("MD5 (img.qcow2) = M\nSHA256 (img.qcow2) = S");
        assert_eq!(find_digest(&both, URL, Some(Algorithm::Sha256)), Ok(expand("S")));
        assert_eq!(find_digest(&expand("X  img.qcow2"), URL, Some(Algorithm::Sha1)), Ok(expand("X")));
        assert_eq!(find_digest(&expand("X"), URL, Some(Algorithm::Sha1)), Ok(expand("X")));
        let report = find_digest(&expand("S  img.qcow2"), URL, Some(Algorithm::Sha512)).unwrap_err();
        assert!(report.contains("128 hexadecimal digits for img.qcow2"), "{report}");
        assert!(find_digest(&expand("S"), URL, Some(Algorithm::Sha512)).is_err());
    }

    #[test]
    fn a_dot_in_the_name_is_a_dot() {
        assert!(find_digest(&expand("S  imgXqcow2"), URL, None).is_err());
    }

    proptest! {
        #[test]
        fn what_is_found_is_always_a_digest(text in "[0-9a-fSM()*# \\n\\timgqcow2.]{0,200}") {
            if let Ok(digest) = find_digest(&expand(&text), URL, None) {
                prop_assert!(is_digest(&digest, &TOLD_BY_LENGTH));
            }
        }
    }
}
