//! `/v1/chat/completions` that were to be stored: listed, shown, described anew, taken away.

use std::collections::BTreeMap;

use axum::extract::{Extension, Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::body::{Json, Pairs, Params, Wire};
use crate::error::Error;
use crate::keys::Caller;
use crate::list::{Deleted, List, paging};
use crate::refusals::Refusals;
use crate::request_id::RequestId;
use crate::sse::Closing;
use crate::store::{Kind, PageOf};
use crate::unsupported;
use crate::wire::chat::{Completion, Message, Request};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(show, update, delete)).routes(routes!(messages))
}

/// A completion as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stored {
    /// As it is shown.
    pub completion: Value,
    /// What it answered, with names.
    pub messages: Vec<Value>,
}

/// What of a request is kept with its answer.
#[derive(Debug, Clone)]
pub struct Keeping {
    caller: Caller,
    asked: Map<String, Value>,
    messages: Vec<Message>,
}

impl Keeping {
    /// Of a request; `None` unless it wants to be stored.
    pub fn of(request: &Request, caller: Caller, RequestId(request_id): &RequestId) -> Option<Self> {
        if request.store != Some(true) {
            return None;
        }
        let number = |number: Option<crate::wire::Real>| number.map(|number| number.0);
        let asked = json!({
            "metadata": request.metadata.clone().unwrap_or_else(|| json!({})),
            "request_id": request_id,
            "temperature": number(request.temperature),
            "top_p": number(request.top_p),
            "frequency_penalty": number(request.frequency_penalty),
            "presence_penalty": number(request.presence_penalty),
            "response_format": request.response_format,
            "tools": request.tools,
            "tool_choice": request.tool_choice,
            "input_user": request.user,
        });
        let Value::Object(asked) = asked else { return None };
        Some(Self { caller, asked, messages: request.messages.clone() })
    }

    /// What keeps `completion`.
    pub fn closing(self, app: &App, completion: &Completion) -> Closing {
        let (app, id, shown) = (app.clone(), completion.id.clone(), serde_json::to_value(completion));
        Box::new(move || {
            let Ok(Value::Object(mut shown)) = shown else { return Err(Error::internal()) };
            shown.extend(self.asked);
            let messages = self.messages.iter().enumerate().map(|(index, message)| stored_message(message, &id, index));
            let stored = Stored { completion: Value::Object(shown), messages: messages.collect() };
            let limit = app.limits().stored_completions;
            Ok(app.store().put(Kind::Completion, self.caller, (&id, &stored), limit)?)
        })
    }
}

/// A message of a stored completion: parts stand beside the text.
fn stored_message(message: &Message, completion: &str, index: usize) -> Value {
    let Ok(Value::Object(mut shown)) = serde_json::to_value(message) else { return Value::Null };
    without_nulls(&mut shown);
    shown.insert("id".into(), format!("{completion}-{index}").into());
    let (text, parts) = match shown.remove("content") {
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            (Some(texts.collect::<String>()), Value::Array(parts))
        }
        Some(Value::String(text)) => (Some(text), Value::Null),
        _ => (None, Value::Null),
    };
    shown.insert("content".into(), json!(text));
    shown.insert("content_parts".into(), parts);
    Value::Object(shown)
}

/// Takes away what was not said, in parts too.
fn without_nulls(map: &mut Map<String, Value>) {
    map.retain(|_, value| !value.is_null());
    for value in map.values_mut() {
        match value {
            Value::Object(inner) => without_nulls(inner),
            Value::Array(list) => list.iter_mut().filter_map(Value::as_object_mut).for_each(without_nulls),
            _ => {}
        }
    }
}

/// A completion that was stored.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes Stored::completion in the document")]
struct StoredCompletion {
    #[schema(inline)]
    #[serde(flatten)]
    completion: Completion,
    /// As given.
    metadata: BTreeMap<String, String>,
    /// The request that it answered.
    request_id: String,
    /// As asked.
    temperature: Option<f64>,
    /// As asked.
    top_p: Option<f64>,
    /// As asked.
    frequency_penalty: Option<f64>,
    /// As asked.
    presence_penalty: Option<f64>,
    /// As asked.
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    /// As asked.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Value>,
    /// As asked.
    tool_choice: Option<Value>,
    /// The user that was named.
    input_user: Option<String>,
}

async fn find(id: String, caller: Caller, app: &App) -> Result<Stored, Error> {
    app.stored(Kind::Completion, caller, id).await?.ok_or_else(missing)
}

