use super::*;

const S: Duration = Duration::from_secs(1);

#[test]
fn ticks_stand_at_their_phase_of_the_wall_clock() {
    let now = Instant::now();
    // 1,002,345 ms is 2,345 ms after a multiple of 5 s.
    let ticks = Ticks::new(now, 1_002_345, 5 * S, Duration::from_millis(400));
    assert_eq!(ticks.next - now, Duration::from_millis(3055));
    let ticks = Ticks::new(now, 1_000_400, 5 * S, Duration::from_millis(400));
    assert_eq!(ticks.next - now, 5 * S, "at the tick itself the next one counts");
}

#[test]
fn a_tick_that_comes_too_soon_after_the_first_sample_is_passed_over_and_not_missed() {
    let now = Instant::now();
    let mut ticks = Ticks::new(now, 1_003_000, 5 * S, Duration::ZERO);
    assert_eq!(ticks.after(now), (now + 7 * S, 0));
}

#[test]
fn missed_ticks_are_skipped_and_counted_and_the_pace_stays() {
    let now = Instant::now();
    let mut ticks = Ticks::new(now, 1_000_000, 5 * S, Duration::ZERO);
    assert_eq!(ticks.after(now), (now + 5 * S, 0));
    assert_eq!(ticks.after(now + 5 * S), (now + 10 * S, 0), "in time");
    assert_eq!(ticks.after(now + 12 * S), (now + 15 * S, 0), "two seconds late, still three to go");
    // The sample of 15 s was taken at 29 s: those of 20, 25 and 30 s are missed.
    assert_eq!(ticks.after(now + 29 * S), (now + 35 * S, 3));
}

/// On a runtime with one thread, as the client has.
fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future);
}

#[test]
fn the_first_sample_comes_at_once_and_complete_and_the_next_on_their_ticks() {
    block_on(async {
        let (out, mut samples) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let sampler = Sampler::new(&CollectConfig::default());
        let counters = sampler.counters();
        let phase = Duration::from_millis(300);
        let started = Instant::now();
        let clock = SampleClock::new(7, S);
        let task = tokio::spawn(run_sampler(sampler, S, phase, clock, out, shutdown.clone()));
        let first = samples.recv().await.unwrap();
        assert!(started.elapsed() < S, "{:?}", started.elapsed());
        let kinds: Vec<u32> = first.sections.iter().map(|section| section.kind()).collect();
        for kind in [1, 2, 3, 4, 5, 7, 8, 10] {
            assert!(kinds.contains(&kind), "section {kind} is not in the first sample: {kinds:?}");
        }
        let mut before = first.time_ms;
        for _ in 0..2 {
            let sample = samples.recv().await.unwrap();
            assert_eq!(sample.time_ms % 10, 7);
            let off = (sample.time_ms - 300).rem_euclid(1000);
            assert!(off < 250, "{off} ms after its tick");
            assert!(sample.time_ms - before >= 500, "bunched");
            before = sample.time_ms;
        }
        assert_eq!(counters.missed_ticks.load(std::sync::atomic::Ordering::Relaxed), 0);
        shutdown.cancel();
        task.await.unwrap();
    });
}

#[test]
fn the_client_s_own_health_is_in_the_first_sample_and_not_in_the_next_unless_there_is_news() {
    block_on(async {
        let (out, mut samples) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let health = Arc::new(Health::new());
        let config = CollectConfig { process_walk_interval: 0, ..CollectConfig::default() };
        let sampler = Sampler::new(&config).with_health(health.clone());
        let clock = SampleClock::new(0, S);
        let task = tokio::spawn(run_sampler(sampler, S, Duration::ZERO, clock, out, shutdown.clone()));
        let mut has_health = Vec::new();
        for n in 0..4 {
            let sample = samples.recv().await.unwrap();
            has_health.push(sample.sections.iter().any(|section| section.kind() == 11));
            if n == 1 {
                let [server, server_version, name] = ["a:1", "0.1.0", "web"].map(str::to_owned);
                let since = Instant::now();
                health.connected(crate::health::Connection { server, server_version, name, since });
            }
        }
        assert_eq!(has_health, [true, false, true, false]);
        assert_eq!(health.snapshot().steps, Default::default(), "nobody set the clock");
        shutdown.cancel();
        task.await.unwrap();
    });
}

#[test]
fn ticks_missed_behind_a_full_channel_are_counted_and_not_made_up_for() {
    block_on(async {
        let (out, mut samples) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let sampler = Sampler::new(&CollectConfig { process_walk_interval: 0, ..CollectConfig::default() });
        let counters = sampler.counters();
        let clock = SampleClock::new(0, S);
        let task = tokio::spawn(run_sampler(sampler, S, Duration::ZERO, clock, out, shutdown.clone()));
        tokio::time::sleep(Duration::from_millis(4700)).await;
        let mut times = Vec::new();
        for _ in 0..3 {
            times.push(samples.recv().await.unwrap().time_ms);
        }
        // One waited in the channel, one behind it; the next is a fresh one.
        assert!(times[2] - times[1] >= 2000, "{times:?}");
        assert!(counters.missed_ticks.load(std::sync::atomic::Ordering::Relaxed) >= 2);
        shutdown.cancel();
        task.await.unwrap();
    });
}
