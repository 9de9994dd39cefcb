//! The state that all requests share.

use std::sync::Arc;

use highwater::Wal;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::slots::Consumers;

pub(crate) struct Shared {
    pub(crate) wal: Wal,
    pub(crate) consumers: Consumers,
    pub(crate) metrics: PrometheusHandle,
    /// True once the server ends.
    pub(crate) is_ending: watch::Receiver<bool>,
}

pub(crate) type App = Arc<Shared>;
