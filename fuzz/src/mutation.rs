//! Mutations of a directory: damage that breaks checksums, and forgeries with valid checksums.

use arbitrary::Arbitrary;

use crate::{
    aim::{Name, Spot, Value, frame_offsets},
    directory::Directory,
    script::{Payload, Script, SlotStep},
    seal::{self, Fields, HEADER_BLOCK_BYTES, HEADER_BYTES, HEADER_COPY_OFFSET, Seed, word},
};

#[derive(Arbitrary, Clone, Debug)]
pub enum Mutation {
    Flip {
        file: u8,
        spot: Spot,
        bit: u8,
    },
    Write {
        file: u8,
        spot: Spot,
        bytes: Vec<u8>,
    },
    Zero {
        file: u8,
        spot: Spot,
        sectors: u8,
    },
    Truncate {
        file: u8,
        spot: Spot,
    },
    Extend {
        file: u8,
        bytes: u16,
        fill: u8,
    },
    Remove {
        file: u8,
    },
    Rename {
        file: u8,
        to: Name,
    },
    Copy {
        file: u8,
        to: Name,
    },
    Swap {
        file: u8,
        with: u8,
    },
    Splice {
        file: u8,
        spot: Spot,
        from: u8,
        from_spot: Spot,
        bytes: u16,
    },
    Create {
        name: Name,
        bytes: Vec<u8>,
        zeros: u16,
    },
    /// Changes a field of the header, and seals both copies again.
    Header {
        file: u8,
        field: u8,
        value: Value,
    },
    /// Replaces a frame by another sealed one.
    Frame {
        file: u8,
        frame: u8,
        kind: u8,
        flags: u8,
        lag: u16,
        epoch: u8,
        bytes: Option<Payload>,
    },
    /// Clears the header, as a recovery leaves it that ended before writing it.
    Headless {
        file: u8,
        copy_too: bool,
    },
    /// Adds a segment of another log.
    Foreign {
        script: Script,
        file: u8,
        to: Name,
    },
}

impl Mutation {
    fn file(&self) -> u8 {
        match *self {
            Mutation::Flip { file, .. }
            | Mutation::Write { file, .. }
            | Mutation::Zero { file, .. }
            | Mutation::Truncate { file, .. }
            | Mutation::Extend { file, .. }
            | Mutation::Remove { file }
            | Mutation::Rename { file, .. }
            | Mutation::Copy { file, .. }
            | Mutation::Swap { file, .. }
            | Mutation::Splice { file, .. }
            | Mutation::Header { file, .. }
            | Mutation::Frame { file, .. }
            | Mutation::Headless { file, .. }
            | Mutation::Foreign { file, .. } => file,
            Mutation::Create { .. } => 0,
        }
    }

    pub fn apply(&self, directory: &mut Directory) {
        if let Mutation::Create { name, bytes, zeros } = self {
            let mut bytes = bytes.clone();
            bytes.resize(bytes.len() + usize::from(*zeros) % 9000, 0);
            directory.0.insert(name.get(), bytes);
            return;
        }
        let Some(name) = directory.pick(self.file()) else { return };
        if let Mutation::Header { field, value, .. } = self {
            let value = value.get(directory);
            edit_header(directory.0.get_mut(&name).unwrap(), *field, value);
        } else if !self.move_files(directory, &name) {
            let source = match self {
                Mutation::Splice { from, .. } => directory.pick(*from).unwrap(),
                _ => name.clone(),
            };
            let source = directory.0[&source].clone();
            self.edit(directory.0.get_mut(&name).unwrap(), &source);
        }
    }

    /// Applies a mutation of whole files. Returns `false` if it is not one.
    fn move_files(&self, directory: &mut Directory, name: &str) -> bool {
        let files = &mut directory.0;
        match self {
            Mutation::Remove { .. } => drop(files.remove(name)),
            Mutation::Rename { to, .. } => {
                let bytes = files.remove(name).unwrap();
                files.insert(to.get(), bytes);
            }
            Mutation::Copy { to, .. } => {
                let bytes = files[name].clone();
                files.insert(to.get(), bytes);
            }
            Mutation::Swap { with, .. } => {
                let other = files.keys().nth(usize::from(*with) % files.len()).unwrap().clone();
                let bytes = files[name].clone();
                let bytes = files.insert(other, bytes).unwrap();
                files.insert(name.to_owned(), bytes);
            }
            Mutation::Foreign { script, file, to } => {
                let foreign = script.run(9, &[]);
                let theirs = foreign.pick(*file).unwrap();
                files.insert(to.get(), foreign.0[&theirs].clone());
            }
            _ => return false,
        }
        true
    }

