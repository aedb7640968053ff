//! nf_tables over netlink, without nft(8): messages, tables, sockets. Used by the packet filter and
//! by the fence of the floating addresses.

pub(crate) mod nfnetlink;
pub(crate) mod socket;
pub(crate) mod table;
