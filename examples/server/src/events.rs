//! `POST /events` and `GET /events`.

use axum::{
    Json,
    extract::{Query, State},
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use futures::TryStreamExt;
use highwater::{Lsn, Record, Wal};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{app::App, refusal::Refusal};

const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// A response ends after this many bytes of events.
const PAGE_BYTES: usize = 1 << 20;

/// Appends the body as an event. Responds when the event is on stable storage.
pub(crate) async fn append(State(app): State<App>, event: String) -> Result<Response, Refusal> {
    // If the client is gone, this future is dropped. The event is then appended whole or not at
    // all, and the client, which has no response, has to look.
    let lsn = app.wal.append_and_sync(event).await?.as_u64();
    let place = [(LOCATION, format!("/events?from={lsn}&limit=1"))];
    Ok((StatusCode::CREATED, place, Json(json!({ "lsn": lsn }))).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Page {
    from: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(crate) struct Event {
    lsn: u64,
    event: String,
}

#[derive(Serialize)]
pub(crate) struct Events {
    events: Vec<Event>,
    /// The position to read from next.
    next: u64,
}

impl From<&Record> for Event {
    fn from(record: &Record) -> Self {
        let event = String::from_utf8_lossy(&record.payload).into_owned();
        Event { lsn: record.lsn.as_u64(), event }
    }
}

/// Returns the durable events from a position on, and the position to continue at.
pub(crate) async fn read(
    State(app): State<App>,
    Query(page): Query<Page>,
) -> Result<Json<Events>, Refusal> {
    let from = page.from.map_or_else(|| app.wal.watermarks().first, Lsn::new);
    Ok(Json(self::page(&app.wal, from, page.limit).await?))
}

/// Reads a page of durable events.
///
/// Events that are not durable yet are left out, because a power cut could remove them after a
/// client has read them.
pub(crate) async fn page(wal: &Wal, from: Lsn, limit: Option<usize>) -> Result<Events, Refusal> {
    let limit = limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let mut next = from;
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut records = wal.replay(from..wal.watermarks().synced.max(from));
    while events.len() < limit && bytes < PAGE_BYTES {
        let Some(record) = records.try_next().await? else { break };
        bytes += record.payload.len();
        next = record.end;
        events.push(Event::from(&record));
    }
    Ok(Events { events, next: next.as_u64() })
}