    fn edit(&self, file: &mut Vec<u8>, source: &[u8]) {
        match self {
            Mutation::Flip { spot, bit, .. } => {
                let at = spot.offset(file);
                file.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Mutation::Write { spot, bytes, .. } => {
                let at = spot.offset(file);
                overwrite(file, at, bytes);
            }
            Mutation::Zero { spot, sectors, .. } => {
                let at = spot.offset(file);
                overwrite(file, at, &vec![0; 512 * (1 + usize::from(sectors % 8))]);
            }
            Mutation::Truncate { spot, .. } => file.truncate(spot.offset(file)),
            Mutation::Extend { bytes, fill, .. } => {
                file.resize(file.len() + usize::from(*bytes) % 9000, *fill);
            }
            Mutation::Splice { spot, from_spot, bytes, .. } => {
                let from = from_spot.offset(source).min(source.len());
                let end = source.len().min(from + usize::from(*bytes) % 3000);
                let at = spot.offset(file);
                overwrite(file, at, &source[from..end]);
            }
            Mutation::Frame { frame, kind, flags, lag, epoch, bytes, .. } => {
                let bytes = bytes.map(Payload::bytes);
                forge(file, *frame, (*kind, *flags, *lag, *epoch), bytes);
            }
            Mutation::Headless { copy_too, .. } => {
                let end = if *copy_too { HEADER_BLOCK_BYTES } else { HEADER_COPY_OFFSET };
                overwrite(file, 0, &vec![0; end]);
            }
            _ => {}
        }
    }
}

/// Overwrites bytes, never beyond the file's end.
fn overwrite(file: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in file.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

fn edit_header(file: &mut [u8], field: u8, value: u64) {
    for start in [0, HEADER_COPY_OFFSET] {
        let end = file.len().min(start + HEADER_COPY_OFFSET);
        if end < start + HEADER_BYTES {
            continue;
        }
        let copy = &mut file[start..end];
        match field % 13 {
            10 => copy[8..10].copy_from_slice(&value.to_le_bytes()[..2]),
            11 => copy[10..12].copy_from_slice(&value.to_le_bytes()[..2]),
            12 => copy[12..16].copy_from_slice(&value.to_le_bytes()[..4]),
            field => {
                let at = 32 + usize::from(field) * 8;
                copy[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        seal::reseal_header(copy);
    }
}

/// Gives a header an extension with the position of a slots record alone.
fn edit_anchor(file: &mut [u8], value: u64) {
    let entry = [&[0x04, 0x80, 8, 0], &value.to_le_bytes()[..]].concat();
    let end = HEADER_BYTES + entry.len();
    for start in [0, HEADER_COPY_OFFSET] {
        let Some(copy) = file.get_mut(start..start + end) else { continue };
        copy[12..16].copy_from_slice(&(end as u32).to_le_bytes());
        copy[HEADER_BYTES - 4..end - 4].copy_from_slice(&entry);
        seal::reseal_header(copy);
    }
}

/// Writes a frame over an existing one, or after the last one.
fn forge(
    file: &mut [u8],
    frame: u8,
    (kind, flags, lag, epoch): (u8, u8, u16, u8),
    bytes: Option<Vec<u8>>,
) {
    let (Some(base), Some(own_epoch)) = (word(file, 32), word(file, 40)) else { return };
    let mut offsets = frame_offsets(file);
    let end = offsets.last().map_or(HEADER_BLOCK_BYTES, |&last| {
        last + 16 + (word(file, last).unwrap() as u32 as usize).next_multiple_of(8)
    });
    offsets.push(end);
    let at = offsets[usize::from(frame) % offsets.len()];
    let length = word(file, at).unwrap_or(0) as u32 as usize;
    let same = file.get(at + 16..at + 16 + length).unwrap_or_default().to_vec();
    let payload = match kind % 8 {
        6 => seal::CLOSE.to_vec(),
        7 => vec![1, 0, 0, 0, 0, 0, 0, 1],
        _ => bytes.unwrap_or(same),
    };
    let kind = if kind % 8 >= 6 { seal::CONTROL } else { kind % 8 };
    let log_id: [u8; 16] = file[16..32].try_into().unwrap();
    let seed = Seed::new(log_id, own_epoch.wrapping_add(u64::from(epoch % 4)));
    // Mostly no flags, because a flag makes the rest of the log unsupported.
    let flags = if flags > 250 { flags } else { flags.saturating_sub(240) % 4 };
    let fields = Fields { length: payload.len() as u32, kind, flags, lag: u32::from(lag) };
    let lsn = base.wrapping_add((at - HEADER_BLOCK_BYTES) as u64);
    overwrite(file, at, &seal::frame(seed, lsn, fields, &payload));
}

/// A plan for a directory: a script that writes a valid log, and mutations of it.
#[derive(Arbitrary, Clone, Debug)]
pub struct Plan {
    script: Script,
    mutations: Vec<Mutation>,
    small_records: bool,
    // The last fields, so that the seeds which were recorded without them keep their meaning.
    slot_steps: Vec<(u8, SlotStep)>,
    /// Files, and the positions of slots records that their headers name.
    anchors: Vec<(u8, Value)>,
}

impl Plan {
    pub fn directory(&self) -> Directory {
        let slot_steps = &self.slot_steps[..self.slot_steps.len().min(40)];
        let mut directory = self.script.run(1, slot_steps);
        for mutation in self.mutations.iter().take(12) {
            mutation.apply(&mut directory);
        }
        for (file, value) in self.anchors.iter().take(2) {
            let value = value.get(&directory);
            let name = directory.pick(*file);
            let file = name.and_then(|name| directory.0.get_mut(&name));
            file.into_iter().for_each(|file| edit_anchor(file, value));
        }
        directory
    }

    /// Returns whether a header names a position of slots that the log did not write.
    pub fn forges_position(&self) -> bool {
        !self.anchors.is_empty()
    }

    pub fn record_bytes_max(&self) -> u64 {
        if self.small_records { 200 } else { 1 << 20 }
    }
}
