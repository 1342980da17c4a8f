//! The whole server: opens everything in the order in which data flows, runs until told to stop, and closes in the
//! opposite order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vitals_wire::ids::HostId;
use vitals_wire::line::HostTags;

use crate::config::Config;
use crate::connection::{self, Caps};
use crate::control::{self, Answer, Request};
use crate::data_dir::DataDir;
use crate::influx::{self, InfluxOptions};
use crate::journal::{Journal, JournalOptions, JournalReader};
use crate::live::{EVENT_QUEUE, Live};
use crate::metrics::Metrics;
use crate::own::{self, Own};
use crate::seldom::Seldom;
use crate::session;
use crate::state::State;
use crate::store::{Store, StoreOptions};
use crate::{api, clock};

/// Size of one of the journal's segments: what is read again at most once it is passed, and freed at once.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Time each part has to end when the server goes down.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The sockets that a server listens on.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub clients: TcpListener,
    /// For the page and the API.
    pub http: TcpListener,
}

impl Listeners {
    /// Binds what the configuration names.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = async |key: &str, address| {
            TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} ({key}): is something else listening there?")
            })
        };
        Ok(Self {
            clients: bind("clients.listen", config.clients.listen).await?,
            http: bind("http.listen", config.http.listen).await?,
        })
    }
}

/// Runs a server on these sockets until `shutdown`.
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> anyhow::Result<()> {
    let data_dir = DataDir::lock(&config.data_dir.0)?;
    let metrics = Arc::new(Metrics::new());
    let journal = Journal::open(
        JournalOptions {
            dir: data_dir.subdir("journal")?,
            segment_bytes: SEGMENT_BYTES,
            cap_bytes: config.journal.max_size.as_u64(),
            group: config.journal.group,
        },
        metrics.clone(),
    )
    .context("the journal cannot be opened")?;
    // Registered before the store starts to read: what one reader has passed goes unless another is known to need it.
    let influx = influx_reader(&config, &data_dir, &journal)?;
    let (state, _state_thread) = State::open(&data_dir.path().join("state.db"))?;
    let store = Store::open(
        StoreOptions {
            keep_raw: config.store.keep_raw,
            ..StoreOptions::new(data_dir.path().join("history.db"))
        },
        &journal,
        metrics.clone(),
    )
    .context("history cannot be opened")?;
    let (event_sender, events) = mpsc::channel(EVENT_QUEUE);
    let live = Arc::new(Live::new(clock::now_ms(), event_sender));
    for host in state.hosts() {
        live.expect(host.id, Duration::from_millis(host.interval_ms.into()));
    }

    // The writer ends after the sessions, so that the last that came in still leaves.
    let writers = CancellationToken::new();
    let mut parts = Parts::default();
    if let Some((options, reader)) = influx {
        let tags_at = {
            let state = state.clone();
            let own_tags = Arc::new(HostTags::new(&own_name(), []));
            Arc::new(move |host, time_ms| match host {
                HostId::SERVER => Some(own_tags.clone()),
                host => state.tags_at(host, time_ms),
            })
        };
        let written = influx::run(options, reader, tags_at, metrics.clone(), writers.clone());
        parts.start("influx", async move {
            if let Err(error) = written.await {
                error!(%error, "nothing is written to influxdb any more; the journal keeps what it can");
            }
        });
    }
    let own = Own {
        journal: journal.clone(),
        live: live.clone(),
        state: state.clone(),
        metrics: metrics.clone(),
        has_influx: !config.influx.url.is_empty(),
    };
    parts.start("own", own::run(own, events, writers.clone()));

    let (clients_at, http_at) = (listeners.clients.local_addr()?, listeners.http.local_addr()?);
    let api_shared = api::Shared {
        state: state.clone(),
        live: live.clone(),
        store: store.clone(),
        journal: journal.clone(),
        metrics: metrics.clone(),
    };
    let control = control::bind(data_dir.path()).context("cannot make the socket for commands")?;
    let answer = {
        let shared = api_shared.clone();
        move |request| match request {
            Request::Hosts => match api::hosts_json(&shared) {
                Ok(hosts) => Answer::Ok(hosts),
                Err(error) => Answer::Error(error.to_string()),
            },
        }
    };
    parts.start("control", control::serve(control, answer, writers.clone()));
    let http_served = api::serve(listeners.http, api_shared, writers.clone());
    parts.start("http", async move {
        if let Err(error) = http_served.await {
            warn!(%error, "the API ended");
        }
    });
    let sessions = Arc::new(session::Shared {
        journal: journal.clone(),
        live,
        state,
        metrics,
        keep_raw: config.store.keep_raw,
        hello_timeout: config.clients.hello_timeout,
        shutdown: shutdown.clone(),
        seldom: Seldom::default(),
    });
    let caps = Caps {
        connections: config.clients.max_connections,
        strangers_per_address: config.clients.max_strangers_per_address,
    };
    info!(
        version = env!("CARGO_PKG_VERSION"), clients = %clients_at, http = %http_at,
        data_dir = %data_dir.path().display(), influx = &*config.influx.url, "vitals-server runs"
    );

    connection::run(listeners.clients, caps, sessions).await;
    info!(waiting_for = "journal, influx, store", "vitals-server goes down");
    writers.cancel();
    parts.end().await;
    if timeout(STOP_TIMEOUT, journal.close()).await.is_err() {
        warn!(part = "journal", "still not done; going down all the same");
    }
    if timeout(STOP_TIMEOUT, tokio::task::spawn_blocking(move || store.close())).await.is_err() {
        warn!(part = "store", "still not done; going down all the same");
    }
    info!("vitals-server has ended");
    Ok(())
}

/// The writer's options and its reader of the journal, where an InfluxDB is configured.
fn influx_reader(
    config: &Config,
    data_dir: &DataDir,
    journal: &Journal,
) -> anyhow::Result<Option<(InfluxOptions, JournalReader)>> {
    let influx = &config.influx;
    if influx.url.is_empty() {
        return Ok(None);
    }
    let cursor_file = data_dir.path().join("influx.cursor");
    let token = influx.token.0.clone();
    let options = InfluxOptions {
        gzip: influx.gzip,
        timeout: influx.timeout,
        ..InfluxOptions::new(&influx.url, &influx.org, &influx.bucket, token, cursor_file)
    };
    options.check()?;
    let share = config.journal.max_size.as_u64() / 2;
    let reader = journal.lagging_reader("influx", influx::starting_point(&options), share)?;
    Ok(Some((options, reader)))
}

/// What this machine is called: the `host` of the server's own points.
fn own_name() -> String {
    let uname = rustix::system::uname();
    vitals_wire::name::nearest_host_name(&uname.nodename().to_string_lossy()).to_string()
}

/// The tasks beside the sessions, by name, so that one that lags at the end can be named.
#[derive(Default)]
struct Parts(Vec<(&'static str, JoinHandle<()>)>);

impl Parts {
    fn start(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.0.push((name, tokio::spawn(part)));
    }

    async fn end(self) {
        for (name, part) in self.0 {
            match timeout(STOP_TIMEOUT, part).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(part = name, %error, "ended badly"),
                Err(_) => warn!(part = name, "still not done; going down all the same"),
            }
        }
    }
}
