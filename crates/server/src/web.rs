//! The chat page: the files of `web/`, in the binary.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::{App, Page};

/// Names and bytes.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/web.rs"));

/// What the page may do: its own files and this server, no script from elsewhere, no frame around it. Images may be those
/// that somebody pastes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The page and what it needs; nothing if it is hidden or not there.
pub fn routes(app: &App) -> Router<App> {
    let mut router = Router::new();
    if app.options().page == Page::Hidden {
        return router;
    }
    for &(name, bytes) in FILES {
        if name == "index.html" {
            router = router.route("/", get(move || async move { file(name, bytes) }));
        }
        router = router.route(&format!("/{name}"), get(move || async move { file(name, bytes) }));
    }
    router
}

/// Whether the path is one of the page's files, which need no key: they hold nothing of anybody's.
pub fn is_asset(path: &str) -> bool {
    path == "/" || path.strip_prefix('/').is_some_and(|path| FILES.iter().any(|(name, _)| *name == path))
}

fn file(name: &str, bytes: &'static [u8]) -> Response {
    let kind = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("webmanifest") => "application/manifest+json",
        Some("json") => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
