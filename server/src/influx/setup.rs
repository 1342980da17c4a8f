//! Set-up, health and buckets, through the crate `influxdb2`.
//!
//! Of its 0.5.2: it panics at a bad URL, so the URL is checked first; it has no time limit, so each call has one here;
//! it replaces the URL's path, so an InfluxDB below a path cannot be reached with it; and it trusts the root
//! certificates that it was built with and uses the environment's proxies, other than [`super::http`]. So what
//! [`check`] finds is advice in the log and never keeps the writer from trying.

use std::future::Future;
use std::time::Duration;

use influxdb2::api::buckets::ListBucketsRequest;
use influxdb2::models::health::Status;
use influxdb2::{Client, RequestError};

use super::http::check_url;
use super::{InfluxError, InfluxOptions, Token};

/// Time that one call may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What can be seen of an InfluxDB before anything is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is well, and the token sees the bucket.
    Bucket {
        /// InfluxDB's version, as it says it.
        version: String,
    },
    /// It is well, and the token sees no such bucket: there is none, or the token may only write, which shows it no
    /// buckets at all.
    NoBucketSeen {
        /// InfluxDB's version, as it says it.
        version: String,
    },
    /// It is there and says that it is not well.
    Unwell(String),
    /// It cannot be looked at this way, since it stands below a path.
    BelowAPath,
}

/// Who and what a new InfluxDB begins with.
#[derive(Debug, Clone)]
pub struct SetUp {
    /// Name of the first user.
    pub user: String,
    /// Its password, 8 characters at least.
    pub password: Token,
    /// Name of the organisation.
    pub org: String,
    /// Name of the bucket.
    pub bucket: String,
    /// How long the bucket keeps points; `None`: for ever.
    pub keep: Option<Duration>,
}

/// Looks whether InfluxDB is well and whether the bucket is there, as far as the token may see it.
pub async fn check(options: &InfluxOptions) -> Result<Found, InfluxError> {
    if check_url(&options.url)?.path() != "/" {
        return Ok(Found::BelowAPath);
    }
    let client = client(&options.url, &options.org, &options.token)?;
    let health = limited(client.health()).await?;
    if health.status != Status::Pass {
        return Ok(Found::Unwell(health.message.unwrap_or_default()));
    }
    let version = health.version.unwrap_or_default();
    let request = ListBucketsRequest {
        name: Some(options.bucket.clone()),
        org: Some(options.org.clone()),
        ..ListBucketsRequest::default()
    };
    let listed = limited(client.list_buckets(Some(request))).await?;
    let is_there = listed.buckets.iter().any(|bucket| bucket.name == options.bucket);
    Ok(if is_there { Found::Bucket { version } } else { Found::NoBucketSeen { version } })
}

/// Sets up a new InfluxDB at `url` and gives the first user's token, which may do everything. Refused by one that has
/// been set up before.
pub async fn set_up(url: &str, what: &SetUp) -> Result<Token, InfluxError> {
    let client = client(url, "", &Token::from(""))?;
    if !limited(client.is_onboarding_allowed()).await? {
        return Err(InfluxError::SetUpBefore);
    }
    let password = Some(what.password.reveal().to_owned());
    let keep_seconds = what.keep.map_or(0, |keep| i32::try_from(keep.as_secs()).unwrap_or(i32::MAX));
    let onboarding =
        client.onboarding(&what.user, &what.org, &what.bucket, password, None, Some(keep_seconds));
    let done = limited(onboarding).await?;
    let token = done.auth.and_then(|auth| auth.token);
    token.map(Token::from).ok_or_else(|| InfluxError::Api("the answer holds no token".into()))
}

/// Checks at start and says in the log what was found.
pub(super) async fn check_and_log(options: InfluxOptions) {
    let url = options.url.as_str();
    let (org, bucket) = (options.org.as_str(), options.bucket.as_str());
    match check(&options).await {
        Ok(Found::Bucket { version }) => {
            tracing::info!(url, org, bucket, version, "influxdb is well and has the bucket");
        }
        Ok(Found::NoBucketSeen { version }) => tracing::info!(
            url,
            org,
            bucket,
            version,
            "influxdb is well; the token sees no such bucket, as is normal for one that may only write"
        ),
        Ok(Found::Unwell(error)) => {
            tracing::warn!(influx = options.name, url, error, "influxdb says that it is not well")
        }
        Ok(Found::BelowAPath) => tracing::debug!(url, "influxdb stands below a path and is not checked"),
        Err(error) => tracing::warn!(
            url,
            org,
            bucket,
            %error,
            "influxdb cannot be checked; what comes waits in the journal until it answers"
        ),
    }
}

fn client(url: &str, org: &str, token: &Token) -> Result<Client, InfluxError> {
    let url = check_url(url)?;
    if !token.reveal().chars().all(|c| ('!'..='~').contains(&c)) {
        return Err(InfluxError::Token);
    }
    influxdb2::ClientBuilder::new(url, org, token.reveal())
        .build()
        .map_err(|error| InfluxError::Client(error.to_string()))
}

async fn limited<T>(call: impl Future<Output = Result<T, RequestError>>) -> Result<T, InfluxError> {
    match tokio::time::timeout(LIMIT, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(RequestError::Http { status, text })) => {
            let text: String = text.chars().take(300).collect();
            Err(InfluxError::Api(format!("{status}: {}", text.trim())))
        }
        Ok(Err(error)) => Err(InfluxError::Api(error.to_string())),
        Err(_) => Err(InfluxError::Api(format!("no answer within {} s", LIMIT.as_secs()))),
    }
}
