//! The picture for a terminal: a pure function of the history.

use std::time::Duration;

use ratatui_core::{
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    terminal::Frame,
    text::{Line, Span},
};
use ratatui_widgets::{
    paragraph::Paragraph,
    sparkline::Sparkline,
    table::{Row, Table},
};

use crate::{
    text::{age, counted, size},
    top::{
        history::History,
        sample::{Log, Sample, Slot},
        words::{self, HEALTH, Mood},
    },
};

/// The rows of the curve, with its caption.
const CURVE_ROWS: u16 = 4;
/// The rows that must be left for the slots before the curve is drawn.
const SLOT_ROWS_MIN: u16 = 4;
const CHANGES_MAX: usize = 4;

/// The styles of the picture. Without colours, only weights differ.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Theme {
    good: Style,
    odd: Style,
    bad: Style,
    dim: Style,
    strong: Style,
}

impl Theme {
    pub(super) fn new(has_colour: bool) -> Self {
        let strong = Style::new().add_modifier(Modifier::BOLD);
        if !has_colour {
            let plain = Style::new();
            return Theme { good: plain, odd: strong, bad: strong, dim: plain, strong };
        }
        Theme {
            good: Style::new().fg(Color::Green),
            odd: Style::new().fg(Color::Yellow),
            bad: Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            dim: Style::new().add_modifier(Modifier::DIM),
            strong,
        }
    }

    fn of(self, mood: Mood) -> Style {
        match mood {
            Mood::Good => self.good,
            Mood::Odd => self.odd,
            Mood::Bad => self.bad,
        }
    }
}

/// Everything that a picture shows.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) directory: &'a str,
    pub(super) history: &'a History,
    /// The time since the watch began.
    pub(super) now: Duration,
    /// How long the current read has not returned, if that is long.
    pub(super) waiting: Option<Duration>,
}

pub(super) fn draw(frame: &mut Frame<'_>, view: &View<'_>, theme: Theme) {
    let head = head(view, theme);
    let changes = changes(view, theme);
    let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
    let fixed = rows(head.len() + changes.len()).saturating_add(2);
    let room = frame.area().height.saturating_sub(fixed);
    let curve_rows = if room >= CURVE_ROWS + SLOT_ROWS_MIN { CURVE_ROWS } else { 0 };
    let [head_area, curve_area, slots_area, changes_area, foot_area] = Layout::vertical([
        Constraint::Length(rows(head.len()) + 1),
        Constraint::Length(curve_rows),
        Constraint::Fill(1),
        Constraint::Length(rows(changes.len())),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head), head_area);
    curve(frame, curve_area, view, theme);
    if let Some(log) = log(view) {
        slots(frame, slots_area, log, theme);
    }
    frame.render_widget(Paragraph::new(changes), changes_area);
    frame.render_widget(Line::styled("q  ends", theme.dim), foot_area);
}

fn log<'a>(view: &View<'a>) -> Option<&'a Log> {
    view.history.newest()?.log.as_ref()
}

fn head<'a>(view: &View<'a>, theme: Theme) -> Vec<Line<'a>> {
    let Theme { strong, odd, dim, .. } = theme;
    let title = Span::styled(view.directory, strong);
    let Some(Sample { state, space, .. }) = view.history.newest() else {
        let waiting = view.waiting.map(|it| Line::styled(words::waiting(it), odd));
        return [Line::from(title)].into_iter().chain(waiting).collect();
    };
    let (mood, state) = words::state(state);
    let state = Span::styled(state, theme.of(mood));
    let mut lines = vec![Line::from(vec![title, Span::raw("  "), state])];
    lines.extend(view.waiting.map(|waiting| Line::styled(words::waiting(waiting), odd)));
    let mut row = |name: &str, text: String| {
        let name = Span::styled(format!("{name:<10}"), dim);
        lines.push(Line::from(vec![name, Span::raw(text)]));
    };
    if let Some(log) = log(view) {
        let rates = view.history.rates();
        let first = words::lsn(log.first);
        let (end, synced) = (words::lsn(log.end), words::lsn(log.synced));
        row("marks", format!("first {first}, end {end}, synced {synced}{}", words::unsynced(log)));
        row("rates", format!("{}, {}", words::bytes_rate(rates), words::record_rate(rates)));
        row("segments", words::segments(&log.segments));
        let rotations = view.history.rotations();
        row("", format!("{}; {rotations} in {}", words::ages(&log.segments), age(view.now)));
    }
    row("disk", words::space(*space));
    row("health", HEALTH.to_owned());
    lines
}

fn curve(frame: &mut Frame<'_>, area: Rect, view: &View<'_>, theme: Theme) {
    let [caption, area] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let rates = view.history.curve(usize::from(area.width));
    let highest = rates.iter().max().copied().unwrap_or_default();
    let text = format!("bytes a second, at most {}", size(highest));
    frame.render_widget(Line::styled(text, theme.dim), caption);
    frame.render_widget(Sparkline::default().data(&rates).style(theme.good), area);
}

/// Lists the slots. The first one keeps the most.
fn slots(frame: &mut Frame<'_>, area: Rect, log: &Log, theme: Theme) {
    if log.slots.is_empty() {
        frame.render_widget(Line::styled("no slots", theme.dim), area);
        return;
    }
    // The caption takes one row, and a list that does not fit a second one.
    let room = usize::from(area.height).saturating_sub(1);
    let shown = if log.slots.len() > room { room.saturating_sub(1) } else { log.slots.len() };
    let more = log.slots.len() - shown;
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (at, slot) in log.slots.iter().take(shown).enumerate() {
        let keeps_most = at == 0 && log.slots.len() > 1;
        rows.push(slot_row(slot, keeps_most, theme));
    }
    if more > 0 {
        let text = format!("… {more} more …");
        rows.push(Row::new(["", "", "", "", &text].map(str::to_owned)).style(theme.dim));
    }
    let count = counted(log.slots.len() as u64, "slot", "slots");
    let columns = ["position", "behind", "keeps", "at most"].map(|name| format!("{name:>12}"));
    let caption = Row::new(columns.into_iter().chain([count])).style(theme.dim);
    let widths = [12, 12, 12, 12].map(Constraint::Length).into_iter().chain([Constraint::Fill(1)]);
    frame.render_widget(Table::new(rows, widths).header(caption).column_spacing(1), area);
}

fn slot_row(slot: &Slot, keeps_most: bool, theme: Theme) -> Row<'static> {
    let limit = slot.keep_bytes_max.map_or_else(|| "-".to_owned(), size);
    let numbers = [slot.position.to_string(), size(slot.lag_bytes), size(slot.held_bytes), limit];
    let (note, style) = match slot.is_lost {
        true => ("  lost", theme.bad),
        false if keeps_most => ("  keeps most", theme.odd),
        false => ("", Style::new()),
    };
    let name = Line::from(vec![Span::raw(words::slot_name(slot)), Span::styled(note, style)]);
    let numbers = numbers.into_iter().map(|number| Line::from(format!("{number:>12}")));
    Row::new(numbers.chain([name]))
}

fn changes<'a>(view: &View<'a>, theme: Theme) -> Vec<Line<'a>> {
    let changes = view.history.changes(CHANGES_MAX).map(|(at, change)| {
        let ago = format!("{:>6} ago  ", age(view.now.saturating_sub(*at)));
        Line::from(vec![Span::styled(ago, theme.dim), Span::raw(change.text())])
    });
    changes.collect()
}
