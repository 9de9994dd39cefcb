//! Tests of the pure part: samples, rates, changes, pictures and lines.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater::{Lsn, Wal, inspect::LogId, inspect::Snapshot, simulation::Disk};
use ratatui_core::{
    backend::TestBackend,
    style::{Color, Modifier},
    terminal::Terminal,
};

use super::{
    history::History,
    line::line,
    picture::{Theme, View, draw},
    sample::{Log, Sample, Segments, Slot, State},
    words::unsynced,
};
use crate::files::Space;

const MIB: u64 = 1 << 20;

fn slot(name: &str, position: u64, held_bytes: u64) -> Slot {
    Slot {
        name: name.to_owned(),
        position: Lsn::new(position),
        lag_bytes: held_bytes / 2,
        held_bytes,
        keep_bytes_max: None,
        is_lost: false,
    }
}

fn log(end: u64) -> Log {
    Log {
        id: LogId([7; 16]),
        epoch: 1,
        first: Some(Lsn::ZERO),
        end: Some(Lsn::new(end)),
        synced: Some(Lsn::new(end - 512)),
        record_count: None,
        segments: Segments {
            count: 3,
            file_bytes: 48 * MIB,
            used_bytes: 40 * MIB,
            spare_count: 1,
            newest_sequence: 3,
            newest_age: Duration::from_secs(3),
            oldest_age: Duration::from_secs(7200),
        },
        slots: Vec::new(),
    }
}

fn sample(seconds: u64, log: Option<Log>) -> Sample {
    let space = Some(Space { free_bytes: 30 << 30, total_bytes: 100 << 30 });
    Sample { at: Duration::from_secs(seconds), state: State::InUse(1234), log, space }
}

/// Two looks at a log that grows by 6 MiB and 300 records in 3 s, and rotates once.
fn growing() -> History {
    let mut history = History::default();
    history.push(sample(0, Some(log(10 * MIB))));
    let mut grown = log(16 * MIB);
    grown.record_count = Some(300);
    grown.segments.newest_sequence = 4;
    history.push(sample(3, Some(grown)));
    history
}

fn picture(history: &History, waiting: Option<Duration>, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let view = View { directory: "data/log", history, now: Duration::from_secs(5), waiting };
    terminal.draw(|frame| draw(frame, &view, Theme::new(false))).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let row = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..height).map(|y| row(y).trim_end().to_owned()).collect()
}

#[test]
fn picture_shows_marks_rates_segments_and_slots() {
    let mut history = growing();
    let mut next = log(18 * MIB);
    next.first = Some(Lsn::new(4 * MIB));
    let mut lost = slot("old\u{1b}", 64, 0);
    lost.is_lost = true;
    let mut capped = slot("search", 12 * MIB, 6 * MIB);
    capped.keep_bytes_max = Some(64 * MIB);
    next.slots = vec![slot("billing", 5 * MIB, 13 * MIB), capped, lost];
    next.record_count = Some(50);
    history.push(sample(4, Some(next)));
    let expected = [
        "data/log  in use by process 1234",
        "marks     first 4194304, end 18874368, synced 18873856 (512 B not known synced)",
        "rates     2.00 MiB/s, 50 records/s",
        "segments  3 segments, 40.0 MiB used of 48.0 MiB, 1 spare",
        "          newest 3 s old, oldest 2 h old; 1 rotation in 5 s",
        "disk      30.0 GiB free of 100 GiB (30 %)",
        "health    not published",
        "",
        "bytes a second, at most 2.00 MiB",
        "██",
        "██",
        "██",
        "    position       behind        keeps      at most 3 slots",
        "     5242880     6.50 MiB     13.0 MiB            - billing  keeps most",
        "    12582912     3.00 MiB     6.00 MiB     64.0 MiB search",
        "          64          0 B          0 B            - old\\u{1b}  lost",
        "",
        "   1 s ago  slot old\\u{1b} was lost",
        "   1 s ago  the beginning was truncated to LSN 4194304",
        "q  ends",
    ];
    assert_eq!(picture(&history, None, 80, 20), expected);
}

/// The slots give way last, and no size makes the drawing fail.
#[test]
fn picture_fits_any_size() {
    let mut history = growing();
    let mut next = log(18 * MIB);
    next.slots = (0..9).map(|i| slot(&format!("slot-{i}"), i, (9 - i) * MIB)).collect();
    history.push(sample(4, Some(next)));
    let small = picture(&history, None, 80, 13);
    assert!(small[8].ends_with("9 slots") && small[9].contains("slot-0  keeps most"), "{small:#?}");
    assert!(small[11].contains("… 7 more …") && small[12] == "q  ends", "{small:#?}");
    for width in [1, 2, 7, 40, 300] {
        for height in [1, 2, 3, 8, 11, 60] {
            assert_eq!(picture(&history, None, width, height).len(), usize::from(height));
        }
    }
}

#[test]
fn picture_of_no_log_shows_the_reason() {
    let waiting = Some(Duration::from_secs(5));
    let first = picture(&History::default(), waiting, 80, 4);
    assert!(first[1].contains("has not returned for 5 s: the disk may hang"), "{first:#?}");
    let mut history = growing();
    let mut gone = sample(6, None);
    gone.state = State::Unreadable("the directory is gone".to_owned());
    history.push(gone);
    let shown = picture(&history, None, 80, 12);
    assert_eq!(shown[0], "data/log  the directory is gone");
    assert!(shown[10].ends_with("the log can't be read any more"), "{shown:#?}");
    history.push(sample(7, Some(log(20 * MIB))));
    let shown = picture(&history, waiting, 80, 24);
    assert!(shown[1].contains("the disk may hang") && shown[3].contains("- B/s"), "{shown:#?}");
    assert!(shown.iter().any(|line| line.ends_with("the log can be read")), "{shown:#?}");
}

