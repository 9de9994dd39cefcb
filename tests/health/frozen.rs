//! A real file system that is frozen: `fsfreeze` on a loop-mounted ext4. Needs root.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use highwater::{Health, OnStall, Wal};

use crate::support::within;

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let command = Command::new(program).args(arguments).stdout(Stdio::null()).output();
    match command {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// A mounted image, thawed and unmounted when it is dropped.
struct Mounted(String);

impl Mounted {
    fn new(directory: &Path) -> Result<Self, String> {
        let image = directory.join("image").to_string_lossy().into_owned();
        let place = directory.join("mount").to_string_lossy().into_owned();
        std::fs::create_dir(&place).map_err(|error| error.to_string())?;
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(64 << 20).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &image])?;
        run("mount", &["-o", "loop", &image, &place])?;
        Ok(Mounted(place))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("fsfreeze", &["--unfreeze", &self.0]);
        let _ = run("umount", &[&self.0]);
    }
}

#[test]
fn frozen_file_system_is_a_stall() {
    let directory = tempfile::tempdir().unwrap();
    let mounted = match Mounted::new(directory.path()) {
        Ok(mounted) => mounted,
        Err(reason) => {
            eprintln!("skipped: no file system to freeze: {reason}");
            return;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let short = Duration::from_millis(100);
        let policy = OnStall::FailWaiters { after: 2 * short };
        let options = Wal::options().segment_bytes(1 << 20).stall_after(short).on_stall(policy);
        let path = Path::new(&mounted.0).join("log");
        let wal = options.clone().open(&path).await.unwrap();
        let before = wal.append_and_sync("before").await.unwrap();
        let mut health = wal.health();
        if let Err(reason) = run("fsfreeze", &["--freeze", &mounted.0]) {
            eprintln!("skipped: the file system can't be frozen: {reason}");
            return;
        }
        let failed = within("the commit", wal.append_and_sync("frozen")).await.unwrap_err();
        assert!(failed.is_indeterminate(), "{failed}");
        let stalled = health.get();
        assert!(stalled.is_stalled(), "{stalled}");
        run("fsfreeze", &["--unfreeze", &mounted.0]).unwrap();
        let is_slow = |health: &Health| matches!(health, Health::Slow);
        within("the thaw", health.wait_for(is_slow)).await.unwrap();
        let after = within("the next commit", wal.append_and_sync("after")).await.unwrap();
        assert!(wal.read(before).await.is_ok() && wal.read(after).await.is_ok());
        wal.close().await.unwrap();
        eprintln!("frozen and thawed: {stalled}");
    });
}
