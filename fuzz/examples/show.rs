//! Shows an input of the targets `recovery` and `differential`, and its outcome.
//!
//! The first argument is a file of the corpus. An optional second argument is a directory: the
//! example writes the input's files there, in the form that `tests/fuzzed.rs` reads.
//!
//! ```text
//! cargo +nightly run --manifest-path fuzz/Cargo.toml --example show -- FILE [DIRECTORY]
//! ```

use arbitrary::{Arbitrary, Unstructured};
use crc32c::crc32c;
use highwater_fuzz::{
    directory::Directory,
    mutation::Plan,
    opening,
    reference::{self, Opens, Outcome},
    repeatable::Repeatable,
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let input = std::fs::read(arguments.next().expect("a file of the corpus")).unwrap();
    let plan = Plan::arbitrary_take_rest(Unstructured::new(&input)).unwrap();
    println!("{plan:#?}");
    let directory = plan.directory();
    let max = plan.record_bytes_max();
    for (name, bytes) in &directory.0 {
        let word = |at| highwater_fuzz::seal::word(bytes, at).unwrap_or(0);
        let fields: Vec<_> = (32..112).step_by(8).map(word).collect();
        println!("{name}: {} bytes, {fields:?}", bytes.len());
        for at in highwater_fuzz::aim::frame_offsets(bytes) {
            let (first, second) = (word(at), word(at + 8));
            let (length, kind) = (first as u32, first >> 32 & 255);
            println!("  at {}: kind {kind}, {length} bytes, lag {}", at - 4096, second as u32);
        }
    }
    let expected = reference::read(&directory, max);
    if let Some(path) = arguments.next().filter(|_| max > 200) {
        save(&path, &directory, &expected);
    }
    println!("reference: {expected:?}");
    println!("library:   {:?}", opening::outcome(&directory, max));
    let storage = Repeatable::with(&directory, 77);
    for _ in 0..3 {
        match opening::now(opening::options(max).open_with(storage.clone())) {
            Ok(wal) => println!("{}", wal.recovery()),
            Err(error) => println!("{error:?}"),
        }
        println!("after it: {:?}", storage.directory());
    }
}

/// Writes the files under a name with the expected outcome: the number of records, or the error.
fn save(path: &str, directory: &Directory, expected: &Outcome) {
    let name = match expected {
        Outcome::Opens(opens) if opens.is_damaged => return,
        Outcome::Opens(opens) => {
            let Opens { records, was_closed, is_cut, .. } = opens;
            let how = if *is_cut {
                "cut"
            } else if *was_closed {
                "closed"
            } else {
                "open"
            };
            format!("{how}-{}", records.len())
        }
        Outcome::Corrupt => "corrupt".to_owned(),
        Outcome::Unsupported => "unsupported".to_owned(),
        Outcome::NotALog | Outcome::TooLarge => return,
    };
    let encoded = directory.encode();
    let path = format!("{path}/{name}-{:08x}", crc32c(&encoded));
    std::fs::write(path, encoded).unwrap();
}
