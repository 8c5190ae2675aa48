//! Opens files that a user names, for reading: only regular files, after following symbolic links. Opening a named pipe would
//! wait for a writer that may never come, and a device such as /dev/zero never ends.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::capacity;

/// Opens a regular file for reading.
///
/// # Errors
/// Errors of the system; [`ErrorKind::IsADirectory`] for a folder and [`ErrorKind::InvalidInput`] for anything else that is not
/// a regular file, with a message that names its kind. The message does not contain the path.
pub fn open(path: &Path) -> io::Result<File> {
    // Checked before opening, because opening a device can have effects (it may start a watchdog), and checked again on the
    // open file, because the path may name another file by then; a non-blocking open does not wait for such a file.
    refuse_other_kinds(fs::metadata(path)?.file_type())?;
    let file = OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)?;
    refuse_other_kinds(file.metadata()?.file_type())?;
    Ok(file)
}

/// The bytes of a regular file.
///
/// # Errors
/// Those of [`open`], errors of the system while reading, and [`ErrorKind::OutOfMemory`] for a file larger than memory.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Reserves the file's length; returns an error if memory does not suffice.
    open_whole(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a regular file.
///
/// # Errors
/// Those of [`read`]; [`ErrorKind::InvalidData`] for bytes that are not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open_whole(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Whether there is certainly no file at `path`. A broken link counts as existing, and so does a file that cannot be inspected:
/// reading it then reports the error.
pub fn is_missing(path: &Path) -> bool {
    let absent = |error: io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    path.symlink_metadata().is_err_and(absent)
}

/// Opens a file that is read whole.
fn open_whole(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    // Checking the available memory takes longer than reading a small file.
    if length > 1 << 24 {
        let large =
            |why| io::Error::new(ErrorKind::OutOfMemory, format!("it has {length} bytes and is read whole: {why}"));
        capacity::check(length).map_err(large)?;
    }
    Ok(file)
}

fn refuse_other_kinds(kind: FileType) -> io::Result<()> {
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder; expected a file"));
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    let message = format!(
        "it is {what}; only regular files are read, because files are hashed and read more than once: write the content to \
         a file first and name that file"
    );
    Err(io::Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a pipe whose opening waits for a writer (this test then never ends), a device that is read without end, and a
    /// link to either that is followed.
    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [file, pipe, socket, link, good] =
            ["file", "pipe", "socket", "link", "good"].map(|name| folder.path().join(name));
        fs::write(&file, "text").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        std::os::unix::fs::symlink(&file, &good).unwrap();
        for (path, what) in [
            (pipe.as_path(), "it is a pipe"),
            (&link, "it is a pipe"),
            (&socket, "it is a socket"),
            (Path::new("/dev/zero"), "it is a device"),
            (folder.path(), "it is a folder"),
        ] {
            for error in [open(path).unwrap_err(), read(path).unwrap_err(), read_to_string(path).unwrap_err()] {
                assert!(error.to_string().starts_with(what), "{}: {error}", path.display());
            }
        }
        for path in [&file, &good] {
            assert_eq!(read(path).unwrap(), b"text");
            assert_eq!(read_to_string(path).unwrap(), "text");
        }
        assert_eq!(read(&folder.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Catches a file that is read although it does not fit into memory, which would end the process, and an error without the
    /// numbers.
    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "needs a system that reports its memory")]
    fn a_file_larger_than_memory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge");
        let made = File::create(&path).unwrap().set_len(1 << 43);
        made.expect("files of 8 TiB, which take no room: set TMPDIR to a folder whose file system has them");
        for error in [read(&path).unwrap_err(), read_to_string(&path).unwrap_err()] {
            let expected = "it has 8796093022208 bytes and is read whole: about 8.0 TiB of memory are needed, and ";
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
