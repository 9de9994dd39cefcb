//! Recovery finds the same in a directory as the naive reader of `docs/FORMAT.md`.
#![no_main]

use highwater_fuzz::{mutation::Plan, opening, reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|plan: Plan| {
    let directory = plan.directory();
    let max = plan.record_bytes_max();
    let expected = reference::read(&directory, max);
    assert_eq!(opening::outcome(&directory, max), expected, "{directory:?}");
});
