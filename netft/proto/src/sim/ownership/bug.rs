//! Bugs to plant.

/// A bug to plant, to show that the rules find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnershipBug {
    /// A lease is counted from the arrival of the grant.
    FromReceipt,
    /// A new leader grants as if no lease of an earlier one could run.
    NewLeaderDoesNotWait,
    /// The votes do not tell when their nodes acknowledged a leader last: one second is assumed.
    VotesTellNoAge,
    /// A node says that it let an address go before it did.
    ReleaseNotAwaited,
    /// A leader grants without a majority that confirmed it since the request.
    NoConfirmation,
    /// A leader waits for the lease of its own config, not for that of the log.
    OwnLease,
    /// A new leader gives addresses away before it asked the other nodes to report.
    PlacesUnheard,
    /// A reply leaves out that the node is not the owner any more of what it holds.
    LeavesOutLoss,
}
