//! Ownership by the leases of an etcd cluster: which keys a node writes, and for how long what it
//! read proves that it owns an address. Requests and their transport are the caller's.
//!
//! | key | value | lives with |
//! |---|---|---|
//! | `vip/NAME` | the owner; its creation revision is the fencing token | the owner's lease |
//! | `node/NAME` | addresses that the node can carry | the node's lease |
//! | `pin/NAME` | node that the operator chose for the address | that node's lease |

mod holder;
#[cfg(test)]
mod tests;
mod view;

pub use self::{
    holder::{EtcdHolder, LeaseProof},
    view::{EtcdEntry, EtcdServer, EtcdView, EtcdWrite},
};
