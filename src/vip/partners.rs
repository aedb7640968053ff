//! The other nodes, as far as floating addresses are concerned: their states, and whether their
//! definitions are those of this node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use netft::{
    Time,
    config::VipConfig,
    vip::{Partner, PartnerState, compare_definitions, ownership::LeaseRules},
};

use super::view::PartnerView;

/// Differences that are reported one by one; the rest are counted.
const MAX_REPORTED: usize = 8;

/// Digests of definitions, by the name of the address.
pub type Definitions = BTreeMap<String, String>;

/// Knowledge of the partners; shared by the task that follows them and those who ask.
#[derive(Debug, Default)]
pub struct PartnerBook(Mutex<BookEntries>);

#[derive(Debug, Default)]
struct BookEntries {
    own: Definitions,
    longest_lease: Duration,
    partners: BTreeMap<String, KnownPartner>,
}

#[derive(Debug)]
struct KnownPartner {
    partner: Partner,
    /// Digest of all its definitions, as it last told it.
    told: Option<String>,
    /// `None` until they were compared.
    differences: Option<BTreeMap<String, &'static str>>,
}

impl PartnerBook {
    fn lock_entries(&self) -> MutexGuard<'_, BookEntries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the config: the own definitions, and who the partners are.
    pub fn configure(&self, now: Time, vips: &[VipConfig], names: &[String]) {
        let mut book = self.lock_entries();
        let digest = |vip: &VipConfig| (vip.name.clone(), format!("{:016x}", vip.shared_digest()));
        book.own = vips.iter().map(digest).collect();
        book.longest_lease = vips.iter().map(|vip| vip.lease).max().unwrap_or_default();
        let known: BTreeSet<_> = names.iter().collect();
        book.partners.retain(|name, _| known.contains(name));
        for name in names {
            let fresh =
                || KnownPartner { partner: Partner::new(now), told: None, differences: None };
            book.partners.entry(name.clone()).or_insert_with(fresh);
        }
    }

    /// The own definitions.
    pub fn definitions(&self) -> Definitions {
        self.lock_entries().own.clone()
    }

    /// netft reaches a partner, or not over any route.
    pub fn set_reachable(&self, now: Time, name: &str, is_reachable: bool) {
        if let Some(known) = self.lock_entries().partners.get_mut(name) {
            known.partner.set_reachable(now, is_reachable);
        }
    }

    /// A partner is not reachable, and its leases have ended.
    pub fn is_down(&self, now: Time, name: &str) -> bool {
        let book = self.lock_entries();
        let lease_wait = LeaseRules::DEFAULT.wait_after_grant(book.longest_lease);
        let state = book.partners.get(name).map(|known| known.partner.state_at(now, lease_wait).0);
        state == Some(PartnerState::PartnerDown)
    }

    /// A partner told the digest of its definitions; true if they should be compared.
    pub fn on_told(&self, name: &str, digest: &str) -> bool {
        let mut book = self.lock_entries();
        let is_own = digest_of_all(&book.own) == digest;
        let Some(known) = book.partners.get_mut(name) else { return false };
        let before = known.told.replace(digest.to_owned());
        before.as_deref() != Some(digest) && (!is_own || known.differences.is_some())
    }

