//! The state of an adapter as one process leaves it to the next: JSON, then the bytes of the
//! unacknowledged frames, in memory that only the two processes have.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use netft_proto::{
    engine::{SavedPeer, SavedSpec},
    ids::{NodeKey, PeerId, RouteId},
    session::{SavedSession, Session},
    time::Time,
    topology::Interface,
};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Most bytes of frames that go along; beyond them the oldest frames are given up.
pub(crate) const MAX_FRAME_BYTES: usize = 16 << 20;
/// Largest state, bytes.
const MAX_STATE_BYTES: u64 = 256 << 20;
/// The length stays as it is from the moment the state is written. Its bytes do not: the reader
/// wipes them.
const STATE_SEALS: SealFlags = SealFlags::GROW.union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// A send of a predecessor process, with the session it was sealed in.
pub(crate) type ResumedSend = (Arc<Session>, UnackedSend);

/// A send that is not acknowledged.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UnackedSend {
    /// The sender's id of the session.
    pub(crate) session: u32,
    /// The route it left on.
    pub(crate) route: RouteId,
    /// A second route it left on.
    pub(crate) copy: Option<RouteId>,
    /// Bit n: frame n is acknowledged.
    pub(crate) acked: u64,
    /// Bytes of every frame but the last.
    pub(crate) stride: usize,
    /// The sealed frames.
    #[serde(skip)]
    pub(crate) bytes: Vec<u8>,
}

/// Everything that a successor needs to go on.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct SavedAdapter {
    /// Of the adapter's run: the peers see no other one.
    pub(crate) boot_id: u64,
    /// Serial of the last advertisement.
    pub(crate) advertisement_serial: u32,
    /// Highest number of a route.
    pub(crate) last_route: u32,
    /// Highest generation of a session.
    pub(crate) generation: u32,
    pub(crate) peers: Vec<SavedPeerEntry>,
    /// The sockets, in the order of their descriptors.
    pub(crate) sockets: Vec<SocketState>,
    /// By worker, oldest first.
    pub(crate) sends: Vec<Vec<UnackedSend>>,
    /// Bytes of what follows the JSON: the replay window of each session, then each send.
    pub(crate) lengths: Vec<usize>,
    pub(crate) host: SavedHost,
}

/// The interfaces, as the predecessor last read them: the successor reads them once it serves.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct SavedHost {
    pub(crate) interfaces: Vec<Interface>,
    /// Remote address, source address, interface.
    pub(crate) sources: Vec<(IpAddr, IpAddr, u32)>,
    /// Both ends, metric.
    pub(crate) ways: Vec<(IpAddr, IpAddr, u32)>,
    pub(crate) adapter_queue_len: Option<u32>,
}

/// A peer with a session.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedPeerEntry {
    key: [u8; 32],
    pub(crate) engine: SavedPeer,
    pub(crate) sessions: Vec<SavedSession>,
    pub(crate) ranks: Vec<SessionRank>,
    /// This node's id of the session that frames are sealed in.
    pub(crate) preferred: Option<u32>,
    pub(crate) adapter_up: bool,
    /// Its addresses as it advertised them, encoded.
    pub(crate) advertisement: Option<Vec<u8>>,
    /// The addresses behind its names.
    pub(crate) resolved: Vec<SocketAddr>,
    pub(crate) routes: Vec<SavedRouteEntry>,
}

/// The rank of a session among those of its peer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SessionRank {
    pub(crate) local_id: u32,
    pub(crate) boot_id: u64,
    pub(crate) generation: u32,
    pub(crate) dialled_by_smaller_key: bool,
}

/// The sessions of each peer, as the control sessions rank them.
#[derive(Debug, Default)]
pub(crate) struct SavedRanks {
    /// Highest generation of a session.
    pub(crate) generation: u32,
    /// By peer, the one in use first.
    pub(crate) by_peer: BTreeMap<PeerId, Vec<SessionRank>>,
}

