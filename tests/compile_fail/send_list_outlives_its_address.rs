//! A list of the unsafe tier borrows the address handles that its datagrams name.

use std::sync::Arc;

use zcmi::verbs::{AddressHandle, Destination, SendFlags, SendList, SendOperation};

fn main() {}

fn list(address: Arc<AddressHandle>) -> usize {
    let mut list = SendList::new();
    let to = Destination { address: &address, queue_pair: 1, queue_key: 2 };
    list.push(1, SendOperation::Datagram(to), &[], SendFlags::SIGNALED);
    drop(address);
    list.len()
}
