//! Files, one behind the other, as one run of bytes that is read through a window.

use std::path::Path;

use crate::{files::Input, foreign::Spot, output::Failure};

const WINDOW_BYTES: usize = 256 << 10;

/// What a search may read over and over in the worst case. Nothing that a writer left comes near.
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
    /// `start` is behind the end of the part before; between two parts there may be a gap.
    pub(crate) fn push(&mut self, start: u64, input: Input) {
        self.parts.push(Part { start, input });
    }

    pub(crate) fn end(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.start.saturating_add(part.input.bytes))
    }

    pub(crate) fn start(&self) -> u64 {
        self.parts.first().map_or(0, |part| part.start)
    }

    /// Where in which file a place is; the end of the last before it if it is in none.
    pub(crate) fn spot(&self, at: u64) -> Spot {
        let part = self.parts.iter().rev().find(|part| part.start <= at);
        part.or(self.parts.first()).map_or_else(
            || Spot { path: Path::new("").to_path_buf(), offset: at },
            |part| Spot {
                path: part.input.path.clone(),
                offset: at.saturating_sub(part.start).min(part.input.bytes),
            },
        )
    }

    /// The bytes at `at`: fewer than `count` where they end, or where a gap begins.
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

    /// The first place from `from` on where `is_intact` finds a record. It is given the bytes from
    /// there, `header_bytes` of them, and answers how many it wants to look at in all.
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
            let count = match wanted(self.bytes(at, header_bytes)?) {
                Some(count) if count as u64 <= end - at => count,
                _ => {
                    at += 1;
                    continue;
                }
            };
            looked_at = looked_at.saturating_add(count as u64);
            let bytes = self.bytes(at, count)?;
            // Who makes it this hard gets no benefit of the doubt.
            if bytes.len() == count && is_intact(bytes) || looked_at > SEARCH_BYTES_MAX {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }
}
