//! What counts depend on besides the code.

use std::{fs, process::Command};

use serde::{Deserialize, Serialize};

use crate::{Failure, callgrind};

/// Where counts were taken. Callgrind shows a program the processor that it imitates, so of the real
/// one only the extensions matter: they choose the CRC's and the C library's copying loops.
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
    /// If there is no valgrind.
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

/// Those of the processor that valgrind passes on and our paths ask for.
fn extensions() -> String {
    let told = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = told.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let has = |wanted: &&str| flags.is_some_and(|all| all.split(' ').any(|flag| flag == *wanted));
    let asked_for = ["sse4_2", "pclmulqdq", "avx2", "crc32", "pmull"];
    asked_for.iter().copied().filter(|flag| has(flag)).collect::<Vec<_>>().join(" ")
}

fn c_library() -> String {
    let told = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    told.map_or_else(|_| String::new(), |told| String::from_utf8_lossy(&told.stdout).trim().into())
}
