//! What the guest is to run, and how.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Everything the agent has to know; sent in `Frame::Start`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Spec {
    pub(crate) command: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// The caller's working directory.
    pub(crate) directory: OsString,
    /// Which of standard input, output and error are a terminal.
    pub(crate) terminal: [bool; 3],
    /// Rows and columns.
    pub(crate) window: (u16, u16),
    /// User, group and supplementary groups to run as; root when absent.
    pub(crate) user: Option<(u32, u32, Vec<u32>)>,
    /// What `sh -c` runs on a second host.
    pub(crate) peer: Option<OsString>,
    /// Two hosts (network namespaces) instead of one.
    pub(crate) two_hosts: bool,
    /// `tc netem` arguments for what each host sends.
    pub(crate) netem: [Option<OsString>; 2],
    /// Folder of the host that is writable.
    pub(crate) results: Option<OsString>,
    /// The folder of the scripts `up` and `down`.
    pub(crate) scripts: OsString,
    /// Where the modules of the guest's kernel are on the host.
    pub(crate) modules: OsString,
    /// Soft and hard limit of open files.
    pub(crate) open_files: (u64, u64),
}

impl Spec {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.list(&self.command);
        out.number(self.environment.len() as u64);
        for (name, value) in &self.environment {
            out.text(name);
            out.text(value);
        }
        out.text(&self.directory);
        for terminal in self.terminal {
            out.number(u64::from(terminal));
        }
        out.number(u64::from(self.window.0));
        out.number(u64::from(self.window.1));
        out.number(u64::from(self.user.is_some()));
        if let Some((user, group, groups)) = &self.user {
            out.number(u64::from(*user));
            out.number(u64::from(*group));
            out.number(groups.len() as u64);
            groups.iter().for_each(|group| out.number(u64::from(*group)));
        }
        out.optional(self.peer.as_ref());
        out.number(u64::from(self.two_hosts));
        self.netem.iter().for_each(|netem| out.optional(netem.as_ref()));
        out.optional(self.results.as_ref());
        out.text(&self.scripts);
        out.text(&self.modules);
        out.number(self.open_files.0);
        out.number(self.open_files.1);
        out.0
    }

    /// `None` if the bytes are not what `encode` makes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let spec = Self {
            command: from.list()?,
            environment: {
                let count = from.number()?;
                (0..count).map(|_| Some((from.text()?, from.text()?))).collect::<Option<_>>()?
            },
            directory: from.text()?,
            terminal: [from.boolean()?, from.boolean()?, from.boolean()?],
            window: (from.number()?.try_into().ok()?, from.number()?.try_into().ok()?),
            user: match from.boolean()? {
                false => None,
                true => Some((from.small()?, from.small()?, {
                    let count = from.number()?;
                    (0..count).map(|_| from.small()).collect::<Option<_>>()?
                })),
            },
            peer: from.optional()?,
            two_hosts: from.boolean()?,
            netem: [from.optional()?, from.optional()?],
            results: from.optional()?,
            scripts: from.text()?,
            modules: from.text()?,
            open_files: (from.number()?, from.number()?),
        };
        from.0.is_empty().then_some(spec)
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &OsString) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    fn list(&mut self, list: &[OsString]) {
        self.number(list.len() as u64);
        list.iter().for_each(|text| self.text(text));
    }

    fn optional(&mut self, text: Option<&OsString>) {
        self.number(u64::from(text.is_some()));
        if let Some(text) = text {
            self.text(text);
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn boolean(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<OsString> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(OsString::from_vec(text.to_vec()))
    }

    fn list(&mut self) -> Option<Vec<OsString>> {
        let count = self.number()?;
        (0..count).map(|_| self.text()).collect()
    }

    fn optional(&mut self) -> Option<Option<OsString>> {
        match self.boolean()? {
            false => Some(None),
            true => Some(Some(self.text()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Spec {
        Spec {
            command: vec!["echo".into(), "".into(), "two words\n".into(), OsString::from_vec(vec![0xff, 0xfe])],
            environment: vec![("A".into(), "".into()), ("B".into(), "=x=\n".into())],
            directory: "/a b".into(),
            terminal: [true, false, true],
            window: (50, 132),
            user: Some((1000, 100, vec![4, 27])),
            peer: Some("sleep 1; exit 3".into()),
            two_hosts: true,
            netem: [None, Some("loss 5%".into())],
            results: None,
            scripts: "/s".into(),
            modules: "/m".into(),
            open_files: (1024, u64::MAX),
        }
    }

    #[test]
    fn a_spec_survives_the_wire() {
        assert_eq!(Spec::decode(&example().encode()), Some(example()));
        assert_eq!(Spec::decode(&Spec::default().encode()), Some(Spec::default()));
    }

    #[test]
    fn a_cut_or_longer_spec_is_refused() {
        let whole = example().encode();
        for cut in 0..whole.len() {
            assert_eq!(Spec::decode(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Spec::decode(&[whole, vec![0]].concat()), None);
    }
}
