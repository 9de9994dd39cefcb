//! The file with the recorded counts.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{environment::Environment, failure::Failure, works::Work};

const HEAD: &str = "\
# Instructions per operation of the hot paths, counted by callgrind. To rewrite this file:
#     cargo run --profile instructions -p highwater-instructions -- record
# A count may exceed its record by tolerance_percent in the same environment, and by
# elsewhere_percent if the compiler, the C library or valgrind differs.

";

#[derive(Debug, Serialize, Deserialize)]
pub struct Recorded {
    pub environment: Environment,
    pub works: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// The counted operation.
    pub operation: String,
    pub instructions: f64,
    pub tolerance_percent: f64,
    pub elsewhere_percent: f64,
}

impl Entry {
    pub fn of(work: &Work, instructions: f64) -> Self {
        Entry {
            operation: work.operation.to_owned(),
            instructions: (instructions * 10.0).round() / 10.0,
            tolerance_percent: work.tolerance_percent(),
            elsewhere_percent: work.elsewhere_percent(),
        }
    }
}

impl Recorded {
    /// # Errors
    ///
    /// If the file does not exist or cannot be parsed.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(file).map_err(|error| {
            format!("reading {}: {error}; run `record` to write it", file.display())
        })?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()).into())
    }

    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), Failure> {
        fs::write(file, format!("{HEAD}{}", toml::to_string(self)?))
            .map_err(|error| format!("writing {}: {error}", file.display()).into())
    }
}
