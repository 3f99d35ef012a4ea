//! Who connects says who it is, and who listens decides.

use zcmi::{Answer, Config, Connector, ErrorKind, Listener};

use crate::world::{End, Initiator, Responder, soon};

pub(crate) async fn a_listener_decides_by_what_the_peer_says(end: End) {
    let session = end.connected(Config::default()).await;
    match end.role {
        Initiator => {
            let (uri, connector) = (end.hear().await, Connector::new(&session.worker));
            let stranger = soon(connector.connect_with(&uri, b"a stranger")).await.expect_err("it is refused");
            assert_eq!((stranger.kind(), stranger.operation()), (ErrorKind::Rejected, "connect"), "{stranger}");
            assert!(stranger.to_string().contains("friends only"), "{stranger}");
            let friend = soon(connector.connect_with(&uri, b"a friend")).await.expect("it is accepted");
            assert_eq!(friend.private_data(), b"welcome");
            end.lives(&friend).await;
        }
        Responder => {
            let listener = Listener::bind(&session.worker, &end.address()).await.expect("listens");
            let listener = listener.filter(|request| match request.private_data() {
                b"a friend" => Answer::AcceptWith(b"welcome".to_vec()),
                _ => Answer::Refuse("friends only".to_owned()),
            });
            end.tell(&listener.uri());
            let friend = soon(listener.accept()).await.expect("accepts");
            assert_eq!(friend.private_data(), b"a friend");
            assert!(!friend.peer().is_empty() && friend.transport() == session.connection.transport());
            end.lives(&friend).await;
        }
    }
    session.close().await;
}
