//! `POST /tokenize`, `POST /detokenize`, `GET /tokenizer_info`

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokenizer::{Piece, Specials};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{json, model};
use crate::app::App;
use crate::body::{Json, Media, Wire};
use crate::conversation::conversation;
use crate::error::Error;
use crate::refusals::Refusals;
use crate::wire::chat::Message;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(tokenize)).routes(routes!(detokenize)).routes(routes!(tokenizer_info))
}

/// What is to become ids: a text or a conversation.
#[derive(Debug, Deserialize, ToSchema)]
struct TokenizeRequest {
    /// A name of the served model.
    model: Option<String>,
    /// A text.
    prompt: Option<String>,
    /// A conversation, written as the model wants it.
    messages: Option<Vec<Message>>,
    /// Whether the text begins with the token that begins texts, if the model wants that; true if absent.
    add_special_tokens: Option<bool>,
    /// Whether the tokens' texts are wanted.
    return_token_strs: Option<bool>,
}

impl Wire for TokenizeRequest {
    const MEDIA: Media = Media::Allowed;
}

/// Ids.
#[derive(Debug, Serialize, ToSchema)]
struct TokenizeResponse {
    /// The ids; of an image none.
    tokens: Vec<u32>,
    /// Positions, those of images included.
    count: usize,
    /// Positions of prompt and answer together.
    max_model_len: usize,
    /// The ids' texts, if they were wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_strs: Option<Vec<String>>,
}

/// Turns text into ids
#[utoipa::path(
    post, path = "/tokenize", tag = "tokens", request_body = TokenizeRequest,
    responses((status = 200, description = "the ids", body = TokenizeResponse), Refusals),
)]
async fn tokenize(State(app): State<App>, Json(request): Json<TokenizeRequest>) -> Result<Response, Error> {
    model(request.model.as_deref(), &app)?;
    let (tokens, count) = match (request.prompt, request.messages) {
        (Some(text), None) => {
            let tokens = encode(text, request.add_special_tokens.unwrap_or(true), &app).await?;
            let count = tokens.len();
            (tokens, count)
        }
        (None, Some(messages)) => {
            let prompt = conversation(messages, app.limits())?.prompt("messages", &app).await?;
            let ids = prompt.pieces.into_iter().filter_map(|piece| match piece {
                Piece::Ids(ids) => Some(ids),
                Piece::Media(_) => None,
            });
            (ids.flatten().collect(), prompt.n_positions)
        }
        _ => return Err(Error::field("prompt", "or messages has to be given, and not both")),
    };
    let about = app.model().handle.about();
    let token_strs = request
        .return_token_strs
        .unwrap_or(false)
        .then(|| tokens.iter().map(|id| crate::answer::spelling(*id, &app.model().tokenizer).0).collect());
    Ok(json(&TokenizeResponse { tokens, count, max_model_len: about.context.min(about.capacity), token_strs }))
}

/// The ids of a text, all of which is text; off the runtime.
///
/// # Errors
/// [`Error::Field`] if it is longer than a prompt may be.
pub async fn encode(text: String, with_begin: bool, app: &App) -> Result<Vec<u32>, Error> {
    let limit = app.limits().engine.prompt_bytes;
    if text.len() > limit {
        return Err(Error::field("prompt", format!("has {} bytes; the limit is {limit}", text.len())));
    }
    let app_ = app.clone();
    let encode = move || -> Vec<u32> {
        let tokenizer = &app_.model().tokenizer;
        let begin = tokenizer.bos().filter(|_| with_begin && tokenizer.add_bos());
        begin.into_iter().chain(tokenizer.encode(&text)).collect()
    };
    app.pool().run(encode).await
}

/// Ids.
#[derive(Debug, Deserialize, ToSchema)]
struct DetokenizeRequest {
    /// A name of the served model.
    model: Option<String>,
    /// The ids.
    tokens: Vec<u32>,
}

impl Wire for DetokenizeRequest {}

/// A text.
#[derive(Debug, Serialize, ToSchema)]
struct DetokenizeResponse {
    /// The text, special tokens by their spelling.
    prompt: String,
}

/// Turns ids into text
#[utoipa::path(
    post, path = "/detokenize", tag = "tokens", request_body = DetokenizeRequest,
    responses((status = 200, description = "the text", body = DetokenizeResponse), Refusals),
)]
async fn detokenize(State(app): State<App>, Json(request): Json<DetokenizeRequest>) -> Result<Response, Error> {
    model(request.model.as_deref(), &app)?;
    let size = app.model().tokenizer.vocab_size();
    if let Some(wrong) = request.tokens.iter().position(|id| usize::try_from(*id).map_or(true, |id| id >= size)) {
        return Err(Error::field(format!("tokens[{wrong}]"), format!("must be a whole number below {size}")));
    }
    let app_ = app.clone();
    let decode = move || app_.model().tokenizer.decode(&request.tokens, Specials::Keep);
    Ok(json(&DetokenizeResponse { prompt: app.pool().run(decode).await? }))
}

/// What programs that evaluate models ask about a tokenizer.
#[derive(Debug, Serialize, ToSchema)]
struct TokenizerInfo {
    /// `puna`
    tokenizer_class: &'static str,
    /// The token that begins texts.
    bos_token: Option<String>,
    /// The token that ends texts.
    eos_token: Option<String>,
    /// The token that fills rows; the ending one if there is none.
    pad_token: Option<String>,
    /// Whether plain prompts begin with `bos_token`.
    add_bos_token: bool,
    /// Its number of ids.
    vocab_size: usize,
    /// Positions of prompt and answer together.
    model_max_length: usize,
    /// The model's own template, if its files have one.
    chat_template: Option<String>,
}

/// Describes the tokenizer
#[utoipa::path(
    get, path = "/tokenizer_info", tag = "tokens",
    responses((status = 200, description = "the tokenizer", body = TokenizerInfo), Refusals),
)]
async fn tokenizer_info(State(app): State<App>) -> Response {
    let tokenizer = &app.model().tokenizer;
    let spelling = |id: Option<u32>| id.map(|id| crate::answer::spelling(id, tokenizer).0);
    let eos = spelling(tokenizer.eos().or(tokenizer.eot()));
    let about = app.model().handle.about();
    json(&TokenizerInfo {
        tokenizer_class: "puna",
        bos_token: spelling(tokenizer.bos()),
        pad_token: spelling(tokenizer.pad()).or_else(|| eos.clone()),
        eos_token: eos,
        add_bos_token: tokenizer.add_bos(),
        vocab_size: tokenizer.vocab_size(),
        model_max_length: about.context.min(about.capacity),
        chat_template: tokenizer.chat_template().map(str::to_owned),
    })
}
