//! The segments of one log on a disk with a page cache, and what an opening reads there.

/// Whether bytes are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// In the page cache, and written by the next flush.
    Dirty,
    /// In the page cache alone, marked clean by a failed flush.
    Phantom,
    Durable,
}

/// A frame. Frames of a segment are sealed for its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    pub(crate) id: u8,
    /// Everything below was synced when the frame was made.
    claim: usize,
}

/// The bytes at one LSN of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cell {
    Zeros,
    Frame(Frame, State),
    /// Bytes that are no frame: torn or damaged.
    Garbage,
}

/// A file. The cell of an LSN is at the index `lsn - base`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Segment {
    epoch: u8,
    base: usize,
    header: Option<State>,
    cells: Vec<Cell>,
}

/// The effect of a loss of power on one part that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    Kept,
    Lost,
    Torn,
}

/// The segments, by epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    segments: Vec<Segment>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let header = Some(State::Durable);
        Self { segments: vec![Segment { epoch: 1, base: 0, header, cells: Vec::new() }] }
    }

    pub(crate) fn epoch(&self) -> u8 {
        self.segments.last().map_or(0, |segment| segment.epoch)
    }

    /// Writes a frame into the newest segment.
    pub(crate) fn write(&mut self, lsn: usize, id: u8, claim: usize) {
        if let Some(segment) = self.segments.last_mut() {
            segment.set(lsn, Cell::Frame(Frame { id, claim }, State::Dirty));
        }
    }

    /// Writes the frames of `[from, to)` and the header again, with the same bytes.
    ///
    /// Durable bytes stay durable, because a torn write of the same bytes leaves these bytes.
    pub(crate) fn write_again(&mut self, from: usize, to: usize) {
        for segment in &mut self.segments {
            segment.header = segment.header.map(State::written_again);
            let base = segment.base;
            for (at, cell) in segment.cells.iter_mut().enumerate() {
                if let Cell::Frame(_, state) = cell
                    && (from..to).contains(&(base + at))
                {
                    *state = state.written_again();
                }
            }
        }
    }

    /// Begins a segment of the next epoch at `base`, without a header, with the frames up to `end`.
    pub(crate) fn begin_epoch(&mut self, base: usize, end: usize) {
        let view = View::of(self);
        let frames = (base..end).filter_map(|lsn| view.frame(lsn));
        let frames = frames.map(|frame| Cell::Frame(Frame { claim: base, ..frame }, State::Dirty));
        let (cells, epoch) = (frames.collect(), self.epoch() + 1);
        self.segments.push(Segment { epoch, base, header: None, cells });
    }

    pub(crate) fn write_header(&mut self) {
        if let Some(segment) = self.segments.last_mut() {
            segment.header = Some(State::Dirty);
        }
    }

    /// Removes the file of an interrupted recovery.
    pub(crate) fn remove_headless(&mut self) {
        self.segments.retain(|segment| segment.header.is_some());
    }

    fn parts(&mut self) -> impl Iterator<Item = (&mut State, bool)> {
        self.segments.iter_mut().flat_map(|segment| {
            let frames = segment.cells.iter_mut().filter_map(|cell| match cell {
                Cell::Frame(_, state) => Some((state, false)),
                _ => None,
            });
            segment.header.iter_mut().map(|state| (state, true)).chain(frames)
        })
    }

    /// Flushes the frames, and with `headers` the headers as well.
    pub(crate) fn flush(&mut self, headers: bool) {
        for (state, is_header) in self.parts() {
            if *state == State::Dirty && (headers || !is_header) {
                *state = State::Durable;
            }
        }
    }

    pub(crate) fn fail_flush(&mut self) {
        for (state, _) in self.parts() {
            if *state == State::Dirty {
                *state = State::Phantom;
            }
        }
    }

    /// Returns every outcome of a loss of power: one loss for each part that is not durable.
    pub(crate) fn losses(&self) -> Vec<Vec<Loss>> {
        let mut disk = self.clone();
        let mut outcomes = vec![Vec::new()];
        for (state, is_header) in disk.parts() {
            let losses: &[Loss] = match (*state, is_header) {
                (State::Durable, _) => continue,
                (State::Phantom, _) => &[Loss::Lost],
                (State::Dirty, true) => &[Loss::Kept, Loss::Lost],
                (State::Dirty, false) => &[Loss::Kept, Loss::Lost, Loss::Torn],
            };
            let extended = outcomes.iter().flat_map(|outcome: &Vec<Loss>| {
                losses.iter().map(|loss| [outcome.as_slice(), &[*loss]].concat())
            });
            outcomes = extended.collect();
        }
        outcomes
    }

    pub(crate) fn lose_power(&mut self, losses: &[Loss]) {
        let mut losses = losses.iter();
        for segment in &mut self.segments {
            let is_unsynced = segment.header.is_some_and(|state| state != State::Durable);
            if is_unsynced {
                let is_kept = losses.next() == Some(&Loss::Kept);
                segment.header = is_kept.then_some(State::Durable);
            }
            for cell in &mut segment.cells {
                let Cell::Frame(frame, state) = *cell else { continue };
                if state == State::Durable {
                    continue;
                }
                *cell = match losses.next() {
                    Some(Loss::Kept) => Cell::Frame(frame, State::Durable),
                    Some(Loss::Torn) => Cell::Garbage,
                    Some(Loss::Lost) | None => Cell::Zeros,
                };
            }
            segment.trim();
        }
    }

    /// Returns the LSNs of durable frames that belong to the log.
    pub(crate) fn durable_lsns(&self) -> Vec<usize> {
        let view = View::of(self);
        let ends = self.segments.iter().map(|segment| segment.base + segment.cells.len());
        let lsns = 0..ends.max().unwrap_or(0);
        lsns.filter(|lsn| matches!(view.cell(*lsn), Cell::Frame(_, State::Durable))).collect()
    }

    /// Damages the frame at `lsn` in the segment that has this LSN.
    pub(crate) fn damage(&mut self, lsn: usize) {
        if let Some(segment) = self.segments.iter_mut().rfind(|segment| segment.has(lsn)) {
            segment.set(lsn, Cell::Garbage);
        }
    }

    /// Returns the highest claim that a loss of power keeps.
    pub(crate) fn durable_claims(&self) -> usize {
        let mut durable = self.clone();
        let losses = durable.parts().filter(|(state, _)| **state != State::Durable);
        let losses = vec![Loss::Lost; losses.count()];
        durable.lose_power(&losses);
        durable.remove_headless();
        View::of(&durable).commitment
    }

    /// Returns the ids of the records that an opening reads, as bits.
    pub(crate) fn read_ids(&self) -> u16 {
        let view = View::of(self);
        (0..view.end).filter_map(|lsn| view.frame(lsn)).fold(0, |bits, frame| bits | 1 << frame.id)
    }
}

