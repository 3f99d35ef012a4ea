//! The C libraries that verbs are reached through.

use std::fs;
use std::path::PathBuf;

use super::Host;

/// Folders that the dynamic linker looks into, on the distributions that there are.
const FOLDERS: [&str; 7] = [
    "/usr/local/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/lib",
];

/// Where libibverbs, librdmacm and the drivers' libraries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Libraries {
    pub(crate) ibverbs: Option<PathBuf>,
    pub(crate) rdmacm: Option<PathBuf>,
    /// Folders with the drivers' libraries.
    pub(crate) drivers: Vec<PathBuf>,
    /// Version of rdma-core, major and minor.
    pub(crate) version: Option<(u32, u32)>,
}

impl Libraries {
    pub(crate) fn of(host: &Host) -> Self {
        let find = |name: &str| FOLDERS.iter().map(|folder| host.path(folder).join(name)).find(|path| path.exists());
        let ibverbs = find("libibverbs.so.1");
        let drivers = FOLDERS.iter().map(|folder| host.path(folder).join("libibverbs")).filter(|path| path.is_dir());
        // The file behind the link is libibverbs.so.1.14.VERSION of rdma-core.
        let real = ibverbs.as_ref().and_then(|path| fs::canonicalize(path).ok());
        let version = real.and_then(|path| parse_version(path.file_name()?.to_str()?));
        Self { rdmacm: find("librdmacm.so.1"), drivers: drivers.collect(), version, ibverbs }
    }

    /// Whether a driver's library is there, `rxe` for instance.
    pub(crate) fn has_driver(&self, driver: &str) -> bool {
        let prefix = format!("lib{driver}-rdmav");
        let names = self.drivers.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        names.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
    }
}

/// The version of rdma-core in the name of libibverbs' file.
fn parse_version(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.strip_prefix("libibverbs.so.1.")?.split('.').skip(1).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::Fixture;

    #[test]
    fn the_version_is_in_the_name_of_the_file() {
        assert_eq!(parse_version("libibverbs.so.1.14.44.0"), Some((44, 0)));
        for none in ["libibverbs.so.1", "libibverbs.so.1.14", "libibverbs.so.1.14.x.0", "x"] {
            assert_eq!(parse_version(none), None, "{none}");
        }
    }

    #[test]
    fn libraries_are_found_below_the_root() {
        let host = Fixture::with_device();
        let found = Libraries::of(&host);
        assert_eq!(found.version, Some((50, 0)));
        assert!(found.rdmacm.is_some() && found.has_driver("rxe") && !found.has_driver("mlx5"), "{found:?}");
        let nothing = Libraries::of(&Fixture::empty());
        assert_eq!(nothing, Libraries { ibverbs: None, rdmacm: None, drivers: Vec::new(), version: None });
    }
}
