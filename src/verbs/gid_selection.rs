//! The right GID for an address.

use super::interface_address::InterfaceAddress;
use super::{Error, GidEntry, GidKind, GidTable, Result, ScopedIp};

/// The highest index that an address vector can hold (`struct ibv_global_route`).
const LAST_INDEX: u32 = 255;
/// Entries that an error lists.
const LISTED: usize = 8;

impl GidTable {
    /// The entry that stands for `local`, as [`Context::gid_for`](super::Context::gid_for) finds it.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if there is none, with what the table has.
    pub fn gid_for(&self, local: impl Into<ScopedIp>) -> Result<GidEntry> {
        let local = local.into();
        if local.ip().is_unspecified() {
            return Err(self.not_found(format!("{local} stands for any address, not for one")));
        }
        let found = self.best(local, |entry| (entry.gid.ip() == Some(local.ip())).then_some(0))?;
        found.ok_or_else(|| self.not_found(format!("no GID of {} is {local}", self.device)))
    }

    /// The entry to reach `peer` from: that of `route`, the address the kernel would send from, or one of the peer's subnet.
    pub(super) fn toward(
        &self,
        peer: ScopedIp,
        route: std::io::Result<ScopedIp>,
        addresses: &[InterfaceAddress],
    ) -> Result<GidEntry> {
        let exact = route.as_ref().ok().and_then(|&local| self.gid_for(local).ok());
        if let Some(entry) = exact {
            return Ok(entry);
        }
        // The longest prefix first, as routes are chosen.
        let prefix_of = |entry: &GidEntry| {
            let ip = entry.gid.ip()?;
            let own =
                addresses.iter().filter(|own| own.ip == ip && entry.netdev.is_none_or(|netdev| netdev == own.netdev));
            own.filter(|own| own.reaches(peer.ip())).map(|own| u32::from(own.prefix)).max()
        };
        let near = self.best(peer, |entry| prefix_of(entry).map(|prefix| u32::MAX - prefix))?;
        near.ok_or_else(|| {
            let route = match route {
                Ok(local) => format!("the route to it is from {local}"),
                Err(error) => format!("there is no route to it ({error})"),
            };
            self.not_found(format!("no GID of {} leads to {peer}: {route}", self.device))
        })
    }

    /// The best of the entries that `rate` answers a number for: RoCE v2 before v1, an index that address vectors can hold
    /// before one they cannot, then the lowest number, then the first. For a link-local `address` only those of its netdev.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if `address` is link-local without a scope, and more than one netdev has it.
    fn best(&self, address: ScopedIp, rate: impl Fn(&GidEntry) -> Option<u32>) -> Result<Option<GidEntry>> {
        let scope = address.scope();
        let rated: Vec<_> = self
            .entries()
            .iter()
            .filter(|entry| !address.is_link_local() || scope.is_none() || entry.netdev == scope)
            .filter_map(|entry| Some((rate(entry)?, entry)))
            .collect();
        if address.is_link_local()
            && let Some((_, first)) = rated.first()
            && let Some((_, other)) = rated.iter().find(|(_, entry)| entry.netdev != first.netdev)
        {
            let detail = format!("{address} is link-local and needs the index of its netdev: {first} and {other}");
            return Err(self.not_found(detail));
        }
        let order = |entry: &GidEntry| (preference(entry.kind), entry.index > LAST_INDEX);
        let best = rated.iter().min_by_key(|(rate, entry)| (order(entry), *rate, entry.port, entry.index));
        Ok(best.map(|&(_, entry)| entry.clone()))
    }

    fn not_found(&self, what: String) -> Error {
        let entries: Vec<_> = self.entries().iter().take(LISTED).map(ToString::to_string).collect();
        let has = match (entries.as_slice(), self.entries().len().saturating_sub(LISTED)) {
            ([], _) => "the table is empty; is the netdev up, with an address?".to_owned(),
            (entries, 0) => format!("the table has {}", entries.join(", ")),
            (entries, more) => format!("the table has {} and {more} more", entries.join(", ")),
        };
        Error::returned("ibv_query_gid_table", libc::EADDRNOTAVAIL).with_detail(format!("{what}; {has}"))
    }
}

