//! The invites of a node, and who may join with them.
//!
//! ```text
//! open ── as many nodes joined as it is for ──▶ used up
//!      ── its time is over ──────────────────▶ expired
//!      ── 10 wrong secrets, or a node that joined with it was removed ──▶ closed
//! ```
//!
//! An invite that is not open lets nobody in, but a node that joined with it may ask again until it
//! expires: its reply may have been lost. It is remembered for [`REMEMBER_TIME`] after its end, so
//! that its holder learns the reason.
//!
//! Guessing is bounded by 192 bits of number and secret, and by policy. A source (an IPv4 address,
//! or an IPv6 prefix of 64 bits) has [`SOURCE_BURST`] wrong attempts and one more every
//! [`SOURCE_INTERVAL`]; beyond them nothing of it is looked at. All sources together have
//! [`TOTAL_BURST`] and one more every [`TOTAL_INTERVAL`]; beyond them unknown invites are refused
//! unseen, and the holders of tokens still join. A wrong secret for a known invite costs that
//! invite one of [`MAX_WRONG_SECRETS`]: its number stands in its token alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::{
    ids::NodeKey,
    roster::{
        document::Roster,
        join_message::JoinRequest,
        join_token::{InviteId, InviteSecret, JoinSession},
    },
    time::Time,
};

/// Invites remembered at once.
pub const MAX_INVITES: usize = 64;
/// Longest time of an invite.
pub const MAX_INVITE_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time for which an invite is remembered after its end.
pub const REMEMBER_TIME: Duration = Duration::from_secs(600);
/// Wrong secrets after which an invite is closed.
const MAX_WRONG_SECRETS: u32 = 10;
/// Wrong attempts of one source at once.
const SOURCE_BURST: u32 = 10;
/// Time after which a source has one more.
const SOURCE_INTERVAL: Duration = Duration::from_secs(10);
/// Wrong attempts of all sources at once.
const TOTAL_BURST: u32 = 100;
/// Time after which all sources have one more.
const TOTAL_INTERVAL: Duration = Duration::from_secs(1);
/// Sources with wrong attempts; beyond, all are forgotten, and the bound of all together holds.
const MAX_SOURCES: usize = 1024;

/// Reason for refusing a joiner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum JoinRefusal {
    /// No such invite: never opened, or forgotten.
    #[error(
        "the token is not known here: it expired long ago, the inviting netftd was restarted, or \
         the token is of another node; `netft cluster invite` prints a new one"
    )]
    UnknownInvite,
    /// The proof does not fit.
    #[error("the token's secret is wrong: copy the token whole")]
    WrongSecret,
    /// Its time is over.
    #[error("the token has expired: `netft cluster invite` prints a new one")]
    Expired,
    /// As many nodes as it is for have joined.
    #[error("the token is used up: `netft cluster invite` prints a new one")]
    UsedUp,
    /// It was closed.
    #[error(
        "the token was closed, since wrong secrets were tried with it or a node that joined with \
         it was removed: `netft cluster invite` prints a new one"
    )]
    Closed,
    /// It is for a node of another name.
    #[error("the token is for a node of another name: leave `--name` out")]
    WrongName,
    /// Too many wrong attempts.
    #[error("too many wrong attempts to join: try again in a few minutes")]
    TooManyAttempts,
}

impl JoinRefusal {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::UnknownInvite,
        Self::WrongSecret,
        Self::Expired,
        Self::UsedUp,
        Self::Closed,
        Self::WrongName,
        Self::TooManyAttempts,
    ];

    /// The name in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownInvite => "unknown_invite",
            Self::WrongSecret => "wrong_secret",
            Self::Expired => "expired",
            Self::UsedUp => "used_up",
            Self::Closed => "closed",
            Self::WrongName => "wrong_name",
            Self::TooManyAttempts => "too_many_attempts",
        }
    }
}

