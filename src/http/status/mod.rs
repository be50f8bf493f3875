//! `/status`: a page for people who look at one node. It shows what `/api/` and `/metrics` answer, and nothing else.
//!
//! One document without anything from elsewhere. Its content security policy lets nothing run but the script that is in
//! it, which is known by its hash, and nothing be asked but this server.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use openssl::base64::encode_block;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The document and its policy.
static STATUS: LazyLock<(String, String)> = LazyLock::new(|| {
    let hash = |text: &str| format!("'sha256-{}'", encode_block(&Sha256::digest(text)));
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    (PAGE.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT), policy)
});

/// The page.
pub async fn page() -> Response {
    let (page, policy) = &*STATUS;
    let fixed = |name: HeaderName, value: &'static str| (name, HeaderValue::from_static(value));
    let headers = [
        fixed(CONTENT_TYPE, "text/html; charset=utf-8"),
        fixed(X_CONTENT_TYPE_OPTIONS, "nosniff"),
        fixed(REFERRER_POLICY, "no-referrer"),
        fixed(CACHE_CONTROL, "no-store"),
    ];
    let policy = HeaderValue::from_str(policy).expect("it is plain ASCII");
    (headers, [(CONTENT_SECURITY_POLICY, policy)], page.as_str()).into_response()
}
