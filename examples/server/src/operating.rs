//! `GET /health` and `GET /metrics`.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};
use highwater::Health;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::app::App;

/// Upper bounds for times, in seconds: 50 µs to 10 s.
const SECONDS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0,
    2.0, 5.0, 10.0,
];

/// Upper bounds for the number of records in a group.
const RECORDS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Makes Prometheus the recorder of the process.
pub(crate) fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_records".to_owned()), &RECORDS)?
        .install_recorder()
}

/// Returns 200 while the log accepts events, and 503 otherwise.
pub(crate) async fn health(State(app): State<App>) -> impl IntoResponse {
    let health = app.wal.health().get();
    let status = match health {
        Health::Good | Health::Slow => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

pub(crate) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    // The log may have been idle since its last flush.
    app.wal.publish_metrics();
    app.metrics.run_upkeep();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render())
}
