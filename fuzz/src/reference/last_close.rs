//! The file `LAST-CLOSE`, which a close writes.

use crate::directory::Directory;

/// The content of the file.
pub struct LastClose {
    pub log_id: [u8; 16],
    pub epoch: u64,
    pub end: u64,
}

/// Parses the file. Returns `None` if it is not exactly what a close writes.
pub fn last_close(directory: &Directory) -> Option<LastClose> {
    let bytes = directory.0.get("LAST-CLOSE").filter(|bytes| bytes.len() <= 512)?;
    let text = std::str::from_utf8(bytes).ok()?;
    let rest = text.strip_prefix("highwater last close 1\nlog ")?;
    let (id, rest) = rest.split_once("\nepoch ")?;
    let (epoch, rest) = rest.split_once("\nsegment ")?;
    let (segment, rest) = rest.split_once("\nend ")?;
    let (end, _) = rest.split_once('\n')?;
    let mut log_id = [0; 16];
    for (i, byte) in log_id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(id.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    let (epoch, segment, end): (u64, u64, u64) =
        (epoch.parse().ok()?, segment.parse().ok()?, end.parse().ok()?);
    let id: String = log_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let whole =
        format!("highwater last close 1\nlog {id}\nepoch {epoch}\nsegment {segment}\nend {end}\n");
    let checksum = format!("checksum {:08x}\n", crc32c::crc32c(whole.as_bytes()));
    (text == whole + &checksum).then_some(LastClose { log_id, epoch, end })
}
