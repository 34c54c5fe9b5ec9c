//! One file a group of routes. What holds for all of them stands in [`root`](crate::root).

pub mod audio;
pub mod batches;
pub mod chat;
pub mod compact;
pub mod completions;
pub mod embeddings;
pub mod files;
pub mod health;
pub mod messages;
pub mod models;
pub mod moderations;
pub mod realtime;
pub mod responses;
pub mod stored;
pub mod tokenize;

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;

use crate::app::{App, Names};
use crate::error::{Code, Error};

/// All routes.
pub fn all() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .merge(audio::routes())
        .merge(batches::routes())
        .merge(chat::routes())
        .merge(compact::routes())
        .merge(completions::routes())
        .merge(embeddings::routes())
        .merge(files::routes())
        .merge(health::routes())
        .merge(messages::routes())
        .merge(models::routes())
        .merge(moderations::routes())
        .merge(realtime::routes())
        .merge(responses::routes())
        .merge(stored::routes())
        .merge(tokenize::routes())
}

/// An answer of JSON.
pub fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(axum::http::header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(_) => Error::internal().into_response(),
    }
}

/// Checks the name of a model that a request gives.
///
/// # Errors
/// [`Code::ModelNotFound`] for another model, if the server is strict about names.
pub fn model(name: Option<&str>, app: &App) -> Result<(), Error> {
    let model = app.model();
    let Some(name) = name else { return Ok(()) };
    if name == model.id || model.aliases.iter().any(|alias| alias == name) || app.options().names == Names::Any {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(Error::Field {
        param: "model".into(),
        why: format!("names {shown:?}, which is not served; this server has {:?}", model.id),
        code: Code::ModelNotFound,
    })
}
