//! `/consumers`: each consumer is a slot. It reads pages from its position on, and moves it.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
};
use highwater::{Error, Lsn};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    app::App,
    events::{self, Events},
    refusal::Refusal,
};

/// Runs a change to its end, even if the client disconnects and its request is dropped.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let interrupted = Refusal::Request(StatusCode::INTERNAL_SERVER_ERROR, "interrupted");
    tokio::spawn(change).await.unwrap_or(Err(interrupted))
}

#[derive(Deserialize)]
pub(crate) struct Start {
    from: Option<u64>,
}

/// Makes a consumer, or finds it. Responds when a new one is durable.
pub(crate) async fn put(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(start): Query<Start>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let from = start.from.map(Lsn::new);
    let made = to_its_end(async move { app.consumers.make(&name, from).await });
    let (position, is_new) = made.await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({ "position": position.as_u64() }))))
}

/// Removes a consumer. Responds when that is durable.
pub(crate) async fn delete(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    to_its_end(async move { app.consumers.remove(&name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
pub(crate) struct Limit {
    limit: Option<usize>,
}

/// Returns the durable events from the consumer's position on. Does not move it.
pub(crate) async fn read(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(Limit { limit }): Query<Limit>,
) -> Result<Json<Events>, Refusal> {
    let position = app.consumers.slot(&name).await?.position();
    // If the log was truncated past the slot, this is `BelowFirst`, which is 410 as `SlotLost` is.
    Ok(Json(events::page(&app.wal, position, limit).await?))
}

#[derive(Deserialize)]
struct Acknowledged {
    next: u64,
}

/// Moves a consumer to `next`: it has handled everything below. Responds when that is durable.
pub(crate) async fn acknowledge(
    State(app): State<App>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let malformed = |_| Refusal::Request(StatusCode::BAD_REQUEST, "the body is {\"next\":LSN}");
    let Acknowledged { next } = serde_json::from_slice(&body).map_err(malformed)?;
    let (slot, next) = (app.consumers.slot(&name).await?, Lsn::new(next));
    let (position, synced) = (slot.position(), app.wal.watermarks().synced);
    if next > synced {
        return Err(Error::SlotAhead { name, position, synced }.into());
    }
    if next > position {
        // `advance` does not read the log. A slot inside of an event would have no next page.
        events::page(&app.wal, next, Some(1)).await?;
    }
    slot.advance_and_sync(next).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
pub(crate) struct Consumer {
    name: String,
    position: u64,
    lag_bytes: u64,
    held_bytes: u64,
    is_lost: bool,
}

/// Lists the consumers, with what each keeps on the disk.
pub(crate) async fn list(State(app): State<App>) -> Json<Vec<Consumer>> {
    let consumers = app.wal.slots().into_iter().map(|slot| Consumer {
        name: slot.name,
        position: slot.position.as_u64(),
        lag_bytes: slot.lag_bytes,
        held_bytes: slot.held_bytes,
        is_lost: slot.is_lost,
    });
    Json(consumers.collect())
}
