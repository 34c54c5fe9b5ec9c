//! `GET /health/live`, `GET /health/ready`, `GET /metrics`

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{App, Phase};
use crate::refusals::Refusals;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(health))
        .routes(routes!(metrics))
}

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok`, `draining` or `stalled`
    status: &'static str,
}

/// Says that the process answers
#[utoipa::path(get, path = "/health/live", tag = "operation", responses((status = 200, description = "it answers", body = Health)))]
async fn live() -> Response {
    axum::Json(Health { status: "ok" }).into_response()
}

/// Says whether requests are taken and get on
#[utoipa::path(
    get, path = "/health/ready", tag = "operation",
    responses((status = 200, description = "ready", body = Health), (status = 503, description = "not ready", body = Health)),
)]
async fn ready(State(app): State<App>) -> Response {
    readiness(&app)
}

/// The same under a shorter name
#[utoipa::path(
    get, path = "/health", tag = "operation",
    responses((status = 200, description = "ready", body = Health), (status = 503, description = "not ready", body = Health)),
)]
async fn health(State(app): State<App>) -> Response {
    readiness(&app)
}

fn readiness(app: &App) -> Response {
    let status = match app.phase() {
        Phase::Draining | Phase::Ending => "draining",
        Phase::Serving if app.progress() >= app.limits().unready_time => "stalled",
        Phase::Serving => "ok",
    };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, axum::Json(Health { status })).into_response()
}

/// Counters in the format that Prometheus reads
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "the counters", body = String, content_type = "application/openmetrics-text"), Refusals),
)]
async fn metrics(State(app): State<App>) -> Response {
    let (stats, _) = app.model().handle.stats();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics().text(&stats)).into_response()
}
