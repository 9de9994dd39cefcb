//! Records by themselves, as `tail` and `dump --skip-damaged` print them: in the forms of `dump`.

use std::io::{self, Write};

use highwater::{Lsn, Record};
use serde::Serialize;

use crate::{
    arguments::Form,
    output::{Failure, Out, Paint},
    text::{escaped, hexadecimal, spaced_hexadecimal},
};

/// The runtime that reading needs.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A record, and the end of its line.
pub(crate) fn record(
    out: &mut Out,
    paint: Paint,
    record: &Record,
    form: Form,
) -> Result<(), Failure> {
    if form == Form::Json {
        let text = std::str::from_utf8(&record.payload).ok();
        let hex = text.is_none().then(|| hexadecimal(&record.payload));
        let payload_bytes = record.payload.len();
        return json_line(out, &Told { lsn: record.lsn, payload_bytes, text, hex });
    }
    let dim = paint.dim;
    let (lsn, bytes) = (record.lsn, record.payload.len());
    write!(out, "{lsn:>12} {dim}record   {dim:#} {bytes:>8}")?;
    Ok(payload(out, paint, &record.payload, form)?)
}

#[derive(Serialize)]
struct Told<'a> {
    lsn: Lsn,
    payload_bytes: usize,
    /// The payload, if it is UTF-8; else its bytes, in `hex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// A JSON object on a line of its own.
pub(crate) fn json_line(out: &mut Out, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value)?;
    Ok(out.write_all(b"\n")?)
}

/// A payload behind what the line says of it.
pub(crate) fn payload(out: &mut Out, paint: Paint, bytes: &[u8], form: Form) -> io::Result<()> {
    let dim = paint.dim;
    if bytes.is_empty() {
        return writeln!(out);
    }
    if form == Form::Text {
        return writeln!(out, "  {}", escaped(bytes));
    }
    writeln!(out)?;
    for (at, row) in bytes.chunks(16).enumerate() {
        write!(out, "{:>12} {dim}{:08x}{dim:#} {}", "", at * 16, spaced_hexadecimal(row))?;
        let shown = |&byte: &u8| if (32..127).contains(&byte) { char::from(byte) } else { '.' };
        let text: String = row.iter().map(shown).collect();
        writeln!(out, "{:width$}  {text}", "", width = (16 - row.len()) * 3)?;
    }
    Ok(())
}
