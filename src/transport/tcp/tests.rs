//! The seam over TCP.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TcpCarrier;
use crate::transport::framed::tests::{Frame, HELLO, Header, Hello, Kind, Peer, TestCarrier, bodies};
use crate::transport::framed::{Carrier, Socket};
use crate::{Config, Connector, Listener, Worker};

bodies!(TcpCarrier);

impl TestCarrier for TcpCarrier {
    type Peer = TcpStream;

    fn ends() -> (TcpStream, Arc<Socket>, Self, ()) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let peer = TcpStream::connect(address).expect("connects");
        peer.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        peer.set_nodelay(true).expect("sends at once");
        let (stream, _) = listener.accept().expect("accepts");
        stream.set_nonblocking(true).expect("does not block");
        let descriptor = OwnedFd::from(stream);
        Self::admit(&descriptor).expect("a socket");
        let socket = Socket::new(descriptor).expect("a service");
        let (carrier, _) = Self::new(&socket).expect("needs nothing");
        (peer, socket, carrier, ())
    }
}

impl Peer for TcpStream {
    fn hang_up(&self) {
        drop(self.shutdown(Shutdown::Write));
    }

    fn be_impatient(&mut self) {
        self.set_nonblocking(true).expect("does not block");
    }
}

/// What a connector says first, to a listener that is none.
fn introduction(worker: &Worker) -> Vec<u8> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let uri = format!("tcp://{}", listener.local_addr().expect("an address"));
    let connector = Connector::new(worker);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let connecting = tokio::time::timeout(Duration::from_millis(200), connector.connect(&uri));
        assert!(!connecting.await.is_ok_and(|connected| connected.is_ok()));
    });
    let (mut stream, _) = listener.accept().expect("accepts");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("reads");
    said
}

#[test]
fn a_peer_that_streams_what_costs_nothing_holds_neither_who_waits_nor_the_service() {
    let worker = Worker::new(Config::default()).expect("a worker");
    let request = introduction(&worker);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = Listener::bind(&worker, "tcp://127.0.0.1:0").await.expect("listens");
        let port = listener.uri().rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let mut stranger = TcpStream::connect(("127.0.0.1", port.expect("a port"))).expect("connects");
        let streaming = std::thread::spawn(move || {
            stranger.write_all(&request).expect("writes");
            let mut answer = [0; HELLO];
            stranger.read_exact(&mut answer).expect("an answer");
            let mut data = vec![0; Hello::parse(answer).expect("a good one").length];
            stranger.read_exact(&mut data).expect("its data");
            stranger.write_all(&Kind::Confirm.say(4, &[])).expect("writes");
            let probes = Header { acknowledged: 0, frame: Frame::Probe }.to_bytes().repeat(20_000);
            let mut drain = stranger.try_clone().expect("a descriptor");
            std::thread::spawn(move || std::io::copy(&mut drain, &mut std::io::sink()));
            while stranger.write_all(&probes).is_ok() {}
        });
        let server = listener.accept().await.expect("accepts");
        let (second, short) = (Duration::from_secs(1), Duration::from_millis(200));
        let begun = Instant::now();
        tokio::time::timeout(short, server.recv()).await.expect_err("no message comes");
        assert!(begun.elapsed() < 2 * second, "who waits was held for {:?}", begun.elapsed());
        // Nobody polls now but the service.
        std::thread::sleep(short);
        let (tell, told) = std::sync::mpsc::channel();
        let service = crate::service::Service::of_process().expect("a service");
        service.run_job(move || tell.send(()).expect("somebody hears"));
        told.recv_timeout(2 * second).expect("the service is held");
        drop(server);
        streaming.join().expect("no panic");
    });
}
