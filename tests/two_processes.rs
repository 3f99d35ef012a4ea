//! Two processes exchange handles and read and write each other's memory, on a real device.

mod common;

use common::{Peer, device_address, fill, listen, on_device, patient_worker, pattern, play, role, say, told, worker};
use zcmi::{Access, Connector, RemoteBuffer};

const LENGTH: usize = 70_000;
const POISON: u8 = 0xa5;

/// The other process: exposes memory, checks and changes it when told, and accesses the test's memory.
#[test]
fn peer() {
    if role().is_none() {
        return;
    }
    play(async {
        let address = device_address().expect("the test has found it");
        let worker = worker();
        let listener = listen(&worker, &address).await;
        say(listener.uri());
        let connection = listener.accept().await.expect("accepts");
        let mut memory = common::allocate(LENGTH);
        memory.fill(POISON);
        let exposed = memory.expose();
        // Not all of it: the bytes around the granted range must never change.
        let grant = exposed.grant(&connection, 1000..LENGTH - 1000, Access::READ_WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");
        let theirs = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
        let mut told = told();
        while let Some(line) = told.recv().await {
            let words: Vec<u64> = line.split(' ').skip(1).map(|word| word.parse().expect("a number")).collect();
            let granted = LENGTH - 2000;
            match line.split(' ').next().expect("a word") {
                "check" => {
                    let mut all = vec![0; LENGTH];
                    exposed.read_at(0, &mut all);
                    let inside = all[1000..LENGTH - 1000] == pattern(words[0], words[1], granted);
                    let outside = all[..1000].iter().chain(&all[LENGTH - 1000..]).all(|&byte| byte == POISON);
                    say(format!("{inside} {outside}"));
                }
                "store" => {
                    exposed.write_at(1000, &pattern(words[0], words[1], granted));
                    say("stored");
                }
                "write" => {
                    let mut source = common::allocate(theirs.len() as usize);
                    fill(&mut source, words[0], words[1]);
                    connection.write(source, &theirs).await.expect("writes");
                    say("written");
                }
                other => panic!("told {other}"),
            }
        }
    });
}

#[test]
fn two_processes_read_and_write_each_others_memory() {
    on_device(|_| async {
        let mut peer = Peer::start("exchange");
        let connection = Connector::new(&worker()).connect(&peer.hear()).await.expect("connects");
        let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
        assert_eq!((handle.len(), handle.access()), (LENGTH as u64 - 2000, Access::READ_WRITE));
        let mine = common::allocate(5000).expose();
        let grant = mine.grant(&connection, 0..5000, Access::WRITE).await.expect("grants");
        connection.send(&grant.remote_buffer().to_bytes()).await.expect("sends");

        let mut buffer = common::allocate(handle.len() as usize);
        for iteration in 0..4 {
            fill(&mut buffer, 7, iteration);
            buffer = connection.write(buffer, &handle).await.expect("writes");
            assert_eq!(peer.ask(&format!("check 7 {iteration}")), "true true");
            assert_eq!(peer.ask(&format!("check 8 {iteration}")), "false true", "the check can fail");

            assert_eq!(peer.ask(&format!("store 9 {iteration}")), "stored");
            buffer.fill(POISON);
            buffer = connection.read(buffer, &handle).await.expect("reads");
            assert_eq!(buffer[..], pattern(9, iteration, buffer.len()));

            mine.write_at(0, &[POISON; 5000]);
            assert_eq!(peer.ask(&format!("write 11 {iteration}")), "written");
            let mut seen = vec![0; 5000];
            mine.read_at(0, &mut seen);
            assert_eq!(seen, pattern(11, iteration, 5000));
        }
        // A part of the handle reaches that part and nothing else.
        assert_eq!(peer.ask("store 1 1"), "stored");
        let mut expected = pattern(1, 1, handle.len() as usize);
        fill(&mut expected[333..433], 2, 2);
        let mut part = common::allocate(100);
        fill(&mut part, 2, 2);
        connection.write(part, &handle.slice(333..433).expect("inside")).await.expect("writes");
        buffer.fill(POISON);
        let buffer = connection.read(buffer, &handle).await.expect("reads");
        assert_eq!(buffer[..], expected);
        assert!(peer.finish().success());
    });
}

/// A stopped process runs no code: what is read and written is so by its device alone, where it has one.
#[test]
fn reads_and_writes_need_nothing_of_the_targets_process() {
    on_device(|_| async {
        let mut peer = Peer::start("exchange");
        let connection = Connector::new(&patient_worker()).connect(&peer.hear()).await.expect("connects");
        let handle = RemoteBuffer::from_bytes(&connection.recv().await.expect("receives")).expect("a handle");
        connection.send(&handle.to_bytes()).await.expect("sends");
        assert_eq!(peer.ask("store 3 0"), "stored");

        common::while_stopped(&peer, async {
            let mut buffer = common::allocate(handle.len() as usize);
            buffer.fill(POISON);
            let mut buffer = connection.read(buffer, &handle).await.expect("reads from a stopped process");
            assert_eq!(buffer[..], pattern(3, 0, buffer.len()));
            fill(&mut buffer, 4, 1);
            let mut buffer = connection.write(buffer, &handle).await.expect("writes to a stopped process");
            buffer.fill(POISON);
            let buffer = connection.read(buffer, &handle).await.expect("reads what it wrote");
            assert_eq!(buffer[..], pattern(4, 1, buffer.len()));
        })
        .await;
        assert_eq!(peer.ask("check 4 1"), "true true");
        assert!(peer.finish().success());
    });
}
