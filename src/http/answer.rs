//! The kinds of answers that all servers give.

use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

const TEXT: &str = "text/plain; charset=utf-8";

/// JSON that no browser may take for something else.
pub fn json(status: StatusCode, body: String) -> Response {
    (status, headers("application/json"), body).into_response()
}

/// Plain text that no browser may take for something else.
pub fn text(status: StatusCode, body: impl Into<String>) -> Response {
    (status, headers(TEXT), body.into()).into_response()
}

/// Text of another type.
pub fn typed(content_type: &'static str, body: String) -> Response {
    (headers(content_type), body).into_response()
}

/// A file to save.
pub fn attachment(name: &str, body: Vec<u8>) -> Response {
    let disposition = [(CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\""))];
    (headers("application/octet-stream"), disposition, body).into_response()
}

/// The answer for paths that do not exist, as Go's mux gives it.
pub async fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn headers(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ])
}
