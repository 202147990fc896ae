//! Files that others read while we write them: whole before, whole after.
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes beside the file and renames over it, readable by its owner only. An error names the file.
///
/// The temporary name begins with a dot, so that no watcher takes it for an object.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    let temporary = path.with_file_name(temporary);
    let written = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        io::Error::new(
            error.kind(),
            format!("can't write {}: {error}", path.display()),
        )
    })
}

/// Keeps a log that a process appends to below `most` bytes: the older half of what is kept goes to `.1`.
pub(crate) fn rotate(path: &Path, most: u64) -> io::Result<()> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if length <= most {
        return Ok(());
    }
    // The writer holds it open for appending, so that it can't be renamed away.
    std::fs::copy(path, older(path))?;
    File::options().write(true).open(path)?.set_len(0)
}

/// Where the older half of a log is.
pub(crate) fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, b"1").unwrap();
        write(&path, b"2").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"2");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_log_too_long_moves_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, b"0123456789").unwrap();
        rotate(&path, 10).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 10);
        rotate(&path, 9).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 0);
        assert_eq!(
            std::fs::read(folder.path().join("log.1")).unwrap().len(),
            10
        );
    }
}
