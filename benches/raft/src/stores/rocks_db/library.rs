//! A wrapper around the parts of RocksDB's C interface that the store needs.

#![allow(unsafe_code, reason = "calls into a C library")]

use std::{
    ffi::{CStr, CString, c_char, c_void},
    io,
    path::Path,
    ptr::null_mut,
    slice,
    sync::Arc,
};

type Pointer = *mut c_void;
type ErrorText = *mut *mut c_char;

#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_free(memory: Pointer);
    fn rocksdb_options_create() -> Pointer;
    fn rocksdb_options_set_create_if_missing(options: Pointer, yes: u8);
    fn rocksdb_options_destroy(options: Pointer);
    fn rocksdb_open(options: Pointer, name: *const c_char, error: ErrorText) -> Pointer;
    fn rocksdb_close(db: Pointer);
    fn rocksdb_writeoptions_create() -> Pointer;
    fn rocksdb_writeoptions_destroy(options: Pointer);
    fn rocksdb_writebatch_create() -> Pointer;
    fn rocksdb_writebatch_put(
        batch: Pointer,
        key: *const u8,
        key_bytes: usize,
        value: *const u8,
        value_bytes: usize,
    );
    fn rocksdb_writebatch_delete_range(
        batch: Pointer,
        start: *const u8,
        start_bytes: usize,
        end: *const u8,
        end_bytes: usize,
    );
    fn rocksdb_writebatch_data(batch: Pointer, bytes: *mut usize) -> *const u8;
    fn rocksdb_writebatch_destroy(batch: Pointer);
    fn rocksdb_write(db: Pointer, options: Pointer, batch: Pointer, error: ErrorText);
    fn rocksdb_flush_wal(db: Pointer, sync: u8, error: ErrorText);
    fn rocksdb_readoptions_create() -> Pointer;
    fn rocksdb_readoptions_destroy(options: Pointer);
    fn rocksdb_create_iterator(db: Pointer, options: Pointer) -> Pointer;
    fn rocksdb_iter_seek(iterator: Pointer, key: *const u8, key_bytes: usize);
    fn rocksdb_iter_seek_to_last(iterator: Pointer);
    fn rocksdb_iter_valid(iterator: Pointer) -> u8;
    fn rocksdb_iter_next(iterator: Pointer);
    fn rocksdb_iter_key(iterator: Pointer, bytes: *mut usize) -> *const u8;
    fn rocksdb_iter_value(iterator: Pointer, bytes: *mut usize) -> *const u8;
    fn rocksdb_iter_get_error(iterator: Pointer, error: ErrorText);
    fn rocksdb_iter_destroy(iterator: Pointer);
}

/// Makes a call that may return an error text.
fn checked<T>(call: impl FnOnce(ErrorText) -> T) -> io::Result<T> {
    let mut error = null_mut();
    let value = call(&mut error);
    if error.is_null() {
        return Ok(value);
    }
    // SAFETY: the library returns a string that ends with 0, which `rocksdb_free` must free.
    let text = unsafe {
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        rocksdb_free(error.cast());
        text
    };
    Err(io::Error::other(text))
}

/// An open database, closed when the last reference is dropped.
pub(super) struct Database {
    db: Pointer,
    write_options: Pointer,
    read_options: Pointer,
}

// SAFETY: many threads may use a database, and options that do not change, at the same time.
unsafe impl Send for Database {}
// SAFETY: as above.
unsafe impl Sync for Database {}

impl Database {
    /// Opens a directory with the default settings.
    pub(super) fn open(directory: &Path) -> io::Result<Arc<Self>> {
        let path = CString::new(directory.as_os_str().as_encoded_bytes())?;
        // SAFETY: all pointers come from the library or live until the call returns.
        unsafe {
            let options = rocksdb_options_create();
            rocksdb_options_set_create_if_missing(options, 1);
            let db = checked(|error| rocksdb_open(options, path.as_ptr(), error));
            rocksdb_options_destroy(options);
            let (write_options, read_options) =
                (rocksdb_writeoptions_create(), rocksdb_readoptions_create());
            Ok(Arc::new(Database { db: db?, write_options, read_options }))
        }
    }

