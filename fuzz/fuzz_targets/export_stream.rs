//! An export stream is read back unchanged. A damaged stream is refused, and any bytes are read to
//! an end.
#![no_main]
#![allow(dead_code, reason = "the tool uses more of the stream's module")]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/highwater-cli/src/stream/mod.rs"]
mod stream;

use stream::{EntryKind, Head, StreamReader, StreamWriter, Unit};

#[derive(Arbitrary, Debug)]
struct Input {
    units: Vec<Vec<Vec<u8>>>,
    has_positions: bool,
    damage: Damage,
    raw: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Damage {
    Byte { at: u16, to: u8 },
    Cut { at: u16 },
}

fuzz_target!(|input: Input| {
    drop(read(&input.raw));
    let (whole, payloads) = written(&input);
    let units = read(&whole).expect("a written stream is readable");
    let found: Vec<Vec<Vec<u8>>> = units.iter().map(payloads_of).collect();
    assert_eq!(found, payloads);
    let mut damaged = whole.clone();
    match input.damage {
        Damage::Byte { at, to } => {
            let at = usize::from(at) % damaged.len();
            damaged[at] = to;
        }
        Damage::Cut { at } => damaged.truncate(usize::from(at) % (whole.len() + 1)),
    }
    if damaged != whole {
        assert!(read(&damaged).is_err(), "damage is refused");
    }
});

fn payloads_of(unit: &Unit) -> Vec<Vec<u8>> {
    unit.records.iter().map(|record| record.payload.to_vec()).collect()
}

fn written(input: &Input) -> (Vec<u8>, Vec<Vec<Vec<u8>>>) {
    let head = Head {
        has_positions: input.has_positions,
        log_id: if input.has_positions { [7; 16] } else { [0; 16] },
        from: 0,
        to: if input.has_positions { 1 << 40 } else { 0 },
    };
    let mut writer = StreamWriter::new(Vec::new(), &head).unwrap();
    let mut position = 0;
    let units: Vec<_> = input.units.iter().filter(|unit| !unit.is_empty()).cloned().collect();
    for unit in &units {
        for (i, payload) in unit.iter().enumerate() {
            let kind = match (unit.len(), i + 1 == unit.len()) {
                (1, _) => EntryKind::Record,
                (_, true) => EntryKind::BatchEnd,
                (_, false) => EntryKind::BatchPart,
            };
            writer.record(kind, position, payload).unwrap();
            position += 16 + (payload.len() as u64).next_multiple_of(8);
        }
    }
    (writer.finish().unwrap().0, units)
}

fn read(bytes: &[u8]) -> Result<Vec<Unit>, stream::StreamError> {
    let mut reader = StreamReader::new(bytes)?;
    let mut units = Vec::new();
    while let Some(unit) = reader.next_unit()? {
        units.push(unit);
    }
    Ok(units)
}
