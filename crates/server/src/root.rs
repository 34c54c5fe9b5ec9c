//! What holds for every request, whatever its route: its name, who asks, panics, time, how errors are written, counters, one
//! line in the log.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use utoipa::openapi::OpenApi;

use crate::app::App;
use crate::body::Notes;
use crate::error::{Error, Shape};
use crate::request_id::RequestId;
use crate::{routes, web};

/// Paths that need no key: what orchestrators ask, and the chat page, which asks for a key itself.
const OPEN: [&str; 3] = ["/health", "/health/live", "/health/ready"];

/// All routes with what holds for each of them.
pub fn router(app: &App) -> Router {
    let (routes, document) = bare(app);
    routes.merge(document_route(document)).layer(from_fn_with_state(app.clone(), root))
}

/// All routes without authentication: for requests that the server makes itself, in the name of a caller.
pub fn bare(app: &App) -> (Router, OpenApi) {
    let (routes, document) = routes::all().split_for_parts();
    let routes = routes
        .merge(web::routes(app))
        .fallback(|| async { Error::NoRoute })
        .method_not_allowed_fallback(|| async { Error::Method })
        .with_state(app.clone());
    (routes, document)
}

fn document_route(document: OpenApi) -> Router {
    let text = document.to_json().unwrap_or_default();
    let get = axum::routing::get(move || async move { ([(header::CONTENT_TYPE, "application/json")], text) });
    Router::new().route("/openapi.json", get)
}

/// What happens around every route.
pub async fn root(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = RequestId::of(request.headers());
    let notes = Notes::default();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("none".to_owned(), |path| path.as_str().to_owned());
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let caller = permit(&app, &method, &path, request.headers());
    let mut response = match caller {
        Err(error) => error.into_response(),
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(id.clone());
            request.extensions_mut().insert(notes.clone());
            run(&app, request, next).await
        }
    };
    if is_plain_refusal(&response) {
        // A part of the framework's own that refuses, such as for a path that is no UTF-8.
        response.extensions_mut().insert(Error::Malformed("the request's address can not be read".into()));
    }
    if let Some(error) = response.extensions_mut().remove::<Error>() {
        response = error.response(Shape::of(&path), &id.0);
        if response.status().is_server_error() {
            tracing::warn!(id = %id.0, ?error, "failed");
        }
    }
    let took = began.elapsed();
    finish(&mut response, &id, &notes, took);
    if is_chunked {
        // Both ends have to agree where a body ends, or the next request is hidden in this one. They may not.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status().as_u16();
    app.metrics().answered(method.as_str(), &route, status, took);
    let (ms, ignored) = (took.as_millis(), notes.header().unwrap_or_default());
    tracing::info!(id = %id.0, %method, %route, status, ms, %ignored, "answered");
    response
}

/// Whether a response refuses something in another form than an interface's.
fn is_plain_refusal(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    response.status().is_client_error()
        && response.extensions().get::<Error>().is_none()
        && kind != Some(b"application/json")
}

/// Runs the route. A panic fails this request alone.
async fn run(app: &App, request: Request, next: Next) -> Response {
    let total = app.limits().total_time;
    let running = AssertUnwindSafe(tokio::time::timeout(total, next.run(request))).catch_unwind();
    match running.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Error::Deadline.into_response(),
        Err(_) => Error::internal().into_response(),
    }
}

/// Whether the request may go on, and who asks.
fn permit(app: &App, method: &Method, path: &str, headers: &HeaderMap) -> Result<crate::keys::Caller, Error> {
    let keys = &app.options().keys;
    if keys.is_open() {
        local(headers)?;
    }
    let is_open = (method == Method::GET || method == Method::HEAD) && (OPEN.contains(&path) || web::is_asset(path));
    match keys.caller(headers) {
        Some(caller) => Ok(caller),
        None if is_open => Ok(crate::keys::Caller(0)),
        None => Err(Error::Unauthorised),
    }
}

/// Without keys, a page that a browser on this machine shows must not use the server: neither by asking across origins, nor by
/// a name of its own that resolves to this machine.
fn local(headers: &HeaderMap) -> Result<(), Error> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST);
    if let Some(host) = host
        && !is_own(host)
    {
        return Err(Error::Forbidden(
            "without keys this server answers to localhost and to numeric addresses only; start it with --api-key-file"
                .into(),
        ));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let of = origin.split_once("://").map(|(_, of)| of);
        if of.is_none() || of != host {
            return Err(Error::Forbidden(
                "without keys this server answers no page of another origin; start it with --api-key-file".into(),
            ));
        }
    }
    Ok(())
}

/// Whether a host is a number or this machine's own name.
fn is_own(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.parse::<std::net::IpAddr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

fn finish(response: &mut Response, id: &RequestId, notes: &Notes, took: Duration) {
    let headers = response.headers_mut();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("x-request-id", &id.0);
    put("openai-processing-ms", &took.as_millis().to_string());
    put("x-content-type-options", "nosniff");
    if let Some(ignored) = notes.header() {
        put("x-ignored-params", &ignored);
    }
}
