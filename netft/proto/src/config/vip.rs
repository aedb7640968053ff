//! The floating addresses of a config.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use crate::config::limits::{
    DEFAULT_CHECK_FALL, DEFAULT_CHECK_RISE, DEFAULT_CHECK_TIMEOUT, DEFAULT_EXTERNAL_LEASE,
    DEFAULT_HOOK_TIMEOUT, DEFAULT_LEASE,
};

/// Stands in the config for an address that a DHCP server assigns.
pub const DHCP_WORD: &str = "dhcp";

/// A floating address: one name, one IPv4 address, one IPv6 address or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipConfig {
    /// Its name, as a node's: what commands, events and the other nodes call it.
    pub name: String,
    /// One or two addresses, of different families; none: a DHCP server assigns one.
    pub addresses: Vec<VipAddress>,
    /// The interface that carries it; `None`: by network.
    pub interface: Option<String>,
    /// The network that carries it; `None`: the one that contains the address.
    pub network: Option<IpNet>,
    /// Who decides on its owner.
    pub ownership: VipOwnership,
    /// How long the owner may answer without a renewal, from 100 ms.
    pub lease: Duration,
    /// How the kernel enforces the lease.
    pub fence: VipFence,
    /// The node may choose it as the source of its own connections.
    pub source: bool,
    /// Nodes that should own it, the best first.
    pub preferred: Vec<String>,
    /// When it returns to a preferred node.
    pub failback: VipFailback,
    /// It goes to whichever node's check passes.
    pub follow: bool,
    /// Floating addresses whose owner should own it, too.
    pub together_with: Vec<String>,
    /// Floating addresses whose owners should not own it.
    pub apart_from: Vec<String>,
    /// Check of the service behind it.
    pub check: Option<VipCheck>,
    /// Program that is run at every change of its state.
    pub hook: Option<VipHook>,
}

/// An address, and the length of its network's prefix if the config gives it. The kernel gets a
/// host address (/32, /128): it changes no route, and no other address hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VipAddress {
    /// The address.
    pub addr: IpAddr,
    /// Prefix length that the interface's network must have.
    pub prefix_len: Option<u8>,
}

/// Who decides on the owner of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VipOwnership {
    /// The operator: `netft vip online`, `offline` and `move`.
    #[default]
    Manual,
    /// The nodes that vote (`[ownership]`), by raft.
    Raft,
    /// Leases of an etcd cluster (`[ownership.etcd]`).
    Etcd,
    /// A cluster manager, whose agent asks for each lease.
    External,
}

impl VipOwnership {
    /// The word in the config file and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Raft => "raft",
            Self::Etcd => "etcd",
            Self::External => "external",
        }
    }

    /// The engine of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Manual, Self::Raft, Self::Etcd, Self::External];
        all.into_iter().find(|engine| engine.as_str() == name)
    }

    /// True if an engine of netftd decides.
    pub const fn has_engine(self) -> bool {
        matches!(self, Self::Raft | Self::Etcd)
    }

    /// Length of a lease that the config does not give.
    pub const fn default_lease(self) -> Duration {
        match self {
            Self::External => DEFAULT_EXTERNAL_LEASE,
            Self::Manual | Self::Raft | Self::Etcd => DEFAULT_LEASE,
        }
    }
}

/// How the kernel enforces a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VipFence {
    /// Packets and ARP answers pass an nftables set whose element times out with the lease.
    #[default]
    Nftables,
    /// Not at all: a node that is stopped keeps answering.
    None,
}

impl VipFence {
    /// The word in the config file and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::None => "none",
        }
    }
}

/// When an address returns to a preferred node that can carry it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VipFailback {
    /// Not by itself.
    #[default]
    Never,
    /// Once it can have it; zero: at once.
    After(Duration),
}

/// A check of the service behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipCheck {
    /// The probe.
    pub probe: VipProbe,
    /// Time limit of one run.
    pub timeout: Duration,
    /// From the start of one run to that of the next.
    pub interval: Duration,
    /// Passes in a row that make a failed service healthy.
    pub rise: u32,
    /// Failures in a row that make a healthy service failed.
    pub fall: u32,
}

