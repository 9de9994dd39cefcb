//! The parsers of other libraries' logs read any files to an end or refuse them, in bounded steps.
//!
//! The files are in memory. The modules `exit`, `output` and `files` replace the tool's
//! modules, with only the parts that the parsers need.
#![no_main]
#![allow(dead_code, unused_imports, reason = "the tool uses more of these modules")]

use std::path::Path;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/highwater-cli/src/foreign/mod.rs"]
mod foreign;
#[path = "../../crates/highwater-cli/src/stream/mod.rs"]
mod stream;

mod exit {
    pub(crate) const CORRUPT: u8 = 2;
    pub(crate) const UNSUPPORTED: u8 = 3;
    pub(crate) const UNREADABLE: u8 = 4;
}

mod output {
    #[derive(Debug)]
    pub(crate) struct Failure {
        pub(crate) status: u8,
        pub(crate) message: String,
    }

    pub(crate) fn failure(status: u8, message: String) -> Failure {
        Failure { status, message }
    }
}

mod files {
    use std::{
        cell::RefCell,
        collections::BTreeMap,
        path::{Path, PathBuf},
    };

    use crate::{
        exit::UNREADABLE,
        output::{Failure, failure},
    };

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum PathKind {
        Nothing,
        File,
        EmptyDirectory,
        Directory,
    }

    thread_local! {
        /// The files of the directory `/log`.
        pub(crate) static FILES: RefCell<BTreeMap<String, Vec<u8>>> = RefCell::default();
        static READS: RefCell<u64> = RefCell::default();
    }

    fn name(path: &Path) -> Option<String> {
        path.strip_prefix("/log").ok().map(|name| name.to_string_lossy().into_owned())
    }

    pub(crate) fn path_kind(path: &Path) -> Result<PathKind, Failure> {
        Ok(FILES.with_borrow(|files| match name(path).as_deref() {
            Some("") if files.is_empty() => PathKind::EmptyDirectory,
            Some("") => PathKind::Directory,
            Some(name) if files.contains_key(name) => PathKind::File,
            _ => PathKind::Nothing,
        }))
    }

    pub(crate) fn names(_: &Path) -> Result<Vec<String>, Failure> {
        Ok(FILES.with_borrow(|files| files.keys().cloned().collect()))
    }

    pub(crate) fn read_small_file(path: &Path) -> Option<Vec<u8>> {
        FILES.with_borrow(|files| files.get(&name(path)?).cloned())
    }

    #[derive(Debug)]
    pub(crate) struct Input {
        pub(crate) path: PathBuf,
        pub(crate) bytes: u64,
        contents: Vec<u8>,
    }

    impl Input {
        pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
            let contents =
                read_small_file(path).ok_or_else(|| failure(UNREADABLE, "no such file".into()))?;
            Ok(Input { path: path.to_path_buf(), bytes: contents.len() as u64, contents })
        }

        pub(crate) fn read_at(&mut self, offset: u64, to: &mut [u8]) -> Result<usize, Failure> {
            READS.with_borrow_mut(|reads| {
                *reads += 1;
                assert!(*reads < 100_000, "the number of reads is bounded");
            });
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.contents.len());
            let count = to.len().min(self.contents.len() - from);
            to[..count].copy_from_slice(&self.contents[from..from + count]);
            Ok(count)
        }

        pub(crate) fn next_data(&mut self, offset: u64) -> Result<u64, Failure> {
            Ok(offset)
        }
    }

    pub(crate) fn put(files: BTreeMap<String, Vec<u8>>) {
        FILES.set(files);
        READS.set(0);
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    files: Vec<(Name, Vec<u8>)>,
    segment_bytes: Option<u16>,
}

#[derive(Arbitrary, Debug)]
enum Name {
    WalDb(u8),
    Kaya(u8),
    Other(u8),
}

fuzz_target!(|input: Input| {
    let name = |name: &Name| match name {
        Name::WalDb(number) => format!("{:020}.wal", number % 4),
        Name::Kaya(number) => format!("{:016x}.wal", number % 4),
        Name::Other(number) => format!("file-{}", number % 4),
    };
    files::put(input.files.iter().map(|(it, bytes)| (name(it), bytes.clone())).collect());
    let one = files::FILES.with_borrow(|files| files.keys().next().cloned());
    let paths = [Some("/log".to_owned()), one.map(|name| format!("/log/{name}"))];
    for path in paths.iter().flatten().map(Path::new) {
        let _ = foreign::detect(path);
        let segment_bytes = input.segment_bytes.map(u64::from);
        if let Ok(source) = foreign::WalDb::open(path, segment_bytes) {
            drain(source);
        }
        if let Ok(source) = foreign::KayaWal::open(path) {
            drain(source);
        }
    }
});

fn drain(mut source: impl foreign::Source) {
    while let Ok(Some(unit)) = source.next_unit() {
        assert!(!unit.records.is_empty(), "a unit has at least one record");
    }
    let _ = source.torn();
}
