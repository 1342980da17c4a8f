//! How many lines a second the writer manages, and at what cost. Prints figures and is run by hand, with optimized code:
//! `cargo test -p vitals-server --profile ci --test influx -- --ignored --nocapture throughput`.

use super::*;

/// Lines of one of these samples: see `readings::sample`.
const SAMPLES: i64 = 30_000;
const BATCH: i64 = 20;

/// CPU time in ms that each of this process's threads has used, by their ids (`/proc/self/task/*/stat`).
fn cpu_ms() -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, after_name) = stat.rsplit_once(')')?;
        let ticks: Vec<u64> =
            after_name.split_whitespace().skip(11).take(2).map(|text| text.parse().unwrap()).collect();
        Some((entry.file_name().into_string().unwrap(), (ticks[0] + ticks[1]) * 10))
    };
    tasks.flatten().filter_map(of).collect()
}

async fn measure(
    what: &str,
    url: String,
    token: Token,
    not_mine: &[String],
    change: impl Fn(&mut InfluxOptions),
) {
    let rig = Rig::new();
    let begin = now_ms() - SAMPLES * 1_000;
    for batch in 0..SAMPLES / BATCH {
        let samples = (0..BATCH).map(|n| batch * BATCH + n);
        rig.commit(1, samples.map(|n| sample(begin + n * 1_000, n as u64)).collect()).await;
    }
    let mut options = rig.options(url, token);
    change(&mut options);
    let before = cpu_ms();
    let begun = Instant::now();
    let running = rig.start(&options);
    while rig.metrics.influx_lag_bytes.get() > 0 || rig.metrics.influx_lines.get() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = begun.elapsed();
    let spent: u64 = cpu_ms()
        .into_iter()
        .filter(|(thread, _)| !not_mine.contains(thread))
        .map(|(thread, ms)| ms - before.get(&thread).copied().unwrap_or(0))
        .sum();
    running.stop().await;
    let lines = rig.metrics.influx_lines.get();
    println!(
        "{what}: {lines} lines in {took:.2?}: {:.0} lines/s, {:.3} ms of cpu for 1,000 lines",
        lines as f64 / took.as_secs_f64(),
        spent as f64 * 1_000.0 / lines as f64
    );
}

#[test]
#[ignore = "prints figures, by hand"]
fn throughput() {
    // The fake has a thread of its own, so that its cpu time can be told apart.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fake = Fake::only_counting().await;
            let thread = std::fs::read_link("/proc/thread-self").unwrap();
            let thread = thread.file_name().unwrap().to_str().unwrap().to_owned();
            tell.send((fake.url(), thread)).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let (url, thread) = told.recv().unwrap();
    let not_mine = [thread];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for gzip in [true, false] {
            for in_flight in [1, 2, 4] {
                let what = format!("204 only, gzip {gzip}, {in_flight} in flight");
                measure(&what, url.clone(), "t".into(), &not_mine, |options| {
                    options.gzip = gzip;
                    options.in_flight = in_flight;
                })
                .await;
            }
        }
        for (in_flight, gzip) in [(1, true), (2, true), (4, true), (4, false)] {
            let influxd = Influxd::start().await;
            let what = format!("real influxd, gzip {gzip}, {in_flight} in flight");
            measure(&what, influxd.url(), influxd.token(), &not_mine, |options| {
                options.gzip = gzip;
                options.in_flight = in_flight;
            })
            .await;
        }
    });
}
