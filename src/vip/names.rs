//! The names of floating addresses in DNS: what is registered, and how the last update ended.

use std::{collections::BTreeMap, sync::Mutex};

use netft::{
    Time,
    config::DnsConfig,
    vip::{
        DnsRecord, DnsRegistrar, DnsUpdate, GroupState, MemberState, is_registrable,
        ownership::ExternalAnswer,
    },
};
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    dns_key::read_key_file,
    dns_message::DnsZone,
    view::{NameRecordView, NameView, VipView},
};

/// Longest that updates fail before the failure is told again.
const REPEAT_FAILURES: u32 = 32;

/// The names as the control socket shows them.
pub type NameBoard = Mutex<Vec<NameView>>;

/// The names of one zone on this node.
pub struct NameDesk {
    node: String,
    dns: DnsConfig,
    registrar: DnsRegistrar,
    members: Vec<NameMembers>,
    /// Owners of addresses that no engine decides on, as the other nodes say.
    asked: BTreeMap<String, MemberState>,
    /// Why the last update failed.
    error: Option<String>,
    updated_at: Option<Time>,
}

/// The members of a name, as far as their addresses are known.
struct NameMembers {
    state: GroupState,
    /// Address of a member, its record and who has it.
    records: Vec<(String, DnsRecord, MemberState)>,
}

impl NameDesk {
    /// The names of a config; nothing is registered yet.
    pub fn new(node: &str, dns: DnsConfig) -> Self {
        let mut seed = [0; 8];
        // The pauses need no good randomness.
        let _ = SystemRandom::new().fill(&mut seed);
        Self {
            node: node.to_owned(),
            dns,
            registrar: DnsRegistrar::new(u64::from_be_bytes(seed)),
            members: Vec::new(),
            asked: BTreeMap::new(),
            error: None,
            updated_at: None,
        }
    }

    /// The config that it follows.
    pub const fn config(&self) -> &DnsConfig {
        &self.dns
    }

    /// Takes over another config; records at another server or in another zone stay there.
    pub fn configure(&mut self, dns: DnsConfig) {
        if (dns.server, &dns.zone) != (self.dns.server, &self.dns.zone) {
            *self = Self::new(&self.node, dns);
        } else {
            self.dns = dns;
        }
    }

    /// Takes in the floating addresses.
    pub fn set_vips(&mut self, now: Time, vips: &[VipView]) {
        // What others said of an address says nothing once this node had it.
        for vip in vips.iter().filter(|vip| vip.state == "online") {
            self.asked.remove(&vip.name);
        }
        let members = self.dns.names.iter().map(|name| {
            let full = self.dns.full_name(name);
            let mut records = Vec::new();
            let mut states = Vec::new();
            for vip in vips.iter().filter(|vip| name.members.contains(&vip.name)) {
                let state = self.member_state(vip);
                states.push(state);
                let state = if name.register_all { MemberState::Always } else { state };
                for addr in vip.addresses.iter().filter_map(|text| text.parse().ok()) {
                    let record = DnsRecord { name: full.clone(), addr };
                    records.push((vip.name.clone(), record, state));
                }
            }
            NameMembers { state: GroupState::of_members(states), records }
        });
        self.members = members.collect();
        let all = self.members.iter().flat_map(|name| &name.records);
        let all: Vec<_> = all.map(|(_, record, state)| (record.clone(), *state)).collect();
        self.registrar.set_members(now, &all);
    }

