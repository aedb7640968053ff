//! Numbers for peers that outlive changes of the config. Pure.
//!
//! Tables, sessions and QUIC know a peer by its number, so a number stays with its peer while other
//! peers come and go, and is never given to another one.

use crate::{
    config::{peer::PeerConfig, settings::Config},
    ids::PeerId,
};

impl Config {
    /// Numbers the peers by place, as at the start.
    pub fn assign_ids(&mut self) {
        for (peer, place) in self.peers.iter_mut().zip(0..=u16::MAX) {
            peer.id = PeerId(place);
        }
    }

    /// Numbers the peers as in `before` where they are the same, and the others from `next` on.
    /// Returns the next free number; `None` when they are used up.
    pub fn reassign_ids(&mut self, before: &Self, mut next: u32) -> Option<u32> {
        for peer in &mut self.peers {
            peer.id = match before.peers.iter().find(|old| old.is_same_peer(peer)) {
                Some(old) => old.id,
                None => {
                    let id = u16::try_from(next).ok()?;
                    next += 1;
                    PeerId(id)
                }
            };
        }
        Some(next)
    }

    /// The peer of this number.
    pub fn peer_of(&self, id: PeerId) -> Option<&PeerConfig> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// The peer of this number.
    pub fn peer_of_mut(&mut self, id: PeerId) -> Option<&mut PeerConfig> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }
}

impl PeerConfig {
    /// True when a session with this peer may serve `next`: name and addresses are the same, and
    /// the key is, or is the one that was to replace it.
    pub(crate) fn is_same_peer(&self, next: &Self) -> bool {
        self.is_followed_by(next) && (&self.name, self.addrs) == (&next.name, next.addrs)
    }

    /// True when `next` holds this peer's key, or the one that was to replace it.
    pub(crate) fn is_followed_by(&self, next: &Self) -> bool {
        self.accepted_keys().any(|key| key == next.key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        config::{PrivateKey, RouteOverride},
        ids::NodeKey,
    };

    fn config(peers: &[u8]) -> Config {
        let config = Config::new("a", PrivateKey(Vec::new().into()), NodeKey([1; 32]));
        let mut config = peers.iter().fold(config, |mut config, key| {
            config.peers.push(PeerConfig::new(format!("n{key}"), NodeKey([*key; 32])));
            config
        });
        config.assign_ids();
        config
    }

    fn numbers(config: &Config) -> Vec<u16> {
        config.peers.iter().map(|peer| peer.id.0).collect()
    }

    #[test]
    fn a_number_stays_with_its_peer_and_is_never_given_again() {
        let first = config(&[2, 3, 4]);
        assert_eq!(numbers(&first), [0, 1, 2]);
        let mut second = config(&[5, 4, 2]);
        second.peers[1].routes.push(RouteOverride::to_remote("10.0.0.1:1".parse().unwrap()));
        let next = second.reassign_ids(&first, 3).unwrap();
        assert_eq!((numbers(&second), next), (vec![3, 2, 0], 4));
        let mut third = config(&[2, 3]);
        let next = third.reassign_ids(&second, next).unwrap();
        assert_eq!((numbers(&third), next), (vec![0, 4], 5));
        assert_eq!(third.peer_of(PeerId(4)).unwrap().name, "n3");
        assert_eq!(third.peer_of(PeerId(1)), None);
    }

    #[test]
    fn a_peer_that_its_sessions_do_not_fit_any_more_is_another_one() {
        let first = config(&[2]);
        let mut renamed = config(&[2]);
        renamed.peers[0].name = "b".into();
        assert_eq!(renamed.reassign_ids(&first, 65_535), Some(65_536));
        assert_eq!(numbers(&renamed), [65_535]);
        assert_eq!(config(&[3]).reassign_ids(&renamed, 65_536), None);
        assert_eq!(renamed.clone().reassign_ids(&renamed, 65_536), Some(65_536));
    }
}
