//! Prints records for `tail` and `dump --skip-damaged`, in the forms of `dump`.

use std::io::{self, IsTerminal, Write};

use highwater::{Lsn, Record};
use serde::Serialize;

use crate::{
    options::Form,
    output::{Failure, Out, Paint, json_line},
    text::{counted, escaped, hexadecimal, spaced_hexadecimal},
};

/// Builds the runtime of a command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// The maximum number of payload bytes on a terminal, as text and as hexadecimal rows.
const TEXT_BYTES_MAX: usize = 480;
const HEX_BYTES_MAX: usize = 256;

/// How payloads are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) form: Form,
    bytes_max: usize,
}

impl Shape {
    /// Shortens payloads only on a terminal. Piped payloads are whole.
    pub(crate) fn new(form: Form, is_whole: bool) -> Self {
        let bytes_max = match form {
            _ if is_whole || !io::stdout().is_terminal() => usize::MAX,
            Form::Text => TEXT_BYTES_MAX,
            Form::Hex => HEX_BYTES_MAX,
            Form::Json => usize::MAX,
        };
        Shape { form, bytes_max }
    }

    /// Returns the bytes to show, and how many are left out. Splits no character of a text.
    fn shorten(self, bytes: &[u8]) -> (&[u8], usize) {
        if bytes.len() <= self.bytes_max {
            return (bytes, 0);
        }
        let (mut shown, rest) = bytes.split_at(self.bytes_max);
        let mut left_out = rest.len();
        let is_within = rest.first().is_some_and(|byte| byte & 0xc0 == 0x80);
        if self.form == Form::Text && is_within {
            let lead = shown.iter().rev().take(4).position(|byte| byte & 0xc0 != 0x80);
            let cut = lead.map_or(0, |before| before + 1);
            shown = shown.get(..shown.len() - cut).unwrap_or(shown);
            left_out += cut;
        }
        (shown, left_out)
    }
}

/// Prints a record.
pub(crate) fn record(
    out: &mut Out,
    paint: Paint,
    record: &Record,
    shape: Shape,
) -> Result<(), Failure> {
    if shape.form == Form::Json {
        let text = std::str::from_utf8(&record.payload).ok();
        let hex = text.is_none().then(|| hexadecimal(&record.payload));
        let payload_bytes = record.payload.len();
        return json_line(out, &PrintedRecord { lsn: record.lsn, payload_bytes, text, hex });
    }
    let dim = paint.dim;
    let (lsn, bytes) = (record.lsn, record.payload.len());
    write!(out, "{lsn:>12} {dim}record   {dim:#} {bytes:>8}")?;
    Ok(payload(out, paint, &record.payload, shape)?)
}

#[derive(Serialize)]
struct PrintedRecord<'a> {
    lsn: Lsn,
    payload_bytes: usize,
    /// The payload, if it is UTF-8; otherwise its bytes are in `hex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// Prints a payload at the end of a line that describes it.
pub(crate) fn payload(out: &mut Out, paint: Paint, bytes: &[u8], shape: Shape) -> io::Result<()> {
    let dim = paint.dim;
    if bytes.is_empty() {
        return writeln!(out);
    }
    let (bytes, left_out) = shape.shorten(bytes);
    let more = match left_out {
        0 => String::new(),
        left_out => format!(
            "{dim}… and {}; --whole prints all{dim:#}",
            counted(left_out as u64, "byte", "bytes")
        ),
    };
    if shape.form == Form::Text {
        return writeln!(out, "  {}{more}", escaped(bytes));
    }
    writeln!(out)?;
    for (at, row) in bytes.chunks(16).enumerate() {
        write!(out, "{:>12} {dim}{:08x}{dim:#} {}", "", at * 16, spaced_hexadecimal(row))?;
        let shown = |&byte: &u8| if (32..127).contains(&byte) { char::from(byte) } else { '.' };
        let text: String = row.iter().map(shown).collect();
        writeln!(out, "{:width$}  {text}", "", width = (16 - row.len()) * 3)?;
    }
    if left_out > 0 {
        writeln!(out, "{:>12} {more}", "")?;
    }
    Ok(())
}