/// What is taken first: routers pass RoCE v2 on.
fn preference(kind: GidKind) -> u8 {
    match kind {
        GidKind::RoceV2 => 0,
        GidKind::RoceV1 => 1,
        GidKind::InfiniBand => 2,
        GidKind::Other(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use proptest::prelude::*;

    use super::*;
    use crate::verbs::Gid;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn scoped(text: &str) -> ScopedIp {
        text.parse::<SocketAddr>().map_or_else(|_| ip(text).into(), Into::into)
    }

    fn entry(index: u32, kind: GidKind, address: &str, netdev: u32) -> GidEntry {
        let netdev_name = Some(format!("net{netdev}"));
        GidEntry { port: 1, index, gid: ip(address).into(), kind, netdev: Some(netdev), netdev_name }
    }

    fn table(entries: &[GidEntry]) -> GidTable {
        GidTable::new("test0", entries.to_vec())
    }

    fn own(address: &str, prefix: u8, netdev: u32) -> InterfaceAddress {
        InterfaceAddress { netdev, ip: ip(address), prefix }
    }

    fn no_route() -> std::io::Result<ScopedIp> {
        Err(std::io::Error::from_raw_os_error(libc::ENETUNREACH))
    }

    use GidKind::{RoceV1, RoceV2};

    /// As a dual-stack RoCE adapter has it: every address twice.
    fn usual() -> GidTable {
        table(&[
            entry(0, RoceV1, "fe80::1", 2),
            entry(1, RoceV2, "fe80::1", 2),
            entry(2, RoceV1, "192.0.2.1", 2),
            entry(3, RoceV2, "192.0.2.1", 2),
            entry(4, RoceV1, "2001:db8::1", 2),
            entry(5, RoceV2, "2001:db8::1", 2),
        ])
    }

    #[test]
    fn the_address_decides_and_version_2_goes_first() {
        for (local, index) in [("192.0.2.1", 3), ("2001:db8::1", 5), ("fe80::1", 1), ("::ffff:192.0.2.1", 3)] {
            assert_eq!(usual().gid_for(ip(local)).expect("in the table").index, index, "{local}");
        }
    }

    #[test]
    fn version_1_is_taken_where_there_is_no_other() {
        let table = table(&[entry(7, RoceV1, "192.0.2.1", 2), entry(8, RoceV2, "192.0.2.2", 2)]);
        assert_eq!(table.gid_for(ip("192.0.2.1")).expect("in the table").index, 7);
    }

    #[test]
    fn late_entries_among_holes_are_found() {
        let mut entries: Vec<_> = (0..200).map(|index| entry(index, RoceV2, "::", 2)).collect();
        entries.push(entry(203, RoceV2, "192.0.2.1", 2));
        entries.push(entry(255, RoceV2, "2001:db8::1", 2));
        let table = table(&entries);
        assert_eq!(table.entries().len(), 2, "empty entries are none");
        assert_eq!(table.gid_for(ip("192.0.2.1")).expect("in the table").index, 203);
        assert_eq!(table.gid_for(ip("2001:db8::1")).expect("in the table").index, 255);
    }

    #[test]
    fn an_index_that_fits_an_address_vector_goes_first_within_its_kind() {
        let mut late = entry(256, RoceV2, "192.0.2.1", 2);
        let table = table(&[late.clone(), GidEntry { port: 2, ..entry(9, RoceV2, "192.0.2.1", 3) }]);
        assert_eq!(table.gid_for(ip("192.0.2.1")).expect("in the table").index, 9);
        late.kind = RoceV1;
        let only = GidTable::new("test0", vec![late]);
        assert_eq!(only.gid_for(ip("192.0.2.1")).expect("in the table").index, 256);
    }

    #[test]
    fn a_missing_address_is_an_error_that_tells_what_there_is() {
        let only_v6 = table(&[entry(0, RoceV1, "fe80::1", 2), entry(9, RoceV2, "2001:db8::1", 2)]);
        let error = only_v6.gid_for(ip("192.0.2.1")).expect_err("IPv6 only");
        assert_eq!(error.errno(), Some(libc::EADDRNOTAVAIL));
        let text = error.to_string();
        assert!(text.contains("no GID of test0 is 192.0.2.1"), "{text}");
        assert!(text.contains("RoCE v2 2001:db8::1 on net2 (port 1, index 9)"), "{text}");
        let text = table(&[]).gid_for(ip("192.0.2.1")).expect_err("empty").to_string();
        assert!(text.contains("the table is empty"), "{text}");
    }

    #[test]
    fn an_error_does_not_list_a_whole_table() {
        let many: Vec<_> = (0..255).map(|index| entry(index, RoceV2, &format!("192.0.2.{index}"), 2)).collect();
        let text = table(&many).gid_for(ip("203.0.113.1")).expect_err("not in the table").to_string();
        assert!(text.contains("and 247 more") && text.len() < 1000, "{text}");
    }

    #[test]
    fn an_unspecified_address_is_none() {
        for any in ["0.0.0.0", "::"] {
            let text = usual().gid_for(ip(any)).expect_err("any address").to_string();
            assert!(text.contains("stands for any address"), "{text}");
        }
    }

    #[test]
    fn a_link_local_address_needs_its_netdev_where_two_have_it() {
        let table = table(&[
            entry(0, RoceV1, "fe80::1", 2),
            entry(1, RoceV2, "fe80::1", 2),
            entry(2, RoceV1, "fe80::1", 3),
            entry(3, RoceV2, "fe80::1", 3),
        ]);
        assert_eq!(table.gid_for(scoped("[fe80::1%3]:0")).expect("in the table").index, 3);
        assert_eq!(table.gid_for(scoped("[fe80::1%2]:0")).expect("in the table").index, 1);
        let text = table.gid_for(scoped("fe80::1")).expect_err("two have it").to_string();
        assert!(text.contains("needs the index of its netdev") && text.contains("on net3"), "{text}");
        table.gid_for(scoped("[fe80::1%4]:0")).expect_err("not on this netdev");
    }

    #[test]
    fn the_route_decides_before_the_subnet() {
        let addresses = [own("192.0.2.1", 24, 2), own("198.51.100.1", 24, 2)];
        let table = table(&[entry(0, RoceV2, "192.0.2.1", 2), entry(1, RoceV1, "198.51.100.1", 2)]);
        let by = |route: std::io::Result<ScopedIp>| table.toward(scoped("192.0.2.9"), route, &addresses);
        assert_eq!(by(Ok(scoped("198.51.100.1"))).expect("the route's").index, 1);
        assert_eq!(by(Ok(scoped("203.0.113.1"))).expect("the subnet's").index, 0);
        assert_eq!(by(no_route()).expect("the subnet's").index, 0);
    }

    #[test]
    fn within_the_subnet_version_2_and_then_the_longest_prefix_goes_first() {
        let addresses = [own("10.0.0.1", 8, 2), own("10.1.0.1", 16, 2), own("10.1.2.1", 24, 2)];
        let toward = |kinds: [GidKind; 3]| {
            let table = table(&[
                entry(0, kinds[0], "10.0.0.1", 2),
                entry(1, kinds[1], "10.1.0.1", 2),
                entry(2, kinds[2], "10.1.2.1", 2),
            ]);
            table.toward(scoped("10.1.2.9"), no_route(), &addresses).expect("in the subnet").index
        };
        assert_eq!(toward([RoceV2, RoceV2, RoceV2]), 2);
        assert_eq!(toward([RoceV2, RoceV2, RoceV1]), 1);
        assert_eq!(toward([RoceV1, RoceV1, RoceV1]), 2);
    }

    #[test]
    fn a_subnet_of_another_netdev_does_not_count() {
        // The same address on a netdev that is not the device's.
        let table = table(&[entry(0, RoceV2, "192.0.2.1", 2)]);
        table.toward(scoped("192.0.2.9"), no_route(), &[own("192.0.2.1", 24, 3)]).expect_err("another netdev's");
    }

    #[test]
    fn a_peer_out_of_reach_is_an_error_that_names_the_route() {
        let addresses = [own("192.0.2.1", 24, 2)];
        let text =
            usual().toward(scoped("203.0.113.9"), Ok(scoped("10.0.0.1")), &addresses).expect_err("far").to_string();
        assert!(text.contains("leads to 203.0.113.9: the route to it is from 10.0.0.1; the table has"), "{text}");
        let text = usual().toward(scoped("203.0.113.9"), no_route(), &addresses).expect_err("far").to_string();
        assert!(text.contains("there is no route to it"), "{text}");
        // The other family's addresses are of no use.
        usual().toward(scoped("2001:db8:1::9"), no_route(), &addresses).expect_err("IPv6");
    }

    #[test]
    fn a_link_local_peer_is_reached_from_its_netdev() {
        let addresses = [own("fe80::1", 64, 2), own("fe80::2", 64, 3)];
        let table = table(&[entry(0, RoceV2, "fe80::1", 2), entry(1, RoceV2, "fe80::2", 3)]);
        let toward = |peer| table.toward(scoped(peer), no_route(), &addresses);
        assert_eq!(toward("[fe80::9%3]:0").expect("on its netdev").index, 1);
        assert_eq!(toward("[fe80::9%2]:0").expect("on its netdev").index, 0);
        toward("fe80::9").expect_err("on two netdevs");
        toward("[fe80::9%4]:0").expect_err("on none");
    }

    /// Few addresses, so that they meet.
    fn any_address() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "::",
            "192.0.2.1",
            "192.0.2.2",
            "198.51.100.1",
            "fe80::1",
            "fe80::2",
            "2001:db8::1",
            "2001:db8:1::1",
        ])
    }

    fn any_entry() -> impl Strategy<Value = GidEntry> {
        let kind =
            prop_oneof![Just(GidKind::InfiniBand), Just(RoceV1), Just(RoceV2), (3u32..9).prop_map(GidKind::Other)];
        (0u32..300, kind, any_address(), prop::option::of(1u32..4), 1u8..3).prop_map(
            |(index, kind, address, netdev, port)| GidEntry {
                netdev,
                netdev_name: None,
                port,
                ..entry(index, kind, address, 0)
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_the_table_the_answer_is_the_address_and_the_best_of_it(
            entries in prop::collection::vec(any_entry(), 0..40),
            local in any_address(),
            scope in prop::option::of(1u32..4),
        ) {
            let local = ScopedIp::from(match (scope, ip(local)) {
                (Some(scope), IpAddr::V6(ip)) => SocketAddr::V6(std::net::SocketAddrV6::new(ip, 0, 0, scope)),
                (_, ip) => SocketAddr::new(ip, 0),
            });
            let table = GidTable::new("test0", entries.clone());
            let fits = |entry: &&GidEntry| {
                entry.gid == Gid::from(local.ip())
                    && !entry.gid.is_zero()
                    && (!local.is_link_local() || local.scope().is_none() || entry.netdev == local.scope())
            };
            let fitting: Vec<_> = entries.iter().filter(fits).collect();
            match table.gid_for(local) {
                Ok(found) => {
                    prop_assert!(fitting.contains(&&found));
                    prop_assert!(fitting.iter().all(|entry| preference(found.kind) <= preference(entry.kind)));
                    let usable = |entry: &GidEntry| entry.index <= LAST_INDEX;
                    let same: Vec<_> = fitting.iter().filter(|entry| preference(entry.kind) == preference(found.kind)).collect();
                    prop_assert!(usable(&found) || same.iter().all(|entry| !usable(entry)));
                }
                Err(error) => {
                    prop_assert_eq!(error.errno(), Some(libc::EADDRNOTAVAIL));
                    // None, or a link-local one that more than one netdev has.
                    prop_assert!(
                        fitting.is_empty()
                            || local.is_link_local() && fitting.iter().any(|entry| entry.netdev != fitting[0].netdev)
                    );
                }
            }
        }

        #[test]
        fn whatever_the_table_a_peer_is_reached_from_its_own_family(
            entries in prop::collection::vec(any_entry(), 0..40),
            peer in any_address(),
            prefixes in prop::collection::vec(0u8..=255, 8),
        ) {
            let addresses: Vec<_> = entries
                .iter()
                .zip(prefixes.iter().cycle())
                .filter_map(|(entry, &prefix)| Some(InterfaceAddress { netdev: entry.netdev?, ip: entry.gid.ip()?, prefix }))
                .collect();
            let peer = ScopedIp::from(ip(peer));
            if let Ok(found) = GidTable::new("test0", entries).toward(peer, no_route(), &addresses) {
                let from = found.gid.ip().expect("not empty");
                prop_assert_eq!(from.is_ipv4(), peer.ip().is_ipv4());
                prop_assert!(addresses.iter().any(|own| own.ip == from && own.reaches(peer.ip())));
            }
        }
    }
}
