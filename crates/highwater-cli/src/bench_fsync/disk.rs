//! The file system and the device of a directory, as reported by the system.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::files::read_small_file;

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Disk {
    /// The name of the file system, such as `ext4`.
    pub(crate) file_system: Option<String>,
    /// The mounted device, such as `/dev/sda1`.
    pub(crate) source: Option<String>,
    /// The directory on which the file system is mounted.
    pub(crate) mount_point: Option<String>,
    pub(crate) options: Vec<String>,
    /// `true` for a disk that spins.
    pub(crate) is_rotational: Option<bool>,
    /// `write back` if the kernel treats the cache of the device as volatile, else `write through`.
    pub(crate) write_cache: Option<String>,
}

impl Disk {
    pub(crate) fn of(directory: &Path) -> Self {
        let path = directory.canonicalize().unwrap_or_else(|_| directory.to_path_buf());
        let mounts = read_small_file(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        let mounts = String::from_utf8_lossy(&mounts);
        let Some((device, mut disk)) = mounts
            .lines()
            .filter_map(mount)
            .filter(|(_, mount)| {
                mount.mount_point.as_deref().is_some_and(|point| path.starts_with(point))
            })
            // Of several mounts on one directory, the last one is visible.
            .max_by_key(|(_, mount)| mount.mount_point.as_ref().map(String::len))
        else {
            return Disk::default();
        };
        // A partition has the queue of its disk.
        let queue = |name: &str| {
            let device = Path::new("/sys/dev/block").join(&device);
            let found = ["queue", "../queue"]
                .iter()
                .find_map(|at| read_small_file(&device.join(at).join(name)));
            found.map(|text| String::from_utf8_lossy(&text).trim().to_owned())
        };
        disk.is_rotational = queue("rotational").map(|text| text == "1");
        disk.write_cache = queue("write_cache");
        disk
    }
}

/// Parses a line of `mountinfo`, such as `36 35 98:0 /root /mnt rw - ext4 /dev/sda rw`.
///
/// Returns the number of the device, and the disk.
fn mount(line: &str) -> Option<(String, Disk)> {
    let (own, system) = line.split_once(" - ")?;
    let mut own = own.split(' ').skip(2);
    let (device, point, options) = (own.next()?, own.nth(1)?, own.next()?);
    let mut system = system.split(' ');
    let (name, source, more) = (system.next()?, system.next()?, system.next().unwrap_or(""));
    let options = options.split(',').chain(more.split(',')).filter(|option| !option.is_empty());
    let disk = Disk {
        file_system: Some(name.to_owned()),
        source: Some(unescaped(source)),
        mount_point: Some(unescaped(point)),
        options: options.map(str::to_owned).collect(),
        ..Disk::default()
    };
    Some((device.to_owned(), disk))
}

/// Decodes the octal escapes of `mountinfo`, such as `\040` for a space.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(file_system) = &self.file_system else {
            return write!(f, "file system unknown: this system does not report it");
        };
        write!(f, "{file_system}")?;
        if let (Some(source), Some(point)) = (&self.source, &self.mount_point) {
            write!(f, " on {source}, mounted on {point}")?;
        }
        match self.is_rotational {
            Some(true) => write!(f, "; spins")?,
            Some(false) => write!(f, "; does not spin")?,
            None => {}
        }
        match &self.write_cache {
            Some(cache) => write!(f, "; write cache: {cache}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_line_is_parsed() {
        let line =
            "36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let (device, disk) = mount(line).unwrap();
        assert_eq!(device, "98:0");
        assert_eq!(disk.to_string(), "ext3 on /dev/root, mounted on /a b");
        assert_eq!(disk.options, ["rw", "noatime", "rw", "errors=continue"]);
        assert_eq!(mount("nonsense"), None);
        assert_eq!(mount("1 2 3 - "), None);
    }
}
