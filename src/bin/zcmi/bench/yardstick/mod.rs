//! Other programs that measure the same, each as two processes of this host.

mod libfabric;
mod perftest;
mod run;
mod ucx;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::failure::{Failure, Result};
use super::report::LeftOut;
use super::test::Case;

pub(crate) use run::measure;

/// Which programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// All that are installed
    All,
    /// fi_pingpong of libfabric: messages over shm, tcp or verbs
    #[value(name = "fi_pingpong")]
    FiPingpong,
    /// None
    None,
    /// ib_send_lat and the like: verbs only
    Perftest,
    /// ucx_perftest of UCX: messages over shm, tcp or verbs
    #[value(name = "ucx_perftest")]
    UcxPerftest,
}

/// The programs that are here.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    found: Vec<(Tool, PathBuf)>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// How one program measures one case.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    program: PathBuf,
    /// Of both ends; the client's are followed by the server's address.
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    /// How the option for the server's port is called, at the server and at the client.
    port: (&'static str, &'static str),
    ready: Ready,
    address: String,
    parse: fn(&str, &Case) -> std::result::Result<Figure, String>,
}

/// How a server is seen to be ready.
#[derive(Clone, Copy, Debug)]
enum Ready {
    /// At its TCP port.
    Listens,
    /// This word, on standard output.
    Says(&'static str),
}

/// What it measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Figure {
    BytesPerSecond(f64),
    /// Nanoseconds; an average rather than a median.
    Mean(f64),
    /// Nanoseconds.
    Median(f64),
}

/// Where both ends of a program are.
#[derive(Debug)]
pub(crate) struct Place {
    /// `shm`, `tcp` or `verbs`.
    pub(crate) transport: String,
    pub(crate) address: String,
}

impl Tools {
    /// Looks for `tools`. One that was named and is not there is an error.
    pub(crate) fn find(tools: &[Tool], ucx: Option<&Path>) -> Result<Self> {
        let mut these = Self::default();
        if tools.contains(&Tool::None) {
            return Ok(these);
        }
        for (tool, program, package) in [
            (Tool::Perftest, "ib_send_lat", "perftest"),
            (Tool::FiPingpong, "fi_pingpong", "libfabric-bin"),
            (Tool::UcxPerftest, "ucx_perftest", "ucx-utils"),
        ] {
            let is_named = tools.contains(&tool);
            if !is_named && !tools.contains(&Tool::All) {
                continue;
            }
            let given = ucx.filter(|_| tool == Tool::UcxPerftest);
            let found = match given {
                Some(path) => path.is_file().then(|| path.to_owned()),
                None => in_path(program),
            };
            match (found, given) {
                (Some(path), _) => these.found.push((tool, path)),
                (None, Some(path)) => return Err(Failure::new(format!("{}: there is no such file", path.display()))),
                (None, None) => {
                    let why = format!("it is not installed: apt-get install {package}");
                    if is_named {
                        return Err(Failure::new(format!("{}: {why}", tool.name())));
                    }
                    these.left_out.push(LeftOut { name: tool.name().to_owned(), why });
                }
            }
        }
        Ok(these)
    }

    /// How each of them measures `case`, with so many operations; those that cannot are left out.
    pub(crate) fn plans(&self, case: &Case, place: &Place, operations: u64) -> Vec<Plan> {
        let plan = |(tool, path): &(Tool, PathBuf)| match tool {
            Tool::FiPingpong => libfabric::plan(path, case, place, operations),
            Tool::Perftest => perftest::plan(path, case, place, operations),
            Tool::UcxPerftest => ucx::plan(path, case, place, operations),
            Tool::All | Tool::None => None,
        };
        self.found.iter().filter_map(plan).collect()
    }

    /// Notes those that measure none of `cases`.
    pub(crate) fn note_useless(&mut self, cases: &[Case], place: &Place) {
        for (tool, path) in &self.found {
            let alone = Self { found: vec![(*tool, path.clone())], left_out: Vec::new() };
            if cases.iter().all(|case| alone.plans(case, place, 1).is_empty()) {
                let why = format!("it measures none of this over {}", place.transport);
                self.left_out.push(LeftOut { name: tool.name().to_owned(), why });
            }
        }
    }
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::FiPingpong => "fi_pingpong",
            Self::None => "none",
            Self::Perftest => "perftest",
            Self::UcxPerftest => "ucx_perftest",
        }
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The number in column `column` of a line of columns.
fn number(line: &str, column: usize) -> std::result::Result<f64, String> {
    let text = line.split_whitespace().nth(column);
    let value = text.and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite() && *value > 0.0);
    value.ok_or_else(|| format!("its output has another format than is known: {:?}", line.trim()))
}

/// The line for which `is_it` holds.
fn line(output: &str, is_it: impl Fn(&str) -> bool) -> std::result::Result<&str, String> {
    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    output
        .lines()
        .find(|line| is_it(line))
        .ok_or_else(|| format!("its output has another format than is known: {last:?}"))
}
