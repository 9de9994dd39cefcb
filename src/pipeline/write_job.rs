//! The write job: writes until nothing is left, then stays for a moment.
//!
//! A hop to a parked thread costs 25–35 µs. The processor takes most of that time to leave its
//! sleep state. A job that stays for about as long finds the next append of a busy log without a
//! hop. It costs at most as much as the hop would have. This is the rule of spinning for as long as
//! blocking costs (Karlin, Li, Manasse and Owicki, "Empirical studies of competitive spinning for a
//! shared-memory multiprocessor", 1991). If it does not pay, the job does not stay: see
//! [`Habit`](crate::pipeline::state::habit::Habit). An idle log has no job.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    pipeline::{
        core::{Core, Role},
        job::start,
        mark_frame::leave_mark,
        room::{has_offers_to_watch, watch_offers},
        writer::{Drained, has_left, write_once},
    },
    turn::lock_over_io,
};

/// After this many writes a job hands over to a new one, so that it never delays a shutdown.
const WRITES_PER_JOB: u32 = 64;

/// About the cost of a hop.
const LINGER: Duration = Duration::from_micros(40);

/// The number of looks for work between two looks at the clock.
const LOOKS: u32 = 8;

/// Writes the published frames: the write job. The caller has the write role.
pub(super) fn run(core: &Arc<Core>) {
    for _ in 0..core.turns(WRITES_PER_JOB) {
        match write_once(core) {
            // A sync that overtook this write found no room for its mark.
            Drained::Wrote => leave_mark(core),
            Drained::Stopped => return,
            Drained::Idle => {
                if lingers(core) || watch_offers(core) {
                    continue;
                }
                let is_wanted = || has_work(core) || has_offers_to_watch(core);
                if !core.roles.write_flag.release(is_wanted) {
                    return;
                }
            }
        }
    }
    start(core, Role::Write);
}

/// Returns exactly whether something is published, because no other thread drains while it looks. A
/// sync job does not look again for frames published behind the units that it took.
fn has_work(core: &Core) -> bool {
    // A panic under the lock stops the log.
    lock_over_io(&core.roles.writing).is_ok_and(|writing| has_left(&writing, core))
}

/// Stays for a moment, if that pays. Returns whether something to write has come.
fn lingers(core: &Core) -> bool {
    let roles = &core.roles;
    // A job that stays would keep the role from appends that write in place.
    if !core.executor().may_linger() || roles.in_place.is_on() || !roles.lingering.takes() {
        return false;
    }
    let found = spin(|| core.has_published());
    roles.lingering.learn(found);
    found
}

fn spin(is_wanted: impl Fn() -> bool) -> bool {
    let until = Instant::now() + LINGER;
    loop {
        for _ in 0..LOOKS {
            if is_wanted() {
                return true;
            }
            std::hint::spin_loop();
        }
        if Instant::now() >= until {
            return false;
        }
    }
}
