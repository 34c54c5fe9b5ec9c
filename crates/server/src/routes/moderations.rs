//! `POST /v1/moderations`, which this build does not have.

use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;
use crate::refusals::ErrorBody;

/// The routes of this file.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(moderations))
}

/// Judges texts and images; not built yet
#[utoipa::path(
    post, path = "/v1/moderations", tag = "moderations",
    responses(
        (status = 401, description = "no key, or a wrong one", body = ErrorBody),
        (status = 501, description = "not built yet", body = ErrorBody),
    ),
)]
async fn moderations() -> Result<Response, Error> {
    Err(Error::NotImplemented("this server has no model that judges texts".into()))
}