/// A route, beside what the engine knows of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct SavedRouteEntry {
    pub(crate) id: RouteId,
    /// As planned, with the remote address the route leads to.
    pub(crate) planned: SavedSpec,
    pub(crate) ifindex: u32,
    pub(crate) ifname: String,
    pub(crate) configured_remote: Option<SocketAddr>,
    pub(crate) learned_at: Option<Time>,
    /// Frames and bytes of data, sent and received.
    pub(crate) traffic: [u64; 4],
}

/// A socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct SocketState {
    pub(crate) local: SocketAddr,
    pub(crate) ifindex: u32,
    pub(crate) worker: usize,
}

impl SavedPeerEntry {
    /// The state of the peer with this key, of which nothing but the engine's part is known.
    pub(crate) fn new(key: NodeKey, engine: SavedPeer) -> Self {
        Self {
            key: key.0,
            engine,
            sessions: Vec::new(),
            ranks: Vec::new(),
            preferred: None,
            adapter_up: false,
            advertisement: None,
            resolved: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// The peer's key.
    pub(crate) const fn key(&self) -> NodeKey {
        NodeKey(self.key)
    }
}

impl SavedAdapter {
    /// Takes in what the workers left. Returns the number of sends that are given up for the bound
    /// ([`MAX_FRAME_BYTES`]).
    pub(crate) fn set_sends(&mut self, mut sends: Vec<Vec<UnackedSend>>) -> usize {
        let share = MAX_FRAME_BYTES / sends.len().max(1);
        let mut given_up = 0;
        for worker in &mut sends {
            let mut bytes: usize = worker.iter().map(|send| send.bytes.len()).sum();
            let place = worker.iter().take_while(|send| {
                let is_over = bytes > share;
                bytes -= send.bytes.len();
                is_over
            });
            let over = place.count();
            given_up += over;
            worker.drain(..over);
        }
        self.sends = sends;
        given_up
    }

    /// The parts that follow the JSON, in order.
    fn blobs(&mut self) -> impl Iterator<Item = &mut Vec<u8>> {
        let sessions = self.peers.iter_mut().flat_map(|peer| &mut peer.sessions);
        let windows = sessions.map(|session| &mut session.replay);
        windows.chain(self.sends.iter_mut().flatten().map(|send| &mut send.bytes))
    }

    /// The unacknowledged sends, by worker.
    pub(crate) fn take_sends(&mut self) -> Vec<Vec<UnackedSend>> {
        std::mem::take(&mut self.sends)
    }

    /// Writes the state into memory of its own.
    ///
    /// # Errors
    /// Of the kernel.
    pub(crate) fn write_sealed(&mut self) -> io::Result<OwnedFd> {
        self.lengths = self.blobs().map(|blob| blob.len()).collect();
        let blobs: usize = self.lengths.iter().sum();
        // With room for all of it: memory that is outgrown would keep keys.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.max_json_len() + blobs));
        serde_json::to_writer(&mut *bytes, self)?;
        let json = bytes.len() as u64;
        self.blobs().for_each(|blob| bytes.extend_from_slice(blob));
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = memfd_create("netft-state", flags)?;
        let file = File::from(memory);
        file.write_all_at(&json.to_le_bytes(), 0)?;
        file.write_all_at(&bytes, 8)?;
        fcntl_add_seals(&file, STATE_SEALS)?;
        Ok(file.into())
    }

    /// An estimate of the length of the JSON that it stays below.
    fn max_json_len(&self) -> usize {
        let sends = self.sends.iter().flatten().count();
        let routes: usize = self.peers.iter().map(|peer| peer.routes.len()).sum();
        let (peers, interfaces) = (self.peers.len(), self.host.interfaces.len());
        let pairs = self.host.sources.len() + self.host.ways.len();
        let sessions = self.peers.iter().flat_map(|peer| &peer.sessions);
        let partial: usize = sessions.map(SavedSession::partial_packet_bytes).sum();
        (64 << 10)
            + (sends + pairs) * 256
            + peers * (32 << 10)
            + (routes + interfaces) * (8 << 10)
            // Up to three digits and a comma for each byte.
            + partial * 4
    }

    /// Reads the state, and wipes the memory it was in.
    ///
    /// # Errors
    /// It is not sealed, or no state that this version knows.
    pub(crate) fn read_sealed(memory: OwnedFd) -> io::Result<Self> {
        if !fcntl_get_seals(&memory)?.contains(STATE_SEALS) {
            return Err(io::Error::other("the state is not sealed"));
        }
        let file = File::from(memory);
        let length = file.metadata()?.len();
        if !(8..=MAX_STATE_BYTES).contains(&length) {
            return Err(io::Error::other("the state has no length of a state"));
        }
        let mut bytes = Zeroizing::new(vec![0; length as usize]);
        file.read_exact_at(&mut bytes, 0)?;
        file.write_all_at(&vec![0; length as usize], 0)?;
        let (head, body) = bytes.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        let json = usize::try_from(u64::from_le_bytes(*head)).unwrap_or(usize::MAX);
        let cut = || io::Error::other("the state is cut");
        let (json, mut blobs) = body.split_at_checked(json).ok_or_else(cut)?;
        let mut state: Self = serde_json::from_slice(json)?;
        let lengths = std::mem::take(&mut state.lengths);
        for (blob, length) in state.blobs().zip(lengths) {
            let (own, rest) = blobs.split_at_checked(length).ok_or_else(cut)?;
            *blob = own.to_vec();
            blobs = rest;
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use netft_proto::{
        engine::{Engine, EngineConfig, EngineInput},
        ids::virtual_addrs::VirtualAddrs,
        route::{Attributes, Priority, RouteClass, RouteSpec, Transport},
        session::{Cipher, SessionParams},
    };

    use super::*;
    use crate::io::handover::type_shape::type_shape;

    fn send(session: u32, len: usize) -> UnackedSend {
        UnackedSend {
            session,
            route: RouteId(7),
            copy: Some(RouteId(8)),
            acked: 5,
            stride: 100,
            bytes: vec![session as u8; len],
        }
    }

    #[test]
    fn the_state_goes_through_sealed_memory_that_is_wiped() {
        let mut state = SavedAdapter { boot_id: u64::MAX, last_route: 9, ..Default::default() };
        assert_eq!(state.set_sends(vec![vec![send(1, 300)], vec![send(2, 10), send(3, 0)]]), 0);
        let memory = state.write_sealed().unwrap();
        assert!(rustix::fs::ftruncate(&memory, 4).is_err(), "its length is sealed");
        let second = memory.try_clone().unwrap();
        let mut read = SavedAdapter::read_sealed(memory).unwrap();
        assert_eq!((read.boot_id, read.last_route), (u64::MAX, 9));
        let sends = read.take_sends();
        assert_eq!(sends[0][0].bytes, [1; 300]);
        assert_eq!((sends[1][0].bytes.len(), sends[1][1].session, sends[1][0].acked), (10, 3, 5));
        let mut left = vec![1; 400];
        File::from(second).read_exact_at(&mut left, 0).unwrap();
        assert!(left.iter().all(|byte| *byte == 0), "no key stays in it");
    }

    const TEST_PEER: PeerId = PeerId(3);

    /// A state with one of everything.
    fn whole_state() -> SavedAdapter {
        let config =
            EngineConfig { hold: Duration::ZERO, history: 0, seed: 1, mtu_raise: Duration::ZERO };
        let mut engine = Engine::new(config);
        let end = |host: u8| SocketAddr::from(([10, 0, 0, host], 3343));
        let spec = RouteSpec {
            peer: TEST_PEER,
            real_local: end(1),
            real_remote: end(2),
            virtual_local: end(1).ip(),
            virtual_remote: end(2).ip(),
            timing: RouteClass::SameSubnet.default_timing(),
            priority: Priority(7),
            attributes: Attributes(0),
            transport: Transport::Udp,
        };
        for input in [
            EngineInput::AddPeer(TEST_PEER),
            EngineInput::AddRoute { id: RouteId(9), spec: spec.clone() },
            EngineInput::SessionUp { peer: TEST_PEER, boot_id: 42 },
        ] {
            engine.on_input(Time::from_millis(5), input).unwrap();
        }
        let session = Session::new(SessionParams {
            peer: TEST_PEER,
            peer_addrs: VirtualAddrs::derive_from_key(&NodeKey([1; 32])),
            local_id: 5,
            remote_id: 6,
            boot_id: 42,
            cipher: Cipher::Aes256Gcm,
            tx_secret: [1; 32],
            rx_secret: [2; 32],
        });
        let mut peer = SavedPeerEntry::new(NodeKey([8; 32]), engine.save_peer(TEST_PEER).unwrap());
        peer.sessions = vec![session.to_saved()];
        peer.ranks = vec![SessionRank {
            local_id: 5,
            boot_id: 42,
            generation: 2,
            dialled_by_smaller_key: true,
        }];
        peer.routes = vec![SavedRouteEntry {
            id: RouteId(9),
            planned: SavedSpec::new(&spec),
            ifindex: 2,
            ifname: "eth0".to_owned(),
            configured_remote: None,
            learned_at: None,
            traffic: [1, 2, 3, 4],
        }];
        let socket = SocketState { local: end(1), ifindex: 2, worker: 0 };
        let mut state =
            SavedAdapter { peers: vec![peer], sockets: vec![socket], ..Default::default() };
        state.set_sends(vec![vec![send(5, 10)]]);
        state
    }

    #[test]
    fn a_changed_state_has_another_version() {
        let shape = type_shape::<SavedAdapter>();
        for part in ["boot_id: u64", "preferred: option u32", "DrainStage", "next_counter: u64"] {
            assert!(shape.contains(part), "{part} in {shape}");
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, shape.as_bytes());
        let short = u32::from_be_bytes(digest.as_ref()[..4].try_into().unwrap());
        assert_eq!(
            (netft_proto::handover::HANDOVER_VERSION, format!("{short:08x}").as_str()),
            (3, "e885586b"),
            "the state has another shape: raise HANDOVER_VERSION, and put the new digest here\n\
             {shape}"
        );
    }

    #[test]
    fn sessions_and_routes_go_through_the_memory() {
        let mut state = whole_state();
        let memory = state.write_sealed().unwrap();
        let mut read = SavedAdapter::read_sealed(memory).unwrap();
        let saved = read.peers.pop().unwrap();
        let addrs = VirtualAddrs::derive_from_key(&NodeKey([1; 32]));
        let session = Session::from_saved(&saved.sessions[0], PeerId(0), addrs).unwrap();
        assert_eq!((session.local_id(), session.boot_id(), session.peer()), (5, 42, PeerId(0)));
        assert_eq!(session.reserve_counters(1), Ok(netft_proto::session::COUNTER_RESERVE));
        assert_eq!(saved.routes[0].planned.to_spec(TEST_PEER).unwrap().priority, Priority(7));
        assert_eq!((saved.key(), saved.engine.routes.len()), (NodeKey([8; 32]), 1));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let plain = memfd_create("other", MemfdFlags::ALLOW_SEALING).unwrap();
        assert!(SavedAdapter::read_sealed(plain).is_err(), "it is not sealed");
        for bytes in [&b""[..], &[0; 8], &[9, 0, 0, 0, 0, 0, 0, 0, b'{'], &[255; 20]] {
            let memory = memfd_create("other", MemfdFlags::ALLOW_SEALING).unwrap();
            let file = File::from(memory);
            file.write_all_at(bytes, 0).unwrap();
            fcntl_add_seals(&file, STATE_SEALS).unwrap();
            assert!(SavedAdapter::read_sealed(file.into()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn frames_beyond_the_bound_are_given_up_oldest_first() {
        let mut state = SavedAdapter::default();
        let sends = (0..20).map(|number| send(number, 1 << 20)).collect();
        assert_eq!(state.set_sends(vec![sends]), 4);
        assert_eq!(state.take_sends()[0][0].session, 4);
    }
}