fn missing() -> Error {
    Error::NotFound("there is no completion of this name that was stored".into())
}

/// Which completions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Those of this model.
    model: Option<String>,
    /// So many at most; 20 if absent.
    #[param(minimum = 0, maximum = 100)]
    limit: Option<usize>,
    /// `asc` or `desc`, by their time; `asc` if absent.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// After the completion of this name.
    after: Option<String>,
}

/// Lists stored completions
///
/// `metadata[KEY]=VALUE` leaves those that have this entry; it may be given for several keys.
#[utoipa::path(
    get, path = "/v1/chat/completions", tag = "chat", params(ListQuery),
    responses((status = 200, description = "the completions", body = List), Refusals),
)]
async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<ListQuery>,
    Params(pairs): Params<Pairs>,
) -> Result<Response, Error> {
    let (limit, is_ascending) = paging(query.limit, query.order.as_deref().or(Some("asc")), 100)?;
    let most = app.limits().stored_completions;
    // Completions that are not wanted do not count.
    let page = PageOf { after: query.after, limit: most, is_ascending };
    let listed = app.listed::<Stored>(Kind::Completion, caller, page).await?;
    let listed = listed.ok_or_else(|| Error::NotFound("after names no completion that was stored".into()))?;
    let entries: Vec<(&str, &str)> = pairs
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("metadata[")?.strip_suffix(']')?, value.as_str())))
        .collect();
    let is_wanted = |completion: &Value| {
        query.model.as_ref().is_none_or(|model| completion["model"] == **model)
            && entries.iter().all(|(key, value)| completion["metadata"][*key] == **value)
    };
    let completions = listed.list.into_iter().map(|stored| stored.completion);
    Ok(super::json(&List::first(completions.filter(is_wanted).collect(), limit)))
}

/// Shows a stored completion
#[utoipa::path(
    get, path = "/v1/chat/completions/{completion_id}", tag = "chat", params(("completion_id" = String, Path)),
    responses((status = 200, description = "the completion", body = StoredCompletion), Refusals),
)]
async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    Ok(super::json(&find(id, caller, &app).await?.completion))
}

/// What is new about a completion.
#[derive(Debug, Deserialize, ToSchema)]
struct Update {
    /// Up to 16 pairs of texts instead of those that were there.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    metadata: Option<Value>,
}

impl Wire for Update {}

/// Describes a stored completion anew
#[utoipa::path(
    post, path = "/v1/chat/completions/{completion_id}", tag = "chat", params(("completion_id" = String, Path)),
    request_body = Update,
    responses((status = 200, description = "the completion", body = StoredCompletion), Refusals),
)]
async fn update(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(update): Json<Update>,
) -> Result<Response, Error> {
    unsupported::metadata(update.metadata.as_ref(), app.limits())?;
    let metadata = update.metadata.unwrap_or_else(|| json!({}));
    let app_ = app.clone();
    let change = move || {
        let set = |stored: &mut Stored| stored.completion["metadata"] = metadata;
        app_.store().change(Kind::Completion, caller, &id, set)
    };
    let stored = app.pool().run(change).await??;
    Ok(super::json(&stored.ok_or_else(missing)?.completion))
}

/// Takes a stored completion away
#[utoipa::path(
    delete, path = "/v1/chat/completions/{completion_id}", tag = "chat", params(("completion_id" = String, Path)),
    responses((status = 200, description = "it is gone", body = Deleted), Refusals),
)]
async fn delete(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    if !app.unstore(Kind::Completion, caller, id.clone()).await? {
        return Err(missing());
    }
    Ok(super::json(&Deleted { id, object: "chat.completion.deleted", deleted: true }))
}

/// Which messages.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct MessagesQuery {
    /// So many at most; 20 if absent.
    #[param(minimum = 0, maximum = 100)]
    limit: Option<usize>,
    /// `asc` or `desc`; `asc` if absent.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// After the message of this name.
    after: Option<String>,
}

/// Lists the messages that a stored completion answered
#[utoipa::path(
    get, path = "/v1/chat/completions/{completion_id}/messages", tag = "chat",
    params(("completion_id" = String, Path), MessagesQuery),
    responses((status = 200, description = "the messages", body = List), Refusals),
)]
async fn messages(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Params(query): Params<MessagesQuery>,
) -> Result<Response, Error> {
    let paging = paging(query.limit, query.order.as_deref().or(Some("asc")), 100)?;
    let stored = find(id, caller, &app).await?;
    Ok(super::json(&List::page(stored.messages, query.after.as_deref(), paging)?))
}
