//! Several files in a row, read as one sequence of bytes through a window.

use std::path::Path;

use crate::{files::Input, foreign::source::Location, output::Failure};

const WINDOW_BYTES: usize = 256 << 10;

/// The maximum number of bytes that a search checks. Only a hostile file needs more.
const SEARCH_BYTES_MAX: u64 = 4 << 30;

#[derive(Debug)]
struct Part {
    start: u64,
    input: Input,
}

#[derive(Debug, Default)]
pub(crate) struct Joined {
    parts: Vec<Part>,
    window: Vec<u8>,
    window_at: u64,
}

impl Joined {
    /// Adds a file. `start` is not below the end of the file before; a gap may lie between them.
    pub(crate) fn push(&mut self, start: u64, input: Input) {
        self.parts.push(Part { start, input });
    }

    pub(crate) fn end(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.start.saturating_add(part.input.bytes))
    }

    pub(crate) fn start(&self) -> u64 {
        self.parts.first().map_or(0, |part| part.start)
    }

    /// Returns the file and the offset of a position. In a gap, this is the end of the previous
    /// file.
    pub(crate) fn location(&self, at: u64) -> Location {
        let part = self.parts.iter().rev().find(|part| part.start <= at);
        part.or(self.parts.first()).map_or_else(
            || Location { path: Path::new("").to_path_buf(), offset: at },
            |part| Location {
                path: part.input.path.clone(),
                offset: at.saturating_sub(part.start).min(part.input.bytes),
            },
        )
    }

    /// Returns `count` bytes from `at` on; fewer at the end or before a gap.
    pub(crate) fn bytes(&mut self, at: u64, count: usize) -> Result<&[u8], Failure> {
        let has = |window: &[u8], from: u64| {
            let skipped = usize::try_from(at.checked_sub(from)?).ok()?;
            (window.len() >= skipped.checked_add(count)?).then_some(skipped)
        };
        let skipped = match has(&self.window, self.window_at) {
            Some(skipped) => skipped,
            None => {
                self.fill(at, count.max(WINDOW_BYTES))?;
                0
            }
        };
        let rest = self.window.get(skipped..).unwrap_or_default();
        Ok(rest.get(..count).unwrap_or(rest))
    }

    fn fill(&mut self, at: u64, count: usize) -> Result<(), Failure> {
        self.window_at = at;
        self.window.clear();
        let mut next = at;
        for part in &mut self.parts {
            let end = part.start.saturating_add(part.input.bytes);
            if end <= next {
                continue;
            }
            let filled = self.window.len();
            if part.start > next || filled == count {
                break;
            }
            let wanted = u64::try_from(count - filled).unwrap_or(u64::MAX).min(end - next);
            let wanted = usize::try_from(wanted).unwrap_or(0);
            self.window.resize(filled + wanted, 0);
            let room = self.window.get_mut(filled..).unwrap_or_default();
            let read = part.input.read_at(next - part.start, room)?;
            self.window.truncate(filled + read);
            next += read as u64;
            if read < wanted {
                break;
            }
        }
        Ok(())
    }

    /// Returns the first position from `from` on at which `is_intact` accepts a record.
    ///
    /// `wanted` gets `header_bytes` bytes, and returns the length of the record that begins with
    /// them.
    pub(crate) fn search(
        &mut self,
        from: u64,
        header_bytes: usize,
        wanted: impl Fn(&[u8]) -> Option<usize>,
        is_intact: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<u64>, Failure> {
        let mut looked_at = 0u64;
        let end = self.end();
        let mut at = from;
        while at < end {
            let header = self.bytes(at, header_bytes)?;
            let is_blank = header.iter().all(|byte| *byte == 0);
            let count = match wanted(header) {
                Some(count) if count as u64 <= end - at => count,
                _ if is_blank => {
                    at = self.skip_zeros(at, header_bytes)?;
                    continue;
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            looked_at = looked_at.saturating_add(count as u64);
            let bytes = self.bytes(at, count)?;
            // Above the limit, the position counts as a record, so the source is refused as
            // damaged.
            if bytes.len() == count && is_intact(bytes) || looked_at > SEARCH_BYTES_MAX {
                return Ok(Some(at));
            }
            // The same zeros are refused at each later position, so they are skipped.
            let is_blank = is_blank && bytes.iter().all(|byte| *byte == 0);
            at = if is_blank { self.skip_zeros(at, count.max(header_bytes))? } else { at + 1 };
        }
        Ok(None)
    }

    /// Returns the first position after `at` without `count` zeros after it.
    fn skip_zeros(&mut self, at: u64, count: usize) -> Result<u64, Failure> {
        let end = self.end();
        let mut zeros_end = at;
        while zeros_end < end {
            let bytes = self.bytes(zeros_end, WINDOW_BYTES)?;
            if let Some(zeros) = bytes.iter().position(|byte| *byte != 0) {
                zeros_end += zeros as u64;
                break;
            }
            let read = zeros_end + bytes.len() as u64;
            // Skips holes in files and gaps between files.
            zeros_end = self.next_data(read)?.max(read).min(end);
        }
        let before = (count as u64).saturating_sub(1);
        Ok(zeros_end.saturating_sub(before).max(at + 1))
    }

    /// Returns the first position from `at` on that may hold data.
    fn next_data(&mut self, at: u64) -> Result<u64, Failure> {
        for part in &mut self.parts {
            let end = part.start.saturating_add(part.input.bytes);
            if at >= end {
                continue;
            }
            let offset = part.input.next_data(at.saturating_sub(part.start))?;
            if offset < part.input.bytes {
                return Ok(part.start + offset);
            }
        }
        Ok(self.end())
    }
}
