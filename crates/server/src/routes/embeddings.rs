//! `POST /v1/embeddings`

use axum::extract::{Extension, State};
use axum::response::Response;
use base64::Engine as _;
use engine::service::{Event, Job, Owner, Task, Usage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::completions::ids;
use super::{json, model};
use crate::app::App;
use crate::body::{Json, Wire};
use crate::error::Error;
use crate::keys::Caller;
use crate::refusals::Refusals;
use crate::settings::too_long;
use crate::wire::Whole;
use crate::wire::completions::{Prompt, PromptSchema};
use crate::work::{self, Work};

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(embeddings))
}

/// What is to become vectors.
#[derive(Debug, Deserialize, ToSchema)]
struct EmbeddingRequest {
    /// A text, a list of texts, a list of ids, or a list of lists of ids.
    #[schema(value_type = PromptSchema)]
    input: Prompt,
    /// A name of the served model. What another name does is a setting of the server.
    model: Option<String>,
    /// `float` or `base64` (32-bit floats, the lowest byte first); `float` if absent.
    encoding_format: Option<Encoding>,
    /// Only the model's own width.
    #[schema(value_type = Option<i64>, minimum = 1)]
    dimensions: Option<Whole>,
    /// Whose request it is, for the operator's own records.
    #[serde(rename = "user")]
    _user: Option<String>,
}

impl Wire for EmbeddingRequest {}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    /// A list of numbers.
    Float,
    /// Their bytes.
    Base64,
}

/// Vectors.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingResponse {
    /// `list`
    object: &'static str,
    /// One an input, in their order.
    data: Vec<Embedding>,
    /// The model that made them.
    model: String,
    /// Counts.
    usage: EmbeddingUsage,
}

/// A vector.
#[derive(Debug, Serialize, ToSchema)]
struct Embedding {
    /// `embedding`
    object: &'static str,
    /// Which input.
    index: usize,
    /// The mean of the last layer's normalised output over all tokens, of length 1.
    embedding: Vector,
}

/// A vector's numbers.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    /// As numbers.
    Floats(Vec<f32>),
    /// As base64 of 32-bit floats, the lowest byte first.
    Base64(String),
}

/// Counts of tokens.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingUsage {
    /// Of all inputs.
    prompt_tokens: usize,
    /// The same.
    total_tokens: usize,
}

/// Turns texts into vectors
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "embeddings", request_body = EmbeddingRequest,
    responses((status = 200, description = "the vectors", body = EmbeddingResponse), Refusals),
)]
async fn embeddings(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<EmbeddingRequest>,
) -> Result<Response, Error> {
    model(request.model.as_deref(), &app)?;
    let (about, limits) = (app.model().handle.about(), app.limits());
    if let Some(dimensions) = request.dimensions {
        let width = i128::try_from(about.width).unwrap_or(i128::MAX);
        let asked: i128 = dimensions.within("dimensions", 1, i32::MAX.into())?;
        if asked != width {
            return Err(Error::unsupported("dimensions", format!("is {asked}; this model's vectors have {width}")));
        }
    }
    let n_inputs = match &request.input {
        Prompt::Texts(texts) => texts.len(),
        Prompt::Ids(lists) => lists.len(),
    };
    if n_inputs == 0 || n_inputs > limits.inputs {
        return Err(Error::field("input", format!("has {n_inputs} inputs; it must have 1 to {}", limits.inputs)));
    }
    let lists = ids("input", request.input, true, &app).await?;
    let context = about.context.min(about.capacity);
    let job = |(index, ids): (usize, Vec<u32>)| match ids.len() {
        0 => Err(Error::field(format!("input[{index}]"), "has no tokens")),
        n if n > context => Err(too_long(&format!("input[{index}]"), n, 0, context)),
        _ => Ok(Job {
            pieces: vec![tokenizer::Piece::Ids(ids)],
            media: Vec::new(),
            task: Task::Embed,
            prompt_logprobs: None,
            owner: Owner { key: caller.0, salt: 0 },
            deadline: limits.total_time,
        }),
    };
    let jobs = lists.into_iter().enumerate().map(job).collect::<Result<Vec<_>, _>>()?;
    let (vectors, usage) = collect(&app, jobs).await?;
    let encoding = request.encoding_format.unwrap_or(Encoding::Float);
    let data = vectors.into_iter().enumerate().map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: match encoding {
            Encoding::Float => Vector::Floats(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                Vector::Base64(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
        },
    });
    Ok(json(&EmbeddingResponse {
        object: "list",
        data: data.collect(),
        model: app.model().id.clone(),
        usage: EmbeddingUsage { prompt_tokens: usage.n_prompt, total_tokens: usage.n_prompt },
    }))
}

async fn collect(app: &App, jobs: Vec<Job>) -> Result<(Vec<Vec<f32>>, Usage), Error> {
    let mut vectors = vec![Vec::new(); jobs.len()];
    let mut usage = Usage::default();
    let take = |job: usize, event| match event {
        Event::Embedding(vector) => {
            if let Some(place) = vectors.get_mut(job) {
                *place = vector;
            }
        }
        Event::Finished(of_job) => work::add(&mut usage, &of_job),
        _ => {}
    };
    Work::begin(app, jobs)?.each(take).await?;
    Ok((vectors, usage))
}
