//! Audio of requests: from what a field holds to a sound that the model hears.

use std::sync::Arc;

use engine::media::audio::{AudioError, AudioFormat, Clip, ClipConfig, RATE_HZ, Sound, decode, probe};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::error::{Code, Error};
use crate::image;
use crate::prompt::{Kind, Medium, Source};

/// Samples that a byte of the leanest compressed audio holds, 8 kbit/s: what a file may come to whose header does not say.
const SAMPLES_PER_BYTE: u64 = 16;

/// `input_audio` of a part: bytes in base64, and what they are.
///
/// # Errors
/// [`Error::Field`] naming `field` or what is in it.
pub fn input(part: Option<&Value>, field: &str) -> Result<Medium, Error> {
    let within = |name: &str| format!("{field}.{name}");
    let part = part.ok_or_else(|| Error::missing(field))?;
    let text = |name: &str| match part.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        None | Some(Value::Null) => Err(Error::missing(within(name))),
        Some(_) => Err(Error::field(within(name), "must be a text")),
    };
    let bytes = image::base64(text("data")?, &within("data"))?;
    let format = format(text("format")?, &within("format"))?;
    Ok(Medium { field: within("data"), kind: Kind::Clip(Source::Bytes(bytes), Some(format)) })
}

/// `audio_url` of a part.
///
/// # Errors
/// [`Error::Field`] naming `field` or what is in it.
pub fn url(part: Option<&Value>, field: &str) -> Result<Medium, Error> {
    let part = part.ok_or_else(|| Error::missing(field))?;
    let name = format!("{field}.url");
    let url = part.get("url").and_then(Value::as_str).ok_or_else(|| Error::missing(name.clone()))?;
    let source = image::source(url, &name)?;
    Ok(Medium { field: name, kind: Kind::Clip(source, None) })
}

/// The format of this name.
///
/// # Errors
/// [`Error::Field`] naming `field`.
pub fn format(name: &str, field: &str) -> Result<AudioFormat, Error> {
    AudioFormat::named(name).ok_or_else(|| {
        let shown: String = name.chars().take(32).collect();
        Error::field(field, format!("is {shown:?}; it must be wav, mp3, flac, ogg, m4a or pcm16"))
    })
}

/// What a request with audio that can not be used is answered.
pub fn refused(field: &str, error: &AudioError) -> Error {
    Error::Field {
        param: field.into(),
        why: format!("can not be used: {error}"),
        code: Code::Audio(error.kind().code()),
    }
}

/// What a request with audio is answered by a model that has no ears.
pub fn not_supported(field: &str) -> Error {
    let why = "is audio; this model does not take audio".into();
    Error::Field { param: field.into(), why, code: Code::Audio("audio_not_supported") }
}

/// Decodes a clip within the memory that requests share. The permit holds what is left of it: the features.
///
/// # Errors
/// [`Error::Field`] naming `field`; [`Error::Busy`] where other requests hold the memory.
pub async fn sound(
    bytes: Vec<u8>,
    declared: Option<AudioFormat>,
    field: &str,
    app: &App,
) -> Result<(Sound, OwnedSemaphorePermit), Error> {
    let config = app.model().clips.clone().ok_or_else(|| not_supported(field))?;
    let limits = &app.limits().engine;
    let info = probe(&bytes, declared, limits).map_err(|error| refused(field, &error))?;
    let most = u64::from(limits.audio_seconds) * u64::from(RATE_HZ);
    let expected = info.n_samples.unwrap_or(bytes.len() as u64 * SAMPLES_PER_BYTE).min(most);
    let bytes: Arc<[u8]> = bytes.into();
    let (clip, mut permit) = match decoded(&bytes, declared, expected, (field, &config, app)).await? {
        // More than the header said, or than such a file has by rights.
        (Err(AudioError::TooLong { .. }), _) if expected < most => {
            decoded(&bytes, declared, most, (field, &config, app)).await?
        }
        done => done,
    };
    let clip = clip.map_err(|error| refused(field, &error))?;
    let feature_bytes = config.feature_bytes(clip.samples().len() as u64);
    let sound = app.pool().decode(move || config.sound(&clip)).await?;
    if let Some(left) = permit.split(app.pool().media_units(feature_bytes).min(permit.num_permits())) {
        permit = left;
    }
    Ok((sound, permit))
}

type Decoded = (Result<Clip, AudioError>, OwnedSemaphorePermit);

/// Decodes at most `n_samples`, having taken memory for them and their features.
async fn decoded(
    bytes: &Arc<[u8]>,
    declared: Option<AudioFormat>,
    n_samples: u64,
    (field, config, app): (&str, &ClipConfig, &App),
) -> Result<Decoded, Error> {
    let sample_bytes = usize::try_from(n_samples).unwrap_or(usize::MAX).saturating_mul(size_of::<f32>());
    let size_bytes = sample_bytes.saturating_add(config.feature_bytes(n_samples));
    let permit = app.media_memory(size_bytes, &format!("{field} needs"))?;
    let mut limits = app.limits().engine.clone();
    let seconds = n_samples.div_ceil(u64::from(RATE_HZ)).max(1);
    limits.audio_seconds = u32::try_from(seconds).unwrap_or(u32::MAX).min(limits.audio_seconds);
    // Whoever waits for it is gone when this is.
    let (waits, bytes) = (Arc::new(()), Arc::clone(bytes));
    let asked = Arc::downgrade(&waits);
    let clip = app.pool().decode(move || decode(&bytes, declared, &limits, &|| asked.strong_count() == 0)).await?;
    drop(waits);
    Ok((clip, permit))
}
