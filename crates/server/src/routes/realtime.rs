//! `GET /v1/realtime`

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model;
use crate::app::App;
use crate::body::Params;
use crate::connection::Alive;
use crate::error::Error;
use crate::keys::Caller;
use crate::realtime;
use crate::refusals::Refusals;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(connect))
}

/// Which model.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Query {
    /// The model.
    model: Option<String>,
}

/// Opens a WebSocket on which audio is said piece by piece and answers come as events
#[utoipa::path(
    get, path = "/v1/realtime", tag = "audio", params(Query),
    responses((status = 101, description = "a WebSocket"), Refusals),
)]
async fn connect(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    alive: Option<Extension<Alive>>,
    Params(query): Params<Query>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Error> {
    model(query.model.as_deref(), &app)?;
    let upgrade = upgrade.map_err(|error| Error::Malformed(format!("this is a WebSocket: {}", error.body_text())))?;
    let most = app.limits().body_bytes;
    let alive = alive.map(|Extension(alive)| alive);
    Ok(upgrade
        .protocols(["realtime"])
        .max_message_size(most)
        .max_frame_size(most)
        .on_upgrade(move |socket| realtime::run(socket, app, caller, alive)))
}
