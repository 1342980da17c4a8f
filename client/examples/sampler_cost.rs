//! What the sampler costs: CPU time a sample and memory, over real cold cycles.
//!
//! `sampler_cost [CYCLES] [INTERVAL_SECONDS] [WALK_SECONDS]`; 12 cycles of 5 s without walks over processes by default.
//! With `--show` it prints one sample in all formats instead.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vitals_client::clock::SampleClock;
use vitals_client::collect::CollectConfig;
use vitals_client::sampler::{Sampler, run_sampler};
use vitals_client::show;
use vitals_wire::line::HostTags;

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--show") {
        let sample = Sampler::new(&CollectConfig::default()).first();
        println!("{}", show::table(&sample));
        println!("{}", show::influx(&sample, &HostTags::new("example", [])));
        println!("{}", show::json(&sample, "example", []));
        return Ok(());
    }
    let argument = |at, or: u32| std::env::args().nth(at).map_or(Ok(or), |text| text.parse());
    let (cycles, interval, walk) = (argument(1, 12)?, argument(2, 5)?, argument(3, 0)?);
    let config = CollectConfig { process_walk_interval: walk, ..CollectConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(measure(&config, cycles, Duration::from_secs(interval.into())));
    Ok(())
}

async fn measure(config: &CollectConfig, cycles: u32, interval: Duration) {
    let (out, mut samples) = mpsc::channel(4);
    let sampler = Sampler::new(config);
    let clock = SampleClock::new(0, interval);
    tokio::spawn(run_sampler(sampler, interval, Duration::ZERO, clock, out, CancellationToken::new()));
    // The first one opens files.
    for _ in 0..2 {
        samples.recv().await;
    }
    let before = cpu_ms();
    let mut sections = 0;
    for _ in 0..cycles {
        sections = samples.recv().await.map_or(0, |sample| sample.sections.len());
    }
    let each = (cpu_ms() - before) / f64::from(cycles.max(1));
    println!("{cycles} samples of {sections} sections: {each:.3} ms CPU each, {} RSS", rss());
}

/// CPU time of all threads of this process.
fn cpu_ms() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 * 1000.0 + used.tv_nsec as f64 / 1e6
}

fn rss() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or("unknown").trim().to_owned()
}
