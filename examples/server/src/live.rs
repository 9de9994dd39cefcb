//! `GET /events/live`: the events as they become durable, as server-sent events.

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::{Stream, StreamExt};
use highwater::Lsn;
use serde::Deserialize;

use crate::{app::App, events, refusal::Refusal};

#[derive(Deserialize)]
pub(crate) struct From {
    from: Option<u64>,
}

/// Streams the durable events from a position on. The id of each is the position behind it. A
/// client that connects again sends it as `Last-Event-ID` and misses none and gets none twice.
pub(crate) async fn follow(
    State(app): State<App>,
    Query(From { from }): Query<From>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Refusal> {
    let last = match headers.get("last-event-id") {
        None => None,
        Some(id) => {
            let id = id.to_str().ok().and_then(|id| id.parse().ok());
            let refused = Refusal::Request(StatusCode::BAD_REQUEST, "Last-Event-ID is no position");
            Some(id.ok_or(refused)?)
        }
    };
    let position = last.or(from).map_or_else(|| app.wal.watermarks().first, Lsn::new);
    let mut is_ending = app.is_ending.clone();
    let ended = async move {
        let _ = is_ending.wait_for(|is_ending| *is_ending).await;
    };
    let records = app.wal.follow(position).map(|record| {
        Ok(match record {
            Ok(record) => {
                let id = record.end.to_string();
                Event::default().id(id).json_data(events::Event::from(&record))?
            }
            // The stream ends behind it.
            Err(error) => Event::default().event("error").json_data(format!("{error:#}"))?,
        })
    });
    let records = records.take_until(Box::pin(ended));
    Ok(Sse::new(records).keep_alive(KeepAlive::default()))
}
