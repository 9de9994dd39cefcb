//! Shows a history: as pictures on a terminal, otherwise as lines.

use std::{
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    output::{Failure, Out, has_colour, is_picture_terminal, open},
    text::date,
    top::{
        line::line,
        picture::{Theme, View, draw},
        screen::{Input, Screen},
        words,
    },
};

#[derive(Debug)]
pub(super) enum Display {
    Pictures { screen: Screen, theme: Theme },
    Lines { out: Out },
}

/// The reason to show a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    NewSample,
    /// A look takes long.
    Waiting,
    Resize,
}

impl Display {
    /// Returns the display for standard output, and the keys of its terminal.
    pub(super) fn new() -> Result<(Self, Option<UnboundedReceiver<Input>>), Failure> {
        if !is_picture_terminal() {
            return Ok((Display::Lines { out: open().0 }, None));
        }
        let (screen, inputs) = Screen::new()?;
        Ok((Display::Pictures { screen, theme: Theme::new(has_colour()) }, Some(inputs)))
    }

    pub(super) fn show(&mut self, view: &View<'_>, occasion: Occasion) -> Result<(), Failure> {
        match self {
            Display::Pictures { screen, theme } => {
                screen.draw(|frame| draw(frame, view, *theme))?;
            }
            Display::Lines { out } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let date = date(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
                match (occasion, view.waiting) {
                    (Occasion::Waiting, Some(waiting)) => {
                        writeln!(out, "{date}  {}", words::waiting(waiting))?;
                    }
                    (Occasion::NewSample, _) => writeln!(out, "{}", line(view.history, &date))?,
                    _ => {}
                }
                // Flushed at once, because a person may be watching.
                out.flush()?;
            }
        }
        Ok(())
    }
}
