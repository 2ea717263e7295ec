//! Credentials for image servers and registries, from a file: never from the command line, where everybody can read them.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hardware_managers::Credentials;
use serde::Deserialize;
use wire::Secret;

use super::offline::Failed;

/// What podman and docker keep in `auth.json` and `config.json`.
#[derive(Deserialize)]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// Base64 of `user:password`.
    auth: Option<Secret>,
}

/// The value of the `Authorization` header for `urls`, from a file with one of: `user:password`; a complete header value
/// (`Bearer ...`, `Basic ...`); podman's or docker's `auth.json`.
///
/// # Errors
/// The file can not be read or holds nothing for the host; or the URLs name several hosts, as credentials are for one.
pub(super) fn read(path: &Path, urls: &[String]) -> Result<Secret, Failed> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failed::usage(format!("reading credentials {}: {error}", path.display())))?;
    let mut places = urls.iter().filter_map(|url| place(url));
    let place = places.next().ok_or_else(|| {
        Failed::usage("credentials are for http, https and oci URLs, and none is given".to_owned())
    })?;
    if let Some(other) = places.find(|other| host(other) != host(&place)) {
        return Err(Failed::usage(format!(
            "credentials are for one host, and the URLs name {} and {}: use one of them",
            host(&place),
            host(&other)
        )));
    }
    parse(&text, &place).map_err(|reason| Failed::usage(format!("credentials {}: {reason}", path.display())))
}

/// `host:port/path` of a URL that credentials are sent to.
fn place(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let is_remote = ["http", "https", "oci"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or_default();
    is_remote.then(|| format!("{host}/{path}"))
}

fn host(place: &str) -> &str {
    place.split('/').next().unwrap_or_default()
}

fn parse(text: &str, place: &str) -> Result<Secret, String> {
    let text = text.trim();
    if text.starts_with('{') {
        // Not the parser's own words: they quote what they stumble over.
        let file: AuthFile = serde_json::from_str(text).map_err(|_| "it is no auth.json".to_owned())?;
        return from_auth_file(file, place);
    }
    if text.is_empty() || text.contains(['\n', '\r']) {
        return Err("it is neither one line nor an auth.json".to_owned());
    }
    let scheme = text.split(' ').next().unwrap_or_default();
    if scheme.len() < text.len() && ["bearer", "basic"].iter().any(|s| scheme.eq_ignore_ascii_case(s)) {
        return Ok(Secret::new(text));
    }
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok(Credentials { user: user.to_owned(), password: Secret::new(password) }.header())
        }
        _ => Err("it holds neither user:password, nor a header value, nor an auth.json".to_owned()),
    }
}

/// The entry of the longest name that the place begins with, as podman chooses. Source: containers-auth.json(5).
fn from_auth_file(file: AuthFile, place: &str) -> Result<Secret, String> {
    let bare = |key: &str| {
        let key = key.split_once("://").map_or(key, |(_, rest)| rest);
        // Docker's own registry is written `https://index.docker.io/v1/`.
        key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2").to_owned()
    };
    let begins = |key: &str| {
        place.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
    };
    let mut fitting: Vec<(String, Entry)> = file
        .auths
        .into_iter()
        .map(|(key, entry)| (bare(&key), entry))
        .filter(|(key, _)| begins(key))
        .collect();
    fitting.sort_by_key(|(key, _)| key.len());
    let (key, entry) = fitting.pop().ok_or_else(|| format!("it has no entry for {}", host(place)))?;
    let auth = entry.auth.ok_or_else(|| {
        format!("its entry for {key} has no auth: a credential helper keeps it, which is not asked")
    })?;
    let is_pair = BASE64.decode(auth.expose().trim()).is_ok_and(|pair| pair.contains(&b':'));
    if !is_pair {
        return Err(format!("its entry for {key} is not base64 of user:password"));
    }
    Ok(Secret::new(format!("Basic {}", auth.expose().trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str, url: &str) -> Result<String, String> {
        parse(text, &place(url).unwrap()).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn pairs_headers_and_auth_files_are_read() {
        let url = "oci://quay.io/org/disk:v1";
        assert_eq!(header("u:p:w\n", url).unwrap(), "Basic dTpwOnc=");
        assert_eq!(header("Bearer abc", url).unwrap(), "Bearer abc");
        let file = r#"{"auths": {"quay.io": {"auth": "dTpw"}, "https://quay.io/org": {"auth": "dTpx"},
            "quay.io/organ": {"auth": "x"}, "other": {}}, "credHelpers": {}}"#;
        assert_eq!(header(file, url).unwrap(), "Basic dTpx");
        assert_eq!(header(file, "https://quay.io/blob").unwrap(), "Basic dTpw");
        let docker = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}"#;
        assert_eq!(header(docker, "oci://index.docker.io/library/disk").unwrap(), "Basic dTpw");
    }

    #[test]
    fn what_can_not_work_is_told_without_the_secret() {
        let file = r#"{"auths": {"quay.io": {"auth": "hush"}, "helped.example": {}}}"#;
        for (text, url, word) in [
            ("", "http://h/x", "neither one line"),
            ("hush", "http://h/x", "user:password"),
            (":hush", "http://h/x", "user:password"),
            ("hush\nhush", "http://h/x", "one line"),
            ("{\"auths\": \"hush\"}", "http://h/x", "no auth.json"),
            (file, "http://h:80/x", "no entry for h:80"),
            (file, "oci://quay.io/x", "not base64"),
            (file, "oci://helped.example/x", "credential helper"),
        ] {
            let error = header(text, url).unwrap_err();
            assert!(error.contains(word) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn credentials_go_to_one_host() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "u:p").unwrap();
        let read = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            read(file.path(), &urls).map(|_| ()).map_err(|failed| failed.message)
        };
        read(&["http://h/a", "https://h/b", "oci://h/c", "file:///d"]).unwrap();
        assert!(read(&["http://h/a", "http://i/a"]).unwrap_err().contains("h and i"));
        assert!(read(&["http://h/a", "http://h:8080/a"]).is_err());
        assert!(read(&["file:///d"]).is_err());
    }
}
