//! HTTP for operators: `/metrics`, `/livez`, `/readyz` and `/status`.
//!
//! `/livez` is about this process alone: a pipeline that waits for a person must not be killed over and over. `/readyz` is 503 while any
//! pipeline cannot work, or one of its tables, and says why; also until it is on record where its tables begin, for then whoever waits for it
//! may write what is to be read. `/status` tells everything on the [`Board`].

mod metrics;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::info;

use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::status::{self, Board, PipelineStatus};

pub use metrics::install;

const ENDPOINTS: &str = "/metrics, /livez, /readyz and /status";

/// The server and the upkeep of the metrics; dropping it ends both.
#[derive(Debug)]
pub struct Server {
    address: Option<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Where it listens; None when it is turned off.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

#[derive(Clone)]
struct Shared {
    board: Board,
    /// Memory for rows in flight, by pipeline.
    budgets: BTreeMap<String, Budget>,
    metrics: PrometheusHandle,
}

/// Listens at `address`; empty turns the server off. Port 0 takes a free one.
pub async fn start(address: &str, board: Board, budgets: BTreeMap<String, Budget>, metrics: PrometheusHandle) -> Result<Server> {
    let mut tasks = JoinSet::new();
    let upkeep = metrics.clone();
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(metrics::UPKEEP);
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });
    if address.is_empty() {
        return Ok(Server {
            address: None,
            _tasks: tasks,
        });
    }
    let unusable = |e: std::io::Error| {
        let what = format!("cannot listen at `http.address` = \"{address}\": choose a free port, or \"\" to turn the server off");
        Error::config("address_unusable", what).because(e)
    };
    let listener = TcpListener::bind(address).await.map_err(unusable)?;
    let bound = listener.local_addr().map_err(unusable)?;
    info!(address = %bound, "serving {ENDPOINTS}");
    let router = router(Shared { board, budgets, metrics });
    tasks.spawn(async move {
        // Serving ends only with the process: failed connections are the clients' matter.
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(Server {
        address: Some(bound),
        _tasks: tasks,
    })
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(serve_metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(serve_ready))
        .route("/status", get(serve_status))
        .fallback(async || (StatusCode::NOT_FOUND, format!("there are {ENDPOINTS}\n")))
        .with_state(shared)
}

async fn serve_metrics(State(shared): State<Shared>) -> Response {
    let text = metrics::render(&shared.metrics, &shared.budgets);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn serve_ready(State(shared): State<Shared>) -> Response {
    let pipelines = shared.board.read();
    let waiting: Vec<String> = pipelines.iter().filter_map(|(name, status)| why_not_ready(name, status)).collect();
    if pipelines.is_empty() {
        (StatusCode::SERVICE_UNAVAILABLE, "no pipeline has started yet\n".to_owned()).into_response()
    } else if waiting.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, waiting.concat()).into_response()
    }
}

/// A line on a pipeline that cannot work now, and on each of its tables that has stopped.
fn why_not_ready(name: &str, status: &PipelineStatus) -> Option<String> {
    let works = match status.state {
        // It tells by its reason that its source does not answer.
        status::State::Running => {
            status.reason.is_none() && status.waiting.is_empty() && !status.tables.values().any(|table| table.is_beginning)
        }
        // A pipeline that was asked to stop has done what it should.
        status::State::Stopped => true,
        status::State::Starting | status::State::Degraded | status::State::Retrying | status::State::Failed => false,
    };
    if works {
        return None;
    }
    let reason = status.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let tables = status.tables.iter().filter_map(|(table, status)| match &status.stopped {
        Some(why) if status.needs_somebody() => Some(format!("{name}: table {table} has stopped: {why}\n")),
        None if status.is_beginning => Some(format!("{name}: where table {table} begins is not on record yet\n")),
        Some(_) | None => None,
    });
    let waiting = match status.waiting.as_slice() {
        [] => String::new(),
        waiting => format!(
            "{name}: the others are read, but these wait for brokers that do not answer: {}\n",
            waiting.join(", ")
        ),
    };
    Some(format!(
        "{name} is {}{reason}\n{waiting}{}",
        status.state.name(),
        tables.collect::<String>()
    ))
}

async fn serve_status(State(shared): State<Shared>) -> Response {
    let memory = |budget: &Budget| json!({ "used_bytes": budget.used(), "limit_bytes": budget.limit() });
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "memory": shared.budgets.iter().map(|(name, budget)| (name.clone(), memory(budget))).collect::<serde_json::Map<_, _>>(),
        "pipelines": shared.board.read(),
    });
    ([(header::CONTENT_TYPE, "application/json")], format!("{body:#}\n")).into_response()
}