    /// The members that only the other nodes know the owners of.
    pub fn unknown_members<'v>(&self, vips: &'v [VipView]) -> Vec<&'v str> {
        let is_member =
            |vip: &&VipView| self.dns.names.iter().any(|name| name.members.contains(&vip.name));
        let is_unknown = |vip: &&VipView| vip.state != "online" && vip.cause.is_none();
        let names = vips.iter().filter(is_member).filter(is_unknown);
        names.map(|vip| vip.name.as_str()).collect()
    }

    /// The other nodes were not asked for one of these members yet.
    pub fn lacks_answer(&self, members: &[&str]) -> bool {
        members.iter().any(|name| !self.asked.contains_key(*name))
    }

    /// Takes in what the other nodes say of those members.
    pub fn set_asked(&mut self, asked: BTreeMap<String, MemberState>) {
        self.asked = asked;
    }

    fn member_state(&self, vip: &VipView) -> MemberState {
        match &vip.owner {
            _ if vip.state == "online" => MemberState::Here,
            Some(owner) if *owner != self.node => MemberState::Elsewhere,
            // Only an engine knows of the other nodes; without one they are asked.
            _ if vip.cause.is_none() => {
                self.asked.get(&vip.name).copied().unwrap_or(MemberState::Unknown)
            }
            Some(_) | None => MemberState::Nobody,
        }
    }

    /// When the next update is due.
    pub fn next_wake(&self) -> Option<Time> {
        self.registrar.next_wake()
    }

    /// The update that is due. Its end is told by [`on_result`](Self::on_result).
    pub fn poll_update(&mut self, now: Time) -> Option<(NameExchange, DnsUpdate)> {
        let update = self.registrar.poll_update(now)?;
        Some((NameExchange(self.dns.clone()), update))
    }

    /// An update ended. Returns what is news.
    pub fn on_result(&mut self, now: Time, result: Result<(), String>) -> Option<String> {
        self.registrar.on_result(now, result.is_ok());
        let before = self.error.take();
        match result {
            Ok(()) => {
                self.updated_at = Some(now);
                before.map(|_| format!("names are registered again at {}", self.dns.server))
            }
            Err(error) => {
                let is_news = before.as_deref() != Some(error.as_str())
                    || self.registrar.failures().is_multiple_of(REPEAT_FAILURES);
                self.error = Some(error.clone());
                is_news.then(|| format!("names are not registered: {error}"))
            }
        }
    }

    /// The names as the API shows them.
    pub fn to_views(&self, now: Time) -> Vec<NameView> {
        let to_view = |(name, members): (&netft::config::DnsName, &NameMembers)| {
            let records = members.records.iter().filter(|(_, one, _)| is_registrable(one.addr));
            NameView {
                name: self.dns.full_name(name),
                state: members.state.as_str().to_owned(),
                members: name.members.clone(),
                register_all: name.register_all,
                server: self.dns.server.to_string(),
                updated_ms: self.updated_at.map(|at| now.since(at).as_millis() as u64),
                error: self.error.clone(),
                failures: self.registrar.failures(),
                records: records
                    .map(|(vip, record, _)| NameRecordView {
                        vip: vip.clone(),
                        address: record.addr.to_string(),
                        state: self
                            .registrar
                            .state(record)
                            .map_or_else(String::new, |state| state.as_str().to_owned()),
                    })
                    .collect(),
            }
        };
        self.dns.names.iter().zip(&self.members).map(to_view).collect()
    }
}

/// Who has an address that is not on this node, by the words of all others.
pub fn owner_of_answers(answers: &[ExternalAnswer]) -> MemberState {
    let is_busy = |answer: &ExternalAnswer| matches!(answer, ExternalAnswer::Busy(_));
    if answers.iter().any(is_busy) {
        MemberState::Elsewhere
    } else if answers.iter().all(|answer| *answer == ExternalAnswer::Free) {
        MemberState::Nobody
    } else {
        MemberState::Unknown
    }
}

/// One update on its way to the server.
pub struct NameExchange(DnsConfig);

