//! What the kernel knows of a connection.

use std::os::fd::BorrowedFd;

/// Columns of `/proc/net/tcp` (`proc_pid_net(5)`): the timer that runs, retransmissions without an answer, the inode.
const TIMER: usize = 5;
const RETRANSMITTED: usize = 6;
const INODE: usize = 9;
/// The timer for retransmissions.
const RETRANSMITTING: &str = "01";

/// Whether the peer's host acknowledges what is sent to it, whatever its process does. Reads a table of the kernel, so it is not for
/// the data path.
pub(super) fn is_acknowledged(socket: BorrowedFd<'_>) -> bool {
    let Ok(inode) = rustix::fs::fstat(socket).map(|stat| stat.st_ino.to_string()) else { return true };
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let tables = tables.into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
    tables.flat_map(|table| table.lines().filter_map(|line| of_line(line, &inode)).next()).next().unwrap_or(true)
}

fn of_line(line: &str, inode: &str) -> Option<bool> {
    let column = |index| line.split_whitespace().nth(index);
    if column(INODE) != Some(inode) {
        return None;
    }
    let is_waiting = column(TIMER).is_some_and(|timer| timer.starts_with(RETRANSMITTING));
    let is_unanswered =
        column(RETRANSMITTED).is_some_and(|count| u32::from_str_radix(count, 16).is_ok_and(|count| count > 0));
    Some(!(is_waiting && is_unanswered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_and_again_is_not_acknowledged() {
        let line = |timer, count| {
            format!(
                "   1: 0100007F:1F90 0100007F:C350 01 00000040:00000000 {timer}:00000014 {count}  0  0 77 1 0000 20"
            )
        };
        assert_eq!(of_line(&line("01", "00000003"), "77"), Some(false));
        assert_eq!(of_line(&line("01", "00000000"), "77"), Some(true), "it was sent once");
        assert_eq!(of_line(&line("04", "00000003"), "77"), Some(true), "its window is closed");
        assert_eq!(of_line(&line("01", "00000003"), "78"), None);
    }

    #[test]
    fn a_peer_on_this_host_is_one_that_answers() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("listens");
        let socket = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
        assert!(is_acknowledged(std::os::fd::AsFd::as_fd(&socket)));
    }
}
