//! How many lines a second the writer manages, and at what cost. Prints figures and is run by hand, with optimized code:
//! `cargo test -p vitals-server --profile ci --test influx -- --ignored --nocapture throughput`.

use super::*;

/// Of `readings::sample`, which is as long as a real host's.
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
    let tags = HostTags::new("web-1", [("env", "prod")]);
    let (mut text, mut lines, mut bytes) = (Vec::new(), 0, 0);
    for batch in 0..SAMPLES / BATCH {
        let samples: Vec<Sample> =
            (0..BATCH).map(|n| batch * BATCH + n).map(|n| sample(begin + n * 1_000, n as u64)).collect();
        for sample in &samples {
            lines += write_sample(&mut text, &tags, sample) as u64;
        }
        bytes += text.len();
        text.clear();
        rig.commit(1, samples).await;
    }
    let mut options = rig.options(url, token);
    change(&mut options);
    let before = cpu_ms();
    let begun = Instant::now();
    let running = rig.start(&options);
    while rig.metrics().lines.get() < lines {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = begun.elapsed();
    let spent: u64 = cpu_ms()
        .into_iter()
        .filter(|(thread, _)| !not_mine.contains(thread))
        .map(|(thread, ms)| ms - before.get(&thread).copied().unwrap_or(0))
        .sum();
    running.stop().await;
    let errors: Vec<_> = rig.metrics().errors.iter().filter(|(_, count)| *count > 0).collect();
    let (requests, sum_us) = rig.metrics().request.snapshot();
    let requests: u64 = requests.iter().sum();
    println!(
        "  {requests} requests of {} lines, {} ms each, errors {errors:?}",
        lines / requests.max(1),
        sum_us / 1_000 / requests.max(1)
    );
    println!(
        "{what}: {lines} lines of {} bytes in {took:.2?}: {:.0} lines/s, {:.3} ms of cpu for 1,000 lines",
        bytes as u64 / lines,
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
        for (in_flight, gzip) in [(1, true), (2, true), (4, true), (4, false), (4, true), (1, true)] {
            let influxd = Influxd::start().await;
            let what = format!("real influxd, gzip {gzip}, {in_flight} in flight");
            measure(&what, influxd.url(), influxd.token(), &not_mine, |options| {
                options.gzip = gzip;
                options.in_flight = in_flight;
            })
            .await;
            // What was answered with 204 must be there.
            let stored = influxd.influxql(BUCKET, "select count(uptime) from system").await;
            assert_eq!(stored[0]["series"][0]["values"][0][1], SAMPLES);
            let stored = influxd.influxql(BUCKET, "select count(usage_user) from cpu").await;
            assert_eq!(stored[0]["series"][0]["values"][0][1], SAMPLES * 5);
        }
    });
}
