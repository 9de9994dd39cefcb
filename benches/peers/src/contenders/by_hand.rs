//! Logs as applications write them by hand: a file behind a mutex, and one `spawn_blocking` per
//! append.
//!
//! A record has a length in front and no checksum, which is less work than in any other contender.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{
    log::{AsyncLog, Log, Replayed, Writer},
    work::Assignment,
};

fn framed(record: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(4 + record.len());
    frame.extend_from_slice(&(record.len() as u32).to_le_bytes());
    frame.extend_from_slice(record);
    frame
}

fn file(assignment: &Assignment) -> File {
    let path = assignment.log_file();
    File::options().create(true).read(true).append(true).open(path).unwrap()
}

fn read(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
    let begun = Instant::now();
    let file = File::open(assignment.log_file()).unwrap();
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let (mut length, mut record) = ([0; 4], Vec::new());
    while reader.read_exact(&mut length).is_ok() {
        record.resize(u32::from_le_bytes(length) as usize, 0);
        reader.read_exact(&mut record).unwrap();
        each(&record);
    }
    Replayed { seconds: begun.elapsed().as_secs_f64() }
}

pub struct MutexFile(Mutex<File>);

impl Log for MutexFile {
    type Writer<'a> = &'a MutexFile;

    fn open(assignment: &Assignment) -> Self {
        MutexFile(Mutex::new(file(assignment)))
    }

    fn writer(&self, _lane: usize) -> &MutexFile {
        self
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        read(assignment, each)
    }
}

impl Writer for &MutexFile {
    fn append(&mut self, record: &[u8]) {
        let frame = framed(record);
        self.0.lock().unwrap().write_all(&frame).unwrap();
    }

    fn commit(&mut self, record: &[u8]) {
        let frame = framed(record);
        let mut file = self.0.lock().unwrap();
        file.write_all(&frame).unwrap();
        file.sync_data().unwrap();
    }

    fn batch(&mut self, records: &[Vec<u8>], sync: bool) {
        let frames: Vec<u8> = records.iter().flat_map(|record| framed(record)).collect();
        let mut file = self.0.lock().unwrap();
        file.write_all(&frames).unwrap();
        if sync {
            file.sync_data().unwrap();
        }
    }
}

#[derive(Clone)]
pub struct SpawnBlocking {
    file: Arc<File>,
    end: Arc<AtomicU64>,
}

impl SpawnBlocking {
    async fn write(&self, frames: Vec<u8>, sync: bool) {
        let (file, end) = (self.file.clone(), self.end.clone());
        let written = tokio::task::spawn_blocking(move || {
            let at = end.fetch_add(frames.len() as u64, Ordering::Relaxed);
            file.write_all_at(&frames, at)?;
            if sync { file.sync_data() } else { Ok(()) }
        });
        written.await.unwrap().unwrap();
    }
}

impl AsyncLog for SpawnBlocking {
    type Ticket = ();

    async fn open(assignment: &Assignment) -> Self {
        let path = assignment.log_file();
        let mut options = File::options();
        // Without O_APPEND, because the kernel would ignore the positions of writes.
        let file = options.create(true).truncate(false).read(true).write(true).open(path).unwrap();
        let end = file.metadata().unwrap().len();
        SpawnBlocking { file: Arc::new(file), end: Arc::new(AtomicU64::new(end)) }
    }

    async fn append(&self, record: &[u8]) {
        self.write(framed(record), false).await;
    }

    async fn commit(&self, record: &[u8]) {
        self.write(framed(record), true).await;
    }

    async fn enqueue(&self, record: &[u8]) {
        self.append(record).await;
    }

    async fn drain((): ()) {}

    async fn batch(&self, records: &[Vec<u8>]) {
        let frames = records.iter().flat_map(|record| framed(record)).collect();
        self.write(frames, true).await;
    }

    async fn replay(assignment: &Assignment, each: &mut (dyn FnMut(&[u8]) + Send)) -> Replayed {
        read(assignment, each)
    }
}
