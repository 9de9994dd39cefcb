//! The calls with which a file is filled.

use std::{
    cell::RefCell,
    io,
    sync::{Arc, Mutex},
};

use super::*;
use crate::storage::{Locking, MemoryStorage, StorageFile};

#[test]
fn blanking_flushes_every_piece_except_the_last() {
    for (range, flush_count) in [
        (0..0, 0),
        (4096..PIECE_BYTES, 0),
        (0..PIECE_BYTES, 0),
        (0..PIECE_BYTES + 1, 1),
        (100..100 + 4 * PIECE_BYTES, 3),
    ] {
        let (end, flushed) = (RefCell::new(range.start), RefCell::new(Vec::new()));
        let write = |zeros: &[u8], offset| {
            assert_eq!(offset, *end.borrow(), "no gap");
            *end.borrow_mut() += zeros.len() as u64;
            Ok(())
        };
        let flush = || {
            flushed.borrow_mut().push(*end.borrow());
            Ok(())
        };
        blank_by_pieces(range.clone(), write, flush).unwrap();
        assert_eq!(*end.borrow(), range.end);
        let places = (1..=flush_count).map(|count| range.start + count * PIECE_BYTES);
        assert!(flushed.borrow().iter().copied().eq(places), "{range:?}");
    }
}

/// How a storage zeroes without a transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Zeroing {
    Works,
    Refused,
    Fails,
    /// Returns success. The last byte of the file is not zero.
    LeavesByte,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Zero,
    Write,
    Read,
    Sync,
}

/// Records the calls. The file begins with other bytes than zeros.
#[derive(Debug)]
struct Recording {
    zeroing: Zeroing,
    file: Box<dyn StorageFile>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Recording {
    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

impl StorageFile for Recording {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.note(Call::Read);
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.note(Call::Write);
        self.file.write_at(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.write_at(&vec![7; usize::try_from(bytes).unwrap()], 0).map(drop)
    }
    fn write_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        self.note(Call::Zero);
        match self.zeroing {
            Zeroing::Refused => return Err(io::ErrorKind::Unsupported.into()),
            Zeroing::Fails => return Err(io::Error::from_raw_os_error(5)),
            Zeroing::Works | Zeroing::LeavesByte => {}
        }
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        if self.zeroing == Zeroing::LeavesByte && range.end == self.file.len()? {
            *bytes.last_mut().unwrap() = 7;
        }
        self.file.write_at(&bytes, range.start).map(drop)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.note(Call::Sync);
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[derive(Debug)]
struct RecordingStorage(Zeroing, MemoryStorage, Arc<Mutex<Vec<Call>>>);

impl Storage for RecordingStorage {
    fn location(&self) -> String {
        self.1.location()
    }
    fn lock(&self) -> io::Result<Locking> {
        self.1.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.1.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let (file, calls) = (self.1.create(name)?, Arc::clone(&self.2));
        Ok(Box::new(Recording { zeroing: self.0, file, calls }))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.1.open(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.1.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.1.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Prepares a file, checks that it holds zeros only, and returns the calls.
fn prepared(zeroing: Zeroing, preallocation: Preallocation) -> Vec<Call> {
    const BYTES: u64 = (2 << 20) + 512;
    let storage = RecordingStorage(zeroing, MemoryStorage::new(), Arc::default());
    let file =
        prepare(&storage, Sequence(1), BYTES, preallocation, Beside::Commits, &|| ()).unwrap();
    let calls = storage.2.lock().unwrap().clone();
    let mut bytes = vec![1; usize::try_from(BYTES).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    if preallocation != Preallocation::Reserve {
        assert!(bytes.iter().all(|&byte| byte == 0), "{zeroing:?}");
    }
    calls
}

fn count(calls: &[Call], call: Call) -> usize {
    calls.iter().filter(|made| **made == call).count()
}

#[test]
fn zeroed_file_is_read_back_then_flushed() {
    let calls = prepared(Zeroing::Works, Preallocation::ZeroFill);
    assert_eq!(count(&calls, Call::Zero), 3);
    assert_eq!(count(&calls, Call::Write), 0);
    assert_eq!(count(&calls, Call::Read), 33, "all of it is read");
    assert_eq!(calls.iter().position(|call| *call == Call::Sync), Some(calls.len() - 1));
}

#[test]
fn refused_or_failed_zeroing_writes_zeros() {
    for zeroing in [Zeroing::Refused, Zeroing::Fails] {
        let calls = prepared(zeroing, Preallocation::ZeroFill);
        assert_eq!(count(&calls, Call::Zero), 1);
        assert_eq!(count(&calls, Call::Write), 33);
    }
    let calls = prepared(Zeroing::Works, Preallocation::Reserve);
    assert_eq!(count(&calls, Call::Zero), 0, "only a file that is filled");
}

/// Control: without the look at the last byte, the file would keep it.
#[test]
fn wrong_success_of_zeroing_is_noticed() {
    let calls = prepared(Zeroing::LeavesByte, Preallocation::ZeroFill);
    assert_eq!(count(&calls, Call::Zero), 3);
    assert_eq!(count(&calls, Call::Write), 33);
}
