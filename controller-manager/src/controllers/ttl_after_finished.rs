//! Runs the controller that deletes Jobs some time after their end.

use controller_manager_core::ttl_after_finished::{Plan, plan};
use coracle_client::controller::Outcome;

use crate::context::Context;
use crate::executor::done;

const WORKERS: usize = 5;

/// Runs until shutdown.
pub async fn run(context: Context) {
    let informers = context.informers.clone();
    let executor = context.executor("ttl-after-finished-controller");
    context
        .controller("ttl_jobs_to_delete", WORKERS)
        .watch(&informers.jobs, |change| match plan(change.object(), crate::clock::now()) {
            Plan::Nothing => Vec::new(),
            Plan::Wait(_) | Plan::Delete(_) if change.is_deleted() => Vec::new(),
            Plan::Wait(_) | Plan::Delete(_) => vec![change.key()],
        })
        .run(&context.shutdown, move |key| {
            let (informers, executor) = (informers.clone(), executor.clone());
            async move {
                let Some(job) = informers.jobs.store().get(&key) else { return Ok(Outcome::Done) };
                match plan(&job, crate::clock::now()) {
                    Plan::Nothing => Ok(Outcome::Done),
                    Plan::Wait(left) => Ok(Outcome::RequeueAfter(left)),
                    Plan::Delete(action) => done(executor.execute(&action).await),
                }
            }
        })
        .await;
}