impl VipCheck {
    /// A check with the defaults.
    pub fn new(probe: VipProbe) -> Self {
        Self {
            probe,
            timeout: DEFAULT_CHECK_TIMEOUT,
            interval: DEFAULT_CHECK_TIMEOUT,
            rise: DEFAULT_CHECK_RISE,
            fall: DEFAULT_CHECK_FALL,
        }
    }
}

/// One run of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VipProbe {
    /// A TCP connection is accepted.
    Tcp(std::net::SocketAddr),
    /// An HTTP GET is answered with this status code.
    Http {
        /// Host and port to connect to.
        at: std::net::SocketAddr,
        /// The `Host` header.
        host: String,
        /// Path and query.
        path: String,
        /// Expected code.
        status: u16,
    },
    /// The program exits with 0.
    Exec(Vec<String>),
}

/// A program that is run at every change of an address's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipHook {
    /// Program and arguments.
    pub command: Vec<String>,
    /// It is killed after that.
    pub timeout: Duration,
}

impl VipHook {
    /// A hook with the default time limit.
    pub const fn new(command: Vec<String>) -> Self {
        Self { command, timeout: DEFAULT_HOOK_TIMEOUT }
    }
}

impl VipConfig {
    /// An address with the defaults: by network, owner decided by the operator.
    pub fn new(name: impl Into<String>, addresses: Vec<VipAddress>) -> Self {
        Self {
            name: name.into(),
            addresses,
            interface: None,
            network: None,
            ownership: VipOwnership::default(),
            lease: DEFAULT_LEASE,
            fence: VipFence::default(),
            source: false,
            preferred: Vec::new(),
            failback: VipFailback::default(),
            follow: false,
            together_with: Vec::new(),
            apart_from: Vec::new(),
            check: None,
            hook: None,
        }
    }

    /// A DHCP server assigns its address.
    pub const fn is_dhcp(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The address as one text: `10.1.0.9, fd01::9`, or `dhcp`.
    pub fn describe_addresses(&self) -> String {
        if self.is_dhcp() {
            return DHCP_WORD.to_owned();
        }
        let addresses: Vec<_> = self.addresses.iter().map(|one| one.addr.to_string()).collect();
        addresses.join(", ")
    }

    /// Digest of what must be the same on every node: FNV-1a over the values. Interface, network,
    /// check, hook and `source` may differ from node to node.
    pub fn shared_digest(&self) -> u64 {
        const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const FNV_PRIME: u64 = 0x0100_0000_01b3;
        let failback = match self.failback {
            VipFailback::Never => "never".to_owned(),
            VipFailback::After(hold) => hold.as_millis().to_string(),
        };
        let values = [
            self.name.clone(),
            self.describe_addresses(),
            self.ownership.as_str().to_owned(),
            self.fence.as_str().to_owned(),
            self.lease.as_millis().to_string(),
            failback,
            self.follow.to_string(),
            self.preferred.join(","),
            self.together_with.join(","),
            self.apart_from.join(","),
        ];
        values
            .join(";")
            .bytes()
            .fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME))
    }

    /// Names of the keys whose values differ.
    pub(super) fn changed_keys(&self, new: &Self) -> Vec<&'static str> {
        let old = self;
        let placement = |vip: &Self| (vip.together_with.clone(), vip.apart_from.clone());
        let differences = [
            (old.addresses != new.addresses, "address"),
            (old.interface != new.interface, "interface"),
            (old.network != new.network, "network"),
            (old.ownership != new.ownership, "ownership"),
            (old.lease != new.lease, "lease"),
            (old.fence != new.fence, "fence"),
            (old.source != new.source, "source"),
            (old.preferred != new.preferred, "preferred"),
            (old.failback != new.failback, "failback"),
            (old.follow != new.follow, "follow"),
            (placement(old) != placement(new), "placement"),
            (old.check != new.check, "check"),
            (old.hook != new.hook, "hook"),
        ];
        differences.into_iter().filter(|(differs, _)| *differs).map(|(_, key)| key).collect()
    }
}