#[test]
fn picture_without_colour_has_weights_only() {
    let mut history = growing();
    let mut torn = sample(4, Some(log(16 * MIB)));
    torn.state = State::TornTail;
    history.push(torn);
    let view = View { directory: "log", history: &history, now: Duration::ZERO, waiting: None };
    for has_colour in [false, true] {
        let mut terminal = Terminal::new(TestBackend::new(80, 20)).unwrap();
        terminal.draw(|frame| draw(frame, &view, Theme::new(has_colour))).unwrap();
        let cells = &terminal.backend().buffer().content;
        let coloured = cells.iter().any(|cell| cell.fg != Color::Reset);
        assert_eq!(coloured, has_colour);
        assert!(cells.iter().any(|cell| cell.modifier.contains(Modifier::BOLD)));
    }
}

#[test]
fn rates_need_the_same_log_and_epoch() {
    let mut history = growing();
    assert_eq!(history.rates().bytes, Some(2 * MIB));
    assert_eq!(history.rates().records, Some(100));
    assert_eq!(history.rotations(), "1 rotation");
    for change in ["epoch", "id", "end"] {
        let mut next = log(17 * MIB);
        match change {
            "epoch" => next.epoch = 2,
            "id" => next.id = LogId([8; 16]),
            _ => next.end = Some(Lsn::new(MIB)),
        }
        let mut changed = history.clone();
        changed.push(sample(4, Some(next)));
        assert_eq!(changed.rates().bytes, None, "{change}");
        assert_eq!(changed.changes(9).count(), 1, "{change}: {changed:?}");
    }
    // Two looks in the same moment have no rate.
    history.push(sample(3, Some(log(17 * MIB))));
    assert_eq!(history.rates().bytes, None);
}

fn texts(history: &History) -> Vec<String> {
    let mut texts: Vec<_> = history.changes(9).map(|(_, change)| change.text()).collect();
    texts.reverse();
    texts
}

#[test]
fn changes_are_listed_and_merged() {
    let mut history = growing();
    let mut push = |seconds, state: State, edit: &dyn Fn(&mut Log)| {
        let mut next = log(16 * MIB);
        edit(&mut next);
        history.push(Sample { state, ..sample(seconds, Some(next)) });
    };
    let used = || State::InUse(1234);
    for i in 1..20 {
        push(3 + i, used(), &|log| log.first = Some(Lsn::new(i * 8)));
    }
    push(30, State::Closed, &|_| {});
    push(31, State::InUse(99), &|_| {});
    push(32, State::NotClosed, &|_| {});
    push(33, State::InUse(100), &|log| log.epoch = 2);
    push(34, State::InUse(100), &|log| (log.epoch, log.end) = (3, Some(Lsn::new(15 * MIB))));
    push(35, State::InUse(100), &|log| log.id = LogId([1; 16]));
    let expected = [
        "the beginning was truncated to LSN 152",
        "the log was closed",
        "process 99 opened the log",
        "process 99 left the log without closing it",
        "process 100 opened the log",
        "the end was truncated: epoch 2 began",
        "the end moved back by 1.00 MiB to LSN 15728640",
        "another log is in the directory now",
    ];
    assert_eq!(texts(&history), expected);
}

#[test]
fn line_has_the_numbers_of_a_look() {
    let mut history = History::default();
    history.push(sample(0, Some(log(10 * MIB))));
    assert_eq!(
        line(&history, "DATE"),
        "DATE  in use by process 1234; first 0, end 10485760, synced 10485248; - B/s, - records/s, \
         0 rotations; 3 segments, 40.0 MiB used of 48.0 MiB, 1 spare; disk 30.0 GiB free of 100 GiB \
         (30 %); health: not published"
    );
    let mut next = log(12 * MIB);
    next.slots = vec![slot("billing", 0, 12 * MIB)];
    history.push(Sample { state: State::Closed, ..sample(2, Some(next)) });
    let shown = line(&history, "DATE");
    for part in ["DATE  closed; ", "1.00 MiB/s", "slot billing keeps 12.0 MiB"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.ends_with("; the log was closed"), "{shown}");
    history.push(Sample { state: State::New, space: None, ..sample(4, None) });
    assert_eq!(
        line(&history, "DATE"),
        "DATE  no log yet; disk unknown; health: not published; the files of the log are gone"
    );
}

/// The numbers are those of `stat`, from a log on a simulated disk.
#[test]
fn sample_has_the_numbers_of_an_inspection() {
    let disk = Disk::new(3);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let end = runtime.block_on(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let wal = options.open_with(disk.clone()).await.unwrap();
        let behind = wal.slot("behind").await.unwrap();
        for _ in 0..30 {
            wal.append_and_sync(&[7; 900]).await.unwrap();
        }
        drop(behind);
        wal.close().await.unwrap();
        wal.watermarks().written
    });
    let snapshot = Snapshot::of_storage(disk).unwrap();
    let found = snapshot.outline();
    let created = found.segments[0].header.unwrap().created_unix_ms;
    let now: SystemTime = UNIX_EPOCH + Duration::from_millis(created + 60_000);
    let log = Log::of(found, now).unwrap();
    assert_eq!(State::of(found), State::Closed);
    assert_eq!((log.first, log.end), (Some(Lsn::ZERO), Some(end)));
    assert_eq!(log.unsynced_bytes(), Some(24), "the close");
    assert_eq!(unsynced(&log), "");
    assert!(log.segments.count > 3 && log.segments.newest_sequence == log.segments.count);
    assert_eq!(log.segments.oldest_age, Duration::from_secs(60));
    assert_eq!(log.holder().unwrap().name, "behind");
    assert!(log.holder().unwrap().held_bytes > 20_000);
}
