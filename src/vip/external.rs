//! Addresses whose owner a cluster manager decides on (`ownership = "external"`): its agent asks
//! for each lease, and says since when the manager is known to want it.

use std::time::Duration;

use futures_util::future::join_all;
use netft::{
    Time,
    api::vip::now,
    config::VipOwnership,
    vip::{
        FencingToken, VipGrant, VipInput,
        ownership::{
            ANSWER_TIMEOUT, ExternalAnswer, ExternalOrder, START_ANSWER_TIMEOUT, StartAnswer,
        },
    },
};
use tokio::time::{sleep_until, timeout_at};

use super::{
    agent_order::{AgentOrder, ExternalEntry, ExternalStep, OWNERSHIP_LOG},
    entry::VipEntry,
    hand_over::{VipPeers, WHAT_FREE, query_node},
    handle::{VipError, VipHandle},
};

/// Carries out an order: asks every other node, then decides; what came of it. A start that has to
/// wait is no error, and is to be repeated.
///
/// # Errors
/// See [`VipError`]: the order is void.
pub async fn carry_out_agent_order(
    handle: &VipHandle,
    peers: &impl VipPeers,
    vip: &str,
    order: AgentOrder,
) -> Result<String, VipError> {
    let limit = match order.is_start {
        true => {
            handle.take_external(vip, ExternalStep::Begin).await?;
            START_ANSWER_TIMEOUT
        }
        false => ANSWER_TIMEOUT,
    };
    let (_, others) = peers.node_names().await;
    let answers = join_all(others.iter().map(|node| ask_free(peers, node, vip, limit))).await;
    handle.take_external(vip, ExternalStep::End(order, answers)).await
}

/// Asks a node whether it has an address, or is about to take it. It is silent only after the time
/// limit: until then it may be reached again.
pub async fn ask_free(
    peers: &impl VipPeers,
    node: &str,
    vip: &str,
    limit: Duration,
) -> ExternalAnswer {
    let deadline = tokio::time::Instant::now() + limit;
    match timeout_at(deadline, query_node(peers, node, vip, WHAT_FREE)).await {
        Ok(Ok(Ok(()))) => ExternalAnswer::Free,
        Ok(Ok(Err(_))) => ExternalAnswer::Busy(node.to_owned()),
        Ok(Err(_)) | Err(_) => {
            sleep_until(deadline).await;
            ExternalAnswer::Silent(node.to_owned())
        }
    }
}

impl VipEntry {
    /// Takes a step of an order; what came of it.
    ///
    /// # Errors
    /// The order is void, or another node's question is answered with no.
    pub(super) fn on_external(
        &mut self,
        token: FencingToken,
        step: ExternalStep,
    ) -> Result<String, VipError> {
        let time = now();
        let running = self.machine.grant().filter(|running| time < running.until);
        if let ExternalStep::Query = step {
            return match self.external.lease.is_free(time) && running.is_none() {
                true => Ok(String::new()),
                false => Err(VipError::Refused("this node has it, or is about to".to_owned())),
            };
        }
        if self.config.ownership != VipOwnership::External {
            let (name, owner) = (&self.name, self.config.ownership.as_str());
            let text = format!("the owner of {name} is decided by `ownership = {owner:?}`");
            return Err(VipError::Refused(text));
        }
        match step {
            ExternalStep::Begin => self.external.lease.begin_start(time),
            ExternalStep::End(order, answers) => {
                return self.end_order(time, token, order, &answers);
            }
            ExternalStep::Query => {}
        }
        Ok(String::new())
    }

    fn end_order(
        &mut self,
        time: Time,
        token: FencingToken,
        AgentOrder { asked, is_start }: AgentOrder,
        answers: &[ExternalAnswer],
    ) -> Result<String, VipError> {
        if asked > time {
            let text = "`--asked` lies in the future: give the first number of /proc/uptime";
            return Err(VipError::Refused(text.to_owned()));
        }
        let running = self.machine.grant().filter(|running| time < running.until);
        let order = ExternalOrder { asked, lease: self.config.lease };
        let lease = &mut self.external.lease;
        let until = match (is_start, running) {
            (true, _) => match lease.on_start(time, order, answers) {
                StartAnswer::Granted(until) => until,
                StartAnswer::Wait(reason) => return Ok(self.note_wait(time, &reason)),
                StartAnswer::Refused(reason) => return Err(VipError::Refused(reason)),
            },
            // Its check failed, or the kernel refused it: the manager is to decide anew.
            (false, None) => {
                let text = format!("{} has no lease here to renew", self.name);
                return Err(VipError::Refused(text));
            }
            (false, Some(_)) => {
                lease.on_renewal(time, order, answers).map_err(VipError::Refused)?
            }
        };
        let token = running.map_or(token, |running| running.token);
        if running.is_none() {
            let cause = "the cluster manager started it here";
            self.cause = Some(cause.into());
            self.add_history(time, cause.to_owned());
        }
        self.external.is_wait_told = false;
        let (vip, now, until_ns) = (&self.name, time.as_nanos(), until.as_nanos());
        tracing::debug!(target: OWNERSHIP_LOG, %vip, %token, now, until_ns, "ownership: granted");
        self.input(time, VipInput::Grant(VipGrant { token, until, is_proven: true }));
        let left = until.since(time).as_secs_f64();
        Ok(format!("{} has a lease for {left:.1} s", self.name))
    }

    fn note_wait(&mut self, time: Time, reason: &str) -> String {
        let text = format!("{} waits: {reason}", self.name);
        if !std::mem::replace(&mut self.external.is_wait_told, true) {
            self.add_history(time, format!("the cluster manager's start waits: {reason}"));
        }
        text
    }

    /// Lets the address go for the cluster manager.
    pub(super) fn stop_external(&mut self, token: FencingToken) {
        self.external = ExternalEntry::default();
        let cause = "the cluster manager stopped it here";
        self.cause = Some(cause.into());
        self.unwant(now(), token, cause);
    }
}
