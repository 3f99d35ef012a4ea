//! The folder whose files are served, and nothing outside of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2, statat};

use crate::protocol::{Identity, Name, PAGE};

/// Bytes of a path that are looked at.
const LONGEST_PATH: usize = 4095;
/// Names in a folder that are listed.
const MOST_NAMES: usize = 100_000;

/// The folder. It stays the same one if it is renamed.
pub(crate) struct Root(OwnedFd);

impl Root {
    /// The folder at `path`.
    ///
    /// # Errors
    /// If it is none, or this kernel cannot keep paths within one (before Linux 5.6).
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(path, flags, Mode::empty()).map_err(|error| format!("{}: {error}", path.display()))?;
        let root = Self(root);
        root.beneath(".", OFlags::DIRECTORY).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(root)
    }

    /// Opens a file in it for reading.
    ///
    /// # Errors
    /// If there is none, it is no ordinary file, or the path leads outside: the kernel sees to that, whatever links there are.
    pub(crate) fn file(&self, path: &str) -> Result<(File, Identity), String> {
        // First without opening it: opening a device or a pipe has effects, or waits.
        let found = self.beneath(path, OFlags::empty())?;
        let kind = FileType::from_raw_mode(status(&found)?.st_mode);
        if kind != FileType::RegularFile {
            return Err(format!("it is no ordinary file but {}", name_of(kind)));
        }
        let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
        let opened = open(itself, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).map_err(text)?;
        let file = File::from(opened);
        let identity = identity(&file)?;
        Ok((file, identity))
    }

    /// Names in a folder of it, sorted, from the one after `after` on: folders and ordinary files.
    ///
    /// # Errors
    /// As [`file`](Self::file), and if there are too many.
    pub(crate) fn names(&self, path: &str, after: Option<&str>) -> Result<Vec<Name>, String> {
        let path = if path.is_empty() { "." } else { path };
        let found = self.beneath(path, OFlags::DIRECTORY)?;
        let folder = readable(&found)?;
        let mut names = Vec::new();
        for (count, entry) in Dir::read_from(&folder).map_err(text)?.enumerate() {
            if count > MOST_NAMES {
                return Err(format!("there are more than {MOST_NAMES} names in it"));
            }
            let entry = entry.map_err(text)?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !matches!(name, "." | "..") && after.is_none_or(|after| name > after) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        let named = names.into_iter().filter_map(|name| {
            let status = statat(&found, &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            match FileType::from_raw_mode(status.st_mode) {
                FileType::RegularFile => Some(Name { name, length: Some(status.st_size as u64) }),
                FileType::Directory => Some(Name { name, length: None }),
                _ => None,
            }
        });
        Ok(named.take(PAGE).collect())
    }

    fn beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, String> {
        if path.is_empty() || path.len() > LONGEST_PATH || path.contains('\0') {
            return Err(format!("a path of {} bytes: it has 1 to {LONGEST_PATH}, none of them 0", path.len()));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.0, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).map_err(|error| {
            match error {
                rustix::io::Errno::XDEV => "it leads out of the folder that is served".to_owned(),
                rustix::io::Errno::NOSYS => "this kernel has no openat2, which keeps paths in a folder".to_owned(),
                error => text(error),
            }
        })
    }
}

/// Which file it is now.
pub(crate) fn identity(file: &File) -> Result<Identity, String> {
    let status = status(file)?;
    let modified = i128::from(status.st_mtime) * 1_000_000_000 + i128::from(status.st_mtime_nsec);
    #[allow(clippy::unnecessary_cast, reason = "other architectures have other types")]
    let inode = (status.st_dev as u64, status.st_ino as u64);
    Ok(Identity { length: status.st_size as u64, inode, modified })
}

/// The same folder, opened for reading.
fn readable(folder: &OwnedFd) -> Result<OwnedFd, String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(folder, ".", flags, Mode::empty()).map_err(text)
}

fn status(file: impl std::os::fd::AsFd) -> Result<Stat, String> {
    fstat(file).map_err(text)
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        FileType::Directory => "a folder",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "something else",
    }
}

fn text(error: rustix::io::Errno) -> String {
    io::Error::from(error).to_string()
}
