//! Reading files piece by piece, in the background: a disk may be slow, and a file larger than memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// The SHA-256 of the first `length` bytes. Dropping the future ends it after the piece that is being read.
///
/// # Errors
/// If the file is shorter, or cannot be read.
pub(crate) async fn digest(file: &Arc<File>, length: u64) -> io::Result<[u8; 32]> {
    let (mut hasher, mut at) = (Sha256::new(), 0);
    while at < length {
        let file = Arc::clone(file);
        let piece = (length - at).min(PIECE as u64);
        hasher = background(move || {
            let mut bytes = vec![0; piece as usize];
            file.read_exact_at(&mut bytes, at)?;
            hasher.update(&bytes);
            Ok(hasher)
        })
        .await?;
        at += piece;
    }
    Ok(hasher.finalize().into())
}

/// Runs what may wait for a disk where it holds nobody up.
pub(crate) async fn background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
