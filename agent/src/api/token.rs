//! The agent token: the only authentication there is, and only in the query string.

use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq;
use wire::Secret;

/// Shorter tokens of a lookup are none: `******` says that somebody has fetched it before.
const SHORTEST: usize = 32;
/// What a conductor shows when the token was fetched before.
const MASK: &str = "******";

/// The token of this boot; clones share it. Unknown until a lookup or the configuration tells it.
#[derive(Clone, Default)]
pub struct Token(Arc<RwLock<Option<Secret>>>);

/// What a lookup's token means for the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It is the token from now on.
    New,
    /// It is no token; the one that was known before stays.
    Kept,
    /// Somebody has fetched the token before, and this process does not know it: only a power cycle by the conductor helps.
    Lost,
}

impl Token {
    /// A token known before lookup, or none.
    pub fn new(known: Option<Secret>) -> Self {
        Self(Arc::new(RwLock::new(known)))
    }

    /// Whether `given` is the token. Takes equally long whatever it is.
    pub fn is(&self, given: Option<&str>) -> bool {
        match (&*self.read(), given) {
            (Some(known), Some(given)) => known.expose().as_bytes().ct_eq(given.as_bytes()).into(),
            _ => false,
        }
    }

    /// The token, for heartbeats.
    pub fn get(&self) -> Option<Secret> {
        self.read().clone()
    }

    /// Takes the token of a lookup, by the rules of the protocol (agent protocol page, 3.5 and 3.7).
    pub fn learn(&self, told: Option<&Secret>) -> Learned {
        match told {
            Some(token) if token.expose().len() >= SHORTEST => {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
                Learned::New
            }
            Some(token) if token.expose() == MASK && self.read().is_none() => Learned::Lost,
            _ => Learned::Kept,
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Option<Secret>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_opens_nothing_and_only_the_exact_one_opens() {
        let none = Token::default();
        assert!(!none.is(None) && !none.is(Some("")) && !none.is(Some("x")));
        let token = Token::new(Some(Secret::new("abc")));
        assert!(token.is(Some("abc")));
        assert!(!token.is(None) && !token.is(Some("")) && !token.is(Some("abcd")) && !token.is(Some("abd")));
    }

    #[test]
    fn lookups_teach_tokens_by_the_rules_of_the_protocol() {
        let long = Secret::new("x".repeat(43));
        let mask = Secret::new("******");
        let token = Token::default();
        assert_eq!(token.learn(None), Learned::Kept);
        assert_eq!(token.learn(Some(&Secret::new("short"))), Learned::Kept);
        assert_eq!(token.get(), None);
        assert_eq!(token.learn(Some(&mask)), Learned::Lost);
        assert_eq!(token.learn(Some(&long)), Learned::New);
        assert_eq!(token.learn(Some(&mask)), Learned::Kept);
        assert_eq!(token.get(), Some(long));
    }
}
