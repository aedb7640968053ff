//! Commands of the operator, of the config file and of other nodes.

use std::{collections::BTreeSet, io, sync::Arc};

use netft::{
    api::vip::now,
    config::{VipConfig, VipOwnership},
    vip::{FencingToken, VipInput, VipState},
};

use super::{
    entry::VipEntry,
    handle::{VipCommand, VipError},
    service::{MIN_ANNOUNCE_INTERVAL, VipService},
};
use crate::ownership::OwnershipRequest;

impl VipService {
    pub(super) async fn on_command(&mut self, command: VipCommand) {
        match command {
            VipCommand::List(reply) => {
                let views = self.entries.values().map(|entry| self.to_view(entry)).collect();
                let _ = reply.send(views);
            }
            VipCommand::Online(name, reply) => {
                let _ = reply.send(self.set_wanted(&name, true, false));
            }
            VipCommand::Take(name, reply) => {
                let done = self.set_wanted(&name, true, true);
                self.carry_out().await;
                let _ = reply.send(done.and_then(|()| self.require_online(&name)));
            }
            VipCommand::Offline(name, reply) => {
                let token = self.next_token();
                let done = match self.entries.get_mut(name.as_str()) {
                    Some(entry) if entry.config.ownership == VipOwnership::External => {
                        entry.stop_external(token);
                        Ok(())
                    }
                    _ => self.set_wanted(&name, false, false),
                };
                self.carry_out().await;
                let _ = reply.send(done);
            }
            VipCommand::Give(name, reason, reply) => {
                let done = self.give(&name, &reason);
                self.carry_out().await;
                let _ = reply.send(done);
            }
            VipCommand::External(name, step, reply) => {
                let token = self.next_token();
                let done = self.entry(&name).and_then(|entry| entry.on_external(token, step));
                self.carry_out().await;
                let _ = reply.send(done);
            }
            VipCommand::Announce(name, reply) => {
                let done = self.require_online(&name);
                if let Some(entry) = self.entries.get_mut(name.as_str()) {
                    entry.input(now(), VipInput::Announce);
                }
                let _ = reply.send(done);
            }
            VipCommand::AnnounceAll => {
                let time = now();
                if self.announced_at.is_none_or(|at| time >= at + MIN_ANNOUNCE_INTERVAL) {
                    self.announced_at = Some(time);
                    self.entries.values_mut().for_each(|entry| {
                        entry.input(time, VipInput::Announce);
                    });
                    self.dhcp.tell_all(&self.entries);
                }
            }
            VipCommand::LearnLease(name, record) => {
                if let Some(entry) = self.entries.get_mut(name.as_str()) {
                    self.dhcp.learn(now(), record.as_ref(), entry);
                }
            }
            VipCommand::Add(config, reply) => {
                let _ = reply.send(self.add(*config).await);
            }
            VipCommand::Remove(name, reply) => {
                let _ = reply.send(self.remove(&name).await);
            }
            VipCommand::Configure(vips, peer_addrs) => {
                self.dhcp.set_peer_addrs(peer_addrs);
                self.configure(vips).await;
            }
            VipCommand::Stop(_) => {}
        }
    }

    fn entry(&mut self, name: &str) -> Result<&mut VipEntry, VipError> {
        self.entries.get_mut(name).ok_or_else(|| VipError::Unknown(name.to_owned()))
    }

    /// An address that the operator decides on.
    fn manual_entry(&mut self, name: &str) -> Result<&mut VipEntry, VipError> {
        let entry = self.entry(name)?;
        match entry.config.ownership {
            VipOwnership::Manual => Ok(entry),
            VipOwnership::External => Err(VipError::Refused(format!(
                "a cluster manager decides on the owner of {name}: tell it to move the address"
            ))),
            engine => Err(VipError::Refused(format!(
                "the owner of {name} is decided by `ownership = {:?}`",
                engine.as_str()
            ))),
        }
    }

    fn require_online(&mut self, name: &str) -> Result<(), VipError> {
        let state = self.entry(name)?.machine.state();
        match (state, state.reason()) {
            (VipState::Online, _) => Ok(()),
            (_, Some(reason)) => Err(VipError::Refused(format!("{name} is not online: {reason}"))),
            (state, None) => Err(VipError::Refused(format!("{name} is {}", state.as_str()))),
        }
    }

    fn next_token(&mut self) -> FencingToken {
        self.decisions += 1;
        FencingToken { term: 0, index: self.decisions }
    }

    fn set_wanted(&mut self, name: &str, is_on: bool, is_proven: bool) -> Result<(), VipError> {
        let token = self.next_token();
        self.manual_entry(name)?;
        let kept = |error: io::Error| {
            VipError::Refused(format!("cannot keep that in the runtime directory: {error}"))
        };
        self.wanted.set(name, is_on).map_err(kept)?;
        let (time, entry) = (now(), self.manual_entry(name)?);
        match is_on {
            true if entry.wish.is_some() && !is_proven => {}
            true => {
                entry.add_history(time, "the operator wants it on this node".to_owned());
                entry.want(time, token, is_proven);
            }
            false => entry.unwant(time, token, "the operator does not want it on this node"),
        }
        Ok(())
    }

