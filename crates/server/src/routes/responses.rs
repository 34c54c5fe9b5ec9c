//! `/v1/responses`: made, shown, taken away.

use axum::extract::{Extension, Path, State};
use axum::response::Response as Reply;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model;
use crate::app::App;
use crate::body::{Json, Pairs, Params};
use crate::error::Error;
use crate::keys::Caller;
use crate::list::{Deleted, List, paging};
use crate::prompt::Conversation;
use crate::refusals::Refusals;
use crate::request_id::RequestId;
use crate::respond::{Kept, Responding};
use crate::settings::{Asked, Settings};
use crate::sse::Out;
use crate::store::Kind;
use crate::thinking::{Fields, Thoughts};
use crate::tools::{Hearing, Tools, Wanted};
use crate::wire::OneOrMany;
use crate::wire::responses::{Item, Request, Response};
use crate::work::Work;
use crate::{background, constraint, items, replay, sse, unsupported};

/// Responses that one may go on from, one from the other.
const CHAIN: usize = 256;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(create))
        .routes(routes!(input_tokens))
        .routes(routes!(show, delete))
        .routes(routes!(cancel))
        .routes(routes!(input_items))
}

/// Answers a text or items, and keeps the response
#[utoipa::path(
    post, path = "/v1/responses", tag = "responses", request_body = Request,
    responses(
        (status = 200, description = "the response, or its events if stream is true", content(
            (Response = "application/json"), (Value = "text/event-stream"),
        )),
        Refusals,
    ),
)]
async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Json(mut request): Json<Request>,
) -> Result<Reply, Error> {
    model(request.model.as_deref(), &app)?;
    unsupported::responses(&request, app.limits())?;
    let is_stream = request.stream.unwrap_or(false);
    let mut settings = settings(&mut request, &app)?;
    let format = request.text.as_ref().and_then(|text| text.format.as_ref());
    let format = constraint::text_format(format, app.limits())?;
    let mut tools = tools(&request, &app)?;
    settings.constraint = constraint::compile(tools.language(format)?, &app).await?;
    let own = own_items(request.input.take())?;
    let is_background = request.background.unwrap_or(false);
    let mut all = earlier(request.previous_response_id.as_deref(), caller, &app).await?;
    let first = all.len();
    all.extend(own.iter().cloned());
    let conversation = items::conversation(request.instructions.clone(), all, first, app.limits())?;
    let conversation = Conversation { tools: tools.shown.clone(), thoughts: thoughts(&request, &app)?, ..conversation };
    let prompt = conversation.prompt("input", &app).await?;
    let job = settings.job(&prompt, caller, &app)?;
    let work = Work::answer(&app, job, prompt)?;
    let responding = Responding::new(&app, caller, request, (&settings, &Hearing::new(&tools.names, "call_")), own);
    if is_stream {
        return Ok(sse::stream(&app, work, responding, request_id));
    }
    if is_background {
        return Ok(super::json(&background::begin(&app, caller, responding, work).await?));
    }
    Ok(super::json(&responding.whole(work).await?))
}

fn settings(request: &mut Request, app: &App) -> Result<Settings, Error> {
    let limits = app.limits();
    let asked = Asked {
        temperature: request.temperature,
        top_p: request.top_p,
        max_tokens: ("max_output_tokens", request.max_output_tokens),
        ..Asked::default()
    };
    let mut settings = asked.check(app)?;
    let most = i128::try_from(limits.top_logprobs).unwrap_or(i128::MAX);
    let top: Option<usize> = request.top_logprobs.map(|n| n.within("top_logprobs", 0, most)).transpose()?;
    let is_included = request.include.iter().flatten().any(|name| name == "message.output_text.logprobs");
    settings.logprobs = if is_included || top.is_some_and(|n| n > 0) { Some(top.unwrap_or(0)) } else { None };
    Ok(settings)
}

fn thoughts(request: &Request, app: &App) -> Result<Thoughts, Error> {
    Fields { reasoning: request.reasoning.as_ref(), ..Fields::default() }.check(app)
}

/// A request's tools, whose form is flatter than that of chats.
fn tools(request: &Request, app: &App) -> Result<Tools, Error> {
    let wanted = Wanted::parse(request.tool_choice.as_ref())?;
    let nested = |tool: &Value| match tool {
        Value::Object(map) => {
            let mut function = map.clone();
            let kind = function.remove("type");
            json!({"type": kind, "function": function})
        }
        other => other.clone(),
    };
    let tools = request.tools.iter().flatten().map(nested).collect();
    Tools::parse(tools, wanted, request.parallel_tool_calls.unwrap_or(true), app.limits())
}

/// The items that a request has itself.
///
/// # Errors
/// [`Error::Internal`]; a text always becomes an item.
pub fn own_items(input: Option<OneOrMany<Item>>) -> Result<Vec<Item>, Error> {
    match input {
        None => Ok(Vec::new()),
        Some(OneOrMany::Many(items)) => Ok(items),
        Some(OneOrMany::One(text)) => {
            let item = json!({"type": "message", "role": "user", "content": text});
            serde_json::from_value(item).map(|item| vec![item]).map_err(|_| Error::internal())
        }
    }
}