/// An invite.
#[derive(Clone, Debug)]
pub struct Invite {
    secret: InviteSecret,
    /// Name of the only node it is for.
    name: Option<String>,
    expires: Time,
    /// Nodes that may join with it.
    uses: u32,
    wrong_secrets: u32,
    /// The nodes that joined with it.
    joined: BTreeSet<NodeKey>,
    closed: bool,
}

impl Invite {
    /// An invite that nobody has used: for `uses` nodes, or for the one of this name.
    pub const fn new(secret: InviteSecret, name: Option<String>, expires: Time, uses: u32) -> Self {
        Self {
            secret,
            name,
            expires,
            uses,
            wrong_secrets: 0,
            joined: BTreeSet::new(),
            closed: false,
        }
    }

    fn is_open(&self, now: Time) -> bool {
        !self.closed && self.expires > now && (self.joined.len() as u32) < self.uses
    }

    fn forgotten_at(&self) -> Time {
        self.expires + REMEMBER_TIME
    }

    /// Checks the holder of its secret. Returns the name of the node.
    fn check_holder(
        &self,
        now: Time,
        joiner: &NodeKey,
        request: &JoinRequest,
    ) -> Result<String, JoinRefusal> {
        if self.expires <= now {
            return Err(JoinRefusal::Expired);
        }
        if !self.joined.contains(joiner) && self.joined.len() as u32 >= self.uses {
            return Err(JoinRefusal::UsedUp);
        }
        match &self.name {
            Some(name) if request.name_chosen && *name != request.name => {
                Err(JoinRefusal::WrongName)
            }
            Some(name) => Ok(name.clone()),
            None => Ok(request.name.clone()),
        }
    }
}

/// Wrong attempts: some at once, then one an interval (the generic cell rate algorithm).
#[derive(Clone, Copy, Debug, Default)]
struct AttemptBudget {
    /// Time at which all are there again.
    full_at: Time,
}

impl AttemptBudget {
    fn is_spent(&self, now: Time, burst: u32, interval: Duration) -> bool {
        self.full_at > now + interval * (burst - 1)
    }

    fn charge(&mut self, now: Time, interval: Duration) {
        self.full_at = self.full_at.max(now) + interval;
    }
}

/// The invites of a node.
#[derive(Debug, Default)]
pub struct InviteBook {
    invites: BTreeMap<InviteId, Invite>,
    sources: BTreeMap<IpAddr, AttemptBudget>,
    total: AttemptBudget,
    refused: BTreeMap<JoinRefusal, u64>,
}

impl InviteBook {
    /// Opens an invite. Returns false when [`MAX_INVITES`] are open.
    pub fn open_invite(&mut self, now: Time, id: InviteId, invite: Invite) -> bool {
        if self.invites.len() >= MAX_INVITES {
            self.invites.retain(|_, invite| invite.is_open(now));
        }
        self.invites.len() < MAX_INVITES && self.invites.insert(id, invite).is_none()
    }

    /// Invites that let somebody in.
    pub fn open_count(&self, now: Time) -> usize {
        self.invites.values().filter(|invite| invite.is_open(now)).count()
    }

    /// The time until which strangers are answered; `None`: they are not.
    pub fn answers_until(&self, now: Time) -> Option<Time> {
        self.invites.values().map(Invite::forgotten_at).filter(|end| *end > now).max()
    }

    /// Attempts refused, by reason.
    pub const fn refused(&self) -> &BTreeMap<JoinRefusal, u64> {
        &self.refused
    }

    /// Checks a joiner at the address `source`. Returns the name of the node.
    ///
    /// # Errors
    /// The reason for refusing it; it is counted.
    pub fn check_joiner(
        &mut self,
        now: Time,
        source: IpAddr,
        session: &JoinSession,
        request: &JoinRequest,
    ) -> Result<String, JoinRefusal> {
        self.invites.retain(|_, invite| invite.forgotten_at() > now);
        let checked = self.check_request(now, source_network(source), session, request);
        if let Err(refusal) = checked {
            *self.refused.entry(refusal).or_default() += 1;
        }
        checked
    }

