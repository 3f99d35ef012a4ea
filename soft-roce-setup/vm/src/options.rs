//! The command line of `run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

/// `--help`.
pub(crate) const HELP: &str = "\
Executes COMMAND with a working Soft-RoCE (RDMA over Ethernet in software) device: directly where
this machine has RDMA, otherwise in a micro-VM that boots a stock Debian kernel and sees this
machine's files (what COMMAND writes is gone afterwards, except below --results).

Usage: soft-roce-setup/run [options] -- COMMAND [ARGUMENT...]
       soft-roce-setup/run [options] --shell | --fetch

  --kernel 6.1|6.12|7   kernel series; 7 is the newest 7.x. Default 6.12: the kernel of Debian
                        stable, the fastest of the three under emulation and the smallest to
                        install. With --hosts 2 the default is 7, the first that can do it.
  --memory MIB          memory of the VM (default 4096, at most half of this machine's)
  --cpus N              processors of the VM (default 2)
  --deadline SECONDS    stop COMMAND that long after its start; the exit status is then 124
  --results DIR         this folder is writable (made if missing), at the same path in the VM
  --hosts 2             two hosts, each with its own RoCE device, joined by a cable
  --peer COMMAND        what `sh -c` runs on the second host; it starts first (implies --hosts 2)
  --netem ARGUMENTS     `tc netem` on both directions between the hosts, as 'loss 5%' or
                        'delay 2ms reorder 10%'; --netem-1, --netem-2: only what host 1 (2) sends
  --user                run COMMAND as the calling user, not as root, inside the VM
  --vm                  use the VM even where this machine has RDMA
  --shell               an interactive shell instead of COMMAND
  --fetch               only fill the cache (all kernels, or the one of --kernel)
  --verbose             say what happens and show the VM's boot log on standard error
  --help                this text

COMMAND finds ZCMI_REQUIRE_RDMA=1, and the devices' addresses in ZCMI_HOST1 (and ZCMI_HOST2).
Exit status: COMMAND's own, 128+N if signal N killed it; 124 deadline passed, 125 run itself
failed, 126 COMMAND cannot be executed, 127 not found, 2 wrong usage.
Environment: ZCMI_CACHE, folder of the cached kernels (default $XDG_CACHE_HOME/zcmi or
~/.cache/zcmi); ZCMI_DEBIAN_MIRROR, where to fetch them (default: this machine's apt sources).
";

/// A kernel series.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Series {
    V6_1,
    V6_12,
    V7,
}

impl Series {
    pub(crate) const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7];

    /// As on the command line, and the name of its folder in the cache.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7 => "7",
        }
    }
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Task {
    Command(Vec<OsString>),
    Fetch,
    Help,
    Shell,
}

/// The parsed command line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Options {
    pub(crate) task: Task,
    pub(crate) kernel: Option<Series>,
    pub(crate) memory: Option<u32>,
    pub(crate) cpus: Option<u32>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) results: Option<PathBuf>,
    pub(crate) two_hosts: bool,
    pub(crate) peer: Option<OsString>,
    pub(crate) netem: [Option<OsString>; 2],
    pub(crate) user: bool,
    pub(crate) vm: bool,
    pub(crate) verbose: bool,
}

impl Options {
    /// The kernel to boot.
    pub(crate) fn series(&self) -> Series {
        self.kernel.unwrap_or(if self.two_hosts { Series::V7 } else { Series::V6_12 })
    }

    /// Whether only the VM can do what is asked for.
    pub(crate) fn needs_vm(&self) -> bool {
        self.vm || self.two_hosts || self.kernel.is_some() || self.memory.is_some() || self.cpus.is_some()
    }
}

