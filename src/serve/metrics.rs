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
    let mut builder = PrometheusBuilder::new();
    // Without buckets the exporter would render summaries, which cannot be added up over instances.
    for metric in METRICS.iter().filter(|metric| metric.sort == Sort::Histogram) {
        let name = Matcher::Full(metric.name.to_owned());
        builder = builder
            .set_buckets_for_metric(name, telemetry::buckets(metric.name))
            .map_err(wrong)?;
    }
    let handle = builder.install_recorder().map_err(wrong)?;
    telemetry::describe();
    count_panics();
    Ok(handle)
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
