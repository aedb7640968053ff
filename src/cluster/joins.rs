//! Invites of this node and the nodes that join with them. Decisions are in `netft::roster`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use netft::{
    Time,
    api::{host::identity, join::JoinAttempt},
    roster::{
        ClusterId, Invite, InviteBook, InviteId, InviteSecret, JoinRefusal, JoinToken,
        MAX_INVITE_TTL, MAX_INVITES, MAX_TOKEN_ADDRESSES, Roster,
    },
};

use crate::{
    control::schema::{InviteAnswer, InviteOrder},
    exit::ExitError,
};

/// Least time between two log lines about refused joins.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Invites, and what became of the attempts to join.
#[derive(Debug, Default)]
pub(super) struct JoinHandler {
    book: InviteBook,
    accepted: u64,
    refusal_logged: Option<Instant>,
}

impl JoinHandler {
    /// Opens an invite to `cluster` at the node with the key `inviter`.
    ///
    /// # Errors
    /// The order is out of its bounds, or too many invites are open.
    pub(super) fn open_invite(
        &mut self,
        now: Time,
        cluster: ClusterId,
        inviter: netft::NodeKey,
        order: InviteOrder,
    ) -> Result<InviteAnswer, ExitError> {
        let InviteOrder { name, ttl_s, uses, addresses } = order;
        let ttl = Duration::from_secs(ttl_s);
        if ttl.is_zero() || ttl > MAX_INVITE_TTL || uses == 0 {
            return Err(ExitError::invalid_input(format!(
                "an invite is for at least one node and 1 s, and for at most {} days",
                MAX_INVITE_TTL.as_secs() / 86_400
            )));
        }
        if addresses.is_empty() || addresses.len() > MAX_TOKEN_ADDRESSES {
            return Err(ExitError::invalid_input(format!(
                "a token names 1 to {MAX_TOKEN_ADDRESSES} addresses of this node: give --address"
            )));
        }
        // One name is one node.
        let uses = if name.is_some() { 1 } else { uses };
        let random = |error| ExitError::bad_environment(error);
        let invite = InviteId(identity::random_bytes().map_err(random)?);
        let secret = InviteSecret::new(identity::random_bytes().map_err(random)?);
        let opened = Invite::new(secret.clone(), name.clone(), now + ttl, uses);
        if !self.book.open_invite(now, invite, opened) {
            return Err(ExitError::other_error(format!(
                "{MAX_INVITES} invites are open, the most at once: wait until one has ended"
            )));
        }
        tracing::info!(%invite, uses, ttl_s, name, "invite opened");
        let token = JoinToken { cluster, inviter, invite, secret, addresses };
        Ok(InviteAnswer { token: token.to_string(), invite: invite.to_string(), name, uses, ttl_s })
    }

    /// Checks an attempt. Returns the name of the node.
    pub(super) fn check_attempt(
        &mut self,
        now: Time,
        attempt: &JoinAttempt,
    ) -> Result<String, JoinRefusal> {
        let JoinAttempt { source, session, request, .. } = attempt;
        let checked = self.book.check_joiner(now, *source, session, request);
        if let Err(refusal) = &checked {
            let reason = refusal.as_str();
            tracing::debug!(%source, reason, "join refused");
            // Anybody may cause it: the counters tell how often.
            let logged = self.refusal_logged.map(|at| at.elapsed());
            if logged.is_none_or(|age| age >= REFUSAL_LOG_INTERVAL) {
                self.refusal_logged = Some(Instant::now());
                let every = REFUSAL_LOG_INTERVAL.as_secs();
                tracing::warn!(%source, reason, "join refused; at most one line in {every} s");
            }
        }
        checked
    }

    /// The node of a checked attempt is in the roster.
    pub(super) fn record_join(&mut self, attempt: &JoinAttempt) {
        let is_new = self.book.record_join(attempt.request.invite, attempt.session.joiner);
        self.accepted += u64::from(is_new);
    }

    /// Closes the invites of nodes that the roster does not name.
    pub(super) fn close_of_removed(&mut self, roster: &Roster) {
        self.book.close_of_removed(roster);
    }

    /// The time until which strangers are answered; `None`: they are not.
    pub(super) fn answers_until(&self, now: Time) -> Option<Time> {
        self.book.answers_until(now)
    }

    /// Invites open, nodes let in, and attempts refused by reason.
    pub(super) fn figures(&self, now: Time) -> (u64, u64, BTreeMap<String, u64>) {
        let refused = self.book.refused();
        let refused = JoinRefusal::ALL.into_iter().map(|reason| {
            (reason.as_str().to_owned(), refused.get(&reason).copied().unwrap_or_default())
        });
        (self.book.open_count(now) as u64, self.accepted, refused.collect())
    }
}
