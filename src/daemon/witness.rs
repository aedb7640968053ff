//! A witness: a node that votes on the owners of floating addresses and carries nothing.

use netft::config::{AdapterBackend, Config};

use crate::exit::ExitError;

/// The config of a witness.
///
/// # Errors
/// It has floating addresses, or is no voter.
pub(super) fn make_witness(mut config: Config) -> Result<Config, ExitError> {
    if let Some(vip) = config.floating.vips.first() {
        let text = format!(
            "a witness carries no floating address, and its config has {:?}: leave `[[vip]]` out",
            vip.name
        );
        return Err(ExitError::invalid_input(text));
    }
    if !config.floating.ownership.voters.contains(&config.name) {
        let text = format!(
            "a witness votes: add {:?} to `voters` in `[ownership]`, here and on the other nodes",
            config.name
        );
        return Err(ExitError::invalid_input(text));
    }
    config.adapter.backend = AdapterBackend::None;
    Ok(config)
}

/// A config that was read anew, as the process with the config `running` runs it.
///
/// # Errors
/// It is a witness, and the config is none of one.
pub(super) fn run_as(running: &Config, config: Config) -> Result<Config, ExitError> {
    match running.adapter.backend.has_device() {
        true => Ok(config),
        false => make_witness(config),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netft::{
        NodeKey,
        config::{PrivateKey, VipConfig},
    };

    use super::*;

    #[test]
    fn a_witness_votes_and_has_no_address() {
        let key = PrivateKey(Vec::new().into());
        let mut config = Config::new("w", key, NodeKey([1; 32]));
        let refused = make_witness(config.clone()).unwrap_err().to_string();
        assert!(refused.contains("add \"w\" to `voters`"), "{refused}");
        config.floating.ownership.voters = vec!["a".to_owned(), "w".to_owned()];
        let witness = make_witness(config.clone()).unwrap();
        assert!(!witness.adapter.backend.has_device());
        let reread = |running: &Config| run_as(running, config.clone()).unwrap().adapter.backend;
        assert!(reread(&config).has_device() && !reread(&witness).has_device());
        config.floating.vips.push(VipConfig::new("web", Vec::new()));
        let refused = make_witness(config).unwrap_err().to_string();
        assert!(refused.contains("leave `[[vip]]` out"), "{refused}");
    }
}
