//! Grants that end by themselves.

use std::rc::Rc;
use std::time::Duration;

use crate::world::random;
use zcmi::Access;

use super::grant::guard;
use super::memory::{Model, check_end, expose};
use super::{Operation, Running};
use crate::session::{Actor, Lane};

pub(crate) const OPERATION: Operation = Operation { name: "leases", weight: 2, run };

fn run<'a>(actor: &'a Rc<Actor>, lane: &'a mut Lane) -> Running<'a> {
    Box::pin(async move {
        let Some((exposed, bytes)) = expose(actor) else { return };
        let exposed = Rc::new(exposed);
        let lease = Duration::from_micros(1 + random(40_000));
        let begun = actor.session.ledger.begin(OPERATION.name);
        let granted = exposed.grant_leased(&actor.connection, 0..bytes.len(), Access::ALL, lease).await;
        begun.end();
        let grant = match granted {
            Ok(grant) => grant,
            Err(error) => return actor.failed("grant", &error),
        };
        let model = Model::new(Access::ALL, &bytes);
        model.show(&exposed);
        actor.send_handle(lane, &grant.remote_buffer(), &model).await;
        let begun = actor.session.ledger.begin("end of a lease");
        match grant.ended().await {
            Ok(how) => {
                check_end(actor, &model, &exposed, 0, how).await;
                guard(&exposed).await;
            }
            Err(error) => actor.failed("lease", &error),
        }
        begun.end();
    })
}
