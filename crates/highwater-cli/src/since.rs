//! `--since`: a time on the command line, and its position in a log.

use std::{path::Path, str::FromStr, time::SystemTime};

use highwater::{Lsn, Reader};
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::{
    exit::UNREADABLE,
    output::{Failure, failure, note},
    text::shown,
};

/// A time that is not in the future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since {
    time: SystemTime,
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = parse(text, Timestamp::now())?;
        let time = SystemTime::try_from(time).map_err(|error| error.to_string())?;
        Ok(Since { time })
    }
}

/// Parses RFC 3339, or a duration before `now`.
fn parse(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let time = match text.parse::<Span>() {
        Ok(span) => before(now, span)?,
        Err(_) => text.parse().map_err(|_| {
            "write a time with its offset, such as 2026-11-29T12:00:00Z, or a duration ago, such as \
             15m, 2h or 1d"
        })?,
    };
    match time > now {
        true => Err(format!("the time is in the future: it is {now:.0} now")),
        false => Ok(time),
    }
}

fn before(now: Timestamp, span: Span) -> Result<Timestamp, String> {
    // `15m ago` is a negative span.
    let duration = span.abs().to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| {
        "months and years have no fixed length: write a number of days, such as 30d".to_owned()
    })?;
    now.checked_sub(duration).map_err(|_| "the time is before the year -9999".to_owned())
}

impl Since {
    /// Returns the position of the time: records that were appended since are at or above it.
    ///
    /// # Errors
    ///
    /// A failure that names `instead` as another way to choose records, if the log has no time
    /// marks.
    pub(crate) async fn position(
        self,
        reader: &Reader,
        directory: &Path,
        instead: &str,
    ) -> Result<Lsn, Failure> {
        if reader.first() >= reader.written() {
            return Ok(reader.first());
        }
        let Some(newest) = reader.newest_time_mark().await? else {
            let place = shown(directory);
            return Err(failure(
                UNREADABLE,
                format!(
                    "{place}: the log has no time marks, so a time has no position in it; set the \
                     option `time_marks` in the program that writes the log, or use {instead}"
                ),
            ));
        };
        if newest < self.time {
            let newest = Timestamp::try_from(newest).unwrap_or(Timestamp::UNIX_EPOCH);
            note(format_args!(
                "note: the log's newest time mark is of {newest:.0}, before that time: the records \
                 around it come first"
            ));
        }
        Ok(reader.at_time(self.time).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-29T12:00:00Z";

    fn parsed(text: &str) -> Result<String, String> {
        parse(text, NOW.parse().unwrap()).map(|time| time.to_string())
    }

    #[test]
    fn times_and_durations_are_parsed() {
        for (text, expected) in [
            (NOW, NOW),
            ("2026-11-29T13:00:00+01:00", NOW),
            ("2026-11-28 23:59:59.5Z", "2026-11-28T23:59:59.5Z"),
            ("0s", NOW),
            ("15m", "2026-11-29T11:45:00Z"),
            ("15m ago", "2026-11-29T11:45:00Z"),
            ("2h", "2026-11-29T10:00:00Z"),
            ("1h30m", "2026-11-29T10:30:00Z"),
            ("1d", "2026-11-28T12:00:00Z"),
            ("2w", "2026-11-15T12:00:00Z"),
            ("PT15M", "2026-11-29T11:45:00Z"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn bad_time_is_explained() {
        for (text, reason) in [
            ("", "write a time with its offset"),
            ("yesterday", "write a time with its offset"),
            ("15", "write a time with its offset"),
            ("2026-11-29", "write a time with its offset"),
            ("2026-11-29T12:00:00", "write a time with its offset"),
            ("2026-11-29T12:00:01Z", "in the future: it is 2026-11-29T12:00:00Z now"),
            ("1mo", "no fixed length"),
            ("1y", "no fixed length"),
            ("19000y", "no fixed length"),
            ("7000000d", "before the year"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
