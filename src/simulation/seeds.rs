//! Runs a test for many seeds, and prints the command that replays one.

use std::env;

/// The only seed to run.
const SEED: &str = "HIGHWATER_SEED";

/// Multiplies the number of seeds.
const FACTOR: &str = "HIGHWATER_SEEDS";

/// Runs `run` for the seeds from 0 to `count - 1`. If `run` panics, prints to standard error the
/// command that replays the seed.
///
/// Two environment variables override this. `HIGHWATER_SEED` runs one seed only; `HIGHWATER_SEEDS`
/// multiplies `count`.
///
/// ```
/// use highwater::simulation::{self, Random};
/// simulation::for_each_seed(10, |seed| {
///     assert!(Random::new(seed).below(6) < 6);
/// });
/// ```
pub fn for_each_seed(count: u64, mut run: impl FnMut(u64)) {
    let number = |name| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number(SEED) {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..count.saturating_mul(number(FACTOR).unwrap_or(1)),
    };
    for seed in seeds {
        let replay = Replay(seed);
        run(seed);
        drop(replay);
    }
}

/// Prints how to replay a seed, if it is dropped by a panic.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: {}", command(self.0));
        }
    }
}

fn command(seed: u64) -> String {
    let program = env::current_exe().ok();
    let stem = program.as_ref().and_then(|path| path.file_stem()).and_then(|stem| stem.to_str());
    // A test program is named after its target and a hash, a test thread after its test.
    let target = stem.and_then(|stem| stem.rsplit_once('-')).map_or("", |(target, _)| target);
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "" } else { " --release" };
    format!("{SEED}={seed} cargo test{profile} --test {target} {test}")
}
