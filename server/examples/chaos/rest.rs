//! Whether all that was acknowledged has gone where it belongs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Figures of `/metrics`, the series of a name summed.
#[derive(Debug, Default, Clone)]
pub struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    /// Asks the server.
    pub async fn take(http: &reqwest::Client, server: SocketAddr) -> Result<Self, String> {
        let answer = http.get(format!("http://{server}/metrics")).send().await;
        let text = match answer {
            Ok(answer) => answer.text().await.map_err(|error| error.to_string())?,
            Err(error) => return Err(error.to_string()),
        };
        let mut figures = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let name = name.split('{').next().unwrap_or_default();
            *figures.entry(name.to_owned()).or_default() += value.parse().unwrap_or(0.0);
        }
        Ok(Self(figures))
    }

    /// One figure; zero where there is none.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// What has still to go somewhere: lags, and what is owed to InfluxDB.
    pub fn unfinished(&self) -> BTreeMap<&str, f64> {
        let waits = |name: &str| {
            matches!(name, "vitals_store_lag_bytes" | "vitals_influx_lag_bytes")
                || name.starts_with("vitals_influx_owed") && !name.ends_with("_total")
        };
        let figures = self.0.iter().filter(|(name, value)| waits(name) && **value > 0.0);
        figures.map(|(name, value)| (name.as_str(), *value)).collect()
    }
}

/// Waits until nothing is unfinished. `Err` says what was still to do.
pub async fn rest(http: &reqwest::Client, server: SocketAddr, most: Duration) -> Result<Scrape, String> {
    let begun = Instant::now();
    loop {
        let seen = Scrape::take(http, server).await;
        let why = match &seen {
            Ok(scrape) if scrape.unfinished().is_empty() => return seen,
            Ok(scrape) => format!("{:?}", scrape.unfinished()),
            Err(error) => error.clone(),
        };
        if begun.elapsed() > most {
            return Err(why);
        }
        sleep(LOOK).await;
    }
}
