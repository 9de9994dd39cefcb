//! Checks an event log: no byte counts as synced before a sync that covers it.

use std::collections::BTreeMap;

use highwater::simulation::{Event, Wrote};

use crate::HEADER_BYTES;

/// The state of a segment file, rebuilt from an event log.
#[derive(Default)]
struct Segment {
    /// The base in the written header, if any.
    base: Option<u64>,
    created: usize,
    header_written: usize,
    /// For each byte above the header block, the event that last wrote it; 0 if none did.
    written: Vec<usize>,
    /// The first event of the newest successful sync.
    synced: usize,
}

/// Checks an event log against the meaning of `synced`. Whenever the mark was seen at `W`, each
/// byte below `W`, and its segment's header, was written before a successful sync of that file
/// began. The file was created before a successful sync of the directory began.
pub(crate) fn check(events: &[Event]) -> Result<u64, String> {
    let mut segments: BTreeMap<&str, Segment> = BTreeMap::new();
    let (mut directory_synced, mut noted) = (0, 0);
    for (now, event) in events.iter().enumerate() {
        match event {
            Event::Created { file } => {
                segments.insert(file, Segment { created: now, ..Segment::default() });
            }
            Event::Removed { file } => drop(segments.remove(file.as_str())),
            Event::SyncDirEnded { begin, ok: true } => directory_synced = *begin,
            Event::SyncEnded { file, begin, ok: true } => {
                let segment = segments.get_mut(file.as_str()).ok_or("a sync of an unknown file")?;
                segment.synced = segment.synced.max(*begin);
            }
            Event::Wrote(wrote) if !wrote.is_blank => {
                let segment =
                    segments.get_mut(wrote.file.as_str()).ok_or("a write to an unknown file")?;
                if wrote.offset == 0 {
                    let base = wrote.head.get(32..40).and_then(|bytes| bytes.try_into().ok());
                    segment.base = Some(u64::from_le_bytes(base.ok_or("a short header")?));
                    segment.header_written = now;
                } else {
                    let start = usize::try_from(wrote.offset - HEADER_BYTES).unwrap();
                    let end = start + wrote.count;
                    segment.written.resize(segment.written.len().max(end), 0);
                    segment.written[start..end].fill(now);
                }
            }
            Event::Noted { note: synced } => {
                check_mark(&segments, directory_synced, noted, *synced)
                    .map_err(|problem| format!("event {now}, synced = {synced}: {problem}"))?;
                noted = noted.max(*synced);
            }
            _ => {}
        }
    }
    Ok(noted)
}

fn check_mark(
    segments: &BTreeMap<&str, Segment>,
    directory_synced: usize,
    from: u64,
    to: u64,
) -> Result<(), String> {
    for lsn in from..to {
        // A segment ends where its successor begins, so the last one with `base <= lsn` holds the
        // byte.
        let holder =
            segments.iter().rev().find(|(_, segment)| segment.base.is_some_and(|base| base <= lsn));
        let (name, segment) = holder.ok_or(format!("no segment holds {lsn}"))?;
        let offset = usize::try_from(lsn - segment.base.unwrap_or_default()).unwrap();
        let written = segment.written.get(offset).copied().unwrap_or_default();
        if written == 0 {
            return Err(format!("{name}: the byte at {lsn} was never written"));
        }
        if written > segment.synced {
            return Err(format!("{name}: no sync began after the byte at {lsn} was written"));
        }
        if segment.header_written > segment.synced {
            return Err(format!("{name}: its header was not synced"));
        }
        if segment.created > directory_synced {
            return Err(format!("{name}: its directory entry was not synced"));
        }
    }
    Ok(())
}

#[test]
fn checker_detects_each_kind_of_lie() {
    let wrote = |offset: u64, count: usize, base: u64| {
        let mut head = vec![0xaa; 64];
        head[32..40].copy_from_slice(&base.to_le_bytes());
        Event::Wrote(Wrote {
            file: "1".into(),
            offset,
            count,
            head,
            is_blank: false,
            is_nonblocking: false,
            is_durable: false,
        })
    };
    let file = || "1".to_owned();
    let honest = vec![
        Event::SyncDirBegan,
        Event::Created { file: file() },
        Event::SyncDirBegan,
        Event::SyncDirEnded { begin: 2, ok: true },
        wrote(0, 124, 0),
        wrote(HEADER_BYTES, 64, 0),
        Event::SyncBegan { file: file() },
        wrote(HEADER_BYTES + 64, 64, 0),
        Event::SyncEnded { file: file(), begin: 6, ok: true },
        Event::Noted { note: 64 },
    ];
    assert_eq!(check(&honest), Ok(64));
    let doctored = |at: usize, event: Event| {
        let mut events = honest.clone();
        events[at] = event;
        check(&events).unwrap_err()
    };
    let too_far = doctored(9, Event::Noted { note: 65 });
    assert!(too_far.contains("no sync began after the byte at 64"), "{too_far}");
    let never = doctored(9, Event::Noted { note: 129 });
    assert!(never.contains("no sync began"), "{never}");
    let failed = doctored(8, Event::SyncEnded { file: file(), begin: 6, ok: false });
    assert!(failed.contains("no sync began after the byte at 0"), "{failed}");
    let late = doctored(8, Event::SyncEnded { file: file(), begin: 4, ok: true });
    assert!(late.contains("no sync began after the byte at 0"), "{late}");
    let no_entry = doctored(3, Event::SyncDirEnded { begin: 0, ok: true });
    assert!(no_entry.contains("directory entry"), "{no_entry}");
    let gap = doctored(5, wrote(HEADER_BYTES + 8, 56, 0));
    assert!(gap.contains("never written"), "{gap}");
    let no_header = doctored(7, wrote(0, 124, 0));
    assert!(no_header.contains("header"), "{no_header}");
}
