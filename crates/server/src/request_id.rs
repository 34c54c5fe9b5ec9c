//! A name for every request, in its answer, its errors and its line in the log.

use axum::http::HeaderMap;

use crate::id;

/// Most characters of a name that a client gives.
const CHARS: usize = 64;

/// A request's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

impl RequestId {
    /// The name that the client gives, if it is a plain one; else a fresh one.
    pub fn of(headers: &HeaderMap) -> Self {
        let plain = |text: &&str| {
            (1..=CHARS).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let given = headers.get("x-request-id").and_then(|value| value.to_str().ok()).filter(plain);
        Self(given.map_or_else(|| id::fresh("req_"), str::to_owned))
    }
}
