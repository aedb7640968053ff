//! The client: from a grant of the floating address to a lease, and what ends it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use crate::{
    time::Time,
    vip::{
        dhcp::types::{
            DhcpAction, DhcpInput, DhcpLease, DhcpReply, DhcpReplyKind, DhcpRequest,
            DhcpRequestKind, DhcpState, IgnoreReason, is_host_address,
        },
        timing::SmallRandom,
        types::MacAddress,
    },
};

/// RFC 2131 section 4.1: first delay between two transmissions; each doubles the last.
const FIRST_RETRY: Duration = Duration::from_secs(4);
/// RFC 2131 section 4.1: longest delay between two transmissions.
const MAX_RETRY: Duration = Duration::from_secs(64);
/// RFC 2131 section 4.1: each delay is longer or shorter by up to this.
const RETRY_SPREAD: Duration = Duration::from_secs(1);
/// RFC 2131 section 4.4.5: least time between two requests for more time.
const MIN_RENEW_RETRY: Duration = Duration::from_secs(60);
/// RFC 2131 section 3.1, 5: pause after a conflict; also after a server that offers and refuses.
const RESTART_PAUSE: Duration = Duration::from_secs(10);
/// Requests for an offer, or for the remembered address, before the client turns to another way.
const REQUEST_ATTEMPTS: u32 = 4;
/// Unanswered DHCPDISCOVERs after which the lack of a server is told: 12 s.
const DISCOVER_ATTEMPTS: u32 = 2;
/// RFC 2131 section 3.3: a lease without end.
const INFINITE_LEASE: u32 = u32::MAX;
/// Shortest lease that is taken: a shorter one is nearly over when the address is announced.
const MIN_LEASE_SECS: u32 = 10;

/// The client of one floating address on one node.
#[derive(Debug)]
pub struct DhcpClient {
    state: DhcpState,
    /// The lease in use.
    lease: Option<DhcpLease>,
    /// The offer that was taken: address and server.
    offer: Option<(Ipv4Addr, Ipv4Addr)>,
    /// The server that refused the remembered lease, which is another's.
    refused_by: Option<Ipv4Addr>,
    /// The last address: a server is asked for it first.
    hint: Option<Ipv4Addr>,
    xid: u32,
    /// Transmissions in this state.
    attempts: u32,
    began: Time,
    /// First request of this transaction: a lease counts from here.
    asked: Time,
    next: Option<Time>,
    /// No server is asked before.
    pause_until: Time,
    ignored: BTreeMap<IgnoreReason, u64>,
    random: SmallRandom,
    actions: VecDeque<DhcpAction>,
}

impl DhcpClient {
    /// A client that is stopped; `seed` for its transaction numbers and delays.
    pub const fn new(seed: u64) -> Self {
        Self {
            state: DhcpState::Stopped,
            lease: None,
            offer: None,
            refused_by: None,
            hint: None,
            xid: 0,
            attempts: 0,
            began: Time::ZERO,
            asked: Time::ZERO,
            next: None,
            pause_until: Time::ZERO,
            ignored: BTreeMap::new(),
            random: SmallRandom(seed),
            actions: VecDeque::new(),
        }
    }

    /// Its state.
    pub const fn state(&self) -> DhcpState {
        self.state
    }

    /// The lease in use.
    pub const fn lease(&self) -> Option<&DhcpLease> {
        self.lease.as_ref()
    }

    /// Transaction whose answer it waits for.
    pub const fn xid(&self) -> u32 {
        self.xid
    }

    /// Messages of servers that were ignored, by reason.
    pub const fn ignored(&self) -> &BTreeMap<IgnoreReason, u64> {
        &self.ignored
    }

    /// When [`DhcpInput::Timer`] is due.
    pub fn next_wake(&self) -> Option<Time> {
        let end = self.lease.and_then(|lease| lease.expires);
        self.next.into_iter().chain(end).min()
    }

    /// The next action to carry out.
    pub fn poll_action(&mut self) -> Option<DhcpAction> {
        self.actions.pop_front()
    }

