//! Inline writes and syncs, and durable writes, as dimensions of the sweeps, chosen by seed.

use std::{cell::Cell, io::ErrorKind};

use highwater::{
    SyncMethod,
    simulation::{Disk, Op, Random},
};

/// The writes that an append does inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InPlace {
    /// No writes: a job does each of them.
    Off,
    /// Writes that the disk promises not to block. A seed decides how often it keeps the promise.
    Nonblocking(u64),
    /// Records up to this size, by blocking writes.
    Plain(u64),
    /// Small records by blocking writes, others if the disk promises not to block.
    Both(u64),
}

thread_local! {
    static IN_PLACE: Cell<InPlace> = const { Cell::new(InPlace::Off) };
    static SYNCS: Cell<bool> = const { Cell::new(false) };
    static DURABLE_WRITES: Cell<bool> = const { Cell::new(false) };
}

/// Sets the inline writes of the logs that this thread opens from now on, on prepared disks.
pub(crate) fn set_inline_writes(how: InPlace) {
    IN_PLACE.set(how);
}

/// Sets the inline syncs of the logs that this thread opens from now on.
pub(crate) fn set_inline_syncs(how: bool) {
    SYNCS.set(how);
}

pub(crate) fn inline_syncs() -> bool {
    SYNCS.get()
}

/// Sets the sync method of the logs that this thread opens from now on.
pub(crate) fn set_durable_writes(are_used: bool) {
    DURABLE_WRITES.set(are_used);
}

pub(crate) fn sync_method() -> SyncMethod {
    if DURABLE_WRITES.get() { SyncMethod::Dsync } else { SyncMethod::Fdatasync }
}

/// Configures inline writes and syncs by seed: three seeds in four write inline, each in its own
/// way. Of each eight, four also sync inline. Of each five, two write small groups durably.
pub(crate) fn configure_inline(seed: u64) {
    set_durable_writes(seed % 5 >= 3);
    set_inline_syncs(seed / 4 % 2 == 1);
    set_inline_writes(match seed % 4 {
        0 => InPlace::Off,
        1 => InPlace::Nonblocking(seed),
        2 => InPlace::Plain(64 + seed * 97 % 4096),
        _ => InPlace::Both(seed),
    });
}

pub(crate) fn inline_bytes_max() -> u64 {
    match IN_PLACE.get() {
        InPlace::Off | InPlace::Nonblocking(_) => 0,
        InPlace::Plain(bytes) => bytes,
        InPlace::Both(_) => 128,
    }
}

/// Returns a disk with the faults of nonblocking writes that this thread has set. All are legal:
/// short writes, `WouldBlock`, `Unsupported` from some point on, and errors that a blocking write
/// does not have.
pub(crate) fn prepared(disk: Disk) -> Disk {
    let (InPlace::Nonblocking(seed) | InPlace::Both(seed)) = IN_PLACE.get() else { return disk };
    disk.set_nonblocking_writes(true);
    let mut random = Random::new(seed ^ 0x1b_10c);
    let faults = disk.faults();
    let on = || faults.on(Op::WriteNonblocking);
    if random.one_in(4) {
        on().skip(random.below(40) as u64).fail(ErrorKind::Unsupported);
    }
    on().one_in(3 + random.below(6)).short(random.below(300));
    on().one_in(3 + random.below(6)).short(8 * random.below(100));
    on().one_in(3 + random.below(6)).fail(ErrorKind::WouldBlock);
    on().one_in(10 + random.below(10)).fail(ErrorKind::Interrupted);
    on().one_in(10 + random.below(10)).fail_os(5);
    disk
}
