//! Values in messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zcmi::{Config, ErrorKind};

use crate::world::{End, Initiator, Responder, soon};

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Order {
    number: u64,
    lines: BTreeMap<String, f64>,
    note: Option<String>,
}

fn order(lines: usize) -> Order {
    let lines = (0..lines).map(|line| (format!("line {line}"), line as f64 / 3.0)).collect();
    Order { number: 77, lines, note: Some("both of them".to_owned()) }
}

pub(crate) async fn they_are_the_same_at_the_other_end(end: End) {
    let session = end.connected(Config::default()).await;
    let channel = session.connection.channel(3).expect("there is room");
    for lines in [0, 10, 5_000] {
        match end.role {
            Initiator => soon(channel.send_value(&order(lines))).await.expect("sends"),
            Responder => {
                let came: Order = soon(channel.recv_value()).await.expect("receives");
                assert_eq!(came, order(lines));
            }
        }
    }
    session.close().await;
}

pub(crate) async fn other_types_are_an_error_and_no_end(end: End) {
    let session = end.connected(Config::default()).await;
    let connection = &session.connection;
    match end.role {
        Initiator => {
            soon(connection.send_value("no order")).await.expect("sends");
            soon(connection.send_value(&order(1))).await.expect("sends");
        }
        Responder => {
            let error = soon(connection.recv_value::<Order>()).await.expect_err("another type");
            assert_eq!(error.kind(), ErrorKind::Decode, "{error}");
            assert_eq!(soon(connection.recv_value::<Order>()).await.expect("the next"), order(1));
        }
    }
    session.close().await;
}
