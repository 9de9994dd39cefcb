//! Small logs of each kind, and all facts about them.

use std::collections::BTreeMap;

use highwater::{
    Lsn, Wal,
    simulation::{Disk, Image, Survival},
};

use super::{
    bytes::word,
    slots::{SlotsChange, slots_log},
};

pub(crate) const HEADER: usize = 4096;

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(crate) async fn open(disk: &Disk) -> highwater::Result<Wal> {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10).open_with(disk.clone()).await
}

/// A frame of an intact log: its place and its commitment.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    pub(crate) lsn: u64,
    pub(crate) commitment: u64,
}

/// An intact log and all facts about it.
#[derive(Clone)]
pub(crate) struct Log {
    pub(crate) name: &'static str,
    pub(crate) image: Image,
    /// The image after each operation of the last session.
    pub(crate) history: Vec<Image>,
    pub(crate) records: BTreeMap<Lsn, Vec<u8>>,
    pub(crate) frames: Vec<Frame>,
    /// The changes of slots, oldest first.
    pub(crate) changes: Vec<SlotsChange>,
}

impl Log {
    pub(crate) fn new(name: &'static str, disk: &Disk, records: BTreeMap<Lsn, Vec<u8>>) -> Self {
        let image = disk.image();
        let names: Vec<_> = image.names().into_iter().filter(|n| n.ends_with(".wal")).collect();
        let mut frames = Vec::new();
        for (i, name) in names.iter().enumerate() {
            let bytes = image.bytes(name).unwrap();
            if word(bytes, 0) == 0 {
                continue;
            }
            let base = word(bytes, 32);
            let next = names.get(i + 1).map(|next| image.bytes(next).unwrap());
            let end = next.filter(|next| word(next, 0) != 0).map(|next| word(next, 32));
            let mut offset = HEADER;
            while offset + 16 <= bytes.len() && word(bytes, offset) != 0 {
                let lsn = base + (offset - HEADER) as u64;
                if end.is_some_and(|end| lsn >= end) {
                    break;
                }
                let payload = u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap());
                let lag = u32::from_le_bytes(bytes[offset + 8..offset + 12].try_into().unwrap());
                let frame = Frame {
                    name: name.clone(),
                    offset,
                    bytes: 16 + (payload as usize).next_multiple_of(8),
                    lsn,
                    commitment: lsn - u64::from(lag) * 8,
                };
                offset += frame.bytes;
                frames.push(frame);
            }
        }
        assert!(frames.len() >= records.len() && !records.is_empty());
        let cuts = disk.power_cuts(0).filter(|cut| cut.survival == Survival::Everything);
        let history = cuts.map(|cut| cut.image()).collect();
        Log { name, image, history, records, frames, changes: Vec::new() }
    }

    pub(crate) fn segments(&self) -> Vec<String> {
        let names = self.image.names().into_iter();
        names.filter(|name| name.ends_with(".wal")).collect()
    }

    pub(crate) fn is_intact(
        &self,
        damaged: &Image,
        name: &str,
        offset: usize,
        bytes: usize,
    ) -> bool {
        let part = |image: &Image| {
            let there = image.names().iter().any(|n| n == name);
            there
                .then(|| image.bytes(name).unwrap().get(offset..offset + bytes).map(<[u8]>::to_vec))
        };
        part(damaged).flatten().is_some_and(|part_| Some(Some(part_)) == part(&self.image))
    }

    /// Returns the highest commitment of any intact frame or header in `damaged`.
    pub(crate) fn surviving_commitment(&self, damaged: &Image) -> u64 {
        let frames = self
            .frames
            .iter()
            .filter(|frame| self.is_intact(damaged, &frame.name, frame.offset, frame.bytes));
        let headers = self.segments().into_iter().filter(|name| {
            word(self.image.bytes(name).unwrap(), 0) != 0 && self.is_intact(damaged, name, 0, 124)
        });
        let headers = headers.map(|name| word(self.image.bytes(&name).unwrap(), 80));
        frames.map(|frame| frame.commitment).chain(headers).max().unwrap_or(0)
    }
}

pub(crate) fn payload(i: u64) -> Vec<u8> {
    (0..20 + i * 13 % 120).map(|j| (i * 31 + j * 7) as u8 | 1).collect()
}

/// Appends `count` records from number `from` on, some in batches, with some syncs.
pub(crate) async fn fill(wal: &Wal, from: u64, count: u64, records: &mut BTreeMap<Lsn, Vec<u8>>) {
    let mut i = from;
    while i < from + count {
        if i % 11 == 3 {
            let batch = [payload(i), payload(i + 1), payload(i + 2)];
            let range = wal.append_batch(&batch).await.unwrap();
            let mut at = range.start;
            for part in batch {
                let bytes = 16 + part.len().next_multiple_of(8) as u64;
                records.insert(at, part);
                at = Lsn::new(at.as_u64() + bytes);
            }
            i += 3;
        } else {
            let lsn = wal.append(&payload(i)).await.unwrap();
            records.insert(lsn, payload(i));
            i += 1;
        }
        if i % 5 == 0 {
            wal.sync().await.unwrap();
        }
    }
    wal.sync().await.unwrap();
}

pub(crate) fn closed_log(seed: u64) -> Log {
    block_on(async {
        let disk = Disk::new(seed).recording();
        let mut records = BTreeMap::new();
        let wal = open(&disk).await.unwrap();
        fill(&wal, 0, 100, &mut records).await;
        wal.close().await.unwrap();
        Log::new("closed", &disk, records)
    })
}

pub(crate) fn unclosed_log() -> Log {
    block_on(async {
        let disk = Disk::new(2).recording();
        let mut records = BTreeMap::new();
        let wal = open(&disk).await.unwrap();
        fill(&wal, 0, 100, &mut records).await;
        drop(wal);
        Log::new("unclosed", &disk, records)
    })
}

/// Returns a log that was recovered `times` times, with more acknowledged records after that.
pub(crate) fn recovered_log(name: &'static str, times: u64, closes: bool) -> Log {
    block_on(async {
        let mut disk = Disk::new(3);
        let mut records = BTreeMap::new();
        let wal = open(&disk).await.unwrap();
        fill(&wal, 0, 60, &mut records).await;
        drop(wal);
        for _ in 0..times {
            disk = disk.crash(Survival::Nothing);
            drop(open(&disk).await.unwrap());
        }
        disk = disk.crash(Survival::Nothing).recording();
        let wal = open(&disk).await.unwrap();
        assert_eq!(wal.recovery().cut, None);
        fill(&wal, 60, 20, &mut records).await;
        if closes {
            wal.close().await.unwrap();
        }
        drop(wal);
        Log::new(name, &disk, records)
    })
}

pub(crate) fn logs() -> Vec<Log> {
    vec![
        closed_log(1),
        unclosed_log(),
        recovered_log("recovered, unclosed", 0, false),
        recovered_log("recovered, closed", 0, true),
        recovered_log("recovered twice", 2, false),
        slots_log("slots, closed", true, false),
        slots_log("slots, unclosed", false, false),
        slots_log("slots, truncated", false, true),
    ]
}
