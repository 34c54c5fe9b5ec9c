//! What a session tells its client.

use engine::service::Usage;
use serde_json::{Value, json};

use crate::error::{Error, Shape};
use crate::id;

/// An event of the kind `kind` with `fields`, an object.
pub fn event(kind: &str, mut fields: Value) -> Value {
    fields["type"] = kind.into();
    fields["event_id"] = id::fresh("event_").into();
    fields
}

/// What is wrong with an event of the client's, whose own name was `cause`.
pub fn error(error: &Error, cause: Option<&str>) -> Value {
    let mut body = error.body(Shape::OpenAi, "");
    let mut inner = body["error"].take();
    inner["event_id"] = cause.into();
    event("error", json!({ "error": inner }))
}

/// An answer on its way.
#[derive(Debug)]
pub struct Told {
    /// Of the response.
    pub id: String,
    /// Of its only item.
    pub item: String,
    /// Its text so far.
    pub text: String,
}

impl Told {
    /// An answer that has not begun.
    pub fn new() -> Self {
        Self { id: id::fresh("resp_"), item: id::fresh("item_"), text: String::new() }
    }

    fn place(&self, mut fields: Value) -> Value {
        fields["response_id"] = self.id.as_str().into();
        fields["output_index"] = 0.into();
        fields
    }

    fn part(&self, mut fields: Value) -> Value {
        fields["item_id"] = self.item.as_str().into();
        fields["content_index"] = 0.into();
        self.place(fields)
    }

    fn item(&self, status: &str, content: &Value) -> Value {
        json!({
            "id": self.item, "object": "realtime.item", "type": "message", "role": "assistant", "status": status,
            "content": content,
        })
    }

    fn response(&self, status: &str, details: &Value, output: &Value, usage: &Value) -> Value {
        json!({
            "id": self.id, "object": "realtime.response", "status": status, "status_details": details,
            "output": output, "output_modalities": ["text"], "usage": usage,
        })
    }

    /// What comes before any text.
    pub fn begin(&self) -> [Value; 3] {
        let response = self.response("in_progress", &Value::Null, &json!([]), &Value::Null);
        let part = json!({"part": {"type": "output_text", "text": ""}});
        [
            event("response.created", json!({ "response": response })),
            event("response.output_item.added", self.place(json!({"item": self.item("in_progress", &json!([]))}))),
            event("response.content_part.added", self.part(part)),
        ]
    }

    /// More of the text.
    pub fn delta(&mut self, text: &str) -> Value {
        self.text.push_str(text);
        event("response.output_text.delta", self.part(json!({ "delta": text })))
    }

    /// What comes after the text. `status` is `completed`, `incomplete`, `cancelled` or `failed`, and `details` says why.
    pub fn end(&self, status: &str, details: &Value, usage: Usage) -> [Value; 4] {
        let content = json!([{"type": "output_text", "text": self.text}]);
        let item = self.item(if status == "completed" { status } else { "incomplete" }, &content);
        let usage = json!({
            "total_tokens": usage.n_prompt + usage.n_completion,
            "input_tokens": usage.n_prompt,
            "output_tokens": usage.n_completion,
            "input_token_details": {
                "text_tokens": usage.n_prompt.saturating_sub(usage.n_audio), "audio_tokens": usage.n_audio,
                "cached_tokens": usage.n_cached,
            },
            "output_token_details": {"text_tokens": usage.n_completion, "audio_tokens": 0},
        });
        let response = self.response(status, details, &json!([item.clone()]), &usage);
        [
            event("response.output_text.done", self.part(json!({"text": self.text}))),
            event("response.content_part.done", self.part(json!({"part": content[0].clone()}))),
            event("response.output_item.done", self.place(json!({ "item": item }))),
            event("response.done", json!({ "response": response })),
        ]
    }
}
