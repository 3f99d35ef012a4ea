//! Where processes of a host meet.

use std::fmt;
use std::path::PathBuf;

use rustix::net::SocketAddrUnix;

/// Distinguishes our names from others'.
const PREFIX: &str = "zcmi/";
/// Bytes of a name or path: what the kernel takes, `unix(7)`, without the prefix and an end.
const LONGEST: usize = 102;

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShmAddress {
    /// A file.
    File(PathBuf),
    /// An abstract name, which is gone with who listens; of the network's namespace. To listen at none is to have one chosen.
    Name(String),
}

impl ShmAddress {
    /// Reads what follows `shm://`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("{} bytes; a name or path has {LONGEST} at most", text.len()));
        }
        if text.contains('\0') {
            return Err("a name or path without NUL is needed".to_owned());
        }
        match (text.starts_with('/'), text.contains('/')) {
            (true, _) if text.ends_with('/') => Err("a path to a socket does not end in /".to_owned()),
            (true, _) => Ok(Self::File(PathBuf::from(text))),
            (false, true) => Err("a name has no /, and a path begins with one: shm:///PATH".to_owned()),
            (false, false) => Ok(Self::Name(text.to_owned())),
        }
    }

    /// The same, or one that is not in use, if none was named.
    pub(super) fn chosen(&self) -> Self {
        match self {
            Self::Name(name) if name.is_empty() => Self::Name(format!("{:016x}", rand::random::<u64>())),
            chosen => chosen.clone(),
        }
    }

    pub(super) fn socket_address(&self) -> rustix::io::Result<SocketAddrUnix> {
        match self {
            Self::File(path) => SocketAddrUnix::new(path.as_path()),
            Self::Name(name) => SocketAddrUnix::new_abstract_name(format!("{PREFIX}{name}").as_bytes()),
        }
    }
}

impl fmt::Display for ShmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        assert_eq!(ShmAddress::parse("store"), Ok(ShmAddress::Name("store".to_owned())));
        assert_eq!(ShmAddress::parse("/run/store"), Ok(ShmAddress::File("/run/store".into())));
        let long = "x".repeat(LONGEST);
        for address in [ShmAddress::Name(long.clone()), ShmAddress::File(format!("/{}", &long[1..]).into())] {
            assert_eq!(ShmAddress::parse(&address.to_string()).as_ref(), Ok(&address));
            assert!(address.socket_address().is_ok(), "{address}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = "x".repeat(LONGEST + 1);
        for (text, word) in
            [("run/store", "shm:///PATH"), ("/run/", "does not end"), ("a\0b", "NUL"), (&long, "103 bytes")]
        {
            let reason = ShmAddress::parse(text).expect_err(text);
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn one_that_is_chosen_is_not_chosen_again() {
        let none = ShmAddress::Name(String::new());
        assert_ne!(none.chosen(), none.chosen());
    }
}