/// Reads the command line, without the program's name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Options, String> {
    let mut command = None;
    let (mut fetch, mut shell) = (false, false);
    let mut options = Options {
        task: Task::Help,
        kernel: None,
        memory: None,
        cpus: None,
        deadline: None,
        results: None,
        two_hosts: false,
        peer: None,
        netem: [None, None],
        user: false,
        vm: false,
        verbose: false,
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(text)? {
        match argument {
            Long("kernel") => options.kernel = Some(kernel(&parser.value().map_err(text)?)?),
            Long("memory") => options.memory = Some(number(&mut parser, "--memory", 256)?),
            Long("cpus") => options.cpus = Some(number(&mut parser, "--cpus", 1)?),
            Long("deadline") => options.deadline = Some(deadline(&parser.value().map_err(text)?)?),
            Long("results") => options.results = Some(parser.value().map_err(text)?.into()),
            Long("hosts") => options.two_hosts = two_hosts(&parser.value().map_err(text)?)?,
            Long("peer") => options.peer = Some(parser.value().map_err(text)?),
            Long("netem") => {
                let value = parser.value().map_err(text)?;
                options.netem = [Some(value.clone()), Some(value)];
            }
            Long("netem-1") => options.netem[0] = Some(parser.value().map_err(text)?),
            Long("netem-2") => options.netem[1] = Some(parser.value().map_err(text)?),
            Long("user") => options.user = true,
            Long("vm") => options.vm = true,
            Long("verbose") | Short('v') => options.verbose = true,
            Long("fetch") => fetch = true,
            Long("shell") => shell = true,
            Long("help") | Short('h') => return Ok(options),
            Value(first) => {
                let rest = parser.raw_args().map_err(text)?;
                command = Some(std::iter::once(first).chain(rest).collect::<Vec<_>>());
                break;
            }
            _ => return Err(argument.unexpected().to_string()),
        }
    }
    options.task = match (command, shell, fetch) {
        (Some(command), false, false) => Task::Command(command),
        (None, true, false) => Task::Shell,
        (None, false, true) => Task::Fetch,
        (None, false, false) => return Err("no COMMAND given".into()),
        _ => return Err("give one of COMMAND, --shell and --fetch".into()),
    };
    options.two_hosts |= options.peer.is_some();
    if !options.two_hosts && options.netem.iter().any(Option::is_some) {
        return Err("--netem is for the cable between two hosts: add --hosts 2".into());
    }
    if let (true, Some(series @ (Series::V6_1 | Series::V6_12))) = (options.two_hosts, options.kernel) {
        return Err(format!(
            "--hosts 2 needs kernel 7.1 or newer: on {} the two devices appear but no traffic flows between network \
             namespaces; use --kernel 7 or leave --kernel out",
            series.name()
        ));
    }
    Ok(options)
}

fn text(error: lexopt::Error) -> String {
    error.to_string()
}

fn kernel(value: &OsString) -> Result<Series, String> {
    Series::ALL
        .into_iter()
        .find(|series| value == series.name())
        .ok_or_else(|| format!("--kernel {}: choose 6.1, 6.12 or 7", value.display()))
}

fn two_hosts(value: &OsString) -> Result<bool, String> {
    match value.to_str() {
        Some("1") => Ok(false),
        Some("2") => Ok(true),
        _ => Err(format!("--hosts {}: choose 1 or 2", value.display())),
    }
}

fn number(parser: &mut lexopt::Parser, option: &str, least: u32) -> Result<u32, String> {
    let value = parser.value().map_err(text)?;
    match value.to_str().and_then(|value| value.parse().ok()) {
        Some(number) if number >= least => Ok(number),
        _ => Err(format!("{option} {}: a whole number, at least {least}, is expected", value.display())),
    }
}

fn deadline(value: &OsString) -> Result<Duration, String> {
    let seconds = value.to_str().and_then(|value| value.parse::<f64>().ok()).filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("--deadline {}: a positive number of seconds is expected", value.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(arguments: &[&str]) -> Result<Options, String> {
        parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_command_is_taken_as_it_is() {
        for arguments in [&["--", "ls", "", "-l", "--vm", "--"][..], &["ls", "", "-l", "--vm", "--"]] {
            let options = of(arguments).expect("valid");
            assert_eq!(options.task, Task::Command(["ls", "", "-l", "--vm", "--"].map(OsString::from).to_vec()));
            assert!(!options.vm);
        }
        assert_eq!(of(&["--", ""]).map(|options| options.task), Ok(Task::Command(vec!["".into()])));
    }

    #[test]
    fn two_hosts_choose_a_kernel_that_can() {
        assert_eq!(of(&["true"]).map(|options| options.series()), Ok(Series::V6_12));
        assert_eq!(of(&["--hosts", "2", "true"]).map(|options| options.series()), Ok(Series::V7));
        assert_eq!(of(&["--peer", "rping -s", "true"]).map(|options| options.series()), Ok(Series::V7));
        for kernel in ["6.1", "6.12"] {
            let error = of(&["--kernel", kernel, "--hosts", "2", "true"]).expect_err("cannot");
            assert!(error.contains("7.1") && error.contains("--kernel 7"), "{error}");
        }
    }

    #[test]
    fn netem_can_be_for_one_direction() {
        let options = of(&["--hosts=2", "--netem-2", "loss 5%", "true"]).expect("valid");
        assert_eq!(options.netem, [None, Some("loss 5%".into())]);
        assert!(of(&["--netem", "loss 5%", "true"]).is_err());
    }

    #[test]
    fn wrong_usage_is_refused() {
        let wrong: [&[&str]; 14] = [
            &[],
            &["--"],
            &["--no-such", "true"],
            &["--kernel", "5", "true"],
            &["--kernel"],
            &["--memory", "much", "true"],
            &["--memory", "1", "true"],
            &["--cpus", "0", "true"],
            &["--hosts", "3", "true"],
            &["--hosts", "0", "true"],
            &["--deadline", "-1", "true"],
            &["--deadline", "nan", "true"],
            &["--deadline", "1e300", "true"],
            &["--shell", "true"],
        ];
        for arguments in wrong {
            assert!(of(arguments).is_err(), "{arguments:?}");
        }
    }
}
