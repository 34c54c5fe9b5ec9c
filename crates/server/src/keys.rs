//! Who may ask.

use std::fmt;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Before the key among the protocols that a WebSocket offers, as browsers' clients of OpenAI do.
const OFFERED_KEY: &str = "openai-insecure-api-key.";
/// Fewest characters of a key: shorter ones can be guessed.
pub const KEY_CHARS: usize = 16;

/// The keys that are accepted; with none, everybody may ask. Only their hashes are kept.
#[derive(Clone, Default)]
pub struct Keys {
    hashes: Vec<[u8; 32]>,
}

/// Who asks: a number that tells keys apart, 0 where none is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Caller(pub u64);

/// What is wrong with a file of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key that is too short, or not of visible ASCII characters.
    #[error("the key in line {line} has to have at least {KEY_CHARS} characters, all of them visible ASCII")]
    Key {
        /// From 1.
        line: usize,
    },
    /// No key at all.
    #[error("there is no key")]
    None,
}

impl Keys {
    /// One key a line; empty lines and lines that begin with `#` are left out.
    ///
    /// # Errors
    /// [`KeyError`] naming the line, never the key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut hashes = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if key.len() < KEY_CHARS || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(KeyError::Key { line: index + 1 });
            }
            hashes.push(hash(key.as_bytes()));
        }
        if hashes.is_empty() { Err(KeyError::None) } else { Ok(Self { hashes }) }
    }

    /// Whether everybody may ask.
    pub fn is_open(&self) -> bool {
        self.hashes.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Who asks with these headers, `authorization: Bearer KEY` or `x-api-key: KEY`; `None` if nobody that may. A browser can
    /// not set headers of a WebSocket: it offers the protocol `openai-insecure-api-key.KEY`.
    pub fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        if self.is_open() {
            return Some(Caller(0));
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
        });
        let offered = || {
            let protocols = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
            let key = protocols.split(',').find_map(|one| one.trim().strip_prefix(OFFERED_KEY))?;
            Some(key.as_bytes())
        };
        let key = bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes())).or_else(offered)?;
        self.find(key)
    }

    /// Compares with every key, whichever is the right one, and takes the same time for each.
    fn find(&self, key: &[u8]) -> Option<Caller> {
        let given = hash(key);
        let (mut found, mut caller) = (Choice::from(0), 0);
        for known in &self.hashes {
            let equal = known.ct_eq(&given);
            found |= equal;
            caller.conditional_assign(&number(known), equal);
        }
        bool::from(found).then_some(Caller(caller))
    }
}

fn hash(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// A key's number; never 0, which is nobody's.
fn number(hash: &[u8; 32]) -> u64 {
    let (first, _) = hash.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first) | 1
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.hashes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(axum::http::HeaderName::from_static(name), value.parse().expect("a value"))])
    }

    #[test]
    fn each_key_is_a_caller_of_its_own() {
        let keys = Keys::parse("# team a\nsk-aaaaaaaaaaaaaaaa\n\n  sk-bbbbbbbbbbbbbbbb \n").expect("two keys");
        assert_eq!(keys.len(), 2);
        let a = keys.caller(&headers("authorization", "Bearer sk-aaaaaaaaaaaaaaaa"));
        let b = keys.caller(&headers("x-api-key", "sk-bbbbbbbbbbbbbbbb"));
        assert!(a.is_some() && b.is_some() && a != b);
        assert_eq!(a, keys.caller(&headers("authorization", "bEARER sk-aaaaaaaaaaaaaaaa")));
        for (name, value) in [
            ("authorization", "sk-aaaaaaaaaaaaaaaa"),
            ("authorization", "Bearer sk-aaaaaaaaaaaaaaa"),
            ("authorization", "Bearer sk-aaaaaaaaaaaaaaaa "),
            ("authorization", "Bearer  sk-aaaaaaaaaaaaaaaa"),
            ("authorization", "Basic sk-aaaaaaaaaaaaaaaa"),
            ("authorization", ""),
            ("x-api-key", "SK-AAAAAAAAAAAAAAAA"),
        ] {
            assert_eq!(keys.caller(&headers(name, value)), None, "{name}: {value}");
        }
        assert_eq!(keys.caller(&HeaderMap::new()), None);
        assert_eq!(Keys::default().caller(&HeaderMap::new()), Some(Caller(0)));
    }

    #[test]
    fn a_key_that_can_be_guessed_is_refused_without_being_shown() {
        assert_eq!(Keys::parse("\nshort").err(), Some(KeyError::Key { line: 2 }));
        assert_eq!(Keys::parse("sk-ääääääääääääääää").err(), Some(KeyError::Key { line: 1 }));
        assert_eq!(Keys::parse("# nothing\n").err(), Some(KeyError::None));
        let keys = Keys::parse("sk-aaaaaaaaaaaaaaaa").expect("a key");
        assert_eq!(format!("{keys:?}"), "1 keys");
    }
}
