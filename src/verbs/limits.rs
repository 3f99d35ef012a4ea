//! Limits of the process that make calls fail, named with their value and their cure.

use rustix::process::{Resource, getrlimit};

use super::Error;

/// Tells of `ENOMEM` which limit on locked memory was met while `length` bytes were to be registered.
pub(super) fn explain_locked_memory(error: Error, length: usize) -> Error {
    if error.errno() != Some(libc::ENOMEM) {
        return error;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let pinned = pinned(&status);
    let detail = match getrlimit(Resource::Memlock).current {
        Some(limit) if !may_exceed_locked_memory(&status) => format!(
            "registering {length} bytes; RLIMIT_MEMLOCK allows {limit} bytes for all registrations of the process, \
             {pinned} of them in use: raise it with `ulimit -l unlimited`, LimitMEMLOCK=infinity in the service's \
             unit, or `--ulimit memlock=-1` for a container"
        ),
        _ => format!(
            "registering {length} bytes; RLIMIT_MEMLOCK does not bind this process ({pinned} bytes pinned), so the \
             host's memory, the device or its cgroup is exhausted"
        ),
    };
    error.with_detail(detail)
}

/// Tells of `EMFILE` and `ENFILE` which limit on descriptors was met. Errors that hide it become `EMFILE`.
pub(super) fn explain_descriptors(error: Error) -> Error {
    match error.errno() {
        Some(libc::EMFILE) => no_descriptor(error.call()),
        Some(libc::ENFILE) => {
            error.with_detail("the host's limit on open files is reached: raise `sysctl fs.file-max`")
        }
        // libibverbs passes over files that it cannot open, and then finds no device or no driver.
        Some(libc::ENODEV | libc::ENOENT | libc::ENOSYS | libc::EIO) if !has_free_descriptor() => {
            no_descriptor(error.call())
        }
        _ => error,
    }
}

fn has_free_descriptor() -> bool {
    let probe = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
    !matches!(probe, Err(rustix::io::Errno::MFILE))
}

fn no_descriptor(call: &'static str) -> Error {
    let limit = getrlimit(Resource::Nofile).current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    Error::returned(call, libc::EMFILE).with_detail(format!(
        "RLIMIT_NOFILE allows {limit} descriptors, and none is left: raise it with `ulimit -n`, LimitNOFILE= in the \
         service's unit, or `--ulimit nofile=` for a container"
    ))
}

/// Bytes that the process has pinned, of the text of `/proc/self/status`.
fn pinned(status: &str) -> u64 {
    let field = field(status, "VmPin:").and_then(|value| value.strip_suffix("kB")?.trim().parse::<u64>().ok());
    field.unwrap_or(0) * 1024
}

/// Whether the process has CAP_IPC_LOCK, the 15th capability.
fn may_exceed_locked_memory(status: &str) -> bool {
    let capabilities = field(status, "CapEff:").and_then(|value| u64::from_str_radix(value, 16).ok());
    capabilities.is_some_and(|capabilities| capabilities >> 14 & 1 == 1)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_as_proc_writes_it() {
        let status = "Name:\tx\nVmPin:\t     132 kB\nCapEff:\t0000000000004000\n";
        assert_eq!(pinned(status), 132 * 1024);
        assert!(may_exceed_locked_memory(status));
        assert!(!may_exceed_locked_memory("CapEff:\t000001ffffffbfff\n"));
        for broken in ["", "VmPin:\nCapEff:\n", "VmPin:\t-1 kB\nCapEff:\tzz\n", "VmPin:\t3\n"] {
            assert_eq!((pinned(broken), may_exceed_locked_memory(broken)), (0, false), "{broken:?}");
        }
    }

    #[test]
    fn other_errors_are_left_alone() {
        let error = explain_locked_memory(Error::returned("ibv_reg_mr", libc::EFAULT), 1);
        assert_eq!(error.detail(), None);
        let error = explain_descriptors(Error::returned("ibv_open_device", libc::EACCES));
        assert_eq!(error.detail(), None);
    }

    #[test]
    fn no_descriptor_left_names_the_limit() {
        let error = explain_descriptors(Error::returned("ibv_open_device", libc::EMFILE));
        let detail = error.detail().expect("a detail");
        assert!(detail.contains("RLIMIT_NOFILE") && detail.contains("ulimit -n"), "{detail}");
        let error = explain_descriptors(Error::returned("ibv_open_device", libc::ENFILE));
        assert!(error.detail().expect("a detail").contains("fs.file-max"));
    }
}
