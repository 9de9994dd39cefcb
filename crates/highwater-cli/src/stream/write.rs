//! Writes a stream.

use std::io::{self, Write};

use super::{
    ENTRY_BYTES, Entry, EntryKind, HEADER_BYTES, Head, MAGIC, Totals, VERSION, WITHOUT_POSITIONS,
};

#[derive(Debug)]
pub(crate) struct StreamWriter<W> {
    output: W,
    has_positions: bool,
    /// The checksum of the previous entry, or of the header.
    chain: u32,
    totals: Totals,
}

impl<W: Write> StreamWriter<W> {
    pub(crate) fn new(mut output: W, head: &Head) -> io::Result<Self> {
        let flags = if head.has_positions { 0 } else { WITHOUT_POSITIONS };
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&head.log_id);
        bytes.extend_from_slice(&head.from.to_le_bytes());
        bytes.extend_from_slice(&head.to.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        let chain = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&chain.to_le_bytes());
        output.write_all(&bytes)?;
        Ok(StreamWriter {
            output,
            has_positions: head.has_positions,
            chain,
            totals: Totals::default(),
        })
    }

    /// Writes an entry. The parts of a batch follow each other, and the last part is the
    /// `BatchEnd`.
    pub(crate) fn record(
        &mut self,
        kind: EntryKind,
        position: u64,
        payload: &[u8],
    ) -> io::Result<()> {
        let payload_bytes = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let payload_crc = crc32c::crc32c(payload);
        self.totals.add(kind, payload_bytes, payload_crc);
        let position = if self.has_positions { position } else { 0 };
        self.entry(&Entry { kind, payload_bytes, position, payload_crc })?;
        self.output.write_all(payload)
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let fields = entry.encode();
        self.chain = crc32c::crc32c_append(self.chain, &fields);
        let mut bytes = [0; ENTRY_BYTES];
        let (front, crc) = bytes.split_at_mut(ENTRY_BYTES - 4);
        front.copy_from_slice(&fields);
        crc.copy_from_slice(&self.chain.to_le_bytes());
        self.output.write_all(&bytes)
    }

    /// Writes the trailer. A stream without it is refused, so a failed export never looks complete.
    pub(crate) fn finish(mut self) -> io::Result<(W, Totals)> {
        self.entry(&Entry {
            kind: EntryKind::Trailer,
            payload_bytes: 0,
            position: self.totals.records,
            payload_crc: self.totals.contents_checksum,
        })?;
        self.output.flush()?;
        Ok((self.output, self.totals))
    }
}
