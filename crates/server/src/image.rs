//! Images of requests: inside of them, or at a URL.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::app::App;
use crate::error::Error;
use crate::prompt::{Detail, Source};

/// Most bytes of a URL that is no data.
const URL_BYTES: usize = 2048;

/// What `image_url.url` names. Data is decoded; an address is only looked at.
///
/// # Errors
/// [`Error::Field`] naming `field`.
pub fn source(url: &str, field: &str) -> Result<Source, Error> {
    if let Some((scheme, rest)) = url.split_at_checked(5)
        && scheme.eq_ignore_ascii_case("data:")
    {
        let (kind, data) = rest.split_once(',').ok_or_else(|| Error::field(field, "is a data URL without data"))?;
        let is_base64 = kind.split(';').next_back().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
        if !is_base64 {
            return Err(Error::field(field, "is a data URL that is not base64"));
        }
        return base64(data, field).map(Source::Bytes);
    }
    if url.len() > URL_BYTES {
        return Err(Error::field(field, format!("has {} bytes; the limit is {URL_BYTES}", url.len())));
    }
    Ok(Source::Url(url.to_owned()))
}

/// The bytes of base64, with or without its padding.
///
/// # Errors
/// [`Error::Field`] naming `field`.
pub fn base64(text: &str, field: &str) -> Result<Vec<u8>, Error> {
    let text = text.trim();
    let decoded = if text.ends_with('=') { STANDARD.decode(text) } else { STANDARD_NO_PAD.decode(text) };
    decoded.map_err(|error| Error::field(field, format!("is no base64: {error}")))
}

/// `detail` of an image.
///
/// # Errors
/// [`Error::Field`] naming `field`.
pub fn detail(detail: Option<&str>, field: &str) -> Result<Detail, Error> {
    match detail {
        None | Some("auto" | "high" | "original") => Ok(Detail::High),
        Some("low") => Ok(Detail::Low),
        Some(other) => Err(Error::field(field, format!("is {other:?}; it must be auto, low or high"))),
    }
}

/// The bytes at `url`.
///
/// # Errors
/// [`Error::Field`] naming `field`.
pub async fn fetch(url: String, field: &str, app: &App) -> Result<Vec<u8>, Error> {
    let Some(fetcher) = app.fetcher().cloned() else {
        return Err(Error::unsupported(
            field,
            "is an address, and this server fetches no images: send a data URL, or start it with --allow-image-urls",
        ));
    };
    let fetched = app.pool().fetch(move || fetcher.fetch(&url)).await?;
    fetched.map_err(|error| Error::field(field, error.to_string()))
}
