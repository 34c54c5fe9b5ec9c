//! The events of a response that is kept: those of its making, except that each text comes in one piece.

use serde_json::{Value, json};

use crate::sse::Out;

/// Events that are written down, numbered from 0.
struct Events<'a> {
    out: &'a mut Out,
    /// Those up to this one are left out.
    after: Option<u64>,
    sequence: u64,
}

/// Writes the events of `response` whose numbers are larger than `after`.
pub fn write(response: &Value, after: Option<u64>, out: &mut Out) {
    let mut events = Events { out, after, sequence: 0 };
    let mut begun = response.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    for field in ["usage", "completed_at", "error", "incomplete_details"] {
        begun[field] = Value::Null;
    }
    events.send("response.created", json!({"response": begun}));
    events.send("response.in_progress", json!({"response": begun}));
    for (index, item) in response["output"].as_array().into_iter().flatten().enumerate() {
        events.item(index, item);
    }
    let status = match response["status"].as_str() {
        // No event has this name.
        Some("cancelled") | None => "incomplete",
        Some(status) => status,
    };
    events.send(&format!("response.{status}"), json!({"response": response}));
}

impl Events<'_> {
    fn send(&mut self, name: &str, mut fields: Value) {
        let number = self.sequence;
        self.sequence += 1;
        if self.after.is_some_and(|after| number <= after) {
            return;
        }
        fields["type"] = name.into();
        fields["sequence_number"] = number.into();
        self.out.event(name, &fields);
    }

    fn item(&mut self, index: usize, item: &Value) {
        let mut begun = item.clone();
        for (field, empty) in [("content", json!([])), ("arguments", json!("")), ("status", json!("in_progress"))] {
            if let Some(value) = begun.get_mut(field) {
                *value = empty;
            }
        }
        self.send("response.output_item.added", json!({"output_index": index, "item": begun}));
        let id = &item["id"];
        if let Some(arguments) = item.get("arguments") {
            let delta = json!({"item_id": id, "output_index": index, "delta": arguments});
            self.send("response.function_call_arguments.delta", delta);
            let done = json!({"item_id": id, "output_index": index, "arguments": arguments});
            self.send("response.function_call_arguments.done", done);
        }
        for (at, part) in item["content"].as_array().into_iter().flatten().enumerate() {
            self.part(json!({"item_id": id, "output_index": index, "content_index": at}), part);
        }
        self.send("response.output_item.done", json!({"output_index": index, "item": item}));
    }

    fn part(&mut self, at: Value, part: &Value) {
        let with = |fields: &[(&str, &Value)]| {
            let mut all = at.clone();
            for (name, value) in fields {
                all[*name] = (*value).clone();
            }
            all
        };
        let kind = part["type"].as_str().unwrap_or_default();
        let (text, logprobs) = (&part["text"], part.get("logprobs"));
        let mut begun = part.clone();
        begun["text"] = json!("");
        if let Some(logprobs) = begun.get_mut("logprobs") {
            *logprobs = json!([]);
        }
        self.send("response.content_part.added", with(&[("part", &begun)]));
        let probable = |name: &'static str| match logprobs {
            Some(logprobs) => with(&[(name, text), ("logprobs", logprobs)]),
            None => with(&[(name, text)]),
        };
        self.send(&format!("response.{kind}.delta"), probable("delta"));
        self.send(&format!("response.{kind}.done"), probable("text"));
        self.send("response.content_part.done", with(&[("part", part)]));
    }
}
