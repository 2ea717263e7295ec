use sha2::Digest as _;

use super::*;

const KEY: &str = include_str!("../../tests/signatures/key.pub");
const OTHER_KEY: &str = include_str!("../../tests/signatures/other.pub");
const IMAGE: &[u8] = include_bytes!("../../tests/signatures/image");
const SIGNATURE: &str = include_str!("../../tests/signatures/image.minisig");
const LEGACY: &str = include_str!("../../tests/signatures/legacy.minisig");
const OTHER_SIGNATURE: &str = include_str!("../../tests/signatures/other.minisig");

fn keys(texts: &[&str]) -> TrustedKeys {
    TrustedKeys(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn sum(bytes: &[u8]) -> Vec<u8> {
    blake2::Blake2b512::digest(bytes).to_vec()
}

#[test]
fn what_minisign_signed_is_taken_and_nothing_else() {
    let expected = keys(&[OTHER_KEY, KEY]).accept(SIGNATURE).unwrap();
    assert_eq!(expected.comment(), "made for a test");
    assert!(expected.matches(&sum(IMAGE)));
    for at in 0..IMAGE.len() {
        let mut altered = IMAGE.to_vec();
        altered[at] ^= 1;
        assert!(!expected.matches(&sum(&altered)), "byte {at}");
    }
    assert!(!expected.matches(&[]));
}

#[test]
fn a_key_is_read_from_its_file_or_its_word_and_shows_minisigns_id() {
    let key: PublicKey = KEY.parse().unwrap();
    let (comment, word) = KEY.trim().split_once('\n').unwrap();
    assert_eq!(word.parse::<PublicKey>().unwrap(), key);
    assert!(comment.ends_with(&key.id().to_string()), "{comment} {}", key.id());
    for wrong in ["", "RWQ", &word[..40], SIGNATURE, &format!("{word}\n{word}"), "untrusted comment: alone"] {
        assert_eq!(wrong.parse::<PublicKey>(), Err(SignatureError::Key), "{wrong}");
    }
}

#[test]
fn another_key_is_named_with_the_trusted_ones() {
    let (key, other): (PublicKey, PublicKey) = (KEY.parse().unwrap(), OTHER_KEY.parse().unwrap());
    let error = keys(&[KEY]).accept(OTHER_SIGNATURE).unwrap_err();
    assert_eq!(error, SignatureError::UnknownKey { id: other.id(), trusted: vec![key.id()] });
    let text = error.to_string();
    assert!(text.contains(&key.id().to_string()) && text.contains(&other.id().to_string()), "{text}");
    assert!(keys(&[]).accept(SIGNATURE).unwrap_err().to_string().ends_with("trusted is none"));
}

#[test]
fn an_altered_trusted_comment_or_signature_is_refused_before_the_image_is_seen() {
    let key = keys(&[KEY]);
    let altered = Err(SignatureError::Altered { id: key.0[0].id() });
    assert_eq!(key.accept(&SIGNATURE.replace("made for", "made by")), altered);
    assert_eq!(key.accept(&SIGNATURE.replace("a test\n", "a test \n")), altered);
    // The signature itself, anywhere: the comment's signature covers it.
    let mut lines: Vec<&str> = SIGNATURE.lines().collect();
    let mut bytes = BASE64.decode(lines[1]).unwrap();
    bytes[73] ^= 1;
    let line = BASE64.encode(bytes);
    lines[1] = &line;
    assert_eq!(key.accept(&lines.join("\n")), altered);
}

#[test]
fn a_key_that_only_claims_a_trusted_id_does_not_count() {
    let (key, other): (PublicKey, PublicKey) = (KEY.parse().unwrap(), OTHER_KEY.parse().unwrap());
    let impostor = TrustedKeys(vec![PublicKey { id: key.id, point: other.point }]);
    assert_eq!(impostor.accept(SIGNATURE), Err(SignatureError::Altered { id: key.id }));
    // The right one beside it does.
    assert!(TrustedKeys(vec![impostor.0[0], key]).accept(SIGNATURE).is_ok());
}

#[test]
fn a_legacy_signature_is_refused_with_the_remedy() {
    let text = keys(&[KEY]).accept(LEGACY).unwrap_err().to_string();
    assert!(text.contains("legacy") && text.contains("minisign -S -H"), "{text}");
}

#[test]
fn any_other_text_is_no_signature() {
    let key = keys(&[KEY]);
    let lines: Vec<&str> = SIGNATURE.lines().collect();
    for length in 0..4 {
        let part = lines[..length].join("\n");
        assert!(matches!(key.accept(&part), Err(SignatureError::Format(_))), "{part}");
    }
    for text in [KEY, "<html>not found</html>", "untrusted comment: x\n\u{1F980}\n", &"\0".repeat(400)] {
        assert!(matches!(key.accept(text), Err(SignatureError::Format(_))), "{text}");
    }
    // Line ends of another system change nothing; a comment's own space does (above).
    assert!(key.accept(&SIGNATURE.replace('\n', "\r\n")).is_ok());
}
