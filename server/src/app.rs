//! The whole server: opens everything in the order in which data flows, runs until told to stop, and closes in the
//! opposite order.

mod first_admin;
pub mod targets;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use vitals_wire::ids::HostId;
use vitals_wire::line::HostTags;
use vitals_wire::section::EventKind;

use crate::commands::Place;
use crate::config::Config;
use crate::connection::{self, Caps};
use crate::control::{self, Answer, Request};
use crate::data_dir::DataDir;
use crate::influx::TagsAt;
use crate::journal::{Journal, JournalOptions};
use crate::live::{EVENT_QUEUE, Live};
use crate::metrics::Metrics;
use crate::own::{self, Own};
use crate::seldom::Seldom;
use crate::session;
use crate::shutdown::Deadline;
use crate::state::State;
use crate::store::{Store, StoreOptions};
use crate::tls::keys::Keys;
use crate::tls::page::Page;
use crate::tls::watch;
use crate::{api, backfill, clock, shutdown as going_down};

/// Time that history has to catch up with the journal before hosts are looked for.
const CATCH_UP: Duration = Duration::from_secs(1);
/// More of the journal than this is not waited for: it takes longer than that.
const CATCH_UP_BYTES: u64 = 4 << 20;
/// On the way down the sessions have half of the time, the other parts a quarter, journal and history the rest; what one
/// does not need the others have.
const SESSIONS_PERCENT: u32 = 50;
const PARTS_PERCENT: u32 = 75;

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
///
/// # Errors
/// It cannot start, or a part of it ended by itself: then the others were drained as at a shutdown.
pub async fn run(config: Config, listeners: Listeners, shutdown: CancellationToken) -> anyhow::Result<()> {
    let data_dir = DataDir::lock(&config.data_dir.0)?;
    let metrics = Arc::new(Metrics::new());
    let journal = open_journal(&config, &data_dir, &metrics)?;
    let (state, _state_thread) = State::open(&data_dir.path().join("state.db"))?;
    first_admin::make(&config, &data_dir, &state).await?;
    // Registered before the store starts to read: what one reader has passed goes unless another is known to need it.
    let influx = targets::open(&config, &data_dir, &journal, &metrics)?;
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
    // What happened just before a kill is read again from the journal, which takes a moment. Behind a large journal
    // hosts are what history knows of them, and the live picture does not wait.
    let looked = Instant::now();
    while (1..=CATCH_UP_BYTES).contains(&store.lag_bytes()) && looked.elapsed() < CATCH_UP {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    expect_hosts(&live, &state, &store);
    let newest_kept: session::NewestKept = {
        let (store, live) = (store.clone(), live.clone());
        Arc::new(move |host| store.newest_ms(host).ok().flatten().max(live.committed_ms(host)))
    };
    state.settle(&*newest_kept).await;
    let place = Place {
        config: Arc::new(in_force(&config, &listeners)?),
        state: state.clone(),
        seats: Arc::default(),
        keys: Arc::new(Keys::open(&config, &data_dir)?),
        newest: Some(newest_kept.clone()),
    };

    // The other parts end after the sessions, so that the last that came in still leaves.
    let rest = CancellationToken::new();
    let mut parts = Parts::default();
    let known_targets = influx.targets();
    let tags_at = tags_at(&state);
    let history = Arc::new(targets::FromStore { store: store.clone(), tags_at: tags_at.clone() });
    for writer in influx.writers {
        parts.start(
            "influx",
            writer.write(journal.clone(), tags_at.clone(), history.clone(), metrics.clone(), rest.clone()),
        );
    }
    let own = Arc::new(Own {
        journal: journal.clone(),
        live: live.clone(),
        state: state.clone(),
        metrics: metrics.clone(),
        times: Mutex::default(),
    });
    parts.start("report", own::report(own.clone(), rest.clone()));
    parts.start("tell", own::tell(own, events, rest.clone()));
    let (clients_at, http_at) = (listeners.clients.local_addr()?, listeners.http.local_addr()?);
    let api_shared = api::Shared {
        state: state.clone(),
        live: live.clone(),
        store: store.clone(),
        journal: journal.clone(),
        metrics: metrics.clone(),
        targets: known_targets,
        place: place.clone(),
        auth: api::auth::Auth::knowing(state.login_addresses()),
        keep_raw: config.store.keep_raw,
    };
    let control = control::bind(data_dir.path()).context("cannot make the socket for commands")?;
    parts.start("control", control::serve(control, answers(api_shared.clone()), rest.clone()));
    let watched =
        watch::Watched { keys: place.keys.clone(), seats: place.seats.clone(), state: state.clone() };
    parts.start("keys", watch::watch(watched, rest.clone()));
    let page = match config.http.is_tls() {
        true => Some(Arc::new(Page::open(&config, &data_dir, http_at)?)),
        false => None,
    };
    let http_tls = page.as_ref().map(|page| page.config());
    parts.start("http", api::serve(listeners.http, api_shared, http_tls, rest.clone()));
    if let Some(page) = page {
        parts.start("page certificate", page.watch(rest.clone()));
    }
    let state_watched = state.clone();
    let sessions = Arc::new(session::Shared {
        journal: journal.clone(),
        live,
        state,
        seats: place.seats.clone(),
        keys: place.keys.clone(),
        metrics,
        keep_raw: config.store.keep_raw,
        hello_timeout: config.clients.hello_timeout,
        shutdown: shutdown.clone(),
        seldom: Seldom::default(),
        refused_hosts: session::RefusedHosts::default(),
        room: session::Room::default(),
        books: session::Books::new(config.limits.clone()),
        newest_kept,
    });
    let caps = Caps {
        connections: config.clients.max_connections,
        strangers_per_address: config.clients.max_strangers_per_address,
        proxies: config.clients.proxies.clone().into(),
    };
    let influx_urls: Vec<String> = config.influx.all().into_iter().map(|target| target.url).collect();
    info!(
        version = env!("CARGO_PKG_VERSION"), clients = %clients_at, http = %http_at,
        data_dir = %data_dir.path().display(), influx = influx_urls.join(","), "vitals-server runs"
    );
    if config.clients.insecure {
        watch::warn_insecure();
    }

    let limit = config.shutdown_timeout.0;
    let drain = limit * SESSIONS_PERCENT / 100;
    let clients = tokio::spawn(connection::run(listeners.clients, caps, drain, sessions));
    let died = tokio::select! {
        () = shutdown.cancelled() => None,
        part = parts.first_to_end() => Some(part),
        () = journal.ended() => Some("journal"),
        () = store.ended() => Some("store"),
        () = state_watched.ended() => Some("state"),
    };
    if let Some(part) = died {
        error!(part, "a part of the server ended by itself; the others go down");
        shutdown.cancel();
    }
    let deadline = Deadline::from_now(limit);
    info!(waiting_for = "sessions", limit = ?limit, "vitals-server goes down");
    if let Err(error) = clients.await {
        error!(%error, "the sessions ended badly");
    }
    rest.cancel();
    parts.end(deadline.after_percent(PARTS_PERCENT)).await;
    let last = deadline.after_percent(100);
    going_down::wait("journal", last, journal.close()).await;
    let closed = tokio::task::spawn_blocking(move || store.close());
    match going_down::wait("store", last, closed).await {
        Some(Ok(Ok(()))) | None => {}
        Some(Ok(Err(error))) => warn!(%error, "what history could not take in is still in the journal"),
        Some(Err(error)) => error!(%error, "history ended badly"),
    }
    info!(took = ?deadline.elapsed(), "vitals-server has ended");
    match died {
        Some(part) => anyhow::bail!("{part} ended by itself; the log says why"),
        None => Ok(()),
    }
}

/// The configuration with the ports that the system chose where it says 0.
fn in_force(config: &Config, listeners: &Listeners) -> std::io::Result<Config> {
    let mut config = config.clone();
    config.clients.listen = listeners.clients.local_addr()?;
    config.http.listen = listeners.http.local_addr()?;
    Ok(config)
}

fn open_journal(config: &Config, data_dir: &DataDir, metrics: &Arc<Metrics>) -> anyhow::Result<Journal> {
    let options = JournalOptions {
        cap_bytes: config.journal.max_size.as_u64(),
        group: config.journal.group,
        ..JournalOptions::new(data_dir.subdir("journal")?)
    };
    Journal::open(options, metrics.clone()).context("the journal cannot be opened")
}

/// Tells the live picture of the hosts that were known before this start, as they were then.
fn expect_hosts(live: &Live, state: &State, store: &Store) {
    let last_events = store.last_events().unwrap_or_else(|error| {
        warn!(%error, "it is not known which hosts were away");
        Vec::new()
    });
    let last: HashMap<HostId, (EventKind, &str)> = last_events
        .iter()
        .filter_map(|event| Some((event.host, (EventKind::named(&event.kind)?, &*event.detail))))
        .collect();
    for host in state.hosts() {
        live.expect(host.id, Duration::from_millis(host.interval_ms.into()), last.get(&host.id).copied());
    }
}

/// What stands on the lines of a host's samples, and of the server's own.
fn tags_at(state: &State) -> TagsAt {
    let state = state.clone();
    let own_tags = Arc::new(HostTags::new(&own_name(), []));
    Arc::new(move |host, time_ms| match host {
        HostId::SERVER => Some(own_tags.clone()),
        host => state.tags_at(host, time_ms),
    })
}

/// Answers the commands.
fn answers(shared: api::Shared) -> impl Fn(Request) -> Answer + Clone + Send + 'static {
    fn answer(json: serde_json::Result<serde_json::Value>) -> Answer {
        json.map_or_else(|error| Answer::Error(error.to_string()), Answer::Ok)
    }
    move |request| match request {
        // On a thread that may wait; what is asked itself waits for the state.
        Request::Access(request) => match Handle::current().block_on(shared.place.answer(request)) {
            Ok(done) => Answer::Ok(done),
            Err(error) => Answer::Error(format!("{error:#}")),
        },
        Request::Hosts => answer(api::hosts_json(&shared)),
        Request::Targets => answer(api::targets_json(&shared)),
        Request::Quarantine { target, skip, limit } => {
            match api::quarantine_json(&shared.targets, target.as_deref(), skip, limit) {
                Ok(lines) => Answer::Ok(lines),
                Err(error) => Answer::Error(error),
            }
        }
        Request::Backfill(wanted) => {
            match backfill::note(
                &wanted,
                &shared.targets,
                &shared.state,
                shared.keep_raw,
                shared.journal.end(),
            ) {
                Ok(noted) => Answer::Ok(noted),
                Err(error) => Answer::Error(format!("{error:#}")),
            }
        }
    }
}

/// What this machine is called: the `host` of the server's own points.
fn own_name() -> String {
    let uname = rustix::system::uname();
    vitals_wire::name::nearest_host_name(&uname.nodename().to_string_lossy()).to_string()
}

/// The tasks beside the sessions, by name, so that one that ends early, or lags at the end, can be named.
#[derive(Default)]
struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    fn start(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.tasks.spawn(part).id(), name);
    }

    /// Waits for one to end, however it does.
    async fn first_to_end(&mut self) -> &'static str {
        let (id, outcome) = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => (id, Ok(())),
            Some(Err(error)) => (error.id(), Err(error)),
            // There always are some.
            None => return std::future::pending().await,
        };
        let name = self.names.remove(&id).unwrap_or("a part");
        if let Err(error) = outcome {
            error!(part = name, %error, "ended badly");
        }
        name
    }

    /// Waits for all, one after the other, until then.
    async fn end(mut self, until: tokio::time::Instant) {
        while !self.tasks.is_empty() {
            let mut left: Vec<&str> = self.names.values().copied().collect();
            left.sort_unstable();
            if going_down::wait(&left.join(","), until, self.first_to_end()).await.is_none() {
                return;
            }
        }
    }
}
