//! Grants to the peer, and how they are taken back.

use std::rc::Rc;
use std::time::Duration;

use crate::world::{random, sleep};
use zcmi::{Access, Exposed, Grant};

use super::memory::{Model, check_end, expose, revoke};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "grants", weight: 5, run };

fn run<'a>(actor: &'a Rc<Actor>, lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some((exposed, bytes)) = expose(actor) else { return };
        let access = [Access::READ, Access::READ_WRITE, Access::ALL, Access::ALL][random(4) as usize];
        let start = (random(bytes.len() as u64 / 2) as usize).next_multiple_of(8);
        let begun = actor.session.ledger.begin(OPERATION.name);
        let granted = exposed.grant(&actor.connection, start..bytes.len(), access).await;
        begun.end();
        let grant = match granted {
            Ok(grant) => grant,
            Err(error) => return actor.failed("grant", &error),
        };
        let model = Model::new(access, &bytes[start..]);
        actor.send_handle(lane, &grant.remote_buffer(), &model).await;
        sleep(Duration::from_micros(random(3_000))).await;
        match random(4) {
            0 => take_back_by_ending(actor, exposed, grant).await,
            1 => {
                actor.session.ledger.count("grant dropped");
                drop((grant, exposed));
            }
            _ => {
                let Some(how) = revoke(actor, grant).await else { return };
                check_end(actor, &model, &exposed, start, how).await;
                guard(&exposed).await;
            }
        }
    })
}

/// The exposure ends, and with it the grant.
async fn take_back_by_ending(actor: &Actor, exposed: Exposed<zcmi::Buffer>, grant: Grant) {
    let begun = actor.session.ledger.begin("into buffer");
    match exposed.into_buffer().await {
        Ok(mut buffer) => {
            buffer.fill(7);
            sleep(Duration::from_micros(random(100))).await;
            assert!(buffer.iter().all(|&byte| byte == 7), "somebody writes memory that was taken back");
        }
        Err(error) => actor.failed("into buffer", &error),
    }
    begun.end();
    assert!(!grant.is_live());
}

/// Nobody changes what was taken back.
pub(crate) async fn guard(exposed: &Exposed<zcmi::Buffer>) {
    let mine = vec![0x5a; exposed.len()];
    exposed.write_at(0, &mine);
    sleep(Duration::from_micros(random(1_000))).await;
    let mut found = vec![0; mine.len()];
    exposed.read_at(0, &mut found);
    assert_eq!(found, mine, "somebody writes memory that was taken back");
}