    /// Writes a batch to the log without a flush. It is readable when this returns.
    pub(super) fn write(&self, batch: &Batch) -> io::Result<()> {
        // SAFETY: the database, the options and the batch are alive.
        checked(|error| unsafe { rocksdb_write(self.db, self.write_options, batch.0, error) })
    }

    /// Flushes the log. All earlier writes survive a power loss when this returns.
    pub(super) fn sync(&self) -> io::Result<()> {
        // SAFETY: the database is open.
        checked(|error| unsafe { rocksdb_flush_wal(self.db, 1, error) })
    }

    /// Calls `each` with the keys and values from the key `from` on, until it returns `false`.
    pub(super) fn scan(
        &self,
        from: &[u8],
        mut each: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> io::Result<()> {
        let rows = Rows::new(self);
        // SAFETY: the iterator is alive, and the key until the call returns.
        unsafe { rocksdb_iter_seek(rows.0, from.as_ptr(), from.len()) };
        while let Some((key, value)) = rows.row() {
            if !each(key, value) {
                return Ok(());
            }
            // SAFETY: the iterator is valid, and the previous row is no longer used.
            unsafe { rocksdb_iter_next(rows.0) };
        }
        // SAFETY: the iterator is alive.
        checked(|error| unsafe { rocksdb_iter_get_error(rows.0, error) })
    }

    /// Returns the last key and its value.
    pub(super) fn last(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let rows = Rows::new(self);
        // SAFETY: the iterator is alive.
        unsafe { rocksdb_iter_seek_to_last(rows.0) };
        rows.row().map(|(key, value)| (key.to_vec(), value.to_vec()))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: this is the last reference, and iterators borrow the database.
        unsafe {
            rocksdb_close(self.db);
            rocksdb_writeoptions_destroy(self.write_options);
            rocksdb_readoptions_destroy(self.read_options);
        }
    }
}

/// An iterator over a database.
struct Rows<'a>(Pointer, #[expect(dead_code, reason = "holds it open")] &'a Database);

impl<'a> Rows<'a> {
    fn new(database: &'a Database) -> Self {
        // SAFETY: the database outlives it.
        Rows(unsafe { rocksdb_create_iterator(database.db, database.read_options) }, database)
    }

    /// Returns the current row. The caller must not use it after moving the iterator.
    fn row(&self) -> Option<(&[u8], &[u8])> {
        // SAFETY: the row of a valid iterator stays valid until the iterator moves.
        unsafe {
            if rocksdb_iter_valid(self.0) == 0 {
                return None;
            }
            let bytes = |get: unsafe extern "C" fn(Pointer, *mut usize) -> *const u8| {
                let mut bytes = 0;
                let start = get(self.0, &mut bytes);
                if start.is_null() { &[] } else { slice::from_raw_parts(start, bytes) }
            };
            Some((bytes(rocksdb_iter_key), bytes(rocksdb_iter_value)))
        }
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        // SAFETY: `new` created it, and only this value uses it.
        unsafe { rocksdb_iter_destroy(self.0) };
    }
}

/// Changes that are written as one unit.
pub(super) struct Batch(Pointer);

// SAFETY: a batch is not bound to a thread, and only its owner changes it.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: `drop` destroys it.
        Batch(unsafe { rocksdb_writebatch_create() })
    }

    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) {
        // SAFETY: the batch copies the key and the value.
        unsafe {
            rocksdb_writebatch_put(self.0, key.as_ptr(), key.len(), value.as_ptr(), value.len());
        }
    }

    /// Deletes the keys in `start..end`.
    pub(super) fn delete(&mut self, start: &[u8], end: &[u8]) {
        // SAFETY: the batch copies both keys.
        unsafe {
            let (start_at, end_at) = (start.as_ptr(), end.as_ptr());
            rocksdb_writebatch_delete_range(self.0, start_at, start.len(), end_at, end.len());
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let mut bytes = 0;
        // SAFETY: the batch is alive.
        unsafe { rocksdb_writebatch_data(self.0, &mut bytes) };
        bytes as u64
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: `new` created it, and only this value uses it.
        unsafe { rocksdb_writebatch_destroy(self.0) };
    }
}
