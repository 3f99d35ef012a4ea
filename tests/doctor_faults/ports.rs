//! The interface below a port: down, with a small MTU, without addresses, without IPv6.

use crate::asking::{ADDRESS, HERE, Undo, own_device, shell};

/// As soft-roce-setup/up makes it.
fn restore(netdev: &str) -> Undo {
    Undo(format!(
        "sysctl -qw net.ipv6.conf.{netdev}.disable_ipv6=0; ip link set {netdev} mtu 9000 up; ip address replace {ADDRESS}/24 dev {netdev}; \
         ip address replace fd00:7a63:6d69::1/64 dev {netdev} nodad; sleep 0.3"
    ))
}

#[test]
fn a_link_that_is_down() {
    let Some(netdev) = own_device() else { return };
    let _undo = restore(netdev);
    shell(&format!("ip link set {netdev} down; sleep 0.3"));
    HERE.finds_and_mends("ports", "rxe0 port 1 is DOWN");
}

#[test]
fn an_mtu_that_is_too_small() {
    let Some(netdev) = own_device() else { return };
    let _undo = restore(netdev);
    shell(&format!("ip link set {netdev} mtu 300; sleep 0.3"));
    HERE.finds("mtu", "too small for rxe0");
    shell(&format!("ip link set {netdev} mtu 576; sleep 0.3"));
    HERE.finds_and_mends("mtu", "leaves 256 bytes");
}

#[test]
fn an_interface_without_addresses() {
    let Some(netdev) = own_device() else { return };
    let _undo = restore(netdev);
    shell(&format!(
        "ip address del {ADDRESS}/24 dev {netdev}; ip address del fd00:7a63:6d69::1/64 dev {netdev}; sleep 0.3"
    ));
    let fix = HERE.finds("addresses", "has no address but link-local ones");
    // Which address is for the reader to fill in.
    assert!(fix.contains(" ADDRESS/24 "), "{fix}");
    HERE.is_well_after(&format!("{}; sleep 0.3", fix.replace("ADDRESS", ADDRESS)), "addresses");
}

#[test]
fn ipv6_that_is_off() {
    let Some(netdev) = own_device() else { return };
    let _undo = restore(netdev);
    shell(&format!(
        "ip address del {ADDRESS}/24 dev {netdev}; sysctl -qw net.ipv6.conf.{netdev}.disable_ipv6=1; sleep 0.3"
    ));
    HERE.finds_and_mends("ipv6", "IPv6 is off");
}
