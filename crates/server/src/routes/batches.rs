//! `/v1/batches`: many requests in one file, worked off in the background.

use axum::extract::{Extension, Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::files::ExpiresAfter;
use super::{files, json};
use crate::app::App;
use crate::batch::{self, Batch, ENDPOINTS, Line};
use crate::body::{Json, Params, Wire};
use crate::error::Error;
use crate::keys::Caller;
use crate::list::{List, paging};
use crate::refusals::Refusals;
use crate::store::{Kind, PageOf};
use crate::unsupported;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(create, list)).routes(routes!(show)).routes(routes!(cancel))
}

/// A batch that is to be worked off.
#[derive(Debug, Deserialize, ToSchema)]
struct BatchRequest {
    /// The file, one request a line, uploaded for `batch`.
    input_file_id: String,
    /// Where all requests go.
    endpoint: String,
    /// Only `24h`.
    completion_window: String,
    /// Up to 16 pairs of texts.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    metadata: Option<Value>,
    /// When the output and error files expire; they stay until they are deleted if absent.
    output_expires_after: Option<ExpiresAfter>,
}

impl Wire for BatchRequest {}

/// Starts a batch
#[utoipa::path(
    post, path = "/v1/batches", tag = "batches", request_body = BatchRequest,
    responses((status = 200, description = "the batch", body = Batch), Refusals),
)]
async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<BatchRequest>,
) -> Result<Response, Error> {
    if !ENDPOINTS.contains(&request.endpoint.as_str()) {
        return Err(Error::field("endpoint", format!("must be one of {}", ENDPOINTS.join(", "))));
    }
    if request.completion_window != "24h" {
        return Err(Error::unsupported("completion_window", "must be 24h"));
    }
    let expires_after = request.output_expires_after.as_ref();
    let expires_after = expires_after.map(|after| after.check("output_expires_after", app.limits())).transpose()?;
    unsupported::metadata(request.metadata.as_ref(), app.limits())?;
    let (file, bytes) = files::bytes(request.input_file_id, caller, &app).await?;
    if file.purpose != "batch" {
        return Err(Error::field("input_file_id", "names a file that was not uploaded for batch"));
    }
    let (limits, endpoint) = (app.limits().clone(), request.endpoint.clone());
    let n_lines = app.pool().run(move || Line::check_all(&bytes, &endpoint, &limits)).await??;
    let batch = Batch {
        output_expires_after: expires_after,
        ..Batch::new(file.id, request.endpoint, request.metadata, n_lines, app.now())
    };
    batch::save(&app, caller, batch.clone()).await?;
    app.batches().notify_one();
    Ok(json(&batch))
}

/// Shows a batch
#[utoipa::path(
    get, path = "/v1/batches/{batch_id}", tag = "batches", params(("batch_id" = String, Path)),
    responses((status = 200, description = "the batch", body = Batch), Refusals),
)]
async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    Ok(json(&batch::find(&app, caller, id).await?))
}

/// Ends a batch after the requests that run
#[utoipa::path(
    post, path = "/v1/batches/{batch_id}/cancel", tag = "batches", params(("batch_id" = String, Path)),
    responses((status = 200, description = "the batch", body = Batch), Refusals),
)]
async fn cancel(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    Ok(json(&batch::cancel(&app, caller, id).await?))
}

/// Which batches.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// So many at most; 20 if absent.
    #[param(minimum = 0, maximum = 100)]
    limit: Option<usize>,
    /// After the batch of this name.
    after: Option<String>,
}

/// Lists batches
#[utoipa::path(
    get, path = "/v1/batches", tag = "batches", params(ListQuery),
    responses((status = 200, description = "the batches", body = List), Refusals),
)]
async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Params(query): Params<ListQuery>,
) -> Result<Response, Error> {
    let (limit, is_ascending) = paging(query.limit, None, 100)?;
    let page = PageOf { after: query.after, limit, is_ascending };
    let listed = app.listed::<Value>(Kind::Batch, caller, page).await?;
    let listed = listed.ok_or_else(|| Error::NotFound("after names no batch".into()))?;
    Ok(json(&List::of(listed.list, listed.has_more)))
}
