//! Runs that a seed decides, and the command that replays one of them.

use std::env;

/// The seed that is replayed, alone.
const SEED: &str = "HIGHWATER_SEED";

/// Multiplies the number of seeds.
const FACTOR: &str = "HIGHWATER_SEEDS";

/// Runs `run` for `count` seeds, from 0 on. If it panics, the command that replays the seed is
/// printed to standard error.
///
/// The environment decides instead if it says so: `HIGHWATER_SEED` replays one seed,
/// `HIGHWATER_SEEDS` multiplies `count`.
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

/// Says how to replay a seed, if it is dropped by a panic.
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
    // Test programs are called by their target, with a hash behind; test threads by their test.
    let target = stem.and_then(|stem| stem.rsplit_once('-')).map_or("", |(target, _)| target);
    let thread = std::thread::current();
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "" } else { " --release" };
    format!("{SEED}={seed} cargo test{profile} --test {target} {test}")
}
