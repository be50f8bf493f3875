//! What is said with an answer that is an error. The API server sends a Status; what stands before it (a balancer, a
//! proxy, a gateway that asks for a login) sends pages and objects of its own, of which `kube` would keep nothing.

use crate::api::encoding::protobuf;
use http::Response;
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::core::Status;

/// The most of a body that is looked at, in bytes.
const LOOKED_AT: usize = 64 * 1024;
/// The most of a body that is not a Status that is told, in characters.
const TOLD: usize = 200;

/// An error's answer with a Status in it, whatever it had.
pub async fn with_status(response: Response<Body>) -> Response<Body> {
    let code = response.status();
    if !code.is_client_error() && !code.is_server_error() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LOOKED_AT).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    if let Some(status) = protobuf::status(&body) {
        let body = serde_json::to_vec(&status).unwrap_or_default();
        return Response::from_parts(parts, Body::from(body));
    }
    let is_told = |status: &Status| status.code != 0 && !status.message.is_empty();
    if serde_json::from_slice::<Status>(&body).is_ok_and(|status| is_told(&status)) {
        return Response::from_parts(parts, Body::from(body));
    }
    let text = String::from_utf8_lossy(&body);
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut message: String = words.join(" ").chars().take(TOLD).collect();
    if message.is_empty() {
        message = "without a word".to_owned();
    }
    let reason = code.canonical_reason().unwrap_or_default();
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code.as_u16(), "message": message, "reason": reason,
    });
    let (mut head, _) = Response::new(()).into_parts();
    head.status = code;
    Response::from_parts(head, Body::from(status.to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(code: u16, body: &str) -> (u16, String, String) {
        let body = Body::from(body.as_bytes().to_vec());
        let response = Response::builder().status(code).body(body).expect("an answer");
        let body = with_status(response).await.into_body().collect().await.expect("a body");
        let status: Status = serde_json::from_slice(&body.to_bytes()).expect("a Status");
        (status.code, status.reason, status.message)
    }

    #[tokio::test]
    async fn whoever_answers_is_quoted() {
        let own = r#"{"kind":"Status","code":403,"reason":"Forbidden","message":"no"}"#;
        assert_eq!(told(403, own).await, (403, "Forbidden".into(), "no".into()));
        let gateway = |message: &str| (502, "Bad Gateway".to_owned(), message.to_owned());
        assert_eq!(told(502, "").await, gateway("without a word"));
        assert_eq!(told(502, "{}").await, gateway("{}"));
        let page = "<html>\n  <h1>no\tserver</h1></html>";
        assert_eq!(told(502, page).await, gateway("<html> <h1>no server</h1></html>"));
        assert_eq!(told(502, &"x".repeat(100_000)).await.0, 502);
        let (_, _, long) = told(502, &"x ".repeat(1000)).await;
        assert_eq!(long.len(), TOLD);
    }
}
