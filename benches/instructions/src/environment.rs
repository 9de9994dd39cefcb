//! The environment of a count: all that it depends on besides the code.

use std::{fs, process::Command};

use serde::{Deserialize, Serialize};

use crate::{callgrind, failure::Failure};

/// The environment in which counts were taken.
///
/// Callgrind imitates a processor, so only the extensions of the real one matter. They select the
/// loops of the CRC and of the C library's copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub architecture: String,
    pub extensions: String,
    pub compiler: String,
    pub c_library: String,
    pub valgrind: String,
}

impl Environment {
    /// # Errors
    ///
    /// If valgrind is not installed.
    pub fn here() -> Result<Self, Failure> {
        Ok(Environment {
            architecture: std::env::consts::ARCH.to_owned(),
            extensions: extensions(),
            compiler: env!("BUILT_BY").to_owned(),
            c_library: c_library(),
            valgrind: callgrind::version()?,
        })
    }
}

/// Returns the processor extensions that valgrind passes on and that the library checks for.
fn extensions() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let has = |wanted: &&str| flags.is_some_and(|all| all.split(' ').any(|flag| flag == *wanted));
    let relevant = ["sse4_2", "pclmulqdq", "avx2", "crc32", "pmull"];
    relevant.iter().copied().filter(|flag| has(flag)).collect::<Vec<_>>().join(" ")
}

fn c_library() -> String {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    output.map_or_else(|_| String::new(), |out| String::from_utf8_lossy(&out.stdout).trim().into())
}
