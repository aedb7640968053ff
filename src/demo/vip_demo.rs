//! `netft demo vip`: an address that moves. Three nodes with two networks, three real daemons, and
//! a client that asks the address a thousand times a second; its owner is killed, then stopped.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use netft_lab::{
    Lab, LabError, NetworkLayout, ScratchDir,
    daemon::{Daemon, ProgramPaths, Site, SiteSettings},
    owner_probe::OwnerProbe,
};
use rustix::process::Signal;

use super::{
    narrator::Narrator,
    vip_run::{OwnerFault, Takeover, VipDemoRun, millis_after},
};

/// The address.
const FLOATING_ADDRESS: [u8; 4] = [10, 1, 0, 80];
const VIP_CONFIG: &str = r#"[[vip]]
name = "web"
address = "10.1.0.80"
ownership = "raft"

[ownership]
voters = ["a", "b", "c"]
"#;
/// Nodes with a daemon; the client is the one after them.
const NODE_COUNT: usize = 3;
/// Time limit for an owner, and for a node that is back.
const OWNER_TIMEOUT: Duration = Duration::from_secs(20);
/// An answer that recent shows that its node is the owner.
const FRESH_ANSWER: Duration = Duration::from_millis(50);
/// Time before each fault, in which every node takes part.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Time after a takeover, and after the former owner is back.
const WATCH_TIME: Duration = Duration::from_millis(1500);

struct RunningVipDemo<'a> {
    lab: &'a Lab,
    site: &'a Site,
    daemons: Vec<Daemon>,
    probe: OwnerProbe,
    start: Instant,
}

/// Runs the demo.
///
/// # Errors
/// The system refuses, a daemon does not come up, or nobody takes the address over.
pub(super) fn run_vip_demo(
    narrator: &Narrator,
    programs: ProgramPaths,
) -> Result<VipDemoRun, LabError> {
    if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
        let text = "the kernel enforces a lease by nftables, and there is no program nft here: \
                    install the package nftables";
        return Err(LabError::Daemon(text.to_owned()));
    }
    let lab = Lab::with_layouts(NODE_COUNT + 1, &[NetworkLayout::Flat, NetworkLayout::Flat])?;
    let scratch = ScratchDir::new("demo")?;
    let store = |node: usize| format!("store = {:?}", scratch.path().join(format!("store{node}")));
    let stores: Vec<String> = (0..NODE_COUNT).map(store).collect();
    let stores: Vec<&str> = stores.iter().map(String::as_str).collect();
    let settings =
        SiteSettings { common: VIP_CONFIG, per_node: &stores, ..SiteSettings::default() };
    let site = Site::new(&lab, programs, settings)?;
    narrator.print_vip_introduction(FLOATING_ADDRESS.into());
    let nodes: Vec<_> = (0..NODE_COUNT).map(|node| lab.node_netns(node)).collect();
    let probe = OwnerProbe::start(lab.node_netns(NODE_COUNT), &nodes, FLOATING_ADDRESS.into())?;
    let start = Instant::now();
    let daemons: Result<_, _> = (0..NODE_COUNT).map(|node| site.start_daemon(&lab, node)).collect();
    let mut demo = RunningVipDemo { lab: &lab, site: &site, daemons: daemons?, probe, start };
    let first = demo.wait_for_owner(None)?;
    narrator.print_vip_line(demo.since_start(), true, &format!("{} answers", demo.name(first)));
    let address = std::net::Ipv4Addr::from(FLOATING_ADDRESS).to_string();
    let mut run = VipDemoRun { address, takeovers: Vec::new() };
    for kind in OwnerFault::ALL {
        run.takeovers.push(demo.inject_fault(kind, narrator)?);
    }
    narrator.print_vip_summary(&run);
    Ok(run)
}

impl RunningVipDemo<'_> {
    fn since_start(&self) -> Duration {
        self.start.elapsed()
    }

    fn name(&self, node: usize) -> &str {
        self.site.name(node)
    }

    /// Waits until a node other than `former` answers.
    fn wait_for_owner(&self, former: Option<usize>) -> Result<usize, LabError> {
        let begun = Instant::now();
        loop {
            let owner = self.probe.owner_within(FRESH_ANSWER).map(usize::from);
            if let Some(owner) = owner.filter(|owner| Some(*owner) != former) {
                return Ok(owner);
            }
            if begun.elapsed() > OWNER_TIMEOUT {
                let logs: Vec<_> = self.daemons.iter().map(Daemon::log_text).collect();
                let text = format!("nobody answers at the address:\n{}", logs.join("\n"));
                return Err(LabError::Daemon(text));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn inject_fault(
        &mut self,
        kind: OwnerFault,
        narrator: &Narrator,
    ) -> Result<Takeover, LabError> {
        thread::sleep(SETTLE_TIME);
        let owner = self.wait_for_owner(None)?;
        let (broken, before) = (Instant::now(), self.probe.log_so_far());
        let text = format!("{}, the owner, {}", self.name(owner), kind.description());
        match kind {
            OwnerFault::Killed => self.daemons[owner].send_signal(Signal::KILL)?,
            OwnerFault::Stopped => self.daemons[owner].send_signal(Signal::STOP)?,
        }
        narrator.print_vip_line(self.since_start(), false, &text);
        let next = self.wait_for_owner(Some(owner))?;
        let text = format!("{} answers", self.name(next));
        narrator.print_vip_takeover(self.since_start(), broken.elapsed(), &text);
        thread::sleep(WATCH_TIME);
        match kind {
            OwnerFault::Killed => self.daemons[owner] = self.site.start_daemon(self.lab, owner)?,
            OwnerFault::Stopped => self.daemons[owner].send_signal(Signal::CONT)?,
        }
        let text = format!("{} {}", self.name(owner), kind.repair());
        narrator.print_vip_line(self.since_start(), true, &text);
        thread::sleep(WATCH_TIME);
        let log = self.probe.log_so_far();
        let first = log.first_answer(next as u8, broken).unwrap_or(broken);
        let last = log.last_answer(owner as u8, Instant::now()).unwrap_or(broken);
        let takeover = Takeover {
            kind,
            owner: self.name(owner).to_owned(),
            next_owner: self.name(next).to_owned(),
            gap_ms: millis_after(broken, broken + log.longest_gap_after(broken)),
            last_answer_ms: millis_after(broken, last),
            first_answer_ms: millis_after(broken, first),
            asked: log.asked - before.asked,
            answered: (log.answers.len() - before.answers.len()) as u64,
            two_owners: log.answers_of_two_owners(broken),
        };
        narrator.print_vip_result(&takeover);
        Ok(takeover)
    }
}