    fn give(&mut self, name: &str, reason: &str) -> Result<(), VipError> {
        self.manual_entry(name)?;
        self.require_online(name)?;
        let token = self.next_token();
        self.wanted.set(name, false).map_err(|error| VipError::Refused(error.to_string()))?;
        self.entry(name)?.unwant(now(), token, reason);
        Ok(())
    }

    async fn add(&mut self, config: VipConfig) -> Result<(), VipError> {
        if self.entries.contains_key(config.name.as_str()) {
            return Err(VipError::Refused(format!("{} exists", config.name)));
        }
        let mut taken = self.entries.values().flat_map(VipEntry::addrs);
        if let Some(addr) = taken.find(|addr| config.addresses.iter().any(|one| one.addr == *addr))
        {
            return Err(VipError::Refused(format!("{addr} is a floating address already")));
        }
        let mut entry = self.open_entry(config);
        entry.is_runtime = true;
        self.entries.insert(Arc::clone(&entry.name), entry);
        self.look_at_kernel().await;
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> Result<(), VipError> {
        if !self.entry(name)?.is_runtime {
            let text = format!("the config file names {name}: remove it there and reload");
            return Err(VipError::Refused(text));
        }
        self.begin_releases(&[name.into()]);
        self.remove_entries(&[name.into()]).await;
        Ok(())
    }

    fn open_entry(&self, config: VipConfig) -> VipEntry {
        let time = now();
        let dhcp = config.is_dhcp().then(|| self.dhcp.open_address(time, &config.name));
        VipEntry::new(time, config, dhcp, &self.health)
    }

    /// The addresses are about to be removed for good: their DHCP leases are to be given back.
    fn begin_releases(&mut self, names: &[Arc<str>]) {
        for name in names {
            let entry = self.entries.get_mut(name);
            if let Some(one) = entry.and_then(|entry| entry.dhcp.as_mut()) {
                one.begin_release();
            }
        }
    }

    async fn remove_entries(&mut self, names: &[Arc<str>]) {
        let time = now();
        for name in names {
            let token = self.next_token();
            if let Some(entry) = self.entries.get_mut(name) {
                entry.unwant(time, token, "it was removed");
            }
            // A name that comes back starts anew.
            let _ = self.wanted.set(name, false);
        }
        self.carry_out().await;
        self.dhcp.finish_releases(time, &mut self.entries);
        for name in names {
            let Some(entry) = self.entries.remove(name) else { continue };
            if entry.config.ownership.has_engine() {
                let (vip, reason) = (Arc::clone(name), Some("it was removed".to_owned()));
                let able = OwnershipRequest::Able { vip, is_able: false, reason, role_since: None };
                self.tell_engine(able);
            }
        }
        self.look_at_kernel().await;
    }

    /// Makes these the addresses of the config file. Those that stay the same are not touched.
    pub(super) async fn configure(&mut self, vips: Vec<VipConfig>) {
        for vip in &vips {
            if let Some(entry) = self.entries.get_mut(vip.name.as_str()) {
                entry.adopt_settings(now(), vip);
            }
        }
        let is_gone = |entry: &&VipEntry| !entry.is_runtime && !vips.contains(&entry.config);
        let gone: Vec<_> = self.entries.values().filter(is_gone).collect();
        // A wish outlives a change of its address's settings.
        let wishes: BTreeSet<_> = gone
            .iter()
            .filter(|entry| vips.iter().any(|vip| vip.name == entry.config.name))
            .filter(|entry| entry.wish.is_some())
            .map(|entry| entry.config.name.clone())
            .collect();
        let names: Vec<_> = gone.iter().map(|entry| Arc::clone(&entry.name)).collect();
        if !names.is_empty() {
            let is_kept = |name: &Arc<str>| vips.iter().any(|vip| vip.name == **name);
            let ended: Vec<_> = names.iter().filter(|name| !is_kept(name)).cloned().collect();
            self.begin_releases(&ended);
            self.remove_entries(&names).await;
        }
        for config in vips {
            if self.entries.contains_key(config.name.as_str()) {
                continue;
            }
            let name = config.name.clone();
            let entry = self.open_entry(config);
            self.entries.insert(Arc::clone(&entry.name), entry);
            if wishes.contains(&name)
                && let Err(error) = self.set_wanted(&name, true, false)
            {
                tracing::warn!(vip = name, %error, "the operator's wish is lost");
            }
        }
        self.set_fenced().await;
        self.resume_wanted().await;
        self.look_at_kernel().await;
    }

    /// Takes back what the operator wanted here before netftd stopped. An address that is still
    /// configured was not given to another node: a crash left it.
    async fn resume_wanted(&mut self) {
        let interfaces = self.kernel.list_interfaces().await.unwrap_or_default();
        let local: BTreeSet<_> =
            interfaces.iter().flat_map(|one| &one.addrs).map(|local| local.addr).collect();
        let (time, names): (_, Vec<_>) = (now(), self.entries.keys().cloned().collect());
        for name in names {
            let token = self.next_token();
            let is_wanted = self.wanted.contains(&name);
            let Ok(entry) = self.manual_entry(&name) else { continue };
            if is_wanted && entry.wish.is_none() {
                let addrs = entry.addrs();
                let is_left = !addrs.is_empty() && addrs.iter().all(|addr| local.contains(addr));
                entry.add_history(time, "the operator wanted it here before".to_owned());
                entry.want(time, token, is_left);
            }
        }
    }
}
