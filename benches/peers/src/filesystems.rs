//! Mounts other file systems: images on loop devices, and tmpfs. Needs root.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// The size of an image, enough for the largest work. The image file is sparse.
const IMAGE_BYTES: u64 = 6 << 30;
const TMPFS_OPTIONS: &str = "size=3g";

/// A mounted file system. Dropping it unmounts it.
pub struct Mounted {
    pub point: PathBuf,
    image: Option<PathBuf>,
}

/// Mounts a file system of the type `name`, with its image in `dir`.
///
/// # Errors
///
/// Returns the reason as text if a command fails.
pub fn mount(name: &str, dir: &Path) -> Result<Mounted, String> {
    let place = dir.join(format!("highwater-peers-{name}-{}", std::process::id()));
    let point = place.with_extension("mount");
    let io = |error: std::io::Error| error.to_string();
    fs::create_dir_all(&point).map_err(io)?;
    // From here on `drop` removes the directory, the image and the mount.
    let mut mounted = Mounted { point: point.clone(), image: None };
    let point = point.to_string_lossy().into_owned();
    if name == "tmpfs" {
        command("mount", &["-t", "tmpfs", "-o", TMPFS_OPTIONS, "tmpfs", &point])?;
        return Ok(mounted);
    }
    let image = place.with_extension("image");
    mounted.image = Some(image.clone());
    File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).map_err(io)?;
    let image = image.to_string_lossy().into_owned();
    let force = if name == "ext4" { "-F" } else { "-f" };
    command(&format!("mkfs.{name}"), &["-q", force, &image])?;
    command("mount", &["-o", "loop", &image, &point])?;
    Ok(mounted)
}

fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let reason = stderr.lines().next().unwrap_or_default();
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {reason}")) }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let point = self.point.to_string_lossy().into_owned();
        // Fails if nothing was mounted, which needs no report.
        let _ = command("umount", &[&point]);
        let _ = fs::remove_dir(&self.point);
        if let Some(image) = &self.image {
            let _ = fs::remove_file(image);
        }
    }
}