    /// Takes in a partner's definitions, or `None` if it does not tell them. Returns what changed,
    /// by address, in words.
    pub fn on_compared(
        &self,
        now: Time,
        name: &str,
        theirs: Option<&Definitions>,
    ) -> Vec<(String, String)> {
        let mut book = self.lock_entries();
        let BookEntries { own, partners, .. } = &mut *book;
        let Some(known) = partners.get_mut(name) else { return Vec::new() };
        known.partner.on_compared(now);
        let Some(theirs) = theirs else { return Vec::new() };
        known.told = Some(digest_of_all(theirs));
        let differences = compare_definitions(own, theirs);
        let before = known.differences.replace(differences.clone()).unwrap_or_default();
        let is_news = |(vip, what): &(&String, &&'static str)| before.get(*vip) != Some(*what);
        let news: Vec<_> = differences.iter().filter(is_news).collect();
        let left = news.len().saturating_sub(MAX_REPORTED);
        let mut told: Vec<_> = news
            .into_iter()
            .take(MAX_REPORTED)
            .map(|(vip, what)| (vip.clone(), format!("{what}, on {name}")))
            .collect();
        let ended: Vec<_> = before.keys().filter(|vip| !differences.contains_key(*vip)).collect();
        if !ended.is_empty() {
            let names: Vec<_> = ended.iter().map(|vip| vip.as_str()).collect();
            told.push((names.join(", "), format!("defined as on {name}")));
        }
        if left > 0 {
            let more = format!("{left} more definitions differ from those of {name}");
            told.push((String::new(), more));
        }
        told
    }

    /// The partners as the API shows them.
    pub fn to_views(&self, now: Time) -> Vec<PartnerView> {
        let book = self.lock_entries();
        let lease_wait = LeaseRules::DEFAULT.wait_after_grant(book.longest_lease);
        let to_view = |(name, known): (&String, &KnownPartner)| {
            let (state, since) = known.partner.state_at(now, lease_wait);
            let definitions = match &known.differences {
                None => "unknown",
                Some(differences) if differences.is_empty() => "same",
                Some(_) => "different",
            };
            let differences = known.differences.iter().flatten();
            PartnerView {
                name: name.clone(),
                state: state.as_str().to_owned(),
                state_ms: now.since(since).as_millis() as u64,
                definitions: definitions.to_owned(),
                differences: differences.map(|(vip, what)| format!("{vip}: {what}")).collect(),
            }
        };
        book.partners.iter().map(to_view).collect()
    }
}

/// One digest of all definitions.
pub fn digest_of_all(definitions: &Definitions) -> String {
    let number = |text: &String| u64::from_str_radix(text, 16).unwrap_or_default();
    // Each digest covers the name of its address, so that the order does not matter.
    let all = definitions.values().map(number).fold(0, |all: u64, one| all.wrapping_add(one));
    format!("{all:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(name: &str, lease: u64) -> VipConfig {
        VipConfig { lease: Duration::from_millis(lease), ..VipConfig::new(name, Vec::new()) }
    }

    #[test]
    fn a_difference_is_told_once_and_its_end_too() {
        let (book, other) = (PartnerBook::default(), PartnerBook::default());
        let (at, b) = (Time::from_millis, "b".to_owned());
        book.configure(at(1), &[vip("web", 400), vip("db", 400)], std::slice::from_ref(&b));
        other.configure(at(1), &[vip("web", 500), vip("db", 400)], &[]);
        book.set_reachable(at(2), "b", true);
        assert_eq!(book.to_views(at(3))[0].state, "recover");
        let digest = digest_of_all(&other.definitions());
        assert!(book.on_told("b", &digest) && !book.on_told("b", &digest), "asks once");
        let told = book.on_compared(at(4), "b", Some(&other.definitions()));
        let text = "its definition differs there, on b".to_owned();
        assert_eq!(told, [("web".to_owned(), text)]);
        assert_eq!(book.on_compared(at(5), "b", Some(&other.definitions())), []);
        let view = &book.to_views(at(6))[0];
        assert_eq!((view.state.as_str(), view.definitions.as_str()), ("normal", "different"));
        assert_eq!(view.differences, ["web: its definition differs there"]);
        book.configure(at(7), &[vip("web", 500), vip("db", 400)], std::slice::from_ref(&b));
        let told = book.on_compared(at(8), "b", Some(&other.definitions()));
        assert_eq!(told, [("web".to_owned(), "defined as on b".to_owned())]);
        assert_eq!(book.to_views(at(9))[0].definitions, "same");
        assert!(!book.on_told("c", &digest), "an unknown node");
    }
}