    fn check_request(
        &mut self,
        now: Time,
        source: IpAddr,
        session: &JoinSession,
        request: &JoinRequest,
    ) -> Result<String, JoinRefusal> {
        let is_spent = |it: &AttemptBudget| it.is_spent(now, SOURCE_BURST, SOURCE_INTERVAL);
        if self.sources.get(&source).is_some_and(is_spent) {
            return Err(JoinRefusal::TooManyAttempts);
        }
        let Some(invite) = self.invites.get_mut(&request.invite) else {
            if self.total.is_spent(now, TOTAL_BURST, TOTAL_INTERVAL) {
                return Err(JoinRefusal::TooManyAttempts);
            }
            self.charge(now, source);
            return Err(JoinRefusal::UnknownInvite);
        };
        if invite.closed {
            self.charge(now, source);
            return Err(JoinRefusal::Closed);
        }
        // Before anything is said of the invite: only who has the token learns why.
        if invite.secret.accepts_proof(session, &request.proof) {
            return invite.check_holder(now, &session.joiner, request);
        }
        invite.wrong_secrets += 1;
        invite.closed = invite.wrong_secrets >= MAX_WRONG_SECRETS;
        self.charge(now, source);
        Err(JoinRefusal::WrongSecret)
    }

    fn charge(&mut self, now: Time, source: IpAddr) {
        self.total.charge(now, TOTAL_INTERVAL);
        if self.sources.len() >= MAX_SOURCES {
            self.sources.retain(|_, budget| budget.full_at > now);
        }
        if self.sources.len() >= MAX_SOURCES {
            self.sources.clear();
        }
        self.sources.entry(source).or_default().charge(now, SOURCE_INTERVAL);
    }

    /// A node that was [checked](Self::check_joiner) is in the roster from here on. Returns false
    /// when it repeats a join.
    pub fn record_join(&mut self, id: InviteId, joiner: NodeKey) -> bool {
        self.invites.get_mut(&id).is_some_and(|invite| invite.joined.insert(joiner))
    }

    /// Closes every invite that a node joined with which `roster` does not name: it may still have
    /// the token.
    pub fn close_of_removed(&mut self, roster: &Roster) {
        for invite in self.invites.values_mut() {
            invite.closed |= invite.joined.iter().any(|key| roster.node_with_key(key).is_none());
        }
    }
}

