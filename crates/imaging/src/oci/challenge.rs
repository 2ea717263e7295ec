//! The `WWW-Authenticate` header of registries. Pure. Source: RFC 9110 section 11.6.1; distribution's token specification.

use url::Url;

/// How a registry wants to be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With user and password.
    Basic,
    /// With a token that another server gives out.
    Bearer(Bearer),
}

/// Where tokens come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut bearer = Bearer { realm: String::new(), service: None, scope: None };
        for (key, value) in parameters_of(parameters) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => bearer.realm = value,
                "service" => bearer.service = Some(value),
                "scope" => bearer.scope = Some(value),
                _ => {}
            }
        }
        (!bearer.realm.is_empty()).then_some(Challenge::Bearer(bearer))
    }
}

impl Bearer {
    /// The URL to ask. `scope` is used where the registry named none.
    pub(super) fn url(&self, scope: &str) -> Option<Url> {
        let mut url = Url::parse(&self.realm).ok()?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", self.scope.as_deref().unwrap_or(scope));
        }
        Some(url)
    }
}

/// `key="value"` pairs, separated by commas; values may be quoted and hold commas.
fn parameters_of(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                let (value, left) = after.split_at(end);
                (value.trim().to_owned(), left)
            }
        };
        pairs.push((key.trim().to_owned(), value));
        rest = left.trim_start_matches([',', ' ', '\t']);
    }
    pairs
}

/// What stands before the closing quote, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, text.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read() {
        let header = r#"Bearer realm="https://auth.example/token",service="registry, the \"best\"",scope="repository:a/b:pull""#;
        let Some(Challenge::Bearer(bearer)) = Challenge::parse(header) else { panic!("not read") };
        assert_eq!(bearer.service.as_deref(), Some("registry, the \"best\""));
        let url = bearer.url("other").unwrap();
        assert_eq!(
            url.as_str(),
            "https://auth.example/token?service=registry%2C+the+%22best%22&scope=repository%3Aa%2Fb%3Apull"
        );
        let plain = Challenge::parse("bearer realm=https://a/t").unwrap();
        let Challenge::Bearer(bearer) = plain else { panic!("not read") };
        assert_eq!(bearer.url("s").unwrap().as_str(), "https://a/t?scope=s");
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(Challenge::parse("Digest realm=\"x\""), None);
        assert_eq!(Challenge::parse("Bearer service=\"x\""), None);
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "\\PC{0,60}", bearer in any::<bool>()) {
            let text = if bearer { format!("Bearer {text}") } else { text };
            let _ = Challenge::parse(&text);
        }
    }
}
