//! An HTTP server over one log. The README describes its interface.

mod app;
mod consumers;
mod events;
mod live;
mod operating;
mod refusal;
mod retention;
mod slots;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post, put},
};
use clap::Parser;
use highwater::{OnStall, Wal};
use tokio::{net::TcpListener, signal, sync::watch, time::sleep};

use crate::{
    app::{App, Shared},
    slots::Consumers,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The largest event.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// A request gets its refusal after this time if the disk hangs.
const STALL_TIME_MAX: Duration = Duration::from_secs(5);

/// The time for requests in flight when the server ends.
const GRACE: Duration = Duration::from_secs(10);

/// Serves a log of events over HTTP.
#[derive(Parser)]
struct Arguments {
    /// The directory of the log. It is created if it does not exist.
    #[arg(long)]
    directory: PathBuf,
    /// The address to listen on. Port 0 takes a free port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The name of the log in its metrics.
    #[arg(long, default_value = "events")]
    name: String,
    /// Drops the oldest events while the rest of the log has this many bytes. By default all stay.
    #[arg(long)]
    keep_bytes: Option<u64>,
    /// Drops events that are older than this many hours. By default all stay.
    #[arg(long)]
    keep_hours: Option<u64>,
    /// A consumer that is further behind than this many bytes may lose events. By default none
    /// does, so a consumer that is gone keeps events forever.
    #[arg(long)]
    consumer_bytes_max: Option<u64>,
    /// The size of a segment, for tests.
    #[arg(long, hide = true, default_value_t = 16 << 20)]
    segment_bytes: u64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let arguments = Arguments::parse();
    // Before the log is opened, because the log takes the handles of its metrics then.
    let metrics = operating::install_recorder()?;
    let wal = Wal::options()
        .metrics_label(arguments.name)
        .record_bytes_max(EVENT_BYTES_MAX as u64)
        .segment_bytes(arguments.segment_bytes)
        .retention(retention::of(arguments.keep_bytes, arguments.keep_hours))
        .on_stall(OnStall::FailWaiters { after: STALL_TIME_MAX })
        .open(&arguments.directory)
        .await?;
    eprintln!("{}", wal.recovery());
    let (ends, is_ending) = watch::channel(false);
    let retention = retention::apply(wal.clone(), retention::INTERVAL, is_ending.clone());
    let retention = tokio::spawn(retention);
    let consumers = Consumers::open(&wal, arguments.consumer_bytes_max).await?;
    let app = Arc::new(Shared { wal: wal.clone(), consumers, metrics, is_ending });
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    serve(listener, app, ends).await?;
    retention.await?;
    // All acknowledged events are durable already. A closed log opens without a scan.
    wal.close().await?;
    println!("closed");
    Ok(())
}

async fn serve(listener: TcpListener, app: App, ends: watch::Sender<bool>) -> Result<(), Error> {
    let mut is_ending = app.is_ending.clone();
    let routes = Router::new()
        .route("/events", post(events::append).get(events::read))
        .route("/events/live", get(live::follow))
        .route("/consumers", get(consumers::list))
        .route("/consumers/{name}", put(consumers::put).delete(consumers::delete))
        .route("/consumers/{name}/events", get(consumers::read))
        .route("/consumers/{name}/position", post(consumers::acknowledge))
        .route("/health", get(operating::health))
        .route("/metrics", get(operating::metrics))
        .layer(DefaultBodyLimit::max(EVENT_BYTES_MAX))
        .with_state(app);
    let stop = async move {
        stop_requested().await;
        // Ends the live streams, which would keep the server forever.
        ends.send_replace(true);
    };
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop);
    let late = async {
        let _ = is_ending.wait_for(|is_ending| *is_ending).await;
        sleep(GRACE).await;
    };
    tokio::select! {
        served = served => served?,
        () = late => eprintln!("some requests did not end in {GRACE:?}"),
    }
    Ok(())
}

/// Resolves at ctrl-c, and at SIGTERM on Unix.
async fn stop_requested() {
    #[cfg(unix)]
    let terminated = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        _ = signal::ctrl_c() => {}
        () = terminated => {}
    }
}
