//! What a request can be refused with, and how each interface writes that.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use engine::service::{Failure, SubmitError};
use serde_json::{Value, json};

use crate::store::StoreError;

/// Why a request was refused or failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// A field is wrong.
    Field {
        /// Its path in the body, such as `messages[2].content`.
        param: String,
        /// What is wrong, what is allowed.
        why: String,
        /// What programs tell this mistake by.
        code: Code,
    },
    /// The request as a whole is wrong.
    Malformed(String),
    /// No key, or a wrong one.
    Unauthorised,
    /// A browser's page from elsewhere asks.
    Forbidden(String),
    /// Nothing stands at this path.
    NoRoute,
    /// What the path names does not exist, or belongs to somebody else.
    NotFound(String),
    /// The path does not take this method.
    Method,
    /// The body took too long to arrive.
    SlowBody,
    /// What is there does not allow it now.
    Conflict(String),
    /// The body has more bytes than allowed.
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The body is no JSON.
    MediaType,
    /// Too much is going on.
    Busy {
        /// What is full.
        why: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Not built yet, or not in this server.
    NotImplemented(String),
    /// The server is going down.
    ShuttingDown,
    /// The request waited too long for its turn.
    QueueTime,
    /// The request took too long.
    Deadline,
    /// A mistake of ours, or of the model's numbers.
    Internal {
        /// Whether the same request would fail again.
        repeats: Repeats,
    },
}

/// Whether a failure would come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// Certainly.
    Yes,
    /// It need not.
    Perhaps,
}

/// What programs tell mistakes of fields by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A value of a wrong type or outside of its range.
    InvalidValue,
    /// A field that is known and not supported here.
    Unsupported,
    /// A field that has to be there.
    Missing,
    /// A prompt that is too long, with its answer.
    ContextLength,
    /// No such model.
    ModelNotFound,
    /// Audio that can not be used, by the name that says why.
    Audio(&'static str),
}

/// How an error is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"type": "error", "error": {"type", "message"}}`
    Anthropic,
}

/// The parts of an error that interfaces write.
struct Parts {
    status: StatusCode,
    /// OpenAI's and Anthropic's kinds.
    kinds: [&'static str; 2],
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry_after: Option<Duration>,
}

impl Shape {
    /// The one that goes with a path.
    pub fn of(path: &str) -> Self {
        if path == "/v1/messages" || path.starts_with("/v1/messages/") { Self::Anthropic } else { Self::OpenAi }
    }
}

impl Error {
    /// A field of a wrong value.
    pub fn field(param: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { param: param.into(), why: why.into(), code: Code::InvalidValue }
    }

    /// A field that this server knows and does not support.
    pub fn unsupported(param: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { param: param.into(), why: why.into(), code: Code::Unsupported }
    }

    /// A field that is missing.
    pub fn missing(param: impl Into<String>) -> Self {
        Self::Field { param: param.into(), why: "is required".into(), code: Code::Missing }
    }

    /// A failure that need not come again.
    pub fn internal() -> Self {
        Self::Internal { repeats: Repeats::Perhaps }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.parts("").status
    }

    /// The body, for the request `id`.
    pub fn body(&self, shape: Shape, id: &str) -> Value {
        let parts = self.parts(id);
        match shape {
            Shape::OpenAi => json!({"error": {
                "message": parts.message, "type": parts.kinds[0], "param": parts.param, "code": parts.code,
            }}),
            Shape::Anthropic => json!({
                "type": "error",
                "error": {"type": parts.kinds[1], "message": parts.message},
                "request_id": id,
            }),
        }
    }

