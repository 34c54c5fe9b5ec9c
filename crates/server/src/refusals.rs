//! What every route may refuse with, for the OpenAPI document.

use serde::Serialize;
use utoipa::ToSchema;

/// How a refusal is written.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong.
    pub error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// For people: the field, what is wrong, the limit.
    pub message: String,
    /// The kind of mistake.
    #[serde(rename = "type")]
    pub kind: String,
    /// The field.
    pub param: Option<String>,
    /// For programs.
    pub code: Option<String>,
}

/// What every route may refuse with.
#[derive(utoipa::IntoResponses)]
#[allow(dead_code, reason = "describes the errors in the document")]
pub enum Refusals {
    /// A field is wrong or not supported; the message names it
    #[response(status = 400)]
    BadRequest(#[to_schema] ErrorBody),
    /// No key, or a wrong one
    #[response(status = 401)]
    Unauthorised(#[to_schema] ErrorBody),
    /// A page from elsewhere asks
    #[response(status = 403)]
    Forbidden(#[to_schema] ErrorBody),
    /// Not there
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorBody),
    /// The body took too long to arrive
    #[response(status = 408)]
    Slow(#[to_schema] ErrorBody),
    /// The body is larger than allowed
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorBody),
    /// The body is not JSON
    #[response(status = 415)]
    MediaType(#[to_schema] ErrorBody),
    /// Too much is going on; `retry-after` says when to try again
    #[response(status = 429)]
    Busy(#[to_schema] ErrorBody),
    /// A mistake of the server's
    #[response(status = 500)]
    Internal(#[to_schema] ErrorBody),
    /// The server is shutting down, or the request waited too long
    #[response(status = 503)]
    Unavailable(#[to_schema] ErrorBody),
    /// The request took too long
    #[response(status = 504)]
    Deadline(#[to_schema] ErrorBody),
}
