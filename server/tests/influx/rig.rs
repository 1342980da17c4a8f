//! A journal, history in memory, and a writer between.

use super::*;

/// A journal with what the writer needs beside it.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub journal: Journal,
    pub metrics: Arc<Metrics>,
    pub hosts: Arc<Mutex<BTreeMap<HostId, Arc<HostTags>>>>,
    pub history: Arc<Remembered>,
}

/// A sample, and what its host was called then.
type Told = (Arc<HostTags>, Sample);

/// History in memory: all that was committed, as the store would have it.
#[derive(Default)]
pub struct Remembered {
    pub samples: Mutex<BTreeMap<(HostId, i64), Told>>,
    pub position: Mutex<Position>,
    pub is_broken: AtomicBool,
    /// What it does not go back to is gone.
    pub oldest_ms: AtomicI64,
}

impl History for Remembered {
    fn hosts(&self) -> Vec<HostId> {
        let hosts: BTreeSet<HostId> = self.samples.lock().unwrap().keys().map(|(host, _)| *host).collect();
        hosts.into_iter().collect()
    }

    fn lines(
        &self,
        host: HostId,
        from_ms: i64,
        to_ms: i64,
        max_lines: usize,
        out: &mut Vec<u8>,
    ) -> Result<Filled, String> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err("it is broken".to_owned());
        }
        let mut filled = Filled { lines: 0, next_ms: None };
        for ((_, time_ms), (tags, sample)) in
            self.samples.lock().unwrap().range((host, from_ms)..(host, to_ms))
        {
            if filled.lines >= max_lines {
                filled.next_ms = Some(*time_ms);
                break;
            }
            filled.lines += write_sample(out, tags, sample);
        }
        Ok(filled)
    }

    fn position(&self) -> Position {
        *self.position.lock().unwrap()
    }

    fn oldest_ms(&self) -> i64 {
        self.oldest_ms.load(Ordering::SeqCst)
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(1 << 20, 1 << 30)
    }

    pub fn with(segment_bytes: u64, cap_bytes: u64) -> Self {
        Self::grouped(segment_bytes, cap_bytes, Duration::from_millis(1))
    }

    /// What is committed within `group` lies together in the journal.
    pub fn grouped(segment_bytes: u64, cap_bytes: u64, group: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new());
        let options = JournalOptions {
            segment_bytes,
            cap_bytes,
            group,
            ..JournalOptions::new(dir.path().join("journal"))
        };
        let journal = Journal::open(options, metrics.clone()).unwrap();
        let rig = Self { dir, journal, metrics, hosts: Arc::default(), history: Arc::default() };
        rig.host(1, "web-1", &[("env", "prod")]);
        rig
    }

    pub fn host(&self, number: u8, name: &str, labels: &[(&str, &str)]) {
        let tags = HostTags::new(name, labels.iter().copied());
        self.hosts.lock().unwrap().insert(HostId([number; 16]), Arc::new(tags));
    }

    pub fn options(&self, url: String, token: Token) -> InfluxOptions {
        self.named_options("influx", url, token)
    }

    pub fn named_options(&self, name: &str, url: String, token: Token) -> InfluxOptions {
        let dir = self.dir.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        InfluxOptions {
            batch_wait: Duration::from_millis(50),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            slow_retry: Duration::from_millis(500),
            ..InfluxOptions::new(name, url, ORG, BUCKET, token, dir)
        }
    }

    pub async fn commit(&self, number: u8, samples: Vec<Sample>) {
        let host = HostId([number; 16]);
        self.commit_record(Record { host, received_ms: now_ms(), backlog: false, samples }).await;
    }

    pub async fn commit_record(&self, record: Record) {
        self.remember(&record);
        self.journal.append(&Encoded::new(&record).unwrap()).unwrap().wait().await.unwrap();
        *self.history.position.lock().unwrap() = self.journal.end();
    }

    /// Takes a record into history alone.
    pub fn remember(&self, record: &Record) {
        let tags = self.hosts.lock().unwrap().get(&record.host).cloned();
        if let Some(tags) = tags {
            let mut samples = self.history.samples.lock().unwrap();
            for sample in &record.samples {
                samples.insert((record.host, sample.time_ms), (tags.clone(), sample.clone()));
            }
        }
    }

    pub fn target(&self, options: &InfluxOptions, start_ms: Option<i64>) -> Arc<Target> {
        let history = Span { from_ms: 0, to_ms: now_ms() };
        Target::open(options.clone(), Arc::new(RealFs), &self.metrics, history, start_ms).unwrap()
    }

    pub fn start(&self, options: &InfluxOptions) -> Running {
        self.start_target(self.target(options, None))
    }

    pub fn start_target(&self, target: Arc<Target>) -> Running {
        let name = target.options.name.clone();
        let reader = self.journal.lagging_reader(name, starting_point(&target.options), u64::MAX).unwrap();
        let hosts = self.hosts.clone();
        let tags_at: TagsAt = Arc::new(move |host, _| hosts.lock().unwrap().get(&host).cloned());
        let shutdown = CancellationToken::new();
        let history = self.history.clone();
        let task = tokio::spawn(influx::run(target, reader, tags_at, history, shutdown.clone()));
        Running { shutdown, task }
    }

    pub fn metrics(&self) -> Arc<TargetMetrics> {
        self.metrics.influx.of("influx")
    }

    pub fn errors(&self, reason: &str) -> u64 {
        self.metrics().errors.iter().find(|(word, _)| *word == reason).unwrap().1
    }

    pub fn dropped(&self, reason: &str) -> u64 {
        self.metrics().dropped.iter().find(|(word, _)| *word == reason).unwrap().1
    }

    /// Waits until all that was committed is settled and the gauges say so.
    pub async fn drained(&self) {
        soon("all is written", || self.cursor() == self.journal.end() && self.metrics().lag_bytes.get() == 0)
            .await;
        assert_eq!(self.metrics().lag_ms.get(), 0);
    }

    pub fn cursor(&self) -> Position {
        let file = self.dir.path().join("influx/cursor");
        influx::cursor::load(&file).unwrap().unwrap_or_default().position
    }
}

pub struct Running {
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), InfluxError>>,
}

impl Running {
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("it ends").unwrap().unwrap();
    }

    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub fn now_ms() -> i64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis().try_into().unwrap()
}

pub async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
