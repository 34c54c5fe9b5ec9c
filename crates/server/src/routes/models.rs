//! `GET /v1/models`

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::json;
use crate::app::App;
use crate::error::{Code, Error};
use crate::refusals::Refusals;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(models)).routes(routes!(one_model))
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
struct Model {
    /// Its name.
    id: String,
    /// `model`
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    /// `puna`
    owned_by: &'static str,
    /// Positions of prompt and answer together.
    max_model_len: usize,
    /// What may stand in messages.
    modalities: Vec<&'static str>,
    /// Whether `/v1/chat/completions` answers.
    chat: bool,
}

/// Models.
#[derive(Debug, Serialize, ToSchema)]
struct Models {
    /// `list`
    object: &'static str,
    /// All of them.
    data: Vec<Model>,
}

fn card(id: &str, app: &App) -> Model {
    let (model, about) = (app.model(), app.model().handle.about());
    let mut modalities = vec!["text"];
    if model.tiles.is_some() {
        modalities.push("image");
    }
    if model.clips.is_some() {
        modalities.push("audio");
    }
    Model {
        id: id.to_owned(),
        object: "model",
        created: model.created,
        owned_by: "puna",
        max_model_len: about.context.min(about.capacity),
        modalities,
        chat: model.format.is_some(),
    }
}

/// Lists the models that are served
#[utoipa::path(get, path = "/v1/models", tag = "models", responses((status = 200, description = "the models", body = Models), Refusals))]
async fn models(State(app): State<App>) -> Response {
    let names = std::iter::once(&app.model().id).chain(&app.model().aliases);
    json(&Models { object: "list", data: names.map(|name| card(name, &app)).collect() })
}

/// Shows one model
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "models",
    params(("model" = String, Path, description = "its name, which may hold slashes if they are written %2F")),
    responses((status = 200, description = "the model", body = Model), Refusals),
)]
async fn one_model(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Error> {
    let model = app.model();
    if name == model.id || model.aliases.contains(&name) {
        return Ok(json(&card(&name, &app)));
    }
    let why = format!("is not served; this server has {:?}", model.id);
    Err(Error::Field { param: "model".into(), why, code: Code::ModelNotFound })
}
