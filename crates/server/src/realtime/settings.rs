//! What a session is told to do, from `session.update`.

use engine::media::audio::{GateSettings, RATE_HZ};
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::wire::{Real, Whole};

/// Milliseconds that `silence_duration_ms` and `prefix_padding_ms` may be.
const PAUSE_MS: [u64; 2] = [0, 10_000];

/// How a session listens and answers.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The system message.
    pub instructions: Option<String>,
    /// As in chats.
    pub temperature: Option<f64>,
    /// Tokens of an answer at most.
    pub max_output_tokens: Option<u64>,
    /// Samples a second of the audio that comes.
    pub rate_hz: u32,
    /// Whether the server says when a question is over; else the client commits.
    pub turns: Option<Turns>,
}

/// How the end of a question is noticed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turns {
    /// When somebody speaks.
    pub gate: GateSettings,
    /// Whether the end of a question asks for an answer.
    pub creates_response: bool,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { instructions: None, temperature: None, max_output_tokens: None, rate_hz: RATE_HZ, turns: None }
    }
}

impl SessionSettings {
    /// Takes over what `session` says; what it leaves out stays as it is.
    ///
    /// # Errors
    /// [`Error::Field`] naming the field that is wrong or not supported; nothing has changed then.
    pub fn update(&mut self, session: &Value) -> Result<(), Error> {
        let fields = session.as_object().ok_or_else(|| Error::field("session", "must be an object"))?;
        let mut new = self.clone();
        for (name, value) in fields {
            let field = format!("session.{name}");
            match name.as_str() {
                "type" => only(value, &field, "realtime")?,
                // The one that is served; which names it has was checked when the session began.
                "model" => {}
                "instructions" => new.instructions = text(value, &field)?,
                "temperature" => new.temperature = real(value, &field)?,
                "max_output_tokens" | "max_response_output_tokens" => new.max_output_tokens = tokens(value, &field)?,
                "modalities" | "output_modalities" => modalities(value, &field)?,
                "input_audio_format" => {
                    only(value, &field, "pcm16")?;
                }
                "turn_detection" => new.turns = turns(value, &field)?,
                "audio" => new.audio(value, &field)?,
                "tools" if value.as_array().is_some_and(Vec::is_empty) => {}
                _ => {
                    let why = "is not supported; instructions, temperature, max_output_tokens, output_modalities, \
                               turn_detection and audio.input are";
                    return Err(Error::unsupported(field, why));
                }
            }
        }
        *self = new;
        Ok(())
    }

    fn audio(&mut self, audio: &Value, field: &str) -> Result<(), Error> {
        for (name, value) in object(audio, field)? {
            let field = format!("{field}.{name}");
            if name != "input" {
                return Err(Error::unsupported(field, "is not supported: answers are text"));
            }
            for (name, value) in object(value, &field)? {
                let field = format!("{field}.{name}");
                match name.as_str() {
                    "format" => self.rate_hz = format(value, &field)?,
                    "turn_detection" => self.turns = turns(value, &field)?,
                    "noise_reduction" | "transcription" if value.is_null() => {}
                    _ => return Err(Error::unsupported(field, "is not supported; format and turn_detection are")),
                }
            }
        }
        Ok(())
    }

    /// As the client is told of it.
    pub fn json(&self, id: &str, model: &str) -> Value {
        let turns = self.turns.map(|turns| {
            json!({
                "type": "server_vad", "threshold": turns.gate.threshold,
                "silence_duration_ms": turns.gate.silence_ms, "prefix_padding_ms": turns.gate.padding_ms,
                "create_response": turns.creates_response,
            })
        });
        json!({
            "type": "realtime", "object": "realtime.session", "id": id, "model": model,
            "output_modalities": ["text"], "instructions": self.instructions, "temperature": self.temperature,
            "max_output_tokens": self.max_output_tokens.map_or_else(|| json!("inf"), Value::from),
            "audio": {"input": {"format": {"type": "audio/pcm", "rate": self.rate_hz}, "turn_detection": turns}},
            "tools": [],
        })
    }
}

