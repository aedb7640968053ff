//! What the machines decided, carried out in the kernel: fence, addresses, messages to neighbors.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
};

use netft::{
    Time,
    api::{
        host::NetlinkError,
        vip::{FenceWatch, NeighborSocket, VipFence, VipInterfaces, remove_fence},
    },
    topology::Interface,
    vip::{MacAddress, NeighborMessage, VipLink},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// Messages of neighbors on their way to the service; beyond it the newest is dropped: a neighbor
/// that holds an address repeats what it says.
pub(super) const HEARD_QUEUE_LEN: usize = 256;

/// `ENOENT`: a table, or a set of it, is gone.
const TABLE_GONE_ERRNO: i32 = 2;
/// `ENETDOWN`.
const NETWORK_DOWN_ERRNO: i32 = 100;

/// A message of a neighbor, and the interface that it came in by.
pub(super) type HeardMessage = (u32, NeighborMessage);

/// The kernel side of all floating addresses.
pub(super) struct VipKernel {
    adapter: String,
    pub(super) interfaces: VipInterfaces,
    /// Addresses that the fence holds.
    fenced: BTreeSet<IpAddr>,
    fence: Option<VipFence>,
    /// Why the fence is missing.
    pub(super) fence_error: Option<String>,
    drops: u64,
    sockets: BTreeMap<u32, OpenSocket>,
    heard: mpsc::Sender<HeardMessage>,
}

struct OpenSocket {
    mac: MacAddress,
    addrs: Vec<IpAddr>,
    socket: Arc<NeighborSocket>,
    reader: JoinHandle<()>,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl VipKernel {
    pub(super) fn open(
        adapter: &str,
        heard: mpsc::Sender<HeardMessage>,
    ) -> Result<Self, NetlinkError> {
        Ok(Self {
            adapter: adapter.to_owned(),
            interfaces: VipInterfaces::open()?,
            fenced: BTreeSet::new(),
            fence: None,
            fence_error: None,
            drops: 0,
            sockets: BTreeMap::new(),
            heard,
        })
    }

    /// Makes these the addresses of the fence. Without any there is no fence.
    pub(super) async fn set_fenced(&mut self, addrs: BTreeSet<IpAddr>) {
        self.fenced = addrs;
        if self.fenced.is_empty() {
            self.remove_fence().await;
        } else if let Err(error) = self.ensure_fence().await {
            tracing::warn!(error, "the fence of the floating addresses is missing");
        }
    }

    pub(super) async fn remove_fence(&mut self) {
        if self.fence.take().is_some()
            && let Err(error) = remove_fence(&self.adapter).await
        {
            tracing::warn!(%error, "cannot remove the fence of the floating addresses");
        }
    }

    /// Sets the fence if it is missing, with the addresses wanted.
    async fn ensure_fence(&mut self) -> Result<&mut VipFence, String> {
        let result = match self.fence.as_mut() {
            Some(fence) => fence.set_vips(self.fenced.clone()).await,
            None => match VipFence::install(&self.adapter, self.fenced.clone()).await {
                Ok(fence) => {
                    self.fence = Some(fence);
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        self.fence_error = result.err().map(|error| describe_refusal(&error));
        match (&self.fence_error, self.fence.as_mut()) {
            (None, Some(fence)) => Ok(fence),
            (Some(error), _) => Err(error.clone()),
            (None, None) => Err("the fence is missing".to_owned()),
        }
    }

    /// A watch for changes of the fence by other programs.
    pub(super) fn watch_fence(&self) -> Option<FenceWatch> {
        self.fence.as_ref()?.watch().ok()
    }

    /// Puts a fence back that another program changed.
    pub(super) async fn restore_fence(&mut self) -> Result<(), String> {
        match self.fence.as_mut() {
            Some(fence) => fence.restore().await.map_err(|error| describe_refusal(&error)),
            None => self.ensure_fence().await.map(drop),
        }
    }

    /// True if another program removed parts of the fence. Adds up what it dropped.
    pub(super) async fn read_fence(&mut self) -> (bool, u64) {
        let Some(fence) = self.fence.as_mut() else { return (!self.fenced.is_empty(), 0) };
        match fence.read_drops().await {
            Ok(Some(packets)) => {
                let before = std::mem::replace(&mut self.drops, packets);
                (false, packets.checked_sub(before).unwrap_or(packets))
            }
            Ok(None) | Err(_) => (true, 0),
        }
    }

    /// Lets addresses answer until then; those without a fence do anyway.
    pub(super) async fn permit(&mut self, addrs: &[IpAddr], until: Time) -> Result<(), String> {
        let addrs: Vec<_> =
            addrs.iter().copied().filter(|addr| self.fenced.contains(addr)).collect();
        if addrs.is_empty() {
            return Ok(());
        }
        match self.ensure_fence().await?.permit(&addrs, until).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                tracing::warn!("a lease could not be set in time: the node is too slow");
                Ok(())
            }
            // The tables are gone: they are set at once.
            Err(error) if error.raw_os_error() == Some(TABLE_GONE_ERRNO) => {
                let fence = self.ensure_fence().await?;
                fence.restore().await.map_err(|error| describe_refusal(&error))?;
                fence.permit(&addrs, until).await.map_err(|error| describe_refusal(&error))
            }
            Err(error) => Err(describe_refusal(&error)),
        }
    }

    /// Stops addresses from answering.
    pub(super) async fn forbid(&mut self, addrs: &[IpAddr]) {
        let addrs: Vec<_> =
            addrs.iter().copied().filter(|addr| self.fenced.contains(addr)).collect();
        if let Some(fence) = self.fence.as_mut()
            && let Err(error) = fence.forbid(&addrs).await
        {
            // Its lease ends by itself; the address is removed next.
            tracing::warn!(%error, "cannot end a lease in the fence");
        }
    }

    /// Opens a socket on each interface that floating addresses may be on, for these addresses.
    pub(super) fn sync_sockets(&mut self, wanted: BTreeMap<u32, (VipLink, Vec<IpAddr>)>) {
        self.sockets.retain(|index, open| {
            wanted.get(index).is_some_and(|(link, addrs)| {
                link.mac == open.mac && *addrs == open.addrs && !open.reader.is_finished()
            })
        });
        for (index, (link, addrs)) in wanted {
            if self.sockets.contains_key(&index) {
                continue;
            }
            match NeighborSocket::open(index, link.mac, &addrs) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    let reader = read_neighbors(index, Arc::clone(&socket), self.heard.clone());
                    let reader = tokio::spawn(reader);
                    self.sockets.insert(index, OpenSocket { mac: link.mac, addrs, socket, reader });
                }
                Err(error) => {
                    tracing::warn!(interface = link.name, %error, "cannot talk to the neighbors");
                }
            }
        }
    }

    fn socket(&self, index: u32) -> Result<&NeighborSocket, String> {
        let open = self.sockets.get(&index).ok_or("no packet socket: is CAP_NET_RAW missing?")?;
        Ok(&open.socket)
    }

    pub(super) fn send_probe(&self, index: u32, addr: IpAddr) -> Result<(), String> {
        self.socket(index)?.send_probe(addr).map_err(|error| error.to_string())
    }

    pub(super) fn announce(&self, index: u32, addr: IpAddr) -> Result<(), String> {
        self.socket(index)?.send_announcement(addr).map_err(|error| error.to_string())
    }

    /// Every interface with its addresses; `None` if the kernel does not say.
    pub(super) async fn list_interfaces(&self) -> Option<Vec<Interface>> {
        let interfaces = self.interfaces.list().await;
        interfaces.inspect_err(|error| tracing::debug!(%error, "cannot list interfaces")).ok()
    }
}

fn describe_refusal(error: &io::Error) -> String {
    format!(
        "nftables refuses the fence: {error}; enable nf_tables in the kernel (modprobe nf_tables), \
         or set `fence = \"none\"`"
    )
}

async fn read_neighbors(
    index: u32,
    socket: Arc<NeighborSocket>,
    heard: mpsc::Sender<HeardMessage>,
) {
    loop {
        match socket.receive().await {
            Ok(message) => {
                if let Err(mpsc::error::TrySendError::Closed(_)) = heard.try_send((index, message))
                {
                    return;
                }
            }
            // The interface went down; the socket works again when it comes up.
            Err(error) if error.raw_os_error() == Some(NETWORK_DOWN_ERRNO) => {}
            Err(error) => {
                tracing::debug!(%error, "a socket to the neighbors failed");
                return;
            }
        }
    }
}
