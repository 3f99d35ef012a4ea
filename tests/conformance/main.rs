//! One body of tests for all that programs can see, instantiated for each transport: `ZCMI_TEST_TRANSPORT` says which, and without it
//! it is RDMA. `sim` needs the feature `internals`.
//!
//! A body is what two ends do that have nothing in common but their connection, and a few words beside it. They are two processes,
//! or, in a simulation, two nodes. What transports differ in is declared ([`zcmi::Capabilities`]), and asserted both ways.

mod above_channels;
mod access;
mod atomics;
mod blocking;
mod cancellation;
mod capabilities;
mod closing;
#[path = "../common/mod.rs"]
mod common;
mod failure;
mod limits;
mod messages;
mod notifications;
mod one_sided;
mod revocation;
mod set_up;
mod values;
mod world;

use std::pin::Pin;

use world::End;

/// What both ends do.
pub(crate) struct Body {
    name: &'static str,
    play: fn(End) -> Pin<Box<dyn Future<Output = ()>>>,
}

/// Makes a test of each body, and a table of them for the other process.
macro_rules! bodies {
    ($($group:ident: $($name:ident),+;)+) => {
        const BODIES: &[Body] = &[$($(
            Body { name: concat!(stringify!($group), "::", stringify!($name)), play: |end| Box::pin($group::$name(end)) },
        )+)+];

        mod conformance {
            $(mod $group {
                $(#[test]
                fn $name() {
                    crate::world::run(crate::find(concat!(stringify!($group), "::", stringify!($name))));
                })+
            })+
        }
    };
}

bodies! {
    above_channels:
        calls_are_answered_each_once,
        a_stream_carries_bytes_both_ways;
    access:
        each_right_allows_its_operations_and_no_others,
        each_right_is_checked_by_the_owner_too,
        what_is_out_of_bounds_or_misaligned_is_refused_here,
        a_handle_is_good_on_its_connection_alone,
        a_key_opens_as_much_as_is_declared,
        a_domains_handle_is_good_on_all_connections_to_it;
    atomics:
        both_ends_add_and_nothing_is_lost,
        one_of_many_swaps_wins;
    blocking:
        all_of_it_without_a_runtime;
    cancellation:
        receives_that_are_given_up_lose_nothing,
        sends_that_are_given_up_give_their_memory_back,
        operations_that_are_given_up_give_their_memory_back;
    capabilities:
        they_are_what_is_documented,
        one_sided_operations_need_the_peer_only_where_that_is_declared,
        a_busy_peer_holds_nothing_up,
        memory_on_demand_is_taken_where_that_is_declared;
    closing:
        each_direction_ends_alone,
        what_was_sent_before_the_end_arrives,
        both_may_close_at_once,
        one_that_is_dropped_is_delivered,
        an_abort_is_no_end,
        halves_end_their_direction;
    failure:
        a_killed_peer_ends_all_that_is_pending_once,
        a_stopped_peer_is_unresponsive,
        nobody_listens_and_too_many_come;
    limits:
        messages_have_a_longest,
        a_full_window_holds_back_its_channel_alone,
        more_in_flight_than_there_is_room_for_waits,
        pieces_and_channels_have_a_most,
        a_pool_that_is_used_up_says_so_and_goes_on;
    messages:
        each_size_arrives_in_order_on_each_channel,
        memory_of_every_kind_is_gathered_and_scattered,
        one_that_is_acknowledged_is_with_the_peers_library;
    notifications:
        they_come_in_order_behind_their_bytes,
        they_are_kept_until_they_are_asked_for;
    one_sided:
        lists_are_gathered_and_scattered,
        batches_and_fences_keep_their_order;
    revocation:
        a_holder_agrees_and_lives_on,
        what_is_in_flight_is_drained,
        a_stopped_holder_loses_its_right_at_the_deadline,
        a_lease_ends_by_itself,
        memory_comes_back_as_it_was_left;
    set_up:
        a_listener_decides_by_what_the_peer_says;
    values:
        they_are_the_same_at_the_other_end,
        other_types_are_an_error_and_no_end;
}

/// The other process.
#[test]
fn peer() {
    if let Some(name) = common::role() {
        world::play_other(find(&name));
    }
}

fn find(name: &str) -> &'static Body {
    BODIES.iter().find(|body| body.name == name).expect("a body of this name")
}
