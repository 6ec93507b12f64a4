//! The recorder behind `/metrics`: histograms with buckets, and what is only known when somebody asks.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::telemetry::{self, BACKPRESSURE_ACTIVE, BUFFER_BYTES, BUFFER_LIMIT_BYTES, METRICS, PANICS, Sort};

/// Samples of histograms pile up until they are put into their buckets: often enough that they stay few.
pub(super) const UPKEEP: Duration = Duration::from_secs(5);

/// Installs the recorder of this process; there can be one. Panics are counted from here on.
pub fn install() -> Result<PrometheusHandle> {
    let wrong = |e: BuildError| Error::bug("the metrics recorder cannot be installed").because(e);
    let handle = builder().and_then(PrometheusBuilder::install_recorder).map_err(wrong)?;
    telemetry::describe();
    count_panics();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut histograms = METRICS.iter().filter(|metric| metric.sort == Sort::Histogram);
    // Without buckets the exporter would render summaries, which cannot be added up over instances.
    histograms.try_fold(PrometheusBuilder::new(), |builder, metric| {
        let name = Matcher::Full(metric.name.to_owned());
        builder.set_buckets_for_metric(name, telemetry::buckets(metric.name))
    })
}

fn count_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        metrics::counter!(PANICS).increment(1);
        print(panic);
    }));
}

/// The text that Prometheus reads.
pub(super) fn render(handle: &PrometheusHandle, budgets: &BTreeMap<String, Budget>) -> String {
    for (pipeline, budget) in budgets {
        let (used, limit) = (budget.used(), budget.limit());
        let short = if used >= limit - limit / 8 { 1.0 } else { 0.0 };
        gauge!(BUFFER_BYTES, "pipeline" => pipeline.clone()).set(used as f64);
        gauge!(BUFFER_LIMIT_BYTES, "pipeline" => pipeline.clone()).set(limit as f64);
        gauge!(BACKPRESSURE_ACTIVE, "pipeline" => pipeline.clone()).set(short);
    }
    handle.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `promtool check metrics` asks for: each metric once, with its help and its type, and nothing else.
    #[test]
    fn every_metric_is_rendered_once_with_its_help_and_type() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            telemetry::describe();
            for metric in METRICS {
                let labels: Vec<(&str, &str)> = metric.labels.iter().map(|label| (*label, "a \"b\" \\ \n")).collect();
                match metric.sort {
                    Sort::Counter => metrics::counter!(metric.name, &labels).increment(1),
                    Sort::Gauge => metrics::gauge!(metric.name, &labels).set(1.0),
                    Sort::Histogram => metrics::histogram!(metric.name, &labels).record(1.0),
                }
            }
        });
        handle.run_upkeep();
        let text = handle.render();
        let lines = |beginning: &str| text.lines().filter(|line| line.starts_with(beginning)).count();
        for metric in METRICS {
            let sort = format!("{:?}", metric.sort).to_lowercase();
            assert_eq!(
                lines(&format!("# HELP {} {}", metric.name, metric.help)),
                1,
                "{}\n{text}",
                metric.name
            );
            assert_eq!(lines(&format!("# TYPE {} {sort}", metric.name)), 1, "{}\n{text}", metric.name);
            let sample = match metric.sort {
                Sort::Histogram => format!("{}_bucket{{", metric.name),
                Sort::Counter | Sort::Gauge => metric.name.to_owned(),
            };
            assert!(lines(&sample) > 0, "{sample}\n{text}");
            // These endings belong to histograms.
            let misleads = ["_bucket", "_sum", "_count"].iter().any(|ending| metric.name.ends_with(ending));
            assert!(!misleads && metric.help.ends_with('.'), "{}", metric.name);
        }
        assert_eq!((lines("# HELP"), lines("# TYPE")), (METRICS.len(), METRICS.len()), "{text}");
    }
}
