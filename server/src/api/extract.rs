//! axum's extractors, with a [`Problem`] where they refuse: every error of the API is one.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::Problem;

/// A body of JSON, both ways; what comes in must be an object. Refuses with 400 (no JSON), 413 (too long), 415 (not said to be JSON) and 422 (JSON, but not
/// what is wanted).
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

/// What follows the `?`. Refuses with 400.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

/// Parts of the path. Refuses with 400.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<T>(pub T);

/// What stands between braces. A derived structure would take a list too, its values in the order of the fields: what that is
/// changes with the code, and no document says it.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Why a body is refused, in words for who sent it: axum's speak of target types.
fn refusal(no: &JsonRejection) -> String {
    let cause = |error: &dyn Error| error.source().map_or_else(|| error.to_string(), ToString::to_string);
    match no {
        JsonRejection::JsonDataError(error) => format!("the body is not what is asked for: {}", cause(error)),
        JsonRejection::JsonSyntaxError(error) => format!("the body is no JSON: {}", cause(error)),
        no => no.body_text(),
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let json = axum::Json::from_request(request, state).await;
        json.map(|axum::Json(Object(value))| Self(value))
            .map_err(|no: JsonRejection| Problem::new(no.status(), refusal(&no)))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|no: QueryRejection| Problem::bad_request(no.body_text()))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|no: PathRejection| Problem::new(no.status(), no.body_text()))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::extract::DefaultBodyLimit;
    use axum::http::{StatusCode, header};
    use axum::routing::{get, post};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        limit: u8,
    }

    /// Status and detail of what refuses this request.
    async fn refused(method: &str, uri: &str, kind: Option<&str>, body: &'static str) -> (u16, String) {
        let router = Router::new()
            .route("/query", get(async |Query(wanted): Query<Wanted>| wanted.limit.to_string()))
            .route("/path/{limit}", get(async |Path(limit): Path<u8>| limit.to_string()))
            .route("/json", post(async |Json(wanted): Json<Wanted>| wanted.limit.to_string()))
            .layer(DefaultBodyLimit::max(32));
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        // A stream: its length is not known before.
        let body = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(body)]));
        let answer = TowerToHyperService::new(router).call(request.body(body).unwrap()).await.unwrap();
        let (status, kind) = (answer.status(), answer.headers()[header::CONTENT_TYPE].clone());
        let body = to_bytes(answer.into_body(), 9_999).await.unwrap();
        if status == StatusCode::OK {
            return (200, String::from_utf8(body.to_vec()).unwrap());
        }
        assert_eq!(kind, "application/problem+json");
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["status"], status.as_u16());
        (status.as_u16(), problem["detail"].as_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn whatever_cannot_be_read_is_refused_with_a_problem_that_says_why() {
        let json = Some("application/json");
        for (method, uri, kind, body, status, says) in [
            ("GET", "/query?limit=7", None, "", 200, "7"),
            ("GET", "/query?limit=x", None, "", 400, "limit"),
            ("GET", "/query?limit=7&more=1", None, "", 400, "more"),
            ("GET", "/path/7", None, "", 200, "7"),
            ("GET", "/path/999", None, "", 400, "999"),
            ("GET", "/path/%FF", None, "", 400, "UTF-8"),
            ("POST", "/json", json, "{\"limit\":7}", 200, "7"),
            ("POST", "/json", json, "{\"limit\":", 400, "no JSON: limit: EOF"),
            ("POST", "/json", json, "{\"limit\":\"a\"}", 422, "asked for: limit: invalid type"),
            ("POST", "/json", json, "[7]", 422, "an object"),
            ("POST", "/json", json, "{\"limit\":7,\"more\":1}", 422, "more"),
            ("POST", "/json", None, "{\"limit\":7}", 415, "application/json"),
            ("POST", "/json", Some("text/plain"), "{\"limit\":7}", 415, "application/json"),
            ("POST", "/json", json, "{\"limit\":                          7}", 413, "length limit"),
        ] {
            let answer = refused(method, uri, kind, body).await;
            assert!(answer.0 == status && answer.1.contains(says), "{method} {uri} {body}: {answer:?}");
        }
    }
}