/// The source that an address counts for: an IPv4 address, or the /64 that one host may choose
/// addresses of.
pub fn source_network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::roster::{cluster_id::ClusterId, edit::NodeEntry};

    const SECRET_BYTES: [u8; 16] = [9; 16];
    const INVITE_ID: InviteId = InviteId([1; 8]);

    fn key(number: u16) -> NodeKey {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        NodeKey(bytes)
    }

    fn session(joiner: u16) -> JoinSession {
        JoinSession { inviter: key(0), joiner: key(joiner), exporter: [5; 32] }
    }

    fn request(joiner: u16, secret: [u8; 16]) -> JoinRequest {
        JoinRequest {
            invite: INVITE_ID,
            proof: InviteSecret::new(secret).prove(&session(joiner)),
            name: "b".to_owned(),
            name_chosen: false,
            addresses: Vec::new(),
        }
    }

    fn unknown_request() -> JoinRequest {
        JoinRequest { invite: InviteId([2; 8]), ..request(2, [0; 16]) }
    }

    fn source(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        [10, 0, high, low].into()
    }

    fn seconds(count: u64) -> Time {
        Time::from_millis(count * 1000)
    }

    fn book(name: Option<&str>, uses: u32) -> InviteBook {
        let mut book = InviteBook::default();
        let name = name.map(str::to_owned);
        let invite = Invite::new(InviteSecret::new(SECRET_BYTES), name, seconds(60), uses);
        assert!(book.open_invite(Time::ZERO, INVITE_ID, invite));
        book
    }

    /// An attempt with the right secret, from a source of its own.
    fn attempt(book: &mut InviteBook, now: Time, joiner: u16) -> Result<String, JoinRefusal> {
        book.check_joiner(now, source(joiner), &session(joiner), &request(joiner, SECRET_BYTES))
    }

    #[test]
    fn an_invite_is_for_as_many_nodes_as_it_says_and_a_join_may_be_repeated() {
        let mut book = book(None, 2);
        let now = seconds(1);
        for joiner in [1, 2] {
            for _ in 0..3 {
                assert_eq!(attempt(&mut book, now, joiner).as_deref(), Ok("b"));
                book.record_join(INVITE_ID, key(joiner));
            }
        }
        assert_eq!(book.open_count(now), 0);
        assert_eq!(attempt(&mut book, now, 3), Err(JoinRefusal::UsedUp));
        assert_eq!(attempt(&mut book, now, 1).as_deref(), Ok("b"), "its reply was lost");
        assert_eq!(attempt(&mut book, seconds(60), 1), Err(JoinRefusal::Expired));
    }

    #[test]
    fn an_invite_is_answered_for_a_while_after_its_end_and_then_forgotten() {
        let mut book = book(None, 1);
        assert_eq!(book.open_count(seconds(59)), 1);
        assert_eq!(attempt(&mut book, seconds(61), 1), Err(JoinRefusal::Expired));
        assert_eq!(book.answers_until(seconds(61)), Some(seconds(660)));
        assert_eq!(attempt(&mut book, seconds(660), 1), Err(JoinRefusal::UnknownInvite));
        assert_eq!(book.answers_until(seconds(660)), None);
    }

    #[test]
    fn a_token_for_one_name_names_the_node() {
        let mut book = book(Some("c"), 1);
        assert_eq!(attempt(&mut book, Time::ZERO, 1).as_deref(), Ok("c"));
        let chosen = JoinRequest { name_chosen: true, ..request(1, SECRET_BYTES) };
        let found = book.check_joiner(Time::ZERO, source(1), &session(1), &chosen);
        assert_eq!(found, Err(JoinRefusal::WrongName));
    }

    #[test]
    fn a_proof_of_another_session_or_node_is_a_wrong_secret() {
        let mut book = book(None, 1);
        let good = request(1, SECRET_BYTES);
        let other = JoinSession { exporter: [6; 32], ..session(1) };
        for session in [other, session(2)] {
            let found = book.check_joiner(Time::ZERO, source(1), &session, &good);
            assert_eq!(found, Err(JoinRefusal::WrongSecret));
        }
        assert_eq!(book.refused()[&JoinRefusal::WrongSecret], 2);
    }

    #[test]
    fn ten_thousand_wrong_tokens_of_one_source_are_not_looked_at() {
        let mut book = book(None, 1);
        let mut now = Time::ZERO;
        for _ in 0..10_000 {
            now = now + Duration::from_millis(1);
            assert!(book.check_joiner(now, source(2), &session(2), &unknown_request()).is_err());
        }
        // Ten at once, and the next one after ten seconds.
        assert_eq!(book.refused()[&JoinRefusal::UnknownInvite], 10);
        assert_eq!(book.refused()[&JoinRefusal::TooManyAttempts], 9_990);
        // Not even a right one; another source is free to join, and this one later.
        let right = book.check_joiner(now, source(2), &session(2), &request(2, SECRET_BYTES));
        assert_eq!(right, Err(JoinRefusal::TooManyAttempts));
        assert_eq!(attempt(&mut book, now, 1).as_deref(), Ok("b"));
        let later = now + SOURCE_INTERVAL;
        let right = book.check_joiner(later, source(2), &session(2), &request(2, SECRET_BYTES));
        assert_eq!(right.as_deref(), Ok("b"));
    }

    #[test]
    fn ten_thousand_wrong_tokens_of_many_sources_do_not_shut_out_a_holder() {
        let mut book = book(None, 1);
        let mut now = Time::ZERO;
        for number in 0..10_000 {
            now = now + Duration::from_millis(1);
            assert!(
                book.check_joiner(now, source(number), &session(2), &unknown_request()).is_err()
            );
            assert!(book.sources.len() <= MAX_SOURCES);
        }
        // A hundred at once, and one for each of the next nine seconds.
        assert_eq!(book.refused()[&JoinRefusal::UnknownInvite], 109);
        let found = book.check_joiner(now, source(20_000), &session(1), &request(1, SECRET_BYTES));
        assert_eq!(found.as_deref(), Ok("b"));
    }

    #[test]
    fn an_address_of_one_host_is_one_source() {
        let mut book = book(None, 1);
        for host in 0..40u16 {
            let from = IpAddr::from([0xfd00, 0, 0, 1, host, 0, 0, 1]);
            assert!(book.check_joiner(Time::ZERO, from, &session(2), &unknown_request()).is_err());
        }
        assert_eq!(book.refused()[&JoinRefusal::UnknownInvite], u64::from(SOURCE_BURST));
    }

    #[test]
    fn wrong_secrets_close_the_invite_that_they_name() {
        let mut book = book(None, 1);
        let other = Invite::new(InviteSecret::new(SECRET_BYTES), None, seconds(60), 1);
        assert!(book.open_invite(Time::ZERO, InviteId([3; 8]), other));
        for number in 0..MAX_WRONG_SECRETS as u16 {
            let wrong = request(2, [100; 16]);
            let found = book.check_joiner(Time::ZERO, source(100 + number), &session(2), &wrong);
            assert_eq!(found, Err(JoinRefusal::WrongSecret), "{number}");
        }
        assert_eq!(attempt(&mut book, Time::ZERO, 1), Err(JoinRefusal::Closed));
        let good = JoinRequest { invite: InviteId([3; 8]), ..request(1, SECRET_BYTES) };
        let found = book.check_joiner(Time::ZERO, source(1), &session(1), &good);
        assert_eq!(found.as_deref(), Ok("b"), "the other invite");
    }

    #[test]
    fn a_removal_closes_the_invites_that_the_node_joined_with() {
        let mut book = book(None, 3);
        let entry = NodeEntry {
            name: "b".to_owned(),
            key: key(1),
            addresses: Vec::new(),
            site: String::new(),
            roles: Vec::new(),
        };
        let with = Roster::new("prod", ClusterId([1; 32])).with_node(entry).unwrap();
        assert!(attempt(&mut book, Time::ZERO, 1).is_ok());
        book.record_join(INVITE_ID, key(1));
        book.close_of_removed(&with);
        assert!(attempt(&mut book, Time::ZERO, 2).is_ok());
        book.close_of_removed(&with.without_node("b").unwrap());
        assert_eq!(attempt(&mut book, Time::ZERO, 1), Err(JoinRefusal::Closed));
        assert_eq!(attempt(&mut book, Time::ZERO, 2), Err(JoinRefusal::Closed));
    }

    #[test]
    fn invites_are_bounded_and_ended_ones_make_room() {
        let mut book = InviteBook::default();
        let invite = |ends| Invite::new(InviteSecret::new(SECRET_BYTES), None, seconds(ends), 1);
        for number in 0..MAX_INVITES as u8 {
            let ends = if number == 0 { 1 } else { 60 };
            assert!(book.open_invite(Time::ZERO, InviteId([number; 8]), invite(ends)));
        }
        assert!(!book.open_invite(Time::ZERO, InviteId([200; 8]), invite(60)));
        assert!(book.open_invite(seconds(2), InviteId([200; 8]), invite(60)));
        assert_eq!(book.open_count(seconds(2)), MAX_INVITES);
    }
}