fn object<'a>(value: &'a Value, field: &str) -> Result<&'a Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| Error::field(field, "must be an object"))
}

fn text(value: &Value, field: &str) -> Result<Option<String>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        _ => Err(Error::field(field, "must be a text")),
    }
}

fn only(value: &Value, field: &str, word: &str) -> Result<(), Error> {
    if value == word { Ok(()) } else { Err(Error::unsupported(field, format!("must be {word}"))) }
}

fn real(value: &Value, field: &str) -> Result<Option<f64>, Error> {
    match value {
        Value::Null => Ok(None),
        value => value.as_f64().map(Some).ok_or_else(|| Error::field(field, "must be a number")),
    }
}

fn tokens(value: &Value, field: &str) -> Result<Option<u64>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::String(inf) if inf == "inf" => Ok(None),
        value => value.as_u64().map(Some).ok_or_else(|| Error::field(field, "must be a whole number or \"inf\"")),
    }
}

fn modalities(value: &Value, field: &str) -> Result<(), Error> {
    match value.as_array().map(Vec::as_slice) {
        Some([Value::String(only)]) if only == "text" => Ok(()),
        _ => Err(Error::unsupported(field, "must be [\"text\"]: answers are text")),
    }
}

fn format(value: &Value, field: &str) -> Result<u32, Error> {
    only(value.get("type").unwrap_or(&Value::Null), &format!("{field}.type"), "audio/pcm")?;
    let rate = value.get("rate").map_or(Some(u64::from(RATE_HZ)), Value::as_u64);
    let rate = rate.and_then(|rate| u32::try_from(rate).ok()).filter(|rate| (4000..=192_000).contains(rate));
    rate.ok_or_else(|| Error::field(format!("{field}.rate"), "must be a whole number from 4000 to 192000"))
}

fn turns(value: &Value, field: &str) -> Result<Option<Turns>, Error> {
    if value.is_null() {
        return Ok(None);
    }
    let mut turns = Turns { gate: GateSettings::default(), creates_response: true };
    for (name, value) in object(value, field)? {
        let field = format!("{field}.{name}");
        let pause = || {
            let ms = value.as_u64().filter(|ms| (PAUSE_MS[0]..=PAUSE_MS[1]).contains(ms));
            ms.ok_or_else(|| Error::field(&field, format!("must be a whole number to {}", PAUSE_MS[1])))
        };
        match name.as_str() {
            "type" => only(value, &field, "server_vad")?,
            "threshold" => {
                let threshold = value.as_f64().filter(|threshold| (0.0..=1.0).contains(threshold));
                let threshold = threshold.ok_or_else(|| Error::field(&field, "must be a number from 0 to 1"))?;
                turns.gate.threshold = threshold as f32;
            }
            "silence_duration_ms" => turns.gate.silence_ms = pause()?,
            "prefix_padding_ms" => turns.gate.padding_ms = pause()?,
            "create_response" => {
                turns.creates_response =
                    value.as_bool().ok_or_else(|| Error::field(&field, "must be true or false"))?;
            }
            "interrupt_response" | "idle_timeout_ms" if value.is_null() || *value == false => {}
            _ => {
                let why = "is not supported; type, threshold, silence_duration_ms, prefix_padding_ms and \
                           create_response are";
                return Err(Error::unsupported(field, why));
            }
        }
    }
    Ok(Some(turns))
}

/// The fields of a session as chats have them.
pub fn asked(settings: &SessionSettings) -> crate::settings::Asked {
    crate::settings::Asked {
        temperature: settings.temperature.map(Real),
        max_tokens: ("max_output_tokens", settings.max_output_tokens.map(|n| Whole::Is(n.into()))),
        ..crate::settings::Asked::default()
    }
}
