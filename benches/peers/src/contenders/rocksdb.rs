//! RocksDB with its defaults, through the C interface of the system's library; `sync` for commits.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr::null_mut,
    time::Instant,
};

use crate::{
    log::{Log, Replayed, Writer},
    records::key,
    work::Assignment,
};

#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_options_create() -> *mut c_void;
    fn rocksdb_options_set_create_if_missing(options: *mut c_void, yes: u8);
    fn rocksdb_options_destroy(options: *mut c_void);
    fn rocksdb_open(
        options: *const c_void,
        name: *const c_char,
        e: *mut *mut c_char,
    ) -> *mut c_void;
    fn rocksdb_close(db: *mut c_void);
    fn rocksdb_writeoptions_create() -> *mut c_void;
    fn rocksdb_writeoptions_set_sync(options: *mut c_void, yes: u8);
    fn rocksdb_writeoptions_destroy(options: *mut c_void);
    fn rocksdb_writebatch_create() -> *mut c_void;
    fn rocksdb_writebatch_clear(batch: *mut c_void);
    fn rocksdb_writebatch_put(
        batch: *mut c_void,
        key: *const u8,
        key_bytes: usize,
        value: *const u8,
        value_bytes: usize,
    );
    fn rocksdb_writebatch_destroy(batch: *mut c_void);
    fn rocksdb_write(
        db: *mut c_void,
        options: *const c_void,
        batch: *mut c_void,
        error: *mut *mut c_char,
    );
    fn rocksdb_readoptions_create() -> *mut c_void;
    fn rocksdb_readoptions_destroy(options: *mut c_void);
    fn rocksdb_create_iterator(db: *mut c_void, options: *const c_void) -> *mut c_void;
    fn rocksdb_iter_seek_to_first(iterator: *mut c_void);
    fn rocksdb_iter_valid(iterator: *const c_void) -> u8;
    fn rocksdb_iter_next(iterator: *mut c_void);
    fn rocksdb_iter_value(iterator: *const c_void, bytes: *mut usize) -> *const u8;
    fn rocksdb_iter_destroy(iterator: *mut c_void);
}

pub struct RocksDb(*mut c_void);

// SAFETY: the database handle is documented to be safe for use by many threads at once.
unsafe impl Send for RocksDb {}
// SAFETY: as above.
unsafe impl Sync for RocksDb {}

pub struct BatchWriter<'a> {
    db: &'a RocksDb,
    options: [*mut c_void; 2],
    batch: *mut c_void,
    lane: usize,
    next: u64,
}

fn check(error: *mut c_char) {
    if !error.is_null() {
        // SAFETY: the library returns a string that ends with 0.
        panic!("{}", unsafe { CStr::from_ptr(error) }.to_string_lossy());
    }
}

impl Log for RocksDb {
    type Writer<'a> = BatchWriter<'a>;

    fn open(assignment: &Assignment) -> Self {
        let path = CString::new(assignment.directory.to_str().unwrap()).unwrap();
        let mut error = null_mut();
        // SAFETY: all pointers come from the library or live until the call returns.
        let db = unsafe {
            let options = rocksdb_options_create();
            rocksdb_options_set_create_if_missing(options, 1);
            let db = rocksdb_open(options, path.as_ptr(), &mut error);
            rocksdb_options_destroy(options);
            db
        };
        check(error);
        RocksDb(db)
    }

    fn writer(&self, lane: usize) -> BatchWriter<'_> {
        // SAFETY: the call creates objects, which `drop` destroys.
        unsafe {
            let options = [rocksdb_writeoptions_create(), rocksdb_writeoptions_create()];
            rocksdb_writeoptions_set_sync(options[1], 1);
            let batch = rocksdb_writebatch_create();
            BatchWriter { db: self, options, batch, lane, next: 0 }
        }
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        // Opening turns the log into a table. The scan is in key order.
        let begun = Instant::now();
        let db = RocksDb::open(assignment);
        // SAFETY: a value is valid until the iterator moves.
        unsafe {
            let options = rocksdb_readoptions_create();
            let iterator = rocksdb_create_iterator(db.0, options);
            rocksdb_iter_seek_to_first(iterator);
            while rocksdb_iter_valid(iterator) != 0 {
                let mut bytes = 0;
                let value = rocksdb_iter_value(iterator, &mut bytes);
                each(std::slice::from_raw_parts(value, bytes));
                rocksdb_iter_next(iterator);
            }
            rocksdb_iter_destroy(iterator);
            rocksdb_readoptions_destroy(options);
        }
        Replayed { seconds: begun.elapsed().as_secs_f64() }
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        // SAFETY: writers borrow the database, so none is left.
        unsafe { rocksdb_close(self.0) };
    }
}

impl BatchWriter<'_> {
    fn put(&mut self, record: &[u8]) {
        self.next += 1;
        let key = key(self.lane, self.next);
        // SAFETY: the batch copies the key and the value.
        unsafe {
            rocksdb_writebatch_put(
                self.batch,
                key.as_ptr(),
                key.len(),
                record.as_ptr(),
                record.len(),
            );
        }
    }

    fn write(&mut self, sync: bool) {
        let mut error = null_mut();
        // SAFETY: the database, the options and the batch are alive.
        unsafe {
            rocksdb_write(self.db.0, self.options[usize::from(sync)], self.batch, &mut error);
            rocksdb_writebatch_clear(self.batch);
        }
        check(error);
    }
}

impl Writer for BatchWriter<'_> {
    fn append(&mut self, record: &[u8]) {
        self.put(record);
        self.write(false);
    }

    fn commit(&mut self, record: &[u8]) {
        self.put(record);
        self.write(true);
    }

    fn batch(&mut self, records: &[Vec<u8>], sync: bool) {
        for record in records {
            self.put(record);
        }
        self.write(sync);
    }
}

impl Drop for BatchWriter<'_> {
    fn drop(&mut self) {
        // SAFETY: `writer` created them, and only this value uses them.
        unsafe {
            self.options.iter().for_each(|options| rocksdb_writeoptions_destroy(*options));
            rocksdb_writebatch_destroy(self.batch);
        }
    }
}
