//! What is there of a file so far: its bytes in `NAME.part`, and in `NAME.part.journal` which chunks they are.
//!
//! The journal's first line says of which file; each other line is a chunk and the checksum of its bytes. It is never trusted: what it
//! names is read again and compared when a fetch goes on, so it does not matter in which order bytes and lines reach the disk.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::common::{Failure, Result};
use crate::protocol::{Identity, LONGEST_CHUNK};

/// Bytes of a journal that are looked at.
const LONGEST_JOURNAL: u64 = 1 << 30;

/// Of which file the chunks are, and how long they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Of the format.
    pub(crate) version: u32,
    /// The path at the server.
    pub(crate) path: String,
    /// Which file it was there.
    pub(crate) identity: Identity,
    /// Bytes of each chunk but the last.
    pub(crate) chunk: u64,
}

/// A file that is not all there.
pub(crate) struct Part {
    target: PathBuf,
    bytes: File,
    journal: File,
    head: Head,
    has: HashSet<u64>,
}

/// What was found of an earlier fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Chunks that are as they were fetched.
    pub(crate) whole: u64,
    /// Chunks that are not.
    pub(crate) damaged: u64,
    /// Whether it was of another file, or the file has changed since.
    pub(crate) was_other: bool,
}

impl Part {
    /// Opens what there is of `target`, and takes over what is whole if it is of the file that `head` says.
    ///
    /// # Errors
    /// If the files cannot be made or read, or another process is at it.
    pub(crate) fn open(target: &Path, head: Head) -> Result<(Self, Found)> {
        let [bytes_path, journal_path] = paths(target);
        let bytes = open(&bytes_path)?;
        if flock(&bytes, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Failure::Other(format!("{}: another process is fetching it", bytes_path.display())));
        }
        let journal = open(&journal_path)?;
        let mut part = Self { target: target.to_owned(), bytes, journal, head, has: HashSet::new() };
        let found = part.take_over().map_err(failed(&journal_path))?;
        Ok((part, found))
    }

    /// Which file it is at the server.
    pub(crate) fn identity(&self) -> Identity {
        self.head.identity
    }

    /// Whether a chunk is there.
    pub(crate) fn has(&self, chunk: u64) -> bool {
        self.has.contains(&chunk)
    }

    /// Where a chunk is in the file, and how long it is.
    pub(crate) fn range(&self, chunk: u64) -> (u64, u64) {
        let offset = chunk * self.head.chunk;
        (offset, self.head.chunk.min(self.head.identity.length - offset))
    }

    /// How many chunks there are in the file.
    pub(crate) fn count(&self) -> u64 {
        self.head.identity.length.div_ceil(self.head.chunk)
    }

    /// Keeps a chunk that has come.
    ///
    /// # Errors
    /// If it cannot be written; what was kept before stays.
    pub(crate) fn keep(&mut self, chunk: u64, bytes: &[u8], checksum: u32) -> Result<()> {
        let [bytes_path, journal_path] = paths(&self.target);
        let (offset, _) = self.range(chunk);
        self.bytes.write_all_at(bytes, offset).map_err(failed(&bytes_path))?;
        self.journal.write_all(format!("{chunk} {checksum:08x}\n").as_bytes()).map_err(failed(&journal_path))?;
        self.has.insert(chunk);
        Ok(())
    }

    /// Forgets all of it if the file is another now; answers whether it is.
    pub(crate) fn begin_anew_if_other(&mut self, head: Head) -> Result<bool> {
        if head.identity == self.head.identity {
            return Ok(false);
        }
        self.head = head;
        self.forget()?;
        Ok(true)
    }

    /// Forgets all of it.
    pub(crate) fn forget(&mut self) -> Result<()> {
        let [bytes_path, _] = paths(&self.target);
        self.clear().map_err(failed(&bytes_path))
    }

    /// The file with the bytes.
    pub(crate) fn bytes(&self) -> Result<File> {
        self.bytes.try_clone().map_err(failed(&self.target))
    }

    /// Makes it the file that it was to become: on the disk, and by its name.
    pub(crate) fn finish(self) -> Result<()> {
        let [bytes_path, journal_path] = paths(&self.target);
        // It may be empty, and then nothing was written.
        self.bytes.set_len(self.head.identity.length).map_err(failed(&bytes_path))?;
        self.bytes.sync_all().map_err(failed(&bytes_path))?;
        std::fs::rename(&bytes_path, &self.target).map_err(failed(&self.target))?;
        std::fs::remove_file(&journal_path).map_err(failed(&journal_path))?;
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
    }

    fn take_over(&mut self) -> io::Result<Found> {
        let mut text = Vec::new();
        (&self.journal).take(LONGEST_JOURNAL).read_to_end(&mut text)?;
        // The last line may be cut where a process or a host died.
        let mut lines = text.split_inclusive(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
        let head = lines.next().and_then(|line| serde_json::from_slice::<Head>(line).ok());
        let mut found = Found { was_other: !text.is_empty(), ..Found::default() };
        let is_same = |head: &Head| {
            Head { chunk: self.head.chunk, ..head.clone() } == self.head && (1..=LONGEST_CHUNK).contains(&head.chunk)
        };
        let Some(head) = head.filter(is_same) else {
            self.clear()?;
            return Ok(found);
        };
        // In chunks as long as they were then.
        self.head = head;
        found.was_other = false;
        let mut named = HashSet::new();
        for (chunk, checksum) in lines.filter_map(parse) {
            if chunk < self.count() {
                named.insert(chunk);
                if self.is_whole(chunk, checksum) {
                    self.has.insert(chunk);
                } else {
                    self.has.remove(&chunk);
                }
            }
        }
        found.whole = self.has.len() as u64;
        found.damaged = named.len() as u64 - found.whole;
        // Without the line that is cut.
        let length = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.journal.set_len(length as u64)?;
        self.journal.seek(SeekFrom::End(0))?;
        Ok(found)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.has.clear();
        self.journal.set_len(0)?;
        self.journal.rewind()?;
        self.bytes.set_len(0)?;
        let head = serde_json::to_string(&self.head).map_err(io::Error::other)?;
        self.journal.write_all(format!("{head}\n").as_bytes())
    }

    fn is_whole(&self, chunk: u64, checksum: u32) -> bool {
        let (offset, length) = self.range(chunk);
        let mut bytes = vec![0; length as usize];
        self.bytes.read_exact_at(&mut bytes, offset).is_ok() && crc32c::crc32c(&bytes) == checksum
    }
}

/// A line of the journal: a chunk and its checksum.
fn parse(line: &[u8]) -> Option<(u64, u32)> {
    let (chunk, checksum) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((chunk.parse().ok()?, u32::from_str_radix(checksum, 16).ok()?))
}

/// Where the bytes are, and where the journal is.
fn paths(target: &Path) -> [PathBuf; 2] {
    ["part", "part.journal"].map(|ending| {
        let mut path = OsString::from(target);
        path.push(".");
        path.push(ending);
        path.into()
    })
}

fn open(path: &Path) -> Result<File> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    options.map_err(failed(path))
}

/// Names the file in an error.
fn failed(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::Other(format!("{path}: {error}"))
}
