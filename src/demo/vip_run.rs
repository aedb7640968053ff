//! Record of a run of `netft demo vip`: plain values for the screen and for JSON.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::control::schema::VersionedBody;

/// Kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OwnerFault {
    /// SIGKILL.
    Killed,
    /// SIGSTOP, and SIGCONT after the takeover.
    Stopped,
}

impl OwnerFault {
    pub(super) const ALL: [Self; 2] = [Self::Killed, Self::Stopped];

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Killed => "is killed (SIGKILL); its address is still configured",
            Self::Stopped => "is stopped (SIGSTOP); its kernel runs on",
        }
    }

    pub(super) const fn repair(self) -> &'static str {
        match self {
            Self::Killed => "is started again",
            Self::Stopped => "goes on (SIGCONT)",
        }
    }
}

/// One fault and its effect; times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Takeover {
    pub(super) kind: OwnerFault,
    pub(super) owner: String,
    pub(super) next_owner: String,
    /// The longest time without an answer.
    pub(super) gap_ms: f64,
    /// The owner's last answer at the client, after the fault; negative: before it.
    pub(super) last_answer_ms: f64,
    /// The next owner's first answer at the client, after the fault.
    pub(super) first_answer_ms: f64,
    pub(super) asked: u64,
    pub(super) answered: u64,
    /// Answers that show two owners.
    pub(super) two_owners: usize,
}

impl Takeover {
    /// The former owner was silent before the next one answered, and no answer shows two.
    pub(super) fn has_passed(&self) -> bool {
        self.two_owners == 0 && self.last_answer_ms < self.first_answer_ms
    }
}

/// `netft demo vip --json`.
#[derive(Debug, Serialize)]
pub(super) struct VipDemoRun {
    pub(super) address: String,
    pub(super) takeovers: Vec<Takeover>,
}

/// Milliseconds from `fault` to `at`, to a tenth; negative if `at` comes first.
pub(super) fn millis_after(fault: Instant, at: Instant) -> f64 {
    let micros = |length: Duration| length.as_micros() as f64;
    let after = micros(at.saturating_duration_since(fault));
    ((after - micros(fault.saturating_duration_since(at))) / 100.0).round() / 10.0
}

impl VipDemoRun {
    pub(super) fn all_passed(&self) -> bool {
        self.takeovers.len() == OwnerFault::ALL.len()
            && self.takeovers.iter().all(Takeover::has_passed)
    }
}

/// The run as one JSON object.
///
/// # Errors
/// None: every key is text.
pub(super) fn run_json(run: &VipDemoRun) -> serde_json::Result<String> {
    serde_json::to_string(&VersionedBody::new(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_passes_with_one_owner_at_a_time() {
        let takeover = |kind| Takeover {
            kind,
            owner: "a".to_owned(),
            next_owner: "b".to_owned(),
            gap_ms: 20.0,
            last_answer_ms: 410.0,
            first_answer_ms: 430.0,
            asked: 900,
            answered: 880,
            two_owners: 0,
        };
        let run = |change: fn(&mut Takeover)| {
            let mut takeovers: Vec<_> = OwnerFault::ALL.map(takeover).into();
            change(&mut takeovers[1]);
            VipDemoRun { address: "10.1.0.80".to_owned(), takeovers }
        };
        assert!(run(|_| {}).all_passed());
        assert!(!run(|one| one.two_owners = 1).all_passed());
        assert!(!run(|one| one.last_answer_ms = 431.0).all_passed());
        let half = VipDemoRun { takeovers: vec![takeover(OwnerFault::Killed)], ..run(|_| {}) };
        assert!(!half.all_passed());
        let start = Instant::now();
        let later = start + Duration::from_micros(1_260);
        assert_eq!((millis_after(start, later), millis_after(later, start)), (1.3, -1.3));
    }
}