/// The items of the responses that this one goes on from, oldest first.
///
/// # Errors
/// [`Error::NotFound`], and [`Error::Field`] for a chain that is too long.
pub async fn earlier(previous: Option<&str>, caller: Caller, app: &App) -> Result<Vec<Item>, Error> {
    let Some(previous) = previous.map(str::to_owned) else { return Ok(Vec::new()) };
    let app_ = app.clone();
    let load = move || -> Result<Vec<Item>, Error> {
        let (mut id, mut turns) = (Some(previous), Vec::new());
        while let Some(name) = id.take() {
            let kept: Kept = app_
                .store()
                .get(Kind::Response, caller, &name)?
                .ok_or_else(|| Error::NotFound("previous_response_id names no response that is kept".into()))?;
            if turns.len() >= CHAIN {
                let why = format!("goes on from more than {CHAIN} responses");
                return Err(Error::field("previous_response_id", why));
            }
            id = kept.response.get("previous_response_id").and_then(Value::as_str).map(str::to_owned);
            turns.push(kept);
        }
        let items = turns.into_iter().rev().flat_map(|turn| turn.input.into_iter().chain(turn.output));
        Ok(items.collect())
    };
    app.pool().run(load).await?
}

/// What of a response is to be shown.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ShowQuery {
    /// Whether the response comes as events: those of its making, each text in one piece. One that is still made in the
    /// background is waited for.
    stream: Option<bool>,
    /// With `stream`: only events after the one of this number.
    starting_after: Option<u64>,
    /// Whether events are filled up to one length; they never are.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

/// What `include[]` and `include` list.
fn included(pairs: &[(String, String)]) -> Vec<String> {
    pairs.iter().filter(|(name, _)| name == "include" || name == "include[]").map(|(_, value)| value.clone()).collect()
}

/// Shows a response that was kept
#[utoipa::path(
    get, path = "/v1/responses/{response_id}", tag = "responses",
    params(("response_id" = String, Path), ShowQuery, Include),
    responses(
        (status = 200, description = "the response, or its events if stream is true", content(
            (Response = "application/json"), (Value = "text/event-stream"),
        )),
        Refusals,
    ),
)]
async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Path(id): Path<String>,
    Params(query): Params<ShowQuery>,
    Params(pairs): Params<Pairs>,
) -> Result<Reply, Error> {
    unsupported::include(&included(&pairs))?;
    let kept = background::find(&app, caller, id.clone()).await?;
    if query.stream != Some(true) {
        return Ok(super::json(&kept.response));
    }
    let (app_, after) = (app.clone(), query.starting_after);
    let made = async move {
        let mut response = kept.response;
        if response["status"] == "in_progress" {
            if let Some(mut end) = app_.background().end_of(&id) {
                // If whoever would tell is gone, it has ended too.
                let _ = end.wait_for(|is_ended| *is_ended).await;
            }
            response = background::find(&app_, caller, id).await?.response;
        }
        let mut out = Out::default();
        replay::write(&response, after, &mut out);
        Ok(out)
    };
    Ok(sse::later(&app, made, request_id))
}

/// What else is to be in an answer.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes what included() reads in the document")]
struct Include {
    /// As `include` of the request that made the response; it may be given several times.
    #[param(rename = "include[]")]
    include: Option<Vec<String>>,
}

/// Takes a response away
#[utoipa::path(
    delete, path = "/v1/responses/{response_id}", tag = "responses", params(("response_id" = String, Path)),
    responses((status = 200, description = "it is gone", body = Deleted), Refusals),
)]
async fn delete(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Error> {
    background::delete(&app, caller, id.clone()).await?;
    Ok(super::json(&Deleted { id, object: "response", deleted: true }))
}

/// Ends a response that is made in the background; one that is done stays as it is
#[utoipa::path(
    post, path = "/v1/responses/{response_id}/cancel", tag = "responses", params(("response_id" = String, Path)),
    responses((status = 200, description = "the response", body = Response), Refusals),
)]
async fn cancel(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Reply, Error> {
    Ok(super::json(&background::cancel(&app, caller, id).await?))
}

/// Which items.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// So many at most; 20 if absent.
    #[param(minimum = 0, maximum = 100)]
    limit: Option<usize>,
    /// `asc` or `desc`; `desc` if absent.
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// After the item of this name.
    after: Option<String>,
}

/// Lists what a response answered
#[utoipa::path(
    get, path = "/v1/responses/{response_id}/input_items", tag = "responses",
    params(("response_id" = String, Path), ListQuery, Include),
    responses((status = 200, description = "the items", body = List), Refusals),
)]
async fn input_items(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Params(query): Params<ListQuery>,
    Params(pairs): Params<Pairs>,
) -> Result<Reply, Error> {
    let paging = paging(query.limit, query.order.as_deref(), 100)?;
    unsupported::include(&included(&pairs))?;
    let kept = background::find(&app, caller, id).await?;
    let items = kept.input.iter().filter_map(|item| serde_json::to_value(item).ok()).collect();
    Ok(super::json(&List::page(items, query.after.as_deref(), paging)?))
}

/// How many tokens a prompt has.
#[derive(Debug, Serialize, ToSchema)]
struct InputTokens {
    /// `response.input_tokens`
    object: &'static str,
    /// So many.
    input_tokens: usize,
}

/// Counts the tokens that a response would answer
#[utoipa::path(
    post, path = "/v1/responses/input_tokens", tag = "responses", request_body = Request,
    responses((status = 200, description = "the count", body = InputTokens), Refusals),
)]
async fn input_tokens(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Json(mut request): Json<Request>,
) -> Result<Reply, Error> {
    model(request.model.as_deref(), &app)?;
    unsupported::responses(&request, app.limits())?;
    let mut all = earlier(request.previous_response_id.as_deref(), caller, &app).await?;
    let first = all.len();
    all.extend(own_items(request.input.take())?);
    let (shown, thoughts) = (tools(&request, &app)?.shown, thoughts(&request, &app)?);
    let conversation = items::conversation(request.instructions.take(), all, first, app.limits())?;
    let conversation = Conversation { tools: shown, thoughts, ..conversation };
    let prompt = conversation.prompt("input", &app).await?;
    Ok(super::json(&InputTokens { object: "response.input_tokens", input_tokens: prompt.n_positions }))
}
