//! `/metrics`: the server's own figures as Prometheus reads them (text exposition format 0.0.4).

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::IntoResponse;

use super::Shared;
use super::caller::Caller;
use super::error::Problem;
use crate::metrics::{Histogram, Metrics, Reasons, TargetMetrics};
use crate::process;

/// The server's own figures in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "get_metrics", tag = "health",
    responses(
        (status = 200, description = "Figures.", body = String, content_type = "text/plain"),
        (status = 401, description = "Nobody is logged in; with the server's option `http.open_metrics` nobody need be.", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The caller does not see all hosts, or must change the password first.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn metrics(
    State(shared): State<Shared>,
    // Absent where the gate lets everybody in.
    caller: Option<Extension<Caller>>,
) -> Result<impl IntoResponse, Problem> {
    if let Some(Extension(caller)) = caller {
        caller.sees_all()?;
    }
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
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0))
}

fn write_all(text: &mut Text, metrics: &Metrics) {
    let m = metrics;
    text.gauge("vitals_connections", "Connections open.", m.connections.get());
    text.counter("vitals_connections_accepted_total", "Connections accepted.", m.connections_accepted.get());
    text.gauge("vitals_strangers", "Connections that have not introduced themselves.", m.strangers.get());
    let help = "Connections that ended before a client introduced itself.";
    text.by_reason("vitals_handshakes_failed_total", help, &m.handshakes_failed);
    let help = "Messages of kinds that this version does not know.";
    text.counter("vitals_unknown_messages_total", help, m.unknown_messages.get());
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
    let help = "Batches of backlog beyond their host's limits, to be sent again.";
    text.counter("vitals_batches_over_limit_total", help, m.batches_over_limit.get());
    let help = "Samples for the live view alone, beyond their host's limits.";
    text.counter("vitals_live_over_limit_total", help, m.live_over_limit.get());
    let help = "Points of series beyond their host's cap.";
    text.by("measurement", "vitals_series_dropped_total", help, &m.series_dropped);
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
    text.gauge("vitals_http_connections", "Connections to the page's port.", m.http.connections.get());
    let help = "Connections and requests to the page's port that a bound turned away.";
    text.by_reason("vitals_http_turned_away_total", help, &m.http.turned_away);
    write_targets(text, &m.influx.all());
}

/// One family of figures for each name, and in it one line for each target.
fn write_targets(text: &mut Text, targets: &[Arc<TargetMetrics>]) {
    if targets.is_empty() {
        return;
    }
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    text.of_targets(
        "vitals_influx_lag_bytes",
        "gauge",
        "Bytes of the journal that InfluxDB has not.",
        targets,
        |t| t.lag_bytes.get(),
    );
    let help = "Age of the oldest live sample that InfluxDB has not.";
    text.of_targets("vitals_influx_lag_seconds", "gauge", help, targets, |t| seconds(t.lag_ms.get()));
    text.of_targets("vitals_influx_lines_total", "counter", "Lines that InfluxDB took.", targets, |t| {
        t.lines.get()
    });
    let help = "Lines that InfluxDB took of what it was owed.";
    text.of_targets("vitals_influx_filled_lines_total", "counter", help, targets, |t| t.filled_lines.get());
    let help = "Spans of time that InfluxDB is owed from history.";
    text.of_targets("vitals_influx_owed_spans", "gauge", help, targets, |t| t.owed_spans.get());
    let help = "Length of the spans of time that InfluxDB is owed.";
    text.of_targets("vitals_influx_owed_seconds", "gauge", help, targets, |t| seconds(t.owed_ms.get()));
    let help = "Length of what InfluxDB was owed and history did not go back to any more.";
    text.of_targets("vitals_influx_owed_expired_seconds_total", "counter", help, targets, |t| {
        seconds(t.owed_expired_ms.get())
    });
    let help = "Bytes of the journal given up for InfluxDB and owed from history since.";
    text.of_targets("vitals_influx_owed_bytes_total", "counter", help, targets, |t| t.owed_bytes.get());
    let help = "Bytes of the journal lost for InfluxDB before they could be noted.";
    text.of_targets("vitals_influx_given_up_bytes_total", "counter", help, targets, |t| {
        t.given_up_bytes.get()
    });
    let help = "Lines that InfluxDB refused and that are in quarantine.";
    text.of_targets("vitals_influx_quarantined_total", "counter", help, targets, |t| t.quarantined.get());
    type ReasonsOf = fn(&TargetMetrics) -> &Reasons;
    let by_reason: [(&str, &str, ReasonsOf); 3] = [
        ("vitals_influx_errors_total", "Writes that failed and are tried again.", |t| &t.errors),
        ("vitals_influx_dropped_total", "Lines that InfluxDB will never take.", |t| &t.dropped),
        ("vitals_influx_quarantine_lost_total", "Dropped lines that are not in quarantine.", |t| {
            &t.quarantine_lost
        }),
    ];
    for (name, help, reasons) in by_reason {
        text.head(name, help, "counter");
        for target in targets {
            for (reason, count) in reasons(target).iter() {
                let _ = writeln!(text.0, "{name}{{target=\"{}\",reason=\"{reason}\"}} {count}", target.name);
            }
        }
    }
    let name = "vitals_influx_request_seconds";
    text.head(name, "Time of a write that succeeded.", "histogram");
    for target in targets {
        text.buckets(name, &format!("target=\"{}\"", target.name), &target.request);
    }
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
        self.by("reason", name, help, reasons);
    }

    fn by(&mut self, label: &str, name: &str, help: &str, reasons: &Reasons) {
        self.head(name, help, "counter");
        for (reason, count) in reasons.iter() {
            // Reasons are words of ours: nothing to escape.
            let _ = writeln!(self.0, "{name}{{{label}=\"{reason}\"}} {count}");
        }
    }

    /// One line for each target. Their names need no escaping.
    fn of_targets<T: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        targets: &[Arc<TargetMetrics>],
        figure: impl Fn(&TargetMetrics) -> T,
    ) {
        self.head(name, help, kind);
        for target in targets {
            let _ = writeln!(self.0, "{name}{{target=\"{}\"}} {}", target.name, figure(target));
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        self.buckets(name, "", histogram);
    }

    fn buckets(&mut self, name: &str, labels: &str, histogram: &Histogram) {
        let (buckets, sum_us) = histogram.snapshot();
        let (comma, all) = match labels {
            "" => ("", String::new()),
            labels => (",", format!("{{{labels}}}")),
        };
        let mut count = 0;
        for (bucket, bound_ms) in buckets.iter().zip(Histogram::BOUNDS_MS) {
            count += bucket;
            let bound = bound_ms as f64 / 1_000.0;
            let _ = writeln!(self.0, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        count += buckets.last().copied().unwrap_or_default();
        let _ = writeln!(self.0, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let _ = writeln!(self.0, "{name}_sum{all} {}\n{name}_count{all} {count}", sum_us as f64 / 1e6);
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
        let metrics = Metrics::new();
        metrics.influx.of("one");
        metrics.influx.of("two").request.observe(Duration::from_millis(3));
        write_all(&mut text, &metrics);
        assert!(text.0.contains("vitals_influx_lag_bytes{target=\"two\"} 0\n"));
        assert!(text.0.contains("vitals_influx_request_seconds_bucket{target=\"two\",le=\"0.005\"} 1\n"));
        assert!(text.0.contains("vitals_influx_request_seconds_count{target=\"two\"} 1\n"));
        let names: Vec<&str> = text.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(names.len(), unique.len());
        assert!(names.len() > 15);
    }
}
