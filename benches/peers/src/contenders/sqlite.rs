//! SQLite in WAL mode: one connection behind a mutex, because it allows one writer at a time, and
//! one transaction per record.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use rusqlite::Connection;

use crate::{
    log::{Log, Replayed, Writer},
    work::{Assignment, Kind},
};

pub struct Sqlite(Mutex<Connection>);

fn connect(path: &Path, synchronous: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", synchronous).unwrap();
    let table = "CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY, record BLOB NOT NULL)";
    connection.execute(table, ()).unwrap();
    connection
}

impl Log for Sqlite {
    type Writer<'a> = &'a Sqlite;

    fn open(assignment: &Assignment) -> Self {
        // In WAL mode FULL syncs at each commit, and NORMAL does not.
        let unsynced = matches!(assignment.work.kind, Kind::Append | Kind::Enqueue);
        let synchronous = if unsynced { "NORMAL" } else { "FULL" };
        Sqlite(Mutex::new(connect(&assignment.log_file(), synchronous)))
    }

    fn writer(&self, _lane: usize) -> &Sqlite {
        self
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        let connection = connect(&assignment.log_file(), "FULL");
        let begun = Instant::now();
        let mut select = connection.prepare("SELECT record FROM log ORDER BY id").unwrap();
        let mut rows = select.query(()).unwrap();
        while let Some(row) = rows.next().unwrap() {
            each(row.get_ref(0).unwrap().as_blob().unwrap());
        }
        Replayed { seconds: begun.elapsed().as_secs_f64() }
    }
}

impl Sqlite {
    fn insert(connection: &MutexGuard<'_, Connection>, record: &[u8]) {
        let mut insert = connection.prepare_cached("INSERT INTO log (record) VALUES (?1)").unwrap();
        insert.execute((record,)).unwrap();
    }
}

impl Writer for &Sqlite {
    fn append(&mut self, record: &[u8]) {
        Sqlite::insert(&self.0.lock().unwrap(), record);
    }

    fn commit(&mut self, record: &[u8]) {
        self.append(record);
    }

    fn batch(&mut self, records: &[Vec<u8>], _sync: bool) {
        let connection = self.0.lock().unwrap();
        connection.execute_batch("BEGIN").unwrap();
        for record in records {
            Sqlite::insert(&connection, record);
        }
        connection.execute_batch("COMMIT").unwrap();
    }
}
