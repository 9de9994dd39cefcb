//! Segments without a header that can be read.

use crate::{
    reference::{File, Outcome, Reading, chain::Chain, frames::Region},
    seal::Seed,
};

pub fn search(
    reading: &mut Reading,
    headless: &[&File],
    chain: &Chain,
    hanging: &[File],
) -> Result<(), Outcome> {
    let used = headless.iter().filter(|file| !file.has_zero_body());
    // Those that were rotated into first, as the others go by the highest commitment.
    let (rotated, others): (Vec<&File>, Vec<&File>) = {
        let mut rotated = Vec::new();
        let mut others = Vec::new();
        for file in used {
            let is_rotated = search_rotated(reading, file, chain, hanging);
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

/// Frames under the predecessor's epoch; its base is the one its successor names, the position for
/// which its first frame is sealed, or the end of what comes before.
fn search_rotated(reading: &mut Reading, file: &File, chain: &Chain, hanging: &[File]) -> bool {
    let before = chain.members.iter().rfind(|member| member.sequence < file.sequence);
    let before = before.unwrap_or(&chain.members[0]);
    let header = before.header.unwrap();
    let seed = Seed::new(header.log_id, header.epoch);
    let at = |base| Region { seed, base, bytes: file.body() };
    let after = hanging.iter().filter(|hanging| hanging.sequence > file.sequence);
    let successor = after.min_by_key(|hanging| hanging.sequence);
    let named = successor.and_then(|successor| successor.header.unwrap().previous);
    let whole = before.region(None);
    let ends_before = whole.base + whole.bytes.len() as u64;
    let sealed = || {
        let positions = (reading.end..=ends_before).step_by(8);
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

/// Whether its first frame belongs below S in a higher epoch: only a cut that was committed begins
/// there, as a recovery begins at S.
fn is_of_a_cut(reading: &Reading, file: &File, chain: &Chain) -> bool {
    let log_id = chain.members.last().unwrap().header.unwrap().log_id;
    let lowest = chain.first.max(reading.committed.saturating_sub(1 << 30));
    let positions = (reading.committed - lowest.min(reading.committed)) / 8;
    let count = ((1 << 28) / positions.max(1)).clamp(1, 256);
    epochs(reading, count).any(|epoch| {
        let seed = Seed::new(log_id, epoch);
        let mut bases = (lowest..reading.committed).step_by(8);
        bases.any(|base| Region { seed, base, bytes: file.body() }.frame_at(base).is_some())
    })
}

/// What an interrupted recovery began: the next epoch, from the commitment on. If a frame of it
/// claims more than that, the epoch was committed.
fn search_interrupted(reading: &mut Reading, file: &File, chain: &Chain) -> Result<(), Outcome> {
    let base = reading.committed;
    let header = chain.members.last().unwrap().header.unwrap();
    let at = |epoch: u64| {
        let seed = Seed::new(header.log_id, epoch);
        Region { seed, base, bytes: file.body() }
    };
    let found = epochs(reading, 256).find(|&epoch| at(epoch).frame_at(base).is_some());
    if found.is_none() && is_of_a_cut(reading, file, chain) {
        return Err(Outcome::Corrupt);
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
