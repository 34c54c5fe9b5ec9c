//! A message that the client writes: `conversation.item.create`.

use engine::media::audio::AudioFormat;
use serde_json::Value;
use tokenizer::{Part, Role};

use crate::error::Error;
use crate::image;
use crate::prompt::{Kind, Medium, Source};

/// What an item holds.
pub struct Item {
    pub role: Role,
    pub content: Vec<Part>,
    pub media: Vec<Medium>,
    /// Bytes of its clips and images as they came.
    pub n_bytes: usize,
}

impl Item {
    /// Reads `item`, whose audio has `rate_hz` samples a second.
    ///
    /// # Errors
    /// [`Error::Field`] naming what is wrong or not supported.
    pub fn read(item: &Value, rate_hz: u32) -> Result<Self, Error> {
        if item.get("type").is_some_and(|kind| kind != "message") {
            return Err(Error::unsupported("item.type", "must be message"));
        }
        let role = match item.get("role").and_then(Value::as_str) {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system") => Role::System,
            _ => return Err(Error::field("item.role", "must be user, assistant or system")),
        };
        let parts = item.get("content").and_then(Value::as_array).ok_or_else(|| Error::missing("item.content"))?;
        let (mut content, mut media, mut n_bytes) = (Vec::new(), Vec::new(), 0);
        for (index, part) in parts.iter().enumerate() {
            let field = format!("item.content[{index}]");
            match part.get("type").and_then(Value::as_str) {
                Some("input_text" | "output_text" | "text") => {
                    let text = part.get("text").and_then(Value::as_str);
                    content.push(Part::Text(text.ok_or_else(|| Error::missing(format!("{field}.text")))?.to_owned()));
                }
                Some("input_audio") => {
                    let data = part.get("audio").and_then(Value::as_str);
                    let bytes = image::base64(
                        data.ok_or_else(|| Error::missing(format!("{field}.audio")))?,
                        &format!("{field}.audio"),
                    )?;
                    n_bytes += bytes.len();
                    let format = AudioFormat::Pcm16 { rate_hz };
                    media.push(Medium { field, kind: Kind::Clip(Source::Bytes(bytes), Some(format)) });
                    content.push(Part::Audio);
                }
                Some("input_image") => {
                    let url = part.get("image_url").and_then(Value::as_str);
                    let name = format!("{field}.image_url");
                    let source = image::source(url.ok_or_else(|| Error::missing(name.clone()))?, &name)?;
                    n_bytes += if let Source::Bytes(bytes) = &source { bytes.len() } else { 0 };
                    let detail = image::detail(part.get("detail").and_then(Value::as_str), &field)?;
                    media.push(Medium { field: name, kind: Kind::Image(source, detail) });
                    content.push(Part::Image);
                }
                _ => {
                    return Err(Error::field(
                        format!("{field}.type"),
                        "must be input_text, input_audio or input_image",
                    ));
                }
            }
        }
        Ok(Self { role, content, media, n_bytes })
    }
}
