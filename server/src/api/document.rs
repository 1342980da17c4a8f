//! What the OpenAPI document says of every operation alike, put in at one place.

use std::sync::Arc;

use axum::Extension;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::caller::Reader;

/// The document as it is served.
#[derive(Debug, Clone)]
pub struct Text(pub Arc<str>);

/// This document: the whole API as OpenAPI 3.1.
#[utoipa::path(
    get, path = "/api/openapi.json", operation_id = "get_document", tag = "document",
    responses((status = 200, description = "An OpenAPI document.", body = Object, content_type = "application/json"))
)]
pub async fn openapi(_caller: Reader, Extension(Text(text)): Extension<Text>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text.to_string())
}

/// What any request may get before its handler is asked, or instead of it.
const ANY: [(&str, &str); 4] = [
    ("400", "The request cannot be read, or this port does not answer to that name."),
    ("408", "The body did not come in time."),
    ("413", "The body is too long."),
    (
        "503",
        "Too many requests are under way, or the answer was not ready in time; `Retry-After` says when to try again.",
    ),
];
/// What any request may get that is not open to all, from the gate.
const CLOSED: [(&str, &str); 2] = [
    ("401", "Nobody is logged in, and no API token that holds is shown."),
    ("403", "The caller may not do this, or must change the password first; or another site's page asks."),
];
/// How errors are said (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// Adds it, and says of each problem that it is one: what an operation says itself of a status stays.
pub fn complete(mut document: Value) -> Value {
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    let operations = paths.into_iter().flatten().filter_map(|(_, path)| path.as_object_mut()).flatten();
    for (_, operation) in operations {
        // What is open says so itself.
        let closed = if operation.get("security").is_some() { &[][..] } else { &CLOSED };
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        for (status, description) in ANY.iter().chain(closed).copied() {
            let problem = json!({"schema": {"$ref": "#/components/schemas/Problem"}});
            let response = json!({"description": description, "content": {PROBLEM: problem}});
            responses.entry(status).or_insert(response);
        }
        let contents =
            responses.iter_mut().filter_map(|(_, response)| response.get_mut("content")?.as_object_mut());
        contents.for_each(name_problem);
    }
    document
}

fn name_problem(content: &mut Map<String, Value>) {
    let is_problem = |content: &Value| {
        let name = content.pointer("/schema/$ref").and_then(Value::as_str);
        name == Some("#/components/schemas/Problem")
    };
    if content.get("application/json").is_some_and(is_problem)
        && let Some(problem) = content.remove("application/json")
    {
        content.insert(PROBLEM.to_owned(), problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_what_any_request_may_get_and_that_problems_are_problems() {
        let (_, document) = super::super::routes().split_for_parts();
        let document = complete(serde_json::to_value(document).unwrap());
        let problem = "#/components/schemas/Problem";
        assert!(document.pointer("/components/schemas/Problem/properties/detail").is_some());
        let mut count = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let is_open = ["/healthz", "/readyz"].contains(&path.as_str())
                    || (path == "/api/v1/session" && method == "post");
                assert_eq!(operation.get("security").is_some(), is_open, "{method} {path}");
                let closed = if is_open { &[][..] } else { &["401", "403"] };
                for status in ["400", "408", "413", "503"].iter().chain(closed) {
                    assert!(operation["responses"].get(*status).is_some(), "{method} {path}: {status}");
                }
                assert!(
                    !operation
                        .to_string()
                        .contains(&format!("\"application/json\":{{\"schema\":{{\"$ref\":\"{problem}"))
                );
                count += 1;
            }
        }
        assert!(count > 5);
        let one =
            "/paths/~1api~1v1~1hosts~1{host}/get/responses/404/content/application~1problem+json/schema/$ref";
        assert_eq!(document.pointer(one).and_then(Value::as_str), Some(problem));
    }
}