impl NameExchange {
    /// Reads the key, sends the update, and waits for its end; `unix_secs`: the time of day.
    ///
    /// # Errors
    /// The key cannot be read, or the server cannot be reached, does not answer, or refuses.
    pub async fn send(self, update: DnsUpdate, unix_secs: u64) -> Result<(), String> {
        let DnsConfig { server, zone, key_file, ttl, .. } = self.0;
        let key = read_key_file(&key_file)?;
        DnsZone { server, zone, key, ttl }.send_update(&update, unix_secs).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn desk() -> NameDesk {
        let server = ([10, 1, 0, 53], 53).into();
        let mut dns = DnsConfig::new(server, "example", "/no/such/key".into());
        dns.names.push(netft::config::DnsName {
            name: "web".to_owned(),
            members: vec!["web1".to_owned(), "web2".to_owned()],
            register_all: false,
        });
        NameDesk::new("a", dns)
    }

    fn vip(
        name: &str,
        addr: &str,
        state: &str,
        owner: Option<&str>,
        cause: Option<&str>,
    ) -> VipView {
        VipView {
            name: name.to_owned(),
            addresses: vec![addr.to_owned()],
            state: state.to_owned(),
            owner: owner.map(str::to_owned),
            cause: cause.map(str::to_owned),
            ..VipView::default()
        }
    }

    #[test]
    fn a_group_is_online_with_one_member_and_registers_that_one() {
        let (mut desk, now) = (desk(), Time::from_millis(1000));
        let unfit = vip("web2", "10.2.0.80", "offline", Some("b"), Some("it voted"));
        let other = vip("db", "10.1.0.99", "online", Some("a"), Some("it voted"));
        desk.set_vips(
            now,
            &[vip("web1", "10.1.0.80", "online", Some("a"), Some("it voted")), unfit, other],
        );
        let update = desk.poll_update(now).map(|(_, update)| update).expect("an update");
        let added: Vec<_> = update.added.iter().map(|one| one.addr.to_string()).collect();
        assert_eq!((added, update.removed.len()), (vec!["10.1.0.80".to_owned()], 0));
        assert_eq!(desk.on_result(now, Ok(())), None);
        let view = &desk.to_views(now)[0];
        assert_eq!((view.name.as_str(), view.state.as_str()), ("web.example", "online"));
        let states: Vec<_> = view.records.iter().map(|one| one.state.as_str()).collect();
        assert_eq!(states, ["registered", "unmanaged"]);
    }

    #[test]
    fn a_failure_is_told_once_and_its_end_too() {
        let (mut desk, mut now) = (desk(), Time::from_millis(1000));
        desk.set_vips(now, &[vip("web1", "10.1.0.80", "online", Some("a"), None)]);
        let mut told = Vec::new();
        for _ in 0..4 {
            now = desk.next_wake().expect("a retry").max(now);
            assert!(desk.poll_update(now).is_some());
            told.extend(desk.on_result(now, Err("refused".to_owned())));
        }
        assert_eq!(told, ["names are not registered: refused"]);
        let view = &desk.to_views(now)[0];
        assert_eq!((view.error.as_deref(), view.failures), (Some("refused"), 4));
        now = desk.next_wake().expect("a retry");
        assert!(desk.poll_update(now).is_some());
        assert!(desk.on_result(now, Ok(())).is_some_and(|what| what.contains("again")));
        assert_eq!(desk.to_views(now)[0].error, None);
    }

    /// F-114: the owner that added the record is dead.
    #[test]
    fn an_address_that_no_engine_decides_on_is_nobodys_once_every_node_says_so() {
        let [busy, silent] =
            [ExternalAnswer::Busy, ExternalAnswer::Silent].map(|of| of("b".into()));
        let free = ExternalAnswer::Free;
        let owner = owner_of_answers(&[free.clone(), busy, silent.clone()]);
        assert_eq!(owner, MemberState::Elsewhere);
        assert_eq!(owner_of_answers(&[free.clone(), silent]), MemberState::Unknown);
        let (mut desk, now) = (desk(), Time::from_millis(1000));
        let vips = [
            vip("web1", "10.1.0.80", "offline", None, None),
            vip("web2", "10.1.0.81", "online", Some("a"), None),
            vip("db", "10.1.0.99", "offline", None, None),
        ];
        assert_eq!(desk.unknown_members(&vips), ["web1"]);
        assert!(desk.lacks_answer(&["web1"]));
        let removed_after = |desk: &mut NameDesk, state| {
            desk.set_asked(BTreeMap::from([("web1".to_owned(), state)]));
            desk.set_vips(now, &vips);
            let wake = now + Duration::from_secs(60);
            let update = desk.poll_update(wake).map(|(_, update)| update);
            assert_eq!(desk.on_result(wake, Ok(())), None);
            update.map_or(0, |update| update.removed.len())
        };
        assert_eq!(removed_after(&mut desk, MemberState::Unknown), 0);
        assert_eq!(removed_after(&mut desk, MemberState::Elsewhere), 0);
        assert_eq!(removed_after(&mut desk, owner_of_answers(&[free.clone(), free])), 1);
        assert!(!desk.lacks_answer(&["web1"]));
        desk.set_vips(now, &[vip("web1", "10.1.0.80", "online", Some("a"), None)]);
        assert!(desk.lacks_answer(&["web1"]), "it is of before");
    }

    #[test]
    fn who_has_an_address_follows_from_its_owner() {
        let desk = desk();
        for (state, owner, cause, expected) in [
            ("online", Some("a"), None, MemberState::Here),
            ("offline", Some("b"), Some("it voted"), MemberState::Elsewhere),
            ("offline", None, Some("no node can"), MemberState::Nobody),
            ("starting", Some("a"), Some("it voted"), MemberState::Nobody),
            ("offline", None, None, MemberState::Unknown),
        ] {
            assert_eq!(desk.member_state(&vip("w", "10.1.0.80", state, owner, cause)), expected);
        }
    }
}
