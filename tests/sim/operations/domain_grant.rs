//! Grants to every connection of a domain.

use std::rc::Rc;
use std::time::Duration;

use crate::world::{random, sleep};
use zcmi::Access;

use super::grant::guard;
use super::memory::{Model, check_end, expose, revoke};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "domain grants", weight: 2, run };

fn run<'a>(actor: &'a Rc<Actor>, lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some((exposed, bytes)) = expose(actor) else { return };
        let exposed = Rc::new(exposed);
        let begun = actor.session.ledger.begin(OPERATION.name);
        let granted = exposed.grant_domain(&actor.connection, 0..bytes.len(), Access::ALL).await;
        begun.end();
        let grant = match granted {
            Ok(grant) => grant,
            Err(error) => return actor.failed("grant", &error),
        };
        let model = Model::new(Access::ALL, &bytes);
        model.show(&exposed);
        actor.send_handle(lane, &grant.remote_buffer(), &model).await;
        sleep(Duration::from_micros(random(2_000))).await;
        let Some(how) = revoke(actor, grant).await else { return };
        check_end(actor, &model, &exposed, 0, how).await;
        guard(&exposed).await;
    })
}
