//! Files of results: opened before anything is measured, and there under their names only when they are whole.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::bench::failure::{Failure, Result};

/// A file on its way.
#[derive(Debug)]
pub(crate) struct Draft {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Finds out whether `path` can be written.
    pub(crate) fn begin(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| Failure::from(error).within(path.display());
        let name = path.file_name().ok_or_else(|| Failure::new(format!("{}: it names no file", path.display())))?;
        if path.is_dir() {
            return Err(Failure::new(format!("{}: it is a directory", path.display())));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(failed)?;
        Ok(Self { file, temporary, path: path.to_owned() })
    }

    /// Puts `text` under its name.
    pub(crate) fn finish(mut self, text: &str) -> Result<()> {
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
        written
            .and_then(|()| fs::rename(&self.temporary, &self.path))
            .map_err(|error| Failure::from(error).within(self.path.display()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `finish` it is not there.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_only_when_it_is_whole() {
        let folder = std::env::temp_dir().join(format!("zcmi-draft-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let path = folder.join("results");
        drop(Draft::begin(&path).expect("it can be written"));
        assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 0);
        fs::write(&path, "old").expect("written");
        let draft = Draft::begin(&path).expect("it can be written");
        assert_eq!(fs::read_to_string(&path).expect("the old one"), "old");
        draft.finish("new").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("the new one"), "new");
        assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 1);
        for wrong in [folder.clone(), folder.join("none/x"), PathBuf::from("/")] {
            assert!(Draft::begin(&wrong).is_err(), "{}", wrong.display());
        }
        fs::remove_dir_all(&folder).expect("removed");
    }
}
