//! Appends that write themselves, on the task that polls them: a dimension of the sweeps, by seed.

use std::{cell::Cell, io::ErrorKind};

use highwater::simulation::{Disk, Op, Random};

/// What may be written in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InPlace {
    /// Nothing: each write is a job's.
    Off,
    /// What the disk promises not to wait for; a seed decides how often it does.
    Nonblocking(u64),
    /// So many bytes, by plain writes.
    Plain(u64),
    /// Small ones by plain writes, others if the disk promises not to wait.
    Both(u64),
}

thread_local! {
    static IN_PLACE: Cell<InPlace> = const { Cell::new(InPlace::Off) };
    static SYNCS: Cell<bool> = const { Cell::new(false) };
}

/// What the logs do that this thread opens from now on, on disks that were prepared.
pub(crate) fn write_in_place(how: InPlace) {
    IN_PLACE.set(how);
}

/// Whether those who wait for a flush do it themselves, on the logs that this thread opens from now on.
pub(crate) fn sync_in_place(how: bool) {
    SYNCS.set(how);
}

pub(crate) fn inline_syncs() -> bool {
    SYNCS.get()
}

/// Three seeds in four write in place, each in a way of its own; of any four, every second also
/// sync there.
pub(crate) fn write_in_place_by(seed: u64) {
    sync_in_place(seed / 4 % 2 == 1);
    write_in_place(match seed % 4 {
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

/// A disk whose files keep or break the promise, as this thread has been told. All that they may
/// answer is honest: short at any place, that they would wait, that they know no such call any more,
/// an error that a plain write doesn't have.
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
