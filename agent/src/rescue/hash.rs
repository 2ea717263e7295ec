//! Which texts are password hashes: those that crypt(3) of glibc, musl or libxcrypt returns (crypt(5)). Pure.

/// Longest hash in bytes: the size of crypt(3)'s buffer in libxcrypt, without the NUL.
const LONGEST: usize = 383;
/// Longest password in bytes that crypt(3) of libxcrypt takes.
pub const LONGEST_PASSWORD: usize = 511;

/// Returns true if a text is a hash of a scheme that a login program may know. The password behind it is not checked.
///
/// Words that lock an account (`*`, `!`, `x`) are no hashes, nor is a hash that lost its end.
pub fn is_hash(text: &str) -> bool {
    if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
        return false;
    }
    let Some(rest) = text.strip_prefix('$') else { return is_traditional(text) };
    let Some((scheme, rest)) = rest.split_once(['$', ',']) else { return false };
    match scheme {
        "1" => salted(rest, 22),
        "5" => salted(without_rounds(rest), 43),
        "6" => salted(without_rounds(rest), 86),
        "2a" | "2b" | "2x" | "2y" => is_bcrypt(rest),
        "y" | "gy" => {
            rest.split_once('$').is_some_and(|(cost, rest)| is_digits(cost, 1..) && salted(rest, 43))
        }
        "7" => salted(rest, 43),
        "sm3" => salted(without_rounds(rest), 43),
        "sha1" => rest.split_once('$').is_some_and(|(rounds, rest)| is_number(rounds) && salted(rest, 28)),
        // Sun's MD5 may have rounds behind a comma, and one or two dollars before the hash.
        "md5" => rest.rsplit_once('$').is_some_and(|(_, hash)| is_digits(hash, 22..=22)),
        "3" => rest
            .strip_prefix('$')
            .is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())),
        _ => false,
    }
}

/// DES: thirteen characters, of which two are the salt, and eleven more for each further eight of a password in its long form; or
/// an underscore, four of rounds, four of salt and eleven.
fn is_traditional(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(extended) => is_digits(extended, 19..=19),
        None => is_digits(text, 13..=178) && text.len() % 11 == 2,
    }
}

/// `SALT$HASH`; salts may hold what is no digit of a hash.
fn salted(text: &str, length: usize) -> bool {
    text.split_once('$').is_some_and(|(_, hash)| is_digits(hash, length..=length))
}

/// The rest behind `rounds=5000$`, where that is there.
fn without_rounds(text: &str) -> &str {
    match text.strip_prefix("rounds=").and_then(|rest| rest.split_once('$')) {
        Some((rounds, rest)) if is_number(rounds) => rest,
        Some(_) | None => text,
    }
}

/// `05$`, 22 characters of salt and 31 of hash.
fn is_bcrypt(text: &str) -> bool {
    text.split_once('$')
        .is_some_and(|(cost, rest)| cost.len() == 2 && is_number(cost) && is_digits(rest, 53..=53))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Digits of crypt(3): six bits each.
fn is_digits(text: &str, length: impl std::ops::RangeBounds<usize>) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    length.contains(&text.len()) && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What crypt(3) of libxcrypt 4.4 returns for one password; `openssl passwd` agrees where it knows the scheme.
    const HASHES: [&str; 18] = [
        "$1$ab$e2KlfqG5YBMTjSz7XF.Eu1",
        "$1$JuQMtCel$/6w1N8T/tH1sRSsMAdgra/",
        "$5$ab$5ydlOaPxAq0VpamGFK.BZgHF7HlR0erJsH.F7VB19f0",
        "$5$rounds=5000$ab$uBQPK5nh89waaCXDSRwBxzVzl.pS5fPkZnKN7HXbvj6",
        "$6$BdV7imkgR.QeKPgC$D0GKBhIoklRkvJyv/rVI/JQBL8TV.EcmHkc53kuR3XRzXq/0q2llQWgiKkEICbaLza4AG.LTisEauw/vLYOy20",
        "$6$rounds=1000$abcdefgh$nhYjN017qxiYztzyUpZtPnUQcnLy62KsunSLHNeLahp2EHPlAKmFFlrjEwSXGo2kgY5hR2.peKEg2VGUqIJJu1",
        "$2a$05$2cXp1Mry4SFrKiKpfxF0Ou/30x50nqrP/QgXY6Mxc/iOgZmANWv2i",
        "$2b$05$wobslgbhuEsX13v24jLYy.Biy46xHr6iZ2g49QgDYgR5euZ2csAuO",
        "$2y$05$VNBemGPwx0Eb9pvXSoyna.Z1/6RC9UBLEmJ.4tQwydps91wVBDTWG",
        "$y$j9T$lD.ixaEnIGJojQ3aBYHvr0$BOFKAtW0NA0sJDH.tTgEKBk70K05SGGt4.5nKdrDFV9",
        "$gy$j9T$JSlTg6cVLxZiIRE0N5rZB.$vpxPszfCEJ3KgFH70diZGKNlN0gW57MOEEmeFjWX5U9",
        "$7$CU..../....fdO5NTH70qReAhuSceXjZ1$Y6ZyzeixgUvRgAKCr7hAXRVqrksqGsrHT4hJyOMYzB3",
        "$sha1$219453$P25lrK2glzEiFxUdtBeI$w6LwbE3NtTy3vvlLcNJ9hKdClXfx",
        "$md5,rounds=35725$FElZLrhw$$GO2vRaaYFDDR6El4CPBqW.",
        "$md5$FElZLrhw$GO2vRaaYFDDR6El4CPBqW.",
        "_J9..y.Ey1OJOzO5ktvc",
        "F7EtXdY.FgIGE",
        "$3$$878d8014606cda29677a44efa1353fc7",
    ];

    #[test]
    fn hashes_of_every_scheme_are_hashes_and_lose_that_without_their_end() {
        for hash in HASHES {
            assert!(is_hash(hash), "{hash}");
            for wrong in
                [&hash[..hash.len() - 1], &format!("{hash}a"), &format!("!{hash}"), &format!(" {hash}")]
            {
                assert!(!is_hash(wrong), "{wrong}");
            }
        }
    }

    #[test]
    fn words_that_lock_an_account_and_plain_passwords_are_no_hashes() {
        for wrong in [
            "",
            "x",
            "*",
            "!",
            "!!",
            "*0",
            "*LK*",
            "!*",
            "secret",
            "$",
            "$$",
            "$6$",
            "$6$salt$",
            "$6$salt",
            "$6$salt$hash",
            "$2b$05$",
            "$9$salt$5ydlOaPxAq0VpamGFK.BZgHF7HlR0erJsH.F7VB19f0",
            "$5$a:b$5ydlOaPxAq0VpamGFK.BZgHF7HlR0erJsH.F7VB19f0",
            "{SSHA}5ydlOaPxAq0VpamGFK",
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "$5$rounds=5000$5ydlOaPxAq0VpamGFK.BZgHF7HlR0erJsH.F7VB19f",
        ] {
            assert!(!is_hash(wrong), "{wrong}");
        }
        assert!(!is_hash(&"a".repeat(100_000)));
    }

    proptest! {
        #[test]
        fn what_is_taken_fits_a_line_of_shadow(text in "[$./0-9a-z:,=\\PC]{0,60}") {
            prop_assert!(!is_hash(&text) || !text.contains([':', '\n']) && text.is_ascii());
        }
    }
}