    /// An action waits to be carried out.
    pub fn has_action(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Takes an input.
    pub fn on_input(&mut self, now: Time, input: DhcpInput) {
        self.check_expiry(now);
        match input {
            DhcpInput::Start(remembered) => self.start(now, remembered),
            DhcpInput::Stop => self.stop(),
            DhcpInput::Reply { reply, is_taken } => {
                if let Err(reason) = self.on_reply(now, &reply, is_taken) {
                    *self.ignored.entry(reason).or_default() += 1;
                }
            }
            DhcpInput::Conflict => self.decline(now),
            DhcpInput::Release => self.release(now),
            DhcpInput::Timer => self.on_timer(now),
        }
    }

    fn start(&mut self, now: Time, remembered: Option<DhcpLease>) {
        if self.state != DhcpState::Stopped {
            return;
        }
        self.began = now;
        self.hint = remembered.map(|lease| lease.addr);
        match remembered.filter(|lease| lease.is_running(now)) {
            // The lease is the resource's: the new owner uses it, and has it confirmed beside the
            // use (RFC 2131 section 3.2, INIT-REBOOT).
            Some(lease) => {
                self.lease = Some(lease);
                self.actions.push_back(DhcpAction::Assigned(lease));
                self.enter(now, DhcpState::Rebooting);
                self.transmit(now);
            }
            None => self.discover(now),
        }
    }

    fn stop(&mut self) {
        self.state = DhcpState::Stopped;
        (self.lease, self.offer, self.next) = (None, None, None);
    }

    /// Begins a transaction.
    fn enter(&mut self, now: Time, state: DhcpState) {
        self.state = state;
        self.attempts = 0;
        self.refused_by = None;
        self.asked = now;
        self.xid = self.random.next_number() as u32;
    }

    /// Looks for a server, or waits until it may.
    fn discover(&mut self, now: Time) {
        self.offer = None;
        if now < self.pause_until {
            self.state = DhcpState::Waiting;
            self.next = Some(self.pause_until);
            return;
        }
        self.enter(now, DhcpState::Selecting);
        self.transmit(now);
    }

    fn check_expiry(&mut self, now: Time) {
        if let Some(lease) = self.lease.filter(|lease| !lease.is_running(now)) {
            self.lose(format!("its DHCP lease of {} ended: no server renewed it", lease.addr));
            self.hint = Some(lease.addr);
            self.discover(now);
        }
    }

    fn lose(&mut self, reason: String) {
        self.lease = None;
        self.actions.push_back(DhcpAction::Lost(reason));
    }

    /// Sends the message of this state, and sets when it is sent again.
    fn transmit(&mut self, now: Time) {
        let in_use = self.lease.map_or(Ipv4Addr::UNSPECIFIED, |lease| lease.addr);
        let message = match (self.state, self.offer, self.lease) {
            (DhcpState::Selecting, ..) => {
                let base = self.message(now, DhcpRequestKind::Discover);
                DhcpRequest { requested: self.hint, ..base }
            }
            (DhcpState::Requesting, Some((addr, server)), _) => {
                let base = self.message(now, DhcpRequestKind::Request);
                DhcpRequest { requested: Some(addr), server: Some(server), ..base }
            }
            (DhcpState::Rebooting, _, Some(lease)) => {
                let base = self.message(now, DhcpRequestKind::Request);
                DhcpRequest { requested: Some(lease.addr), ..base }
            }
            (DhcpState::Renewing, _, Some(lease)) => DhcpRequest {
                client_addr: in_use,
                to: lease.server_mac.map(|mac| (mac, lease.server)),
                ..self.message(now, DhcpRequestKind::Request)
            },
            (DhcpState::Rebinding, ..) => {
                DhcpRequest { client_addr: in_use, ..self.message(now, DhcpRequestKind::Request) }
            }
            (
                DhcpState::Stopped
                | DhcpState::Waiting
                | DhcpState::Requesting
                | DhcpState::Rebooting
                | DhcpState::Bound
                | DhcpState::Renewing,
                ..,
            ) => return,
        };
        self.actions.push_back(DhcpAction::Send(message));
        self.attempts += 1;
        let deadline = match (self.state, self.lease) {
            (DhcpState::Renewing, Some(lease)) => lease.rebind_at,
            (DhcpState::Rebinding, Some(lease)) => lease.expires,
            _ => None,
        };
        self.next = Some(match deadline {
            // RFC 2131 section 4.4.5: half of what remains.
            Some(end) => end.min(now + (end.since(now) / 2).max(MIN_RENEW_RETRY)),
            None => now + self.retry_delay(),
        });
    }

    fn retry_delay(&mut self) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(8);
        let delay = (FIRST_RETRY * (1 << doublings)).min(MAX_RETRY);
        delay - RETRY_SPREAD + self.random.duration_below(2 * RETRY_SPREAD)
    }

