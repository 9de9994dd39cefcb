//! A directory as data: file names and bytes.

use std::{collections::BTreeMap, fmt};

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Directory(pub BTreeMap<String, Vec<u8>>);

pub fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.wal")
}

impl Directory {
    pub fn bytes(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns the name of one file; `None` if the directory is empty.
    pub fn pick(&self, which: u8) -> Option<String> {
        let count = self.0.len();
        (count > 0).then(|| self.0.keys().nth(usize::from(which) % count).unwrap().clone())
    }

    /// Encodes the files for `tests/fuzzed.rs`, as runs of zeros and the bytes between them.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::new();
        let number = |number: usize| (number as u32).to_le_bytes();
        for (name, bytes) in &self.0 {
            encoded.extend(number(name.len()));
            encoded.extend(name.as_bytes());
            encoded.extend(number(bytes.len()));
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let zeros = rest.iter().position(|&byte| byte != 0).unwrap_or(rest.len());
                let after = &rest[zeros..];
                let used = after.windows(32).position(|window| window == [0; 32]);
                let used = used.unwrap_or(after.len());
                encoded.extend(number(zeros));
                encoded.extend(number(used));
                encoded.extend(&after[..used]);
                rest = &after[used..];
            }
        }
        encoded
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.0.iter().map(|(name, bytes)| (name, bytes.len()));
        f.debug_map().entries(lengths).finish()
    }
}
