//! Who answers at an address that moves: numbered datagrams from a client, answered by whichever
//! node has the address.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{error::LabError, netns::Netns};

/// Port of the service.
const SERVICE_PORT: u16 = 7007;
/// Time between two questions.
const QUESTION_PERIOD: Duration = Duration::from_millis(1);
/// Longest wait of a thread before it looks whether the probe is over.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Number of the question, and of the node in the answer.
const ANSWER_LEN: usize = 9;

/// Questions to an address from one client, and a service on each node that may have it. Ends when
/// dropped.
#[derive(Debug)]
pub struct OwnerProbe {
    shared: Arc<OwnerProbeState>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct OwnerProbeState {
    is_over: AtomicBool,
    log: Mutex<OwnerLog>,
}

/// Questions and answers so far.
#[derive(Clone, Debug, Default)]
pub struct OwnerLog {
    /// Questions sent.
    pub asked: u64,
    /// Answers in the order of their arrival.
    pub answers: Vec<OwnerAnswer>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerAnswer {
    /// Number of the question.
    pub question: u64,
    /// The node that answered.
    pub node: u8,
    /// Arrival.
    pub at: Instant,
}

impl OwnerProbe {
    /// Serves the address on `nodes`, whether they have it or not, and asks from `client`.
    ///
    /// # Errors
    /// When a socket cannot be bound.
    pub fn start(client: &Netns, nodes: &[&Netns], vip: IpAddr) -> Result<Self, LabError> {
        let shared = Arc::new(OwnerProbeState::default());
        let mut threads = Vec::new();
        let at = SocketAddr::new(vip, SERVICE_PORT);
        for (number, netns) in (0..).zip(nodes) {
            let socket = netns.run_inside(|| bind_anyway(at))?;
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || answer_questions(&socket, number, &shared)));
        }
        let any: IpAddr = if vip.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let socket = client
            .run_inside(|| UdpSocket::bind((any, 0)))
            .map_err(LabError::io_error("bind the client"))?;
        set_timeout(&socket)?;
        let asking = socket.try_clone().map_err(LabError::io_error("share the client's socket"))?;
        let state = Arc::clone(&shared);
        threads.push(thread::spawn(move || ask_questions(&asking, at, &state)));
        let state = Arc::clone(&shared);
        threads.push(thread::spawn(move || read_answers(&socket, &state)));
        Ok(Self { shared, threads })
    }

    /// Questions and answers so far.
    pub fn log_so_far(&self) -> OwnerLog {
        self.shared.lock_log().clone()
    }

    /// The node that answered last, if it did within `limit`.
    pub fn owner_within(&self, limit: Duration) -> Option<u8> {
        let log = self.shared.lock_log();
        let last = log.answers.last().filter(|answer| answer.at.elapsed() < limit);
        last.map(|answer| answer.node)
    }
}

impl Drop for OwnerProbe {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
    }
}

impl OwnerProbeState {
    fn lock_log(&self) -> MutexGuard<'_, OwnerLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnerLog {
    /// The longest time without an answer that ends after `since`.
    pub fn longest_gap_after(&self, since: Instant) -> Duration {
        let pairs = self.answers.windows(2).filter(|two| two[1].at > since);
        pairs.map(|two| two[1].at - two[0].at).max().unwrap_or_default()
    }

    /// Arrival of a node's first answer from `since` on.
    pub fn first_answer(&self, node: u8, since: Instant) -> Option<Instant> {
        let mut answers = self.answers.iter();
        let first = answers.find(|answer| answer.node == node && answer.at >= since);
        first.map(|answer| answer.at)
    }

    /// Arrival of a node's last answer before `until`.
    pub fn last_answer(&self, node: u8, until: Instant) -> Option<Instant> {
        let mut answers = self.answers.iter().rev();
        let last = answers.find(|answer| answer.node == node && answer.at < until);
        last.map(|answer| answer.at)
    }

