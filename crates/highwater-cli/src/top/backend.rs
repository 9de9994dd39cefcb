//! Prints the cells of ratatui through crossterm.
//!
//! ratatui's backend for crossterm is not used, because it needs an older crossterm, with a second
//! version of rustix.

use std::io::{self, Write};

use crossterm::{
    cursor::{self, Hide, MoveTo, Show},
    queue,
    style::{Attribute, Color as Colour, Print, SetAttribute, SetForegroundColor},
    terminal::{self, Clear, ClearType},
};
use ratatui::{
    backend::{Backend, WindowSize},
    buffer::Cell,
    layout::{Position, Size},
    style::{Color, Modifier},
};

#[derive(Debug)]
pub(super) struct CrosstermBackend<W> {
    out: W,
}

impl<W: Write> CrosstermBackend<W> {
    pub(super) fn new(out: W) -> Self {
        CrosstermBackend { out }
    }
}

/// The part of a cell's style that the pictures use.
type Style = (Color, Modifier);

const PLAIN: Style = (Color::Reset, Modifier::empty());

impl<W: Write> Backend for CrosstermBackend<W> {
    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let mut style = PLAIN;
        let mut next = None;
        for (x, y, cell) in content {
            if next != Some((x, y)) {
                queue!(self.out, MoveTo(x, y))?;
            }
            // A wide symbol moves the cursor by two columns, so the next cell sets the cursor.
            next = (cell.symbol().len() == 1).then_some((x.saturating_add(1), y));
            if style != (cell.fg, cell.modifier) {
                style = (cell.fg, cell.modifier);
                set_style(&mut self.out, style)?;
            }
            queue!(self.out, Print(cell.symbol()))?;
        }
        if style == PLAIN { Ok(()) } else { set_style(&mut self.out, PLAIN) }
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        queue!(self.out, Hide)?;
        self.out.flush()
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        queue!(self.out, Show)?;
        self.out.flush()
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        cursor::position().map(Position::from)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        queue!(self.out, MoveTo(x, y))?;
        self.out.flush()
    }

    fn clear(&mut self) -> io::Result<()> {
        queue!(self.out, Clear(ClearType::All))?;
        self.out.flush()
    }

    fn size(&self) -> io::Result<Size> {
        terminal::size().map(Size::from)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::default() })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn set_style(out: &mut impl Write, (colour, modifier): Style) -> io::Result<()> {
    queue!(out, SetAttribute(Attribute::Reset))?;
    let colour = match colour {
        Color::Green => Some(Colour::DarkGreen),
        Color::Yellow => Some(Colour::DarkYellow),
        Color::Red => Some(Colour::DarkRed),
        _ => None,
    };
    if let Some(colour) = colour {
        queue!(out, SetForegroundColor(colour))?;
    }
    if modifier.contains(Modifier::BOLD) {
        queue!(out, SetAttribute(Attribute::Bold))?;
    }
    if modifier.contains(Modifier::DIM) {
        queue!(out, SetAttribute(Attribute::Dim))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::style::Style as CellStyle;

    #[test]
    fn cells_are_printed_with_their_styles() {
        // Whatever the environment of the test has.
        crossterm::style::force_color_output(true);
        let mut bytes = Vec::new();
        let cell = |symbol: &str, style: CellStyle| {
            let mut cell = Cell::EMPTY;
            cell.set_symbol(symbol).set_style(style);
            cell
        };
        let plain = CellStyle::new();
        let cells = [
            (0, 0, cell("a", plain)),
            (1, 0, cell("b", plain.fg(Color::Red).add_modifier(Modifier::BOLD))),
            (2, 0, cell("▃", plain.add_modifier(Modifier::DIM))),
            (3, 0, cell("c", plain)),
            (0, 4, cell("d", plain.fg(Color::Green))),
        ];
        let mut backend = CrosstermBackend::new(&mut bytes);
        backend.draw(cells.iter().map(|(x, y, cell)| (*x, *y, cell))).unwrap();
        let expected = "\x1b[1;1Ha\x1b[0m\x1b[38;5;1m\x1b[1mb\x1b[0m\x1b[2m▃\x1b[1;4H\x1b[0mc\
                        \x1b[5;1H\x1b[0m\x1b[38;5;2md\x1b[0m";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}
