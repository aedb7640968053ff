//! Heartbeats: request and reply, with the sender's verdict on every route. Pure.

/// Bytes of a heartbeat before its verdicts.
pub const FIXED_LEN: usize = 40;
/// Bytes of one verdict.
pub const VERDICT_LEN: usize = 8;
/// The most verdicts one heartbeat carries.
pub const MAX_VERDICTS: usize = 64;

/// Request or reply (NetFT's heartbeat is "a Request-Reply type process").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Message {
    /// Sent on every enabled route every delay.
    Request = 1,
    /// The answer to a request, on the route the request came on.
    Reply = 2,
}

/// A decoded heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Request or reply.
    pub message: Message,
    /// The sender's number of the route this heartbeat travels on. Never 0.
    pub route: u32,
    /// The receiver's number of the same route as far as the sender knows; 0 before it knows.
    pub your_route: u32,
    /// Request: the sender's sequence on this route. Reply: the request's, echoed.
    pub sequence: u32,
    /// Request: the sender's clock at sending, ns. Reply: the request's, echoed.
    pub sent_at: u64,
    /// Reply: how long the replier held the request, µs (saturating). Request: 0.
    pub held_us: u32,
    /// How long the sender itself was last not scheduled, ms (0: not lately). RFC-free: the
    /// self-stall guard of reliability F-20.
    pub stalled_ms: u16,
    /// Counts up with every heartbeat to the receiver, over all routes: verdicts of an older one
    /// are ignored (serial arithmetic, RFC 1982).
    pub serial: u32,
    /// What the sender hears on each of its routes to the receiver, at most [`MAX_VERDICTS`].
    pub verdicts: Vec<Verdict>,
}

/// What a node hears on one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The receiver's number of the route.
    pub your_route: u32,
    /// The sender hears the receiver's heartbeats here.
    pub heard: bool,
    /// The route is broken at the sender's own end (carrier, address), so it will not send here.
    pub local_down: bool,
    /// The route is administratively down, or draining, at the sender.
    pub admin_down: bool,
    /// Share of the receiver's heartbeats lost lately, per mille (0–1000).
    pub loss_permille: u16,
}
