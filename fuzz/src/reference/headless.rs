//! Segments without a readable header.

use crate::{
    reference::{
        chain::Chain,
        file::File,
        frames::{Frame, Region},
        outcome::Outcome,
        reading::Reading,
        sealed::Sealed,
    },
    seal::Seed,
};

pub fn search(
    reading: &mut Reading,
    headless: &[&File],
    chain: &Chain,
    detached: &[File],
) -> Result<(), Outcome> {
    let used = headless.iter().filter(|file| !file.has_zero_body());
    // Rotated segments come first, because the search of the others starts at the highest
    // commitment.
    let (rotated, others): (Vec<&File>, Vec<&File>) = {
        let mut rotated = Vec::new();
        let mut others = Vec::new();
        for file in used {
            let is_rotated = search_rotated(reading, file, chain, detached);
            if is_rotated { rotated.push(*file) } else { others.push(*file) }
        }
        (rotated, others)
    };
    reading.is_used_past_end |= !rotated.is_empty();
    for file in others {
        search_interrupted(reading, file, chain)?;
    }
    Ok(())
}

/// Searches for frames under the epoch of the predecessor.
///
/// The base is the one that the successor's header names, the position for which the first frame is
/// sealed, or the end of the log before it.
fn search_rotated(reading: &mut Reading, file: &File, chain: &Chain, detached: &[File]) -> bool {
    let before = chain.members.iter().rfind(|member| member.sequence < file.sequence);
    let before = before.unwrap_or(&chain.members[0]);
    let header = before.header.unwrap();
    let seed = Seed::new(header.log_id, header.epoch);
    let at = |base| Region { seed, base, bytes: file.body() };
    let after = detached.iter().filter(|detached| detached.sequence > file.sequence);
    let successor = after.min_by_key(|detached| detached.sequence);
    let named = successor.and_then(|successor| successor.header.unwrap().previous);
    let whole = before.region(None);
    let ends_before = whole.base + whole.bytes.len() as u64;
    let sealed = || {
        let lowest = reading.end.max(whole.base);
        let positions = (lowest..=ends_before).step_by(8);
        positions.into_iter().find(|&base| at(base).frame_at(base).is_some())
    };
    let base = named.map(|(base, _)| base).or_else(sealed).unwrap_or(reading.end);
    let frames = at(base).search(base);
    reading.commit(&frames);
    !frames.is_empty()
}

fn epochs(reading: &Reading, count: u64) -> impl Iterator<Item = u64> + use<> {
    let known = reading.epochs_max;
    known.into_iter().flat_map(move |from| (1..=count).map(move |by| from.saturating_add(by)))
}

/// Returns the frames of a truncation of the end: the first is sealed for a position below S in a
/// higher epoch.
///
/// Only such a truncation begins there, because a recovery begins at S.
fn frames_of_cut(reading: &Reading, file: &File, chain: &Chain) -> Option<Vec<Frame>> {
    let log_id = chain.members.last().unwrap().header.unwrap().log_id;
    let lowest = chain.first.max(reading.committed.saturating_sub(1 << 30));
    let positions = (reading.committed - lowest.min(reading.committed)) / 8;
    let count = ((1 << 28) / positions.max(1)).clamp(1, 256);
    let sealed = Sealed::new(file.body());
    let mut seeds = epochs(reading, count).map(|epoch| Seed::new(log_id, epoch));
    let place =
        seeds.find_map(|seed| Some((seed, sealed.within(seed, lowest, reading.committed)?)));
    place.map(|(seed, base)| Region { seed, base, bytes: file.body() }.search(base))
}

/// Searches for the frames of an interrupted recovery: of the next epoch, from S on.
///
/// If such a frame claims a commitment above S, the epoch was committed, and its header was
/// damaged.
fn search_interrupted(reading: &mut Reading, file: &File, chain: &Chain) -> Result<(), Outcome> {
    let base = reading.committed;
    let header = chain.members.last().unwrap().header.unwrap();
    let at = |epoch: u64| {
        let seed = Seed::new(header.log_id, epoch);
        Region { seed, base, bytes: file.body() }
    };
    let found = epochs(reading, 256).find(|&epoch| at(epoch).frame_at(base).is_some());
    let cut = if found.is_none() { frames_of_cut(reading, file, chain) } else { None };
    if let Some(frames) = cut {
        // The slots that precede the header of a truncation claim nothing. All later frames claim.
        if frames.iter().any(|frame| frame.commitment.is_some()) {
            return Err(Outcome::Corrupt);
        }
        reading.is_used_past_end |= !file.is_blank;
        return Ok(());
    }
    let epoch = found.unwrap_or(reading.epochs_max[0].saturating_add(1));
    let frames = at(epoch).search(base);
    if frames.iter().any(|frame| frame.commitment.is_some_and(|synced| synced > base)) {
        return Err(Outcome::Corrupt);
    }
    if frames.is_empty() || !file.is_blank {
        reading.is_used_past_end = true;
    }
    Ok(())
}
