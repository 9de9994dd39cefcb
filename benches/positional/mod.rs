//! Positional reads and writes, for the plain file operations that the log is compared with.

#[cfg(unix)]
pub(crate) use std::os::unix::fs::FileExt;
#[cfg(windows)]
pub(crate) use windows::FileExt;

#[cfg(windows)]
mod windows {
    use std::{fs::File, io, os::windows::fs::FileExt as _};

    #[allow(dead_code, reason = "each bench uses only a part of it")]
    pub(crate) trait FileExt {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    }

    impl FileExt for File {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let written = self.seek_write(bytes, offset)?;
            if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        }

        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let read = self.seek_read(buffer, offset)?;
            if read == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        }
    }
}