    fn message(&self, now: Time, kind: DhcpRequestKind) -> DhcpRequest {
        let secs = now.since(self.began).as_secs();
        DhcpRequest {
            kind,
            xid: self.xid,
            secs: u16::try_from(secs).unwrap_or(u16::MAX),
            client_addr: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server: None,
            to: None,
        }
    }

    fn on_timer(&mut self, now: Time) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        match self.state {
            DhcpState::Stopped => self.next = None,
            DhcpState::Waiting => self.discover(now),
            DhcpState::Selecting => {
                if self.attempts == DISCOVER_ATTEMPTS {
                    let reason = "no DHCP server answers".to_owned();
                    self.actions.push_back(DhcpAction::Unserved(reason));
                }
                self.transmit(now);
            }
            DhcpState::Requesting if self.attempts >= REQUEST_ATTEMPTS => self.discover(now),
            DhcpState::Rebooting if self.attempts >= REQUEST_ATTEMPTS => {
                match (self.refused_by, self.lease) {
                    (Some(server), Some(lease)) => self.on_refusal(now, lease.addr, server),
                    // RFC 2131 section 3.2, 3: without an answer, for the rest of the lease.
                    _ => self.settle(),
                }
            }
            DhcpState::Requesting | DhcpState::Rebooting => self.transmit(now),
            DhcpState::Bound => {
                self.enter(now, DhcpState::Renewing);
                self.transmit(now);
            }
            DhcpState::Renewing => {
                if self.lease.and_then(|lease| lease.rebind_at).is_some_and(|at| at <= now) {
                    self.enter(now, DhcpState::Rebinding);
                }
                self.transmit(now);
            }
            DhcpState::Rebinding => self.transmit(now),
        }
    }

    /// Keeps the lease until T1.
    fn settle(&mut self) {
        self.state = DhcpState::Bound;
        self.next = self.lease.and_then(|lease| lease.renew_at);
    }

    fn on_reply(
        &mut self,
        now: Time,
        reply: &DhcpReply,
        is_taken: bool,
    ) -> Result<(), IgnoreReason> {
        if reply.xid != self.xid {
            return Err(IgnoreReason::Transaction);
        }
        match (self.state, reply.kind) {
            (DhcpState::Selecting, DhcpReplyKind::Offer) => self.on_offer(now, reply, is_taken),
            (
                DhcpState::Requesting
                | DhcpState::Rebooting
                | DhcpState::Renewing
                | DhcpState::Rebinding,
                DhcpReplyKind::Ack | DhcpReplyKind::Nak,
            ) => self.on_answer(now, reply, is_taken),
            _ => Err(IgnoreReason::Unexpected),
        }
    }

    fn on_offer(
        &mut self,
        now: Time,
        reply: &DhcpReply,
        is_taken: bool,
    ) -> Result<(), IgnoreReason> {
        let server = reply.server.filter(is_host_address).ok_or(IgnoreReason::NoServer)?;
        check_address(reply, is_taken)?;
        self.offer = Some((reply.addr, server));
        // The transaction goes on (RFC 2131 section 4.3.2).
        self.state = DhcpState::Requesting;
        self.attempts = 0;
        self.asked = now;
        self.transmit(now);
        Ok(())
    }

    fn on_answer(
        &mut self,
        now: Time,
        reply: &DhcpReply,
        is_taken: bool,
    ) -> Result<(), IgnoreReason> {
        let (addr, asked_server) = match (self.state, self.offer, self.lease) {
            (DhcpState::Requesting, Some((addr, server)), _) => (addr, Some(server)),
            (DhcpState::Renewing, _, Some(lease)) => (lease.addr, Some(lease.server)),
            (_, _, Some(lease)) => (lease.addr, None),
            _ => return Err(IgnoreReason::Unexpected),
        };
        // Servers must say who they are; one that does not is the one that was asked.
        let server = reply.server.or(asked_server).filter(is_host_address);
        let server = server.ok_or(IgnoreReason::NoServer)?;
        if asked_server.is_some_and(|asked| asked != server) {
            return Err(IgnoreReason::OtherServer);
        }
        if reply.kind == DhcpReplyKind::Nak {
            // The request is broadcast, and a server that does not know the lease may refuse it
            // (RFC 2131 section 3.2, 4). The one that gave it is heard first.
            let is_foreign = self.lease.is_some_and(|lease| lease.server != server);
            if self.state == DhcpState::Rebooting && is_foreign {
                self.refused_by = Some(server);
                return Err(IgnoreReason::OtherServer);
            }
            self.on_refusal(now, addr, server);
            return Ok(());
        }
        if reply.addr != addr {
            return Err(IgnoreReason::Address);
        }
        check_address(reply, is_taken)?;
        let lease = self.read_lease(reply, server, reply.from)?;
        self.lease = Some(lease);
        self.offer = None;
        self.actions.push_back(DhcpAction::Assigned(lease));
        self.settle();
        Ok(())
    }

    fn on_refusal(&mut self, now: Time, addr: Ipv4Addr, server: Ipv4Addr) {
        self.hint = None;
        if self.lease.is_some() {
            self.lose(format!("the DHCP server {server} refuses {addr}"));
        } else {
            // A server that refuses what it offered would do so again at once.
            self.pause_until = now + RESTART_PAUSE;
        }
        self.discover(now);
    }

    /// The lease of a DHCPACK.
    fn read_lease(
        &self,
        reply: &DhcpReply,
        server: Ipv4Addr,
        mac: MacAddress,
    ) -> Result<DhcpLease, IgnoreReason> {
        let secs = reply.lease_secs.filter(|secs| *secs >= MIN_LEASE_SECS);
        let secs = secs.ok_or(IgnoreReason::LeaseTime)?;
        let mut lease = DhcpLease {
            addr: reply.addr,
            server,
            server_mac: Some(mac),
            obtained: self.asked,
            renew_at: None,
            rebind_at: None,
            expires: None,
        };
        if secs == INFINITE_LEASE {
            return Ok(lease);
        }
        let length = Duration::from_secs(secs.into());
        let given = |secs: Option<u32>| secs.map(|secs| Duration::from_secs(secs.into()));
        // RFC 2131 section 4.4.5: the defaults, and T1 before T2 before the end.
        let (mut renew, mut rebind) = (length / 2, length * 7 / 8);
        match (given(reply.renew_secs), given(reply.rebind_secs)) {
            (Some(t1), Some(t2)) if Duration::ZERO < t1 && t1 < t2 && t2 < length => {
                (renew, rebind) = (t1, t2);
            }
            (Some(t1), None) if Duration::ZERO < t1 && t1 < rebind => renew = t1,
            (None, Some(t2)) if renew < t2 && t2 < length => rebind = t2,
            _ => {}
        }
        lease.renew_at = Some(self.asked + renew);
        lease.rebind_at = Some(self.asked + rebind);
        lease.expires = Some(self.asked + length);
        Ok(lease)
    }

    /// Tells the server that another host has the address (RFC 2131 section 4.4.4).
    fn decline(&mut self, now: Time) {
        let Some(lease) = self.lease else { return };
        self.actions.push_back(DhcpAction::Send(DhcpRequest {
            requested: Some(lease.addr),
            server: Some(lease.server),
            ..self.message(now, DhcpRequestKind::Decline)
        }));
        self.lose(format!("another host uses {}: declined", lease.addr));
        self.hint = None;
        self.pause_until = now + RESTART_PAUSE;
        self.discover(now);
    }

    /// Gives the lease back (RFC 2131 section 4.4.6), and stops.
    fn release(&mut self, now: Time) {
        if let Some(lease) = self.lease {
            self.xid = self.random.next_number() as u32;
            self.actions.push_back(DhcpAction::Send(DhcpRequest {
                client_addr: lease.addr,
                server: Some(lease.server),
                to: lease.server_mac.map(|mac| (mac, lease.server)),
                ..self.message(now, DhcpRequestKind::Release)
            }));
        }
        self.stop();
    }
}

fn check_address(reply: &DhcpReply, is_taken: bool) -> Result<(), IgnoreReason> {
    match is_host_address(&reply.addr) {
        false => Err(IgnoreReason::Address),
        true if is_taken => Err(IgnoreReason::Taken),
        true => Ok(()),
    }
}
