//! What happens to the clients' keys while the server runs: a configured certificate is read again when its files change
//! or at SIGHUP, and a port of plain TCP is complained about.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::keys::{Keys, Reloaded};
use crate::session::seats::{Order, Seats};
use crate::state::audit::By;
use crate::state::{Action, State};

/// Time between two looks at the files.
const LOOK: Duration = Duration::from_secs(10);
/// Time between two warnings.
const HOUR: Duration = Duration::from_secs(3600);

/// What the keys concern.
pub struct Watched {
    /// The keys.
    pub keys: Arc<Keys>,
    /// Who is told of another key.
    pub seats: Arc<Seats>,
    /// Where it is written down.
    pub state: State,
}

/// Says that the port speaks plain TCP.
pub fn warn_insecure() {
    warn!(
        "clients.insecure is set: whoever can listen in on the network reads every figure and every secret; \
         take it from the configuration to have TLS"
    );
}

/// Watches until the shutdown.
pub async fn watch(watched: Watched, shutdown: CancellationToken) {
    let mut hangup =
        signal(SignalKind::hangup()).inspect_err(|error| warn!(%error, "cannot listen for SIGHUP")).ok();
    let (mut look, mut hour) =
        (interval_at(Instant::now() + LOOK, LOOK), interval_at(Instant::now() + HOUR, HOUR));
    let mut seen = fingerprint(&watched.keys);
    loop {
        let asked = tokio::select! {
            () = shutdown.cancelled() => return,
            () = hung_up(&mut hangup) => true,
            _ = look.tick() => false,
            _ = hour.tick() => {
                if watched.keys.server_config().is_none() {
                    warn_insecure();
                }
                continue;
            }
        };
        let now = fingerprint(&watched.keys);
        if asked || now != seen {
            seen = now;
            watched.reload().await;
        }
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Changes when a configured file does.
fn fingerprint(keys: &Keys) -> Option<[Option<(SystemTime, u64)>; 2]> {
    let of = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.modified().ok()?, file.len()))
    };
    keys.configured().map(|(certificate, key)| [of(certificate), of(key)])
}

impl Watched {
    async fn reload(&self) {
        let Some((certificate, _)) = self.keys.configured() else { return };
        let file = certificate.display();
        let done = match self.keys.reload() {
            Ok(Reloaded::SameKey) => "the same key",
            Ok(Reloaded::NextKey(_)) => "the announced key",
            Err(error) => {
                error!(%error, "the clients' certificate was not read again; the one before stays in use");
                return;
            }
        };
        info!(%file, key = done, "read the clients' certificate again");
        self.seats.order_all(&Order::Pins(self.keys.pins()));
        let target = file.to_string();
        if let Err(error) = self.state.audit(&By::server(), Action::CertificateReloaded, target, done).await {
            warn!(%error, "not in the audit log");
        }
    }
}
