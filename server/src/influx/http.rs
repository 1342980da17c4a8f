//! Write requests: the one place that speaks HTTP to InfluxDB for writing.
//!
//! The crate `influxdb2` serves for set-up, health and buckets ([`super::setup`]) and not for this: its errors lose the
//! headers (`Retry-After`, `Location`), a redirect is followed and the body may go elsewhere, the time limit cannot be
//! set without its own older `reqwest`, its gzip is fixed at the highest level, and it takes the whole of an answer's
//! body, however long. Ready-made lines in one POST need none of what it adds.
//!
//! Proxies named in the environment (`HTTP_PROXY` and the like) are not used: what stands between server and InfluxDB
//! is what the configuration's URL says. TLS uses the system's root certificates.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Url};

use super::answer::Answer;
use super::{InfluxError, InfluxOptions};

/// Bytes of an answer's body that are read at most. A message quotes every bad line.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How long an idle connection is kept: below the 3 minutes after which InfluxDB closes it.
const IDLE: Duration = Duration::from_secs(60);
/// Bodies smaller than this are not worth compressing.
const MIN_GZIP_BYTES: usize = 1024;

/// One InfluxDB bucket that can be written to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WriteClient {
    client: Client,
    url: Url,
    gzip: bool,
}

impl WriteClient {
    /// A client for what `options` name. Connects only when something is written.
    pub fn new(options: &InfluxOptions) -> Result<Self, InfluxError> {
        // Fails where one is installed already, by this or another part of the program: any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = write_url(options)?;
        let mut token = HeaderValue::from_str(&format!("Token {}", options.token.reveal()))
            .map_err(|_| InfluxError::Token)?;
        token.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, token);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let client = Client::builder()
            .user_agent(concat!("vitals-server/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(options.connect_timeout)
            .timeout(options.timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(options.in_flight + options.owed_in_flight)
            .http1_only()
            .build()
            .map_err(|error| InfluxError::Client(whole_story(&error)))?;
        Ok(Self { client, url, gzip: options.gzip })
    }

    /// Sends these lines and gives what came back. Never fails otherwise.
    pub async fn write(&self, lines: Bytes) -> Answer {
        let request = self.client.post(self.url.clone());
        let request = match self.compress(lines).await {
            (body, true) => request.header(header::CONTENT_ENCODING, "gzip").body(body),
            (body, false) => request.body(body),
        };
        match read(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => Answer::Timeout,
            Err(error) => Answer::Unreachable(whole_story(&error)),
        }
    }

    /// The body to send, and whether it is gzip. Compressing takes some ms for each MB, so it has a thread.
    async fn compress(&self, lines: Bytes) -> (Bytes, bool) {
        if !self.gzip || lines.len() < MIN_GZIP_BYTES {
            return (lines, false);
        }
        let plain = lines.clone();
        let compressing = tokio::task::spawn_blocking(move || {
            let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
            encoder.write_all(&plain).and_then(|()| encoder.finish())
        });
        match compressing.await {
            Ok(Ok(body)) => (body.into(), true),
            // Only at a shutdown of the runtime: plain will do as well.
            Ok(Err(_)) | Err(_) => (lines, false),
        }
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let mut response = request.send().await?;
    let text = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let location = text(header::LOCATION);
    // A date is left to the backoff.
    let retry_after = text(header::RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while body.len() < MAX_ANSWER_BYTES
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER_BYTES - body.len())]);
    }
    Ok(Answer::Http {
        status,
        retry_after: retry_after.map(Duration::from_secs),
        location,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Checks the URL before anything is made of it, and adds where to write.
fn write_url(options: &InfluxOptions) -> Result<Url, InfluxError> {
    let mut url = check_url(&options.url)?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["api", "v2", "write"]);
    }
    url.query_pairs_mut()
        .append_pair("org", &options.org)
        .append_pair("bucket", &options.bucket)
        .append_pair("precision", "ns");
    Ok(url)
}

/// A URL that InfluxDB can be found at: `http` or `https`, a host, perhaps a port and a path, nothing else.
pub(super) fn check_url(text: &str) -> Result<Url, InfluxError> {
    let bad = |why: &str| InfluxError::Url { url: text.to_owned(), why: why.to_owned() };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(bad("it must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated in the message: it holds a secret.
        return Err(InfluxError::Url {
            url: "(hidden)".into(),
            why: "a name and password in it are not used; InfluxDB takes a token".into(),
        });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("organisation, bucket and all else have settings of their own"));
    }
    Ok(url)
}

/// An error with what caused it: `reqwest`'s own text leaves out the interesting part.
fn whole_story(error: &dyn std::error::Error) -> String {
    let mut story = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !story.contains(&words) {
            story.push_str(": ");
            story.push_str(&words);
        }
        cause = error.source();
    }
    story
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> InfluxOptions {
        InfluxOptions::new("influx", url, "an org", "b&c", "secret", "dir")
    }

    #[test]
    fn the_url_keeps_a_path_of_its_own_and_escapes_the_names() {
        for (base, expected) in [
            ("http://h:8086", "http://h:8086/api/v2/write?org=an+org&bucket=b%26c&precision=ns"),
            ("https://h/", "https://h/api/v2/write?org=an+org&bucket=b%26c&precision=ns"),
            ("https://h/influx/", "https://h/influx/api/v2/write?org=an+org&bucket=b%26c&precision=ns"),
        ] {
            assert_eq!(write_url(&options(base)).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn urls_that_cannot_be_meant_are_refused_without_showing_secrets() {
        for bad in ["", "h:8086", "ftp://h", "http://", "http://h/?db=x", "http://[::1", "localhost", "//h"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        let error = check_url("http://me:geheim@h").unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
        assert!(WriteClient::new(&options("https://h")).is_ok(), "https needs its provider");
    }

    #[test]
    fn a_token_that_cannot_stand_in_a_header_is_refused_without_being_shown() {
        let mut options = options("http://h");
        options.token = "a\nb".into();
        assert!(matches!(WriteClient::new(&options), Err(InfluxError::Token)));
        options.token = "geheim".into();
        assert!(!format!("{options:?} {:?}", WriteClient::new(&options)).contains("geheim"));
    }
}
