//! A config file without mistakes, and the cluster's roster applied to it.

use std::path::{Path, PathBuf};

use netft::{
    NodeKey,
    config::{Config, PrivateKey},
    roster::{ClusterView, Contradiction, ContradictionPlace, SignedRoster},
};

use super::{
    problem::{ConfigFileError, ConfigProblem, InvalidContent},
    raw,
    raw::OptionalField,
    reader::ByteSpan,
};

/// A checked config file.
#[derive(Debug)]
pub struct LoadedConfig {
    pub(super) config: Config,
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) places: ConfigPlaces,
}

/// Places of the settings that a roster may contradict.
#[derive(Debug, Default)]
pub(super) struct ConfigPlaces {
    name: ByteSpan,
    key: ByteSpan,
    site: ByteSpan,
    address: ByteSpan,
    peers: Vec<PeerPlaces>,
}

#[derive(Debug)]
struct PeerPlaces {
    name: ByteSpan,
    key: ByteSpan,
    address: ByteSpan,
}

impl ConfigPlaces {
    pub(super) fn find_in(file: &raw::ConfigFile) -> Self {
        let span = |field: &OptionalField| field.as_ref().map_or(0..0, toml::Spanned::span);
        let either = |one: &OptionalField, other: &OptionalField| match one {
            Some(field) => field.span(),
            None => span(other),
        };
        let peers = file.peer.iter().map(|table| {
            let peer = table.get_ref();
            PeerPlaces {
                name: span(&peer.name),
                key: span(&peer.key),
                address: either(&peer.address, &peer.address6),
            }
        });
        let peers = peers.collect();
        let address = either(&file.adapter.address, &file.adapter.address6);
        match &file.node {
            Some(node) => {
                let node = node.get_ref();
                let (name, key) = (span(&node.name), span(&node.key));
                Self { name, key, site: span(&node.site), address, peers }
            }
            None => Self { address, peers, ..Self::default() },
        }
    }

    fn span_of(&self, place: ContradictionPlace) -> ByteSpan {
        let peer = |at: usize| self.peers.get(at);
        let found = match place {
            ContradictionPlace::NodeName => Some(&self.name),
            ContradictionPlace::NodeKey => Some(&self.key),
            ContradictionPlace::NodeSite => Some(&self.site),
            ContradictionPlace::NodeAddress => Some(&self.address),
            ContradictionPlace::PeerName(at) => peer(at).map(|peer| &peer.name),
            ContradictionPlace::PeerKey(at) => peer(at).map(|peer| &peer.key),
            // Without an address of its own it is the one derived from the key.
            ContradictionPlace::PeerAddress(at) => peer(at).map(|peer| match peer.address.end {
                0 => &peer.key,
                _ => &peer.address,
            }),
        };
        found.cloned().unwrap_or_default()
    }
}

impl LoadedConfig {
    /// The config of the file alone.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The text of the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The config with the cluster's nodes as peers, and whether this node is one of them.
    /// `roster_path` is the file that the roster is kept in.
    ///
    /// # Errors
    /// Every contradiction between the two, with both places.
    pub fn with_roster(
        &self,
        roster: &SignedRoster,
        roster_path: &Path,
        replaced_key: Option<(PrivateKey, NodeKey)>,
    ) -> Result<(Config, bool), ConfigFileError> {
        let mut config = self.config.clone();
        if let Some((key, public)) = replaced_key {
            config.replace_key(key, public);
        }
        let fail = |problems| {
            ConfigFileError::Content(InvalidContent {
                path: self.path.clone(),
                text: self.text.clone(),
                problems,
            })
        };
        let is_member = ClusterView(roster.roster()).apply_to(&mut config).map_err(|found| {
            fail(found.iter().map(|one| self.problem_of(one, roster_path)).collect())
        })?;
        config.check_settings().map_err(|error| {
            let message = format!("with the roster {}: {error}", roster_path.display());
            fail(vec![ConfigProblem::at_span(0..0, message, "in this file and the roster")])
        })?;
        Ok((config, is_member))
    }

    fn problem_of(&self, found: &Contradiction, roster_path: &Path) -> ConfigProblem {
        let span = self.places.span_of(found.place);
        let line = found.roster_line;
        ConfigProblem::at_span(span, &found.reason, "contradicts the cluster's roster").with_help(
            format!(
                "the roster is {}, line {line}; correct this file, or the roster with `netft \
                 cluster`",
                roster_path.display()
            ),
        )
    }
}
