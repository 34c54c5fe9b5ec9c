//! `POST /v1/responses/compact`: a conversation that has become long, as one item that others can go on from.

use axum::extract::{Extension, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::thinking::Ask;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizer::{Message, Role};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::responses::{earlier, own_items};
use super::{json, model};
use crate::answer::{Answers, Keeps};
use crate::app::App;
use crate::body::{Json, Media, Wire};
use crate::error::Error;
use crate::keys::Caller;
use crate::prompt::Conversation;
use crate::refusals::Refusals;
use crate::settings::Asked;
use crate::tools::Hearing;
use crate::wire::OneOrMany;
use crate::wire::responses::{Item, TextOrItems, Usage};
use crate::work::Work;
use crate::{id, items, unsupported};

/// What the model is asked.
const QUESTION: &str = "Summarise this conversation for somebody who has to go on with it and has not seen it. Keep names, \
     numbers, decisions, what was asked for and what is still open.";
/// What stands before a summary where a conversation goes on.
const HEAD: &str = "A summary of the conversation so far:\n\n";
/// What contents of this server begin with.
const MARK: &str = "puna1.";

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(compact))
}

/// The text that stands for the content of a compaction; `None` for what does not come from here.
pub fn read(content: &str) -> Option<String> {
    let bytes = STANDARD.decode(content.strip_prefix(MARK)?).ok()?;
    Some(format!("{HEAD}{}", String::from_utf8(bytes).ok()?))
}

/// A conversation that is to become shorter.
#[derive(Debug, Deserialize, ToSchema)]
struct CompactRequest {
    /// A name of the served model. What another name does is a setting of the server.
    model: Option<String>,
    /// A text, or items.
    #[schema(value_type = Option<TextOrItems>)]
    input: Option<OneOrMany<Item>>,
    /// What the operator wants of the model.
    instructions: Option<String>,
    /// The response whose conversation comes before.
    previous_response_id: Option<String>,
    /// Only `auto` and `disabled` as `context_compression`: images stay as they are.
    #[schema(value_type = Option<Object>)]
    image: Option<Value>,
    /// Only `auto` and `default`.
    service_tier: Option<String>,
    /// A hint which requests begin alike. Changes nothing: equal beginnings are found by themselves.
    #[serde(rename = "prompt_cache_key")]
    _prompt_cache_key: Option<String>,
    /// A hint what to keep for how long. Changes nothing.
    #[serde(rename = "prompt_cache_options")]
    #[schema(value_type = Option<Object>)]
    _prompt_cache_options: Option<Value>,
    /// A hint how long. Changes nothing.
    #[serde(rename = "prompt_cache_retention")]
    _prompt_cache_retention: Option<String>,
}

impl Wire for CompactRequest {
    const MEDIA: Media = Media::Allowed;
}

/// A conversation as one item.
#[derive(Debug, Serialize, ToSchema)]
struct Compacted {
    /// Its name.
    id: String,
    /// `response.compaction`
    object: &'static str,
    /// Seconds since 1970.
    created_at: u64,
    /// One item that can stand in `input`; none if there was nothing to summarise.
    output: Vec<Compaction>,
    /// What the summary took.
    usage: Usage,
}

/// An item that stands for a conversation.
#[derive(Debug, Serialize, ToSchema)]
struct Compaction {
    /// Its name.
    id: String,
    /// `compaction`
    #[serde(rename = "type")]
    kind: &'static str,
    /// The model's summary, in a form for this server. It is encoded, not encrypted.
    encrypted_content: String,
}

/// Makes a conversation shorter
///
/// The model summarises it. What was said goes on as that summary, with fewer tokens and less exactly.
#[utoipa::path(
    post, path = "/v1/responses/compact", tag = "responses", request_body = CompactRequest,
    responses((status = 200, description = "the conversation as one item", body = Compacted), Refusals),
)]
async fn compact(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<CompactRequest>,
) -> Result<Response, Error> {
    model(request.model.as_deref(), &app)?;
    unsupported::one_of("service_tier", request.service_tier.as_deref(), &["auto", "default"])?;
    let compression = request.image.as_ref().and_then(|image| image.get("context_compression"));
    let compression = compression.map(|compression| compression.as_str().unwrap_or_default());
    unsupported::one_of("image.context_compression", compression, &["auto", "disabled"])?;
    let mut all = earlier(request.previous_response_id.as_deref(), caller, &app).await?;
    let first = all.len();
    all.extend(own_items(request.input)?);
    let (output, usage) = match all.is_empty() && request.instructions.is_none() {
        true => (Vec::new(), engine::service::Usage::default()),
        false => {
            let conversation = items::conversation(request.instructions, all, first, app.limits())?;
            let (summary, usage) = summary(conversation, caller, &app).await?;
            let encrypted_content = format!("{MARK}{}", STANDARD.encode(summary));
            (vec![Compaction { id: id::fresh("cmp_"), kind: "compaction", encrypted_content }], usage)
        }
    };
    let (id, created_at) = (id::fresh("resp_"), app.now());
    Ok(json(&Compacted { id, object: "response.compaction", created_at, output, usage: usage.into() }))
}

async fn summary(
    mut conversation: Conversation,
    caller: Caller,
    app: &App,
) -> Result<(String, engine::service::Usage), Error> {
    conversation.messages.push(Message::text(Role::User, QUESTION));
    conversation.thoughts.ask = Ask::off();
    let prompt = conversation.prompt("input", app).await?;
    let job = Asked::default().check(app)?.job(&prompt, caller, app)?;
    let work = Work::answer(app, job, prompt)?;
    let mut answers = Answers::new(1, 1, Keeps::Text, &Hearing::new(&[], ""));
    work.each(|job, event| drop(answers.take(job, event))).await?;
    Ok((answers.list.pop().map(|answer| answer.content).unwrap_or_default(), answers.usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_contents_are_read() {
        let content = format!("{MARK}{}", STANDARD.encode("they met"));
        assert_eq!(read(&content), Some(format!("{HEAD}they met")));
        for other in ["", "gAAAA", "puna1.!", "puna1.////", &STANDARD.encode("they met")] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
