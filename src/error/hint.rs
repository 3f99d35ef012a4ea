//! What probably helps.

use super::{Error, ErrorKind};

impl Error {
    /// What probably helps. Every kind has something; [`None`] is for those that later versions add.
    pub fn hint(&self) -> Option<&'static str> {
        // What is known of the very failure helps more than its kind.
        if self.0.hint.is_some() {
            return self.0.hint;
        }
        if self.0.operation == "configure" {
            return Some("correct the setting, or its variable ZCMI_…: docs/configuration.md has what is allowed");
        }
        let without_device = match self.0.device.as_deref() {
            Some("shm") => self.hint_in_shared_memory(),
            Some("tcp") => self.hint_over_tcp(),
            _ => None,
        };
        if without_device.is_some() {
            return without_device;
        }
        Some(match self.0.kind {
            ErrorKind::AccessDenied => {
                "ask the owner for a handle with the right that is missing: Access::READ, WRITE or ATOMIC"
            }
            ErrorKind::AddressInUse => "another process listens there; choose another port, or port 0",
            ErrorKind::AddressInvalid => {
                "write auto://HOST:PORT, rdma://HOST:PORT, tcp://HOST:PORT, shm://NAME or shm:///PATH; to listen, HOST is an address of this host (see \
                 `ip address`), with rdma:// of an RDMA device (see `rdma link`)"
            }
            ErrorKind::Application => "the peer's program says so: Error::application has its code and text",
            ErrorKind::Closed => "nothing more can be done here after close, finish, abort or shut down; connect again",
            ErrorKind::ConnectionBroken => {
                "look whether the peer's process still runs, and at its log; then connect again"
            }
            ErrorKind::ConnectionRefused => "start the peer first, and check the port",
            ErrorKind::Decode => "both ends must use the same types, and the same codec",
            ErrorKind::Encode => "raise the codec's limit, or send a type that it can encode",
            ErrorKind::Foreign => {
                "a handle is good on the connection it was granted for, or, if granted to a domain, on those to that domain"
            }
            ErrorKind::MemoryLimit => {
                "raise the limit on locked memory: `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the service's unit"
            }
            ErrorKind::Misaligned => {
                "choose an offset that is a multiple of the value's size; atomics need 8 bytes at a multiple of 8"
            }
            ErrorKind::NoDevice => {
                "tcp://HOST:PORT needs no device; `rdma link` lists devices; without one, `soft-roce-setup/up` makes a Soft-RoCE device, \
                 `soft-roce-setup/run -- COMMAND` runs a command with one"
            }
            ErrorKind::NoRoute => {
                "check `ip route get ADDRESS`; RDMA needs a route over the device's own network interface"
            }
            ErrorKind::NotInstalled => "install the libraries: `apt-get install ibverbs-providers librdmacm1`",
            ErrorKind::OutOfBounds => {
                "compare offset and length with those of the handle or the buffer: RemoteBuffer::len, Buffer::len"
            }
            ErrorKind::Panicked => "look at the peer's log: the panic is there",
            ErrorKind::PeerClosed => {
                "so a conversation ends; if it was too early, look at the peer's log, and connect again"
            }
            ErrorKind::PermissionDenied => {
                "let this user open /dev/infiniband/* (udev rules of rdma-core, or `--device` for a container)"
            }
            ErrorKind::PoolExhausted => {
                "drop buffers that are done with, wait with Pool::allocate_async, or raise PoolOptions::limit"
            }
            ErrorKind::Protocol => {
                "both ends must run versions of zcmi that fit, and the port must be the peer's; `zcmi --version` tells"
            }
            ErrorKind::Rejected => "the peer's listener decides: see its log, its filter and its limits",
            ErrorKind::RemoteAccess => {
                "the key was wrong or revoked; the connection is lost, as reliable connections are after a refused access"
            }
            ErrorKind::ResourceExhausted => {
                "close connections or use smaller queues; `rdma resource show` tells who holds what"
            }
            ErrorKind::Revoked => "ask the owner for another handle",
            ErrorKind::TimedOut => {
                "the peer is overloaded or stopped, or a firewall drops UDP port 4791; `zcmi doctor HOST` tries the way; if the network is slow, raise \
                 the timeout, of connecting `connect_timeout` (ZCMI_CONNECT_TIMEOUT)"
            }
            ErrorKind::TooLong => {
                "send it in parts, raise Config::max_message_size at the receiver, or write through a handle"
            }
            ErrorKind::Unreachable => {
                "check the peer's host and link; a firewall must let UDP port 4791 through: `zcmi doctor HOST` tries the way"
            }
            ErrorKind::Unresponsive => {
                "look at the peer's process: continue it, or give it a processor; raise Config::peer_timeout if it may pause so long"
            }
            ErrorKind::Unsupported => "take another way, or another device; `zcmi info` shows what this one can do",
            ErrorKind::WouldBlock => "try again later, or use the method that waits",
            ErrorKind::Other => {
                "`zcmi doctor` looks at this host; if nothing is wrong with it, this may be a fault of zcmi"
            }
        })
    }
}

impl Error {
    /// What helps where both processes are on this host, if it is something else.
    fn hint_in_shared_memory(&self) -> Option<&'static str> {
        Some(match self.0.kind {
            ErrorKind::AddressInUse => {
                "another process listens there, or the path is no socket; choose another name or path"
            }
            ErrorKind::AddressInvalid => "write shm://NAME, or shm:///PATH with a path whose folder is there",
            ErrorKind::ConnectionRefused => {
                "start the peer first, and check the name; in another container, or network namespace, it is reached by shm:///PATH only"
            }
            ErrorKind::PermissionDenied => "both processes must be of the same user, and may use the path",
            ErrorKind::ResourceExhausted => {
                "close connections, raise the limit on open files (`ulimit -n`), or give the control group more memory"
            }
            ErrorKind::NoRoute | ErrorKind::Unreachable => "look whether the peer's process still runs on this host",
            ErrorKind::TimedOut => "the peer is overloaded or stopped; raise the timeout if that is as it should be",
            _ => return None,
        })
    }

    /// What helps where there is no RDMA device, if it is something else.
    fn hint_over_tcp(&self) -> Option<&'static str> {
        Some(match self.0.kind {
            ErrorKind::NoRoute => "check `ip route get ADDRESS`",
            ErrorKind::PermissionDenied => {
                "ports below 1024 are for privileged programs; choose another port, or port 0"
            }
            ErrorKind::ResourceExhausted => "close connections, or raise the limit on open files: `ulimit -n`",
            ErrorKind::TimedOut => {
                "the peer is overloaded or stopped, or a firewall drops the packets; if the network is slow, raise the timeout, of connecting `connect_timeout` (ZCMI_CONNECT_TIMEOUT)"
            }
            ErrorKind::Unreachable => "check the peer's host and link, and the firewalls in between",
            _ => return None,
        })
    }
}
