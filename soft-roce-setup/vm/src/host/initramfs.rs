//! The initramfs of one boot: the cached one, this program and the init script, in memory only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::guest::INIT;

/// Makes it. The descriptor is inherited by QEMU, so it is not close-on-exec.
pub(crate) fn make(cached: &Path) -> io::Result<OwnedFd> {
    // The running program, even if a new build has replaced it on disk meanwhile.
    let agent = fs::read("/proc/self/exe")?;
    let mut file = File::from(memfd_create("initramfs", MemfdFlags::empty())?);
    io::copy(&mut File::open(cached)?, &mut file)?;
    let mut archive = Vec::with_capacity(agent.len() + INIT.len() + 1024);
    append(&mut archive, "init", 0o100_755, INIT.as_bytes());
    append(&mut archive, "agent", 0o100_755, &agent);
    append(&mut archive, "TRAILER!!!", 0, &[]);
    file.write_all(&archive)?;
    Ok(file.into())
}

/// One entry of a cpio archive, format "newc" (`cpio(5)`): header, name and data padded to 4 bytes.
fn append(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let (inode, links) = (u32::from(mode != 0) * (archive.len() as u32 + 1), 1);
    let fields = [inode, mode, 0, 0, links, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend(b"070701");
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes());
    archive.push(0);
    pad(archive);
    archive.extend(data);
    pad(archive);
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_cpio_expects() {
        let mut archive = Vec::new();
        append(&mut archive, "init", 0o100_755, b"hello");
        assert_eq!(&archive[..6], b"070701");
        assert_eq!(&archive[14..22], b"000081ed");
        assert_eq!(&archive[54..62], b"00000005");
        assert_eq!(&archive[110..115], b"init\0");
        assert_eq!(&archive[116..121], b"hello");
        assert_eq!(archive.len(), 124);
    }
}
