//! `/metrics`: the server's own figures as Prometheus reads them (text exposition format 0.0.4).

use std::fmt::{Display, Write};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::Shared;
use crate::metrics::{Histogram, Metrics, Reasons};
use crate::process;

/// The server's own figures in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, description = "Figures.", body = String)))]
pub async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let (hosts, hosts_up) = shared.live.count();
    let mut text = Text::default();
    text.gauge("vitals_hosts", "Hosts known.", hosts);
    text.gauge("vitals_hosts_up", "Hosts that speak.", hosts_up);
    text.counter(
        "vitals_events_dropped_total",
        "Events that found their queue full.",
        shared.live.events_dropped.get(),
    );
    write_all(&mut text, &shared.metrics);
    let store = shared.store.counters();
    text.counter(
        "vitals_store_failed_commits_total",
        "Writes of history tried again.",
        store.failed_commits.get(),
    );
    text.counter(
        "vitals_store_damaged_total",
        "Parts of history that cannot be read.",
        store.damaged_blobs.get(),
    );
    text.counter("vitals_store_unstorable_total", "Samples or fields beyond a cap.", store.unstorable.get());
    let usage = process::read();
    text.gauge("process_resident_memory_bytes", "Resident memory.", usage.memory_bytes);
    text.counter("process_cpu_seconds_total", "CPU time used.", usage.cpu_ms as f64 / 1_000.0);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0)
}

fn write_all(text: &mut Text, metrics: &Metrics) {
    let m = metrics;
    text.gauge("vitals_connections", "Connections open.", m.connections.get());
    text.counter("vitals_connections_accepted_total", "Connections accepted.", m.connections_accepted.get());
    text.by_reason("vitals_refused_total", "Connections refused or ended by the server.", &m.refused);
    text.counter("vitals_samples_received_total", "Samples that came in.", m.samples_received.get());
    text.counter("vitals_samples_acknowledged_total", "Samples settled as durable.", m.samples_acked.get());
    text.by_reason("vitals_samples_dropped_total", "Samples that will never be stored.", &m.samples_dropped);
    text.counter(
        "vitals_samples_duplicate_total",
        "Samples that the store already had.",
        m.samples_duplicate.get(),
    );
    text.counter(
        "vitals_own_dropped_total",
        "Own samples and events that could not be kept.",
        m.own_dropped.get(),
    );
    text.counter("vitals_batches_deferred_total", "Batches to be sent again.", m.batches_deferred.get());
    text.counter("vitals_sections_unknown_total", "Sections of an unknown kind.", m.sections_unknown.get());
    text.counter(
        "vitals_sections_damaged_total",
        "Sections that could not be read.",
        m.sections_damaged.get(),
    );
    text.counter(
        "vitals_figures_not_finite_total",
        "Figures that were NaN or infinite.",
        m.figures_not_finite.get(),
    );
    text.histogram("vitals_batch_commit_seconds", "From a batch's arrival to its commit.", &m.batch_commit);
    text.counter(
        "vitals_journal_errors_total",
        "Commits of the journal that failed.",
        m.journal_errors.get(),
    );
    text.counter("vitals_journal_damaged_total", "Damaged stretches skipped.", m.journal_damaged.get());
    text.gauge("vitals_journal_bytes", "Bytes of the journal on disk.", m.journal_bytes.get());
    let help = "Size at which the journal takes no more: what is configured, or what the disk allows.";
    text.gauge("vitals_journal_cap_bytes", help, m.journal_cap_bytes.get());
    text.gauge(
        "vitals_store_lag_bytes",
        "Bytes of the journal that the store has not passed.",
        m.store_lag_bytes.get(),
    );
    text.gauge(
        "vitals_influx_lag_bytes",
        "Bytes of the journal that InfluxDB has not.",
        m.influx_lag_bytes.get(),
    );
    let lag_seconds = m.influx_lag_ms.get() as f64 / 1_000.0;
    text.gauge("vitals_influx_lag_seconds", "Age of the oldest sample that InfluxDB has not.", lag_seconds);
    text.counter("vitals_influx_lines_total", "Lines that InfluxDB took.", m.influx_lines.get());
    let given_up = m.influx_given_up_bytes.get();
    text.counter(
        "vitals_influx_given_up_bytes_total",
        "Bytes of the journal given up for InfluxDB.",
        given_up,
    );
    text.histogram("vitals_influx_request_seconds", "Time of a write that succeeded.", &m.influx_request);
    text.by_reason("vitals_influx_errors_total", "Writes that failed and are tried again.", &m.influx_errors);
    text.by_reason("vitals_influx_dropped_total", "Lines that InfluxDB will never take.", &m.influx_dropped);
}

/// The text under way. Writing to a string cannot fail, so results are not looked at.
#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "counter");
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn by_reason(&mut self, name: &str, help: &str, reasons: &Reasons) {
        self.head(name, help, "counter");
        for (reason, count) in reasons.iter() {
            // Reasons are words of ours: nothing to escape.
            let _ = writeln!(self.0, "{name}{{reason=\"{reason}\"}} {count}");
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let (buckets, sum_us) = histogram.snapshot();
        let mut count = 0;
        for (bucket, bound_ms) in buckets.iter().zip(Histogram::BOUNDS_MS) {
            count += bucket;
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{}\"}} {count}", bound_ms as f64 / 1_000.0);
        }
        count += buckets.last().copied().unwrap_or_default();
        let _ = writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(self.0, "{name}_sum {}\n{name}_count {count}", sum_us as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_histogram_is_cumulated_and_ends_in_its_sum_and_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_millis(60_000));
        let mut text = Text::default();
        text.histogram("x_seconds", "X.", &histogram);
        let lines: Vec<&str> = text.0.lines().collect();
        assert_eq!(lines[2], "x_seconds_bucket{le=\"0.001\"} 1");
        assert_eq!(
            lines[14..],
            ["x_seconds_bucket{le=\"+Inf\"} 2", "x_seconds_sum 60.001", "x_seconds_count 2"]
        );
    }

    #[test]
    fn every_figure_has_one_help_and_one_type() {
        let mut text = Text::default();
        write_all(&mut text, &Metrics::new());
        let names: Vec<&str> = text.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(names.len(), unique.len());
        assert!(names.len() > 15);
    }
}
