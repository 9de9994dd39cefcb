//! Formats numbers, dates and bytes, and escapes characters that a terminal interprets.

use std::{
    fmt::{self, Write},
    path::Path,
    time::Duration,
};

const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/// Formats a size with three digits: `1.50 MiB`.
#[expect(clippy::cast_precision_loss, reason = "it is rounded to three digits")]
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// Formats a number: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of items: `3 records`, `1 record`.
pub(crate) fn counted(number: u64, what: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { what } else { many })
}

/// Formats a duration by its largest unit: `45 s`, `12 min`, `30 h`, `12 d`.
pub(crate) fn age(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Formats a time: `2026-01-31 12:00:00 UTC`. Counts years from March, so that a leap day ends a
/// year.
pub(crate) fn date(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Escapes the characters that a terminal interprets, and bytes that are no text as `\xff`.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while !rest.is_empty() {
            // Copies runs of plain characters at once, because most payloads are one run.
            let plain = rest.bytes().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
            let (run, others) = rest.split_at(plain);
            text.push_str(run);
            let mut characters = others.chars();
            match characters.next() {
                Some('\\') => text.push_str("\\\\"),
                Some(odd) if is_harmful(odd) => text.extend(odd.escape_default()),
                Some(character) => text.push(character),
                None => {}
            }
            rest = characters.as_str();
        }
        for byte in chunk.invalid() {
            // Writing into a string doesn't fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn is_plain(byte: u8) -> bool {
    (32..127).contains(&byte) && byte != b'\\'
}

/// Returns whether a terminal interprets a character, or reorders other characters because of it.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Escapes a message that may contain hostile names, for a terminal.
pub(crate) fn safe(message: impl fmt::Display) -> String {
    let message = message.to_string();
    if !message.contains(is_harmful) {
        return message;
    }
    let mut text = String::with_capacity(message.len() + 16);
    for character in message.chars() {
        if is_harmful(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// Formats a path for a message.
pub(crate) fn shown(path: &Path) -> String {
    safe(path.display())
}

/// Escapes JSON for a terminal. Its meaning stays the same, because only strings have such
/// characters.
pub(crate) fn safe_json(json: String) -> String {
    // Line breaks between values stay.
    let is_odd = |character: char| character != '\n' && is_harmful(character);
    if !json.contains(is_odd) {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_odd(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing into a string doesn't fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(character);
        }
    }
    text
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|&byte| digits(byte)).collect()
}

/// Formats bytes like [`hexadecimal`], with a space before each byte.
pub(crate) fn spaced_hexadecimal(bytes: &[u8]) -> String {
    let spaced = |[high, low]: [char; 2]| [' ', high, low];
    bytes.iter().flat_map(|&byte| spaced(digits(byte))).collect()
}

fn digits(byte: u8) -> [char; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [byte >> 4, byte & 15]
        .map(|value| DIGITS.get(usize::from(value)).copied().map_or('0', char::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_dates_are_readable() {
        let sizes = [0, 1023, 1024, 1536, 10 << 20, 512 << 20, u64::MAX].map(size);
        let expected = ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 MiB", "512 MiB"];
        assert_eq!(sizes[..6], expected);
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        let ages = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(Duration::from_secs).map(age);
        assert_eq!(ages, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(date(1_790_000_000_000), "2026-09-21 14:13:20 UTC");
        assert_eq!(date(4_107_542_399_000), "2100-02-28 23:59:59 UTC");
    }

    #[test]
    fn terminal_control_characters_are_escaped() {
        assert_eq!(escaped("a\\b\n\u{1b}[31mß\u{9b}".as_bytes()), "a\\\\b\\n\\u{1b}[31mß\\u{9b}");
        assert_eq!(escaped(b"ok\xff\xfe"), "ok\\xff\\xfe");
        assert_eq!(escaped("a\u{202e}b\u{7f}".as_bytes()), "a\\u{202e}b\\u{7f}");
        assert_eq!(
            safe("C:\\log\n\u{1b}]0;x\u{7}\u{2066}é"),
            "C:\\log\\n\\u{1b}]0;x\\u{7}\\u{2066}é"
        );
        let odd = "\u{9b}\u{202e}\u{7f}\u{e0041}\n\u{1b}ß";
        let json = safe_json(serde_json::to_string_pretty(&[odd]).unwrap());
        assert_eq!(json, "[\n  \"\\u009b\\u202e\\u007f\\udb40\\udc41\\n\\u001bß\"\n]");
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [odd]);
        assert_eq!(hexadecimal(&[0, 0x9f, 255]), "009fff");
        assert_eq!(spaced_hexadecimal(&[0, 0x9f, 255]), " 00 9f ff");
    }
}
