//! From the bytes of a body to a value, or to an error that names the field.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::app::App;
use crate::error::{Code, Error};

/// Most fields that are listed as ignored, and the most characters of one.
const NOTES: [usize; 2] = [32, 80];

/// A body that a route reads.
pub trait Wire: DeserializeOwned {
    /// Whether it may hold images and clips.
    const MEDIA: Media = Media::None;
}

/// Whether a body may hold images and clips of audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// No.
    None,
    /// If the model takes any.
    Allowed,
}

/// A body of JSON.
#[derive(Debug)]
pub struct Json<T>(pub T);

/// What a request's answer has to mention: fields that nobody read. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    /// Mentions a field.
    pub fn ignored(&self, field: &str) {
        let mut fields = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if fields.len() < NOTES[0] {
            // It goes into a header: other characters could break out of it.
            let plain = |c: char| if c.is_ascii_alphanumeric() || "._-[]".contains(c) { c } else { '?' };
            fields.push(field.chars().take(NOTES[1]).map(plain).collect());
        }
    }

    /// The fields, as a header has them; `None` for none.
    pub fn header(&self) -> Option<String> {
        let fields = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!fields.is_empty()).then(|| fields.join(", "))
    }
}

impl<T: Wire> FromRequest<App> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let limits = app.limits();
        let is_json =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|kind| {
                kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
            });
        if !is_json {
            return Err(Error::MediaType);
        }
        let limit_bytes = match T::MEDIA {
            Media::Allowed if app.model().clips.is_some() => limits.body_with_audio_bytes,
            Media::Allowed if app.model().tiles.is_some() => limits.body_with_images_bytes,
            Media::Allowed | Media::None => limits.body_bytes,
        };
        let notes = request.extensions().get::<Notes>().cloned().unwrap_or_default();
        let bytes = read(request.into_body(), limit_bytes, app).await?;
        let (value, ignored) = parse(&bytes, limits.json_depth)?;
        ignored.iter().for_each(|field| notes.ignored(field));
        Ok(Self(value))
    }
}

/// What stands behind the question mark of a request's address.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Error> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query
            .map(|query| Self(query.0))
            .map_err(|error| Error::field("query", format!("can not be read: {}", error.body_text())))
    }
}

/// [`Params`] as they stand there: for names that hold others, as `metadata[a]`.
pub type Pairs = Vec<(String, String)>;

/// All bytes of `body`, counted while they arrive.
///
/// # Errors
/// [`Error::TooLarge`], [`Error::SlowBody`], and [`Error::Malformed`] if the connection breaks.
pub async fn read(mut body: Body, limit_bytes: usize, app: &App) -> Result<Bytes, Error> {
    let too_large = Error::TooLarge { limit_bytes };
    let declared = axum::body::HttpBody::size_hint(&body).lower();
    if usize::try_from(declared).map_or(true, |bytes| bytes > limit_bytes) {
        return Err(too_large);
    }
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::Malformed(format!("the body broke off: {error}")))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len().saturating_add(data.len()) > limit_bytes {
                    return Err(too_large.clone());
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(())
    };
    tokio::time::timeout(app.limits().body_time, reading).await.map_err(|_| Error::SlowBody)??;
    Ok(bytes.into())
}

/// Reads JSON of at most `depth` lists and objects inside each other. Gives the fields that nobody read beside the value.
///
/// # Errors
/// [`Error::Field`] naming the field that is wrong or missing, [`Error::Malformed`] for what is no JSON.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], depth: usize) -> Result<(T, Vec<String>), Error> {
    check_depth(bytes, depth)?;
    let mut ignored = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let value = serde_ignored::deserialize(tracked, |path| {
        if ignored.len() < NOTES[0] {
            // Fields that may be missing stand in the path as question marks.
            ignored.push(path.to_string().replace(".?", ""));
        }
    });
    match value {
        Ok(value) => {
            json.end().map_err(|error| Error::Malformed(format!("the body is not JSON: {error}")))?;
            Ok((value, ignored))
        }
        Err(error) => Err(refusal(&error, &track.path().to_string())),
    }
}

/// What a wrong body is answered with.
fn refusal(error: &serde_json::Error, path: &str) -> Error {
    let text = error.to_string();
    let why = text.rsplit_once(" at line ").map_or(text.as_str(), |(why, _)| why);
    let is_number = why == "number out of range";
    if !error.is_data() && !is_number {
        return Error::Malformed(format!("the body is not JSON: {text}"));
    }
    let inside = if path == "." { None } else { Some(path) };
    let named = |field: &str| inside.map_or(field.to_owned(), |path| format!("{path}.{field}"));
    if let Some(field) = why.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return Error::missing(named(field));
    }
    if let Some(field) = why.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
        return Error::field(named(field), "is given twice");
    }
    match inside {
        Some(path) => {
            Error::Field { param: path.into(), why: format!("can not be read: {why}"), code: Code::InvalidValue }
        }
        None => Error::Malformed(format!("the body has to be an object: {why}")),
    }
}

/// Counts brackets outside of strings, before anything is allocated.
fn check_depth(bytes: &[u8], limit: usize) -> Result<(), Error> {
    let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limit {
                    return Err(Error::Malformed(format!("the body is nested deeper than {limit} levels")));
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Inner {
        #[serde(rename = "x")]
        _x: u32,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Outer {
        #[serde(rename = "list")]
        _list: Vec<Inner>,
    }

    #[test]
    fn the_wrong_field_is_named() {
        let of = |text: &str| parse::<Outer>(text.as_bytes(), 4);
        for (text, want) in [
            (r#"{"list":[{"x":1},{"x":"a"}]}"#, Some("list[1].x")),
            (r#"{"list":[{"x":-1}]}"#, Some("list[0].x")),
            (r#"{"list":[{}]}"#, Some("list[0].x")),
            (r#"{"list":[],"list":[]}"#, Some("list")),
            (r#"{}"#, Some("list")),
            (r#"{"list":3}"#, Some("list")),
            ("[]", None),
            ("", None),
            (r#"{"list":[]} x"#, None),
            ("[[[[[1]]]]]", None),
            ("{\"list\":[],\"a\":\"\u{1}\"}", None),
        ] {
            let error = of(text).expect_err(text);
            let param = if let Error::Field { param, .. } = &error { Some(param.as_str()) } else { None };
            assert_eq!(param, want, "{text}: {error:?}");
        }
        let (_, ignored) = of(r#"{"list":[{"x":1,"y":[2]}],"z":{"a":1}}"#).expect("two unread fields");
        assert_eq!(ignored, ["list.0.y", "z"]);
        assert!(of("{\"list\":[],\"a\":\"[[[[[[[[\\\"[[[\"}").is_ok());
    }
}