impl State {
    fn written_again(self) -> Self {
        if self == Self::Phantom { Self::Dirty } else { self }
    }
}

impl Segment {
    /// Returns whether the segment has a header and begins at or below `lsn`.
    fn has(&self, lsn: usize) -> bool {
        self.header.is_some() && self.base <= lsn
    }

    fn set(&mut self, lsn: usize, to: Cell) {
        let at = lsn - self.base;
        if self.cells.len() <= at {
            self.cells.resize(at + 1, Cell::Zeros);
        }
        self.cells[at] = to;
        self.trim();
    }

    /// Drops zeros at the end, so that equal files are equal states.
    fn trim(&mut self) {
        let used = self.cells.iter().rposition(|cell| *cell != Cell::Zeros).map_or(0, |at| at + 1);
        self.cells.truncate(used);
    }
}

/// The log as an opening sees it, through the page cache.
#[derive(Debug)]
pub(crate) struct View<'d> {
    disk: &'d Disk,
    /// X: the first LSN without a valid frame.
    pub(crate) end: usize,
    /// S: the highest claim of a header, or of a frame that belongs to the log.
    pub(crate) commitment: usize,
    pub(crate) is_blank_from_end: bool,
}

impl<'d> View<'d> {
    pub(crate) fn of(disk: &'d Disk) -> Self {
        let mut view = Self { disk, end: 0, commitment: 0, is_blank_from_end: true };
        let ends = disk.segments.iter().map(|segment| segment.base + segment.cells.len());
        let lsns = ends.max().unwrap_or(0);
        view.end = (0..lsns).find(|lsn| view.frame(*lsn).is_none()).unwrap_or(lsns);
        view.commitment = view.commitment_below(lsns);
        view.is_blank_from_end = (view.end..lsns).all(|lsn| view.cell(lsn) == Cell::Zeros);
        view
    }

    /// Returns the highest claim of headers and of the frames below `lsn`.
    pub(crate) fn commitment_below(&self, lsn: usize) -> usize {
        let with_header = self.disk.segments.iter().filter(|segment| segment.header.is_some());
        // Headers of replaced segments do not exist.
        let newest = with_header.map(|segment| segment.base).next_back().unwrap_or(0);
        let claims = (0..lsn).filter_map(|lsn| self.frame(lsn)).map(|frame| frame.claim);
        claims.fold(newest, usize::max)
    }

    /// Returns the bytes at `lsn` in the newest segment that begins at or below it.
    fn cell(&self, lsn: usize) -> Cell {
        let segment = self.disk.segments.iter().rfind(|segment| segment.has(lsn));
        let cell = segment.and_then(|segment| segment.cells.get(lsn - segment.base));
        cell.copied().unwrap_or(Cell::Zeros)
    }

    pub(crate) fn frame(&self, lsn: usize) -> Option<Frame> {
        match self.cell(lsn) {
            Cell::Frame(frame, _) => Some(frame),
            _ => None,
        }
    }
}