    /// Answers from `since` on that show two owners: a second node's to the same question, or an
    /// owner's after the next one has answered.
    pub fn answers_of_two_owners(&self, since: Instant) -> usize {
        let mut former = Vec::new();
        let (mut owner, mut count) = (None, 0);
        let mut answered = std::collections::BTreeMap::new();
        for answer in self.answers.iter().filter(|answer| answer.at >= since) {
            let first = *answered.entry(answer.question).or_insert(answer.node);
            if former.contains(&answer.node) || first != answer.node {
                count += 1;
            } else if owner != Some(answer.node) {
                former.extend(owner);
                owner = Some(answer.node);
            }
        }
        count
    }
}

fn set_timeout(socket: &UdpSocket) -> Result<(), LabError> {
    socket.set_read_timeout(Some(POLL_INTERVAL)).map_err(LabError::io_error("set a timeout"))
}

/// Binds to an address that the namespace may not have yet.
fn bind_anyway(at: SocketAddr) -> Result<UdpSocket, LabError> {
    let family = if at.is_ipv4() { "ipv4" } else { "ipv6" };
    let setting = format!("/proc/sys/net/{family}/ip_nonlocal_bind");
    std::fs::write(&setting, "1").map_err(LabError::io_error(format!("write {setting}")))?;
    let socket = UdpSocket::bind(at).map_err(LabError::io_error(format!("bind to {at}")))?;
    set_timeout(&socket)?;
    Ok(socket)
}

fn answer_questions(socket: &UdpSocket, number: u8, shared: &OwnerProbeState) {
    let mut question = [0; ANSWER_LEN];
    while !shared.is_over.load(Relaxed) {
        if let Ok((ANSWER_LEN, from)) = socket.recv_from(&mut question) {
            question[ANSWER_LEN - 1] = number;
            // A node that may not answer is refused by its kernel.
            let _ = socket.send_to(&question, from);
        }
    }
}

fn ask_questions(socket: &UdpSocket, at: SocketAddr, shared: &OwnerProbeState) {
    let mut due = Instant::now();
    for number in 0u64.. {
        if shared.is_over.load(Relaxed) {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due = due.max(Instant::now() - POLL_INTERVAL) + QUESTION_PERIOD;
        let mut question = [0; ANSWER_LEN];
        question[..8].copy_from_slice(&number.to_be_bytes());
        // Nobody may have the address: the question is lost.
        let _ = socket.send_to(&question, at);
        shared.lock_log().asked = number + 1;
    }
}

fn read_answers(socket: &UdpSocket, shared: &OwnerProbeState) {
    let mut answer = [0; ANSWER_LEN];
    while !shared.is_over.load(Relaxed) {
        if let Ok(ANSWER_LEN) = socket.recv(&mut answer) {
            let question = answer.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
            let node = answer[ANSWER_LEN - 1];
            shared.lock_log().answers.push(OwnerAnswer { question, node, at: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_two_owners_are_counted() {
        let start = Instant::now();
        let log = |answers: &[(u64, u8)]| OwnerLog {
            asked: 9,
            answers: (1..)
                .zip(answers)
                .map(|(place, (question, node))| {
                    let at = start + Duration::from_millis(place * 10);
                    OwnerAnswer { question: *question, node: *node, at }
                })
                .collect(),
        };
        let one = log(&[(1, 0), (2, 0), (7, 1), (8, 1)]);
        assert_eq!(one.answers_of_two_owners(start), 0);
        assert_eq!(one.longest_gap_after(start), Duration::from_millis(10));
        assert_eq!(log(&[(1, 0), (1, 1), (2, 1)]).answers_of_two_owners(start), 1);
        let millis = |length| Some(start + Duration::from_millis(length));
        assert_eq!(one.first_answer(1, start), millis(30));
        assert_eq!(one.last_answer(0, start + Duration::from_secs(1)), millis(20));
        assert_eq!(one.last_answer(1, start), None);
        let back = log(&[(1, 0), (2, 1), (3, 0), (4, 1)]);
        assert_eq!(back.answers_of_two_owners(start), 1);
    }
}
