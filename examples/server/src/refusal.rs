//! The response to a request that the log refuses.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use highwater::Error;
use serde_json::json;

/// When a client should try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error of the log, or of a request.
pub(crate) enum Refusal {
    Log(Error),
    Request(StatusCode, &'static str),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Log(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = match self {
            Refusal::Log(error) => error,
            Refusal::Request(status, reason) => {
                return (status, Json(json!({ "error": reason }))).into_response();
            }
        };
        let text = format!("{error:#}");
        let (status, body) = match error {
            Error::RecordTooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, json!({ "error": text }))
            }
            // A consumer that comes too late has to begin at `first`.
            Error::BelowFirst { first, .. } | Error::SlotLost { first, .. } => {
                (StatusCode::GONE, json!({ "error": text, "first": first.as_u64() }))
            }
            Error::AboveEnd { end, .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, json!({ "error": text, "end": end.as_u64() }))
            }
            Error::SlotAhead { synced, .. } => {
                (StatusCode::CONFLICT, json!({ "error": text, "synced": synced.as_u64() }))
            }
            Error::NotABoundary { .. } | Error::SlotName { .. } => {
                (StatusCode::BAD_REQUEST, json!({ "error": text }))
            }
            // The event has its place and may become durable. The client looks there later.
            Error::Indeterminate { lsn } => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "error": text, "outcome": "unknown", "lsn": lsn.as_u64() }),
            ),
            // After a failed write or flush, only the reopened log shows its end.
            Error::Poisoned { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": text, "outcome": "unknown" }))
            }
            // Stalled, full, closed, too many slots: nothing was appended.
            _ => (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": text, "outcome": "refused" })),
        };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use highwater::{
        Wal,
        simulation::{Faults, Op},
        storage::MemoryStorage,
    };

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Runtime::new().unwrap()
    }

    fn response(error: Error) -> (u16, bool) {
        let response = Refusal::from(error).into_response();
        (response.status().as_u16(), response.headers().contains_key(RETRY_AFTER))
    }

    #[test]
    fn full_failed_and_closed_logs_are_unavailable() {
        runtime().block_on(async {
            let faults = Faults::new();
            let options = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
            let wal = options.open_with(faults.over(MemoryStorage::new())).await.unwrap();
            faults.on(Op::Create).fail(std::io::ErrorKind::StorageFull);
            let full = loop {
                if let Err(error) = wal.append(vec![1; 900]).await {
                    break error;
                }
            };
            assert_eq!(response(full), (503, true));
            faults.heal();
            faults.on(Op::Sync).fail(std::io::ErrorKind::Other);
            let failed = wal.append_and_sync("lost?").await.unwrap_err();
            assert_eq!(response(failed), (503, true));
            let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
            wal.close().await.unwrap();
            assert_eq!(response(wal.append("late").await.unwrap_err()), (503, true));
        });
    }

    #[test]
    fn mistakes_of_a_client_are_named() {
        runtime().block_on(async {
            let options = Wal::options().record_bytes_max(10);
            let wal = options.open_with(MemoryStorage::new()).await.unwrap();
            assert_eq!(response(wal.append(vec![1; 11]).await.unwrap_err()), (413, false));
            let lsn = wal.append_and_sync("x").await.unwrap();
            assert_eq!(
                response(wal.read(highwater::Lsn::new(1 << 30)).await.unwrap_err()),
                (416, false)
            );
            let kept = wal.append_and_sync("y").await.unwrap();
            wal.truncate_before(kept).await.unwrap();
            assert_eq!(response(wal.read(lsn).await.unwrap_err()), (410, false));
        });
    }

    #[test]
    fn consumers_get_their_own_statuses() {
        runtime().block_on(async {
            let options = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
            let wal = options.open_with(MemoryStorage::new()).await.unwrap();
            let slot = wal.slot("slow").await.unwrap();
            assert_eq!(response(wal.slot("").await.unwrap_err()), (400, false));
            let inside = wal.append_and_sync("an event").await.unwrap().as_u64() + 8;
            let inside = wal.slot_at("x", highwater::Lsn::new(inside)).await.unwrap_err();
            assert_eq!(response(inside), (400, false));
            let ahead = highwater::Lsn::new(1 << 20);
            assert_eq!(response(slot.advance(ahead).unwrap_err()), (409, false));
            slot.keep_at_most(0).unwrap();
            wal.truncate_before(wal.append_and_sync("next").await.unwrap()).await.unwrap();
            assert_eq!(response(slot.follow().unwrap_err()), (410, false));
            let mut slots = Vec::new();
            let many = loop {
                match wal.slot(&format!("slot {}", slots.len())).await {
                    Ok(slot) => slots.push(slot),
                    Err(error) => break error,
                }
            };
            assert!(matches!(many, Error::TooManySlots { .. }), "{many}");
            assert_eq!(response(many), (503, true));
        });
    }
}
