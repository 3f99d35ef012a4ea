//! Where the kernels are kept, and how they get there.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::options::Series;

/// A kernel that is ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// As distributed, compressed.
    pub(crate) image: PathBuf,
    /// Unpacked, which an emulated machine starts sooner; not every kernel has been.
    pub(crate) unpacked: Option<PathBuf>,
    pub(crate) initramfs: PathBuf,
    /// The folder that holds one folder of modules a release.
    pub(crate) modules: PathBuf,
}

/// The folder of everything cached; it may not exist yet.
pub(crate) fn folder() -> Result<PathBuf, String> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("ZCMI_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("zcmi")))
        .or_else(|| env::home_dir().filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(".cache/zcmi")))
        .ok_or("no place for the kernels: set ZCMI_CACHE to a writable folder (or HOME)")?;
    std::path::absolute(&folder).map_err(|error| format!("cache folder {}: {error}", folder.display()))
}

/// The kernel of a series, fetched first if it is not in the cache.
pub(crate) fn kernel(series: Series, scripts: &Path) -> Result<Kernel, String> {
    let folder = folder()?.join(series.name());
    if !folder.join("complete").exists() {
        if env::consts::ARCH != "x86_64" {
            return Err(format!("the VM needs an x86_64 machine, this one is {}", env::consts::ARCH));
        }
        // In a group of its own, so that Ctrl-C reaches it through us; and it dies with us.
        let status = super::launch::command()
            .arg(scripts.join("kernel"))
            .arg(series.name())
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: {error}", scripts.join("kernel").display()))
            .and_then(super::signals::wait_forwarding)?;
        if status != 0 {
            return Err(format!("kernel {} is not available (see above)", series.name()));
        }
    }
    Ok(Kernel {
        image: folder.join("vmlinuz"),
        unpacked: Some(folder.join("vmlinux")).filter(|path| path.exists()),
        initramfs: folder.join("initramfs"),
        modules: folder.join("modules/lib/modules"),
    })
}

/// A remembered fact: the text in the cache's file `name`, if there is one.
pub(crate) fn recall(name: &str) -> Option<String> {
    fs::read_to_string(folder().ok()?.join(name)).ok()
}

/// Remembers a fact; a cache that cannot be written only costs the time to find it out again.
pub(crate) fn remember(name: &str, fact: &str) {
    let Ok(folder) = folder() else { return };
    let temporary = folder.join(format!("{name}.{}", std::process::id()));
    if fs::write(&temporary, fact).and_then(|()| fs::rename(&temporary, folder.join(name))).is_err() {
        drop(fs::remove_file(&temporary));
    }
}
