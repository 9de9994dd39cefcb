//! The file of counts that are as they should be.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Failure, environment::Environment, works::Work};

const HEAD: &str = "\
# Instructions per operation of the hot paths, counted by callgrind; written by
#     cargo run --release --manifest-path benches/instructions/Cargo.toml -- record
# A count may exceed its record by tolerance_percent where the environment is the same, and by
# elsewhere_percent where the compiler, the C library or valgrind is another.

";

#[derive(Debug, Serialize, Deserialize)]
pub struct Recorded {
    pub environment: Environment,
    pub works: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// What is counted.
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
    /// If it isn't there or isn't such a file.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(file)
            .map_err(|error| format!("reading {}: {error}; `record` writes it", file.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()).into())
    }

    /// # Errors
    ///
    /// What the file system answers.
    pub fn write(&self, file: &Path) -> Result<(), Failure> {
        fs::write(file, format!("{HEAD}{}", toml::to_string(self)?))
            .map_err(|error| format!("writing {}: {error}", file.display()).into())
    }
}
