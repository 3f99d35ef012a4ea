//! Who comes to a listener, and wants nothing good.

use std::net::{TcpListener, TcpStream};

use super::*;
use crate::transport::{Listen, Transport};

#[test]
fn who_only_looks_whether_somebody_listens_is_forgotten_at_once() {
    let listener = Shm::listen(ShmAddress::Name(String::new()), 1).expect("listens");
    let address = listener.local_address();
    for probes in 1..=5 {
        assert_eq!(door::listen(&address, 1).map(drop).expect_err("taken").kind(), ErrorKind::AddressInUse);
        let begun = Instant::now();
        // Backlog 1: the next finds room.
        while listener.books() != (probes, 0, false) {
            assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", listener.books());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    // One that says something is another matter.
    let socket = connect(&format!("shm://{address}"));
    say(&socket, b"GET / HTTP/1.1\r\n\r\n", &[]);
    assert_eq!(hear(&socket), Some(Kind::Refuse));
    assert!(listener.books().2, "it is warned of");
}

/// A connection that takes as long to be closed as its other end likes.
fn lingering() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let mut one = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
    let (other, _) = listener.accept().expect("accepts");
    rustix::net::sockopt::set_socket_linger(&one, Some(Duration::from_secs(20))).expect("sets");
    one.set_nonblocking(true).expect("sets");
    while one.write(&[0; 1 << 16]).is_ok() {}
    (one.into(), other)
}

#[test]
fn nobody_waits_for_a_gift_to_be_closed() {
    let listener = Shm::listen(ShmAddress::Name(String::new()), 1).expect("listens");
    let socket = connect(&format!("shm://{}", listener.local_address()));
    let (gift, other) = lingering();
    let request = Kind::Request.say(4, b"data");
    // It is the listener's alone when all is said.
    say(&socket, &request[..5], &[gift]);
    say(&socket, &request[5..], &[]);
    assert_eq!(hear(&socket), Some(Kind::Refuse));
    drop(other);
}