    /// The whole answer to the request `id`.
    pub fn response(&self, shape: Shape, id: &str) -> Response {
        let parts = self.parts(id);
        let body = axum::Json(self.body(shape, id));
        let mut response = (parts.status, body).into_response();
        let headers = response.headers_mut();
        if let Some(after) = parts.retry_after {
            let seconds = after.as_secs().max(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Self::Internal { repeats: Repeats::Yes } | Self::NotImplemented(_)) {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        if *self == Self::Unauthorised {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// The one place where errors become statuses.
    fn parts(&self, id: &str) -> Parts {
        const INVALID: [&str; 2] = ["invalid_request_error", "invalid_request_error"];
        let of = |status, kinds, code, message: String| Parts {
            status,
            kinds,
            code,
            param: None,
            message,
            retry_after: None,
        };
        match self {
            Self::Field { param, why, code } => {
                let (status, code) = match code {
                    Code::InvalidValue => (StatusCode::BAD_REQUEST, "invalid_value"),
                    Code::Unsupported => (StatusCode::BAD_REQUEST, "unsupported_parameter"),
                    Code::Missing => (StatusCode::BAD_REQUEST, "missing_required_parameter"),
                    Code::ContextLength => (StatusCode::BAD_REQUEST, "context_length_exceeded"),
                    Code::ModelNotFound => (StatusCode::NOT_FOUND, "model_not_found"),
                    Code::Audio(code) => (StatusCode::BAD_REQUEST, *code),
                };
                let kinds = if status == StatusCode::NOT_FOUND {
                    ["invalid_request_error", "not_found_error"]
                } else {
                    INVALID
                };
                Parts { param: Some(param.clone()), ..of(status, kinds, Some(code), format!("{param} {why}")) }
            }
            Self::Malformed(why) => of(StatusCode::BAD_REQUEST, INVALID, Some("invalid_body"), why.clone()),
            Self::Unauthorised => of(
                StatusCode::UNAUTHORIZED,
                ["authentication_error", "authentication_error"],
                Some("invalid_api_key"),
                "this server needs a key, as \"authorization: Bearer KEY\" or \"x-api-key: KEY\"".into(),
            ),
            Self::Forbidden(why) => {
                of(StatusCode::FORBIDDEN, ["permission_error", "permission_error"], Some("forbidden"), why.clone())
            }
            Self::NoRoute => of(
                StatusCode::NOT_FOUND,
                ["invalid_request_error", "not_found_error"],
                Some("unknown_url"),
                "nothing stands at this path; GET /openapi.json lists what does".into(),
            ),
            Self::NotFound(why) => {
                of(StatusCode::NOT_FOUND, ["invalid_request_error", "not_found_error"], Some("not_found"), why.clone())
            }
            Self::Method => of(
                StatusCode::METHOD_NOT_ALLOWED,
                INVALID,
                Some("method_not_allowed"),
                "this path does not take this method; GET /openapi.json lists what does".into(),
            ),
            Self::SlowBody => of(
                StatusCode::REQUEST_TIMEOUT,
                INVALID,
                Some("request_timeout"),
                "the body took too long to arrive".into(),
            ),
            Self::Conflict(why) => of(StatusCode::CONFLICT, INVALID, Some("conflict"), why.clone()),
            Self::TooLarge { limit_bytes } => of(
                StatusCode::PAYLOAD_TOO_LARGE,
                ["invalid_request_error", "request_too_large"],
                Some("request_too_large"),
                format!("the body has more than the {limit_bytes} bytes that it may have"),
            ),
            Self::MediaType => of(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                INVALID,
                Some("unsupported_media_type"),
                "the body has to be JSON, sent with \"content-type: application/json\"".into(),
            ),
            Self::Busy { why, retry_after } => Parts {
                retry_after: Some(*retry_after),
                ..of(
                    StatusCode::TOO_MANY_REQUESTS,
                    ["rate_limit_error", "rate_limit_error"],
                    Some("rate_limit_exceeded"),
                    why.clone(),
                )
            },
            Self::NotImplemented(why) => {
                of(StatusCode::NOT_IMPLEMENTED, ["server_error", "api_error"], Some("not_implemented"), why.clone())
            }
            Self::ShuttingDown => Parts {
                retry_after: Some(Duration::from_secs(5)),
                ..of(
                    StatusCode::SERVICE_UNAVAILABLE,
                    ["server_error", "overloaded_error"],
                    Some("shutting_down"),
                    "the server is shutting down".into(),
                )
            },
            Self::QueueTime => Parts {
                retry_after: Some(Duration::from_secs(10)),
                ..of(
                    StatusCode::SERVICE_UNAVAILABLE,
                    ["server_error", "overloaded_error"],
                    Some("queue_timeout"),
                    "the request waited too long for its turn".into(),
                )
            },
            Self::Deadline => of(
                StatusCode::GATEWAY_TIMEOUT,
                ["server_error", "api_error"],
                Some("deadline_exceeded"),
                "the request took longer than it may".into(),
            ),
            Self::Internal { .. } => of(
                StatusCode::INTERNAL_SERVER_ERROR,
                ["server_error", "api_error"],
                Some("internal_error"),
                format!("internal error; this request's id is {id}"),
            ),
        }
    }
}

/// The error stands in the response's extensions until the router's root, which knows the request's id and shape, writes
/// it.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<SubmitError> for Error {
    fn from(error: SubmitError) -> Self {
        match &error {
            // The caller that knows how fast things go puts a better time there.
            SubmitError::Busy { .. } | SubmitError::KeyBusy { .. } => {
                Self::Busy { why: error.to_string(), retry_after: Duration::from_secs(1) }
            }
            SubmitError::TooLong { .. } => Self::Field {
                param: "max_tokens".into(),
                why: format!("does not fit: {error}"),
                code: Code::ContextLength,
            },
            SubmitError::ShuttingDown => Self::ShuttingDown,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::internal()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Cancelled | Failure::Internal => Self::internal(),
            Failure::Deadline | Failure::Stalled => Self::Deadline,
            Failure::ShuttingDown => Self::ShuttingDown,
            Failure::Numerical => Self::Internal { repeats: Repeats::Yes },
            Failure::Prompt(why) | Failure::Constraint(why) => Self::Malformed(why),
        }
    }
}
