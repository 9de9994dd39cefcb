//! The floors: the operating system without a log.
//!
//! One thread writes into one prepared file, without framing and checksums.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
    time::Instant,
};

use crate::{
    contenders::delayed,
    log::{Log, Replayed, Writer},
    work::{Assignment, Kind},
};

/// Writes into zero-filled space (`ZEROED`) or into reserved space. With `DELAYED` each flush takes
/// 1 ms more.
pub struct Floor<const ZEROED: bool, const DELAYED: bool = false> {
    file: File,
    /// The file's bytes. After the last byte, writing starts over at offset 0.
    capacity: u64,
    block: usize,
}

pub struct FloorWriter<'a> {
    file: &'a File,
    capacity: u64,
    at: u64,
    buffer: Vec<u8>,
    /// Enqueued records are written in blocks of this size, as a log with a buffer does; 0 writes
    /// each record at once.
    block: usize,
    is_delayed: bool,
}

const BLOCK: usize = 64 << 10;

impl<const ZEROED: bool, const DELAYED: bool> Log for Floor<ZEROED, DELAYED> {
    const SINGLE_THREAD: bool = true;
    type Writer<'a> = FloorWriter<'a>;

    fn open(assignment: &Assignment) -> Self {
        let work = &assignment.work;
        let capacity = match work.kind {
            // A few operations that are not measured.
            _ if assignment.limits.operations.is_some() => work.bytes + (1 << 20),
            Kind::Commit | Kind::OpenLoop { .. } | Kind::Mixed { .. } if work.bytes == 0 => {
                64 << 20
            }
            Kind::Churn { keep_bytes, .. } => keep_bytes.max(32 << 20),
            _ if work.bytes == 0 => 1 << 30,
            // Room for one more record or block.
            _ => work.bytes + (32 << 20),
        };
        let path = assignment.log_file();
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(path).unwrap();
        prepare(&file, capacity, ZEROED).unwrap();
        let block = if work.kind == Kind::Enqueue { BLOCK } else { 0 };
        Floor { file, capacity, block }
    }

    fn writer(&self, _lane: usize) -> FloorWriter<'_> {
        let (capacity, block) = (self.capacity, self.block);
        let (file, buffer) = (&self.file, Vec::new());
        FloorWriter { file, capacity, at: 0, buffer, block, is_delayed: DELAYED }
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        let file = File::open(assignment.log_file()).unwrap();
        let mut buffer = vec![0; 256 << 10];
        let (begun, mut at) = (Instant::now(), 0);
        let end = assignment.work.bytes;
        while at < end {
            let read = file.read_at(&mut buffer, at).unwrap();
            each(&buffer[..read]);
            at += read as u64;
        }
        Replayed { seconds: begun.elapsed().as_secs_f64() }
    }
}

pub fn prepare(file: &File, bytes: u64, zeroed: bool) -> io::Result<()> {
    if zeroed {
        // As the log does. Writes of 1 MiB leave larger folios in the page cache, and a small write
        // and flush then takes a fifth longer.
        let zeros = vec![0; 64 << 10];
        for offset in (0..bytes).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
    } else {
        let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open for as long as `file` is borrowed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    file.sync_all()
}

impl FloorWriter<'_> {
    fn write(&mut self) {
        if self.at + self.buffer.len() as u64 > self.capacity {
            self.at = 0;
        }
        self.file.write_all_at(&self.buffer, self.at).unwrap();
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
    }

    fn sync(&self) {
        self.file.sync_data().unwrap();
        if self.is_delayed {
            delayed::wait();
        }
    }
}

impl Writer for FloorWriter<'_> {
    fn append(&mut self, record: &[u8]) {
        self.buffer.extend_from_slice(record);
        if self.buffer.len() >= self.block {
            self.write();
        }
    }

    fn commit(&mut self, record: &[u8]) {
        self.buffer.extend_from_slice(record);
        self.write();
        self.sync();
    }

    fn batch(&mut self, records: &[Vec<u8>], sync: bool) {
        for record in records {
            self.buffer.extend_from_slice(record);
        }
        self.write();
        if sync {
            self.sync();
        }
    }

    fn drain(&mut self) {
        if !self.buffer.is_empty() {
            self.write();
        }
    }
}
