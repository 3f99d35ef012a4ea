//! The last step before the command: its session, terminal, user and folder, then `execvp(3)`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Gid, Uid, ioctl_tiocsctty, setsid};

/// What the launcher is told, as arguments: FOLDER USER, and the command. USER is "-" for root or
/// "user:group:group,group".
pub(super) fn arguments(folder: &OsStr, user: Option<&(u32, u32, Vec<u32>)>) -> [OsString; 3] {
    let user = match user {
        None => "-".into(),
        Some((user, group, groups)) => {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            format!("{user}:{group}:{}", groups.join(","))
        }
    };
    [super::EXEC.into(), folder.into(), user.into()]
}

/// Becomes the command; only returns, with an exit status, if that fails.
pub(crate) fn exec(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    let (Some(folder), Some(user), Some(program)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return crate::FAILED;
    };
    if let Err(error) = prepare(&user.to_string_lossy()) {
        eprintln!("run: cannot change to the calling user: {error}");
        return crate::FAILED;
    }
    if let Err(error) = env::set_current_dir(&folder) {
        eprintln!(
            "run: the working directory {} is not there (the VM has its own /dev, /proc and /sys): {error}",
            folder.display()
        );
        return crate::FAILED;
    }
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("run: {}: {error}", program.display());
    match error.kind() {
        io::ErrorKind::NotFound => 127,
        _ => 126,
    }
}

fn prepare(user: &str) -> io::Result<()> {
    // Already a leader if somebody else made the session: then there is nothing to do.
    let _ = setsid();
    let terminal = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .into_iter()
        .find(|stream| rustix::termios::isatty(stream));
    if let Some(terminal) = terminal {
        let _ = ioctl_tiocsctty(terminal);
    }
    let mut ids = user.splitn(3, ':');
    let (Some(Ok(uid)), Some(Ok(gid))) = (ids.next().map(str::parse), ids.next().map(str::parse)) else {
        return Ok(());
    };
    let groups: Vec<Gid> =
        ids.next().unwrap_or_default().split(',').filter_map(|group| group.parse().ok()).map(Gid::from_raw).collect();
    // One thread only, so changing the thread's identity changes the process's.
    rustix::thread::set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}
