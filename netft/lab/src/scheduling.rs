//! Scheduling delay of this machine, measured beside a test, so that bounds in milliseconds are
//! judged on machines that run other work, and asserted only where the machine is not to blame.
//!
//! On every processor a thread sleeps for a moment again and again, and records how late it wakes.
//! A bound is extended by what was measured in the same span of time. A measurement that exceeds it
//! all the same fails the test if threads were scheduled in time. If they were late, or waited for
//! processors nearly all the time, it says nothing about the code, and
//! [`in_namespace`](crate::in_namespace) repeats the test.

use std::{
    collections::VecDeque,
    fs,
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Sleep of the measuring threads.
const MEASURE_INTERVAL: Duration = Duration::from_millis(2);
/// A thread that wakes this late is no sign of other work: timers and virtual machines do that.
const ORDINARY_DELAY: Duration = Duration::from_millis(3);
/// A thread that wakes this late may be the reason of a missed bound.
const STALL_DELAY: Duration = Duration::from_millis(8);
/// Threads that wake up in turn between a fault and what a test sees of it: probe, worker, driver
/// and the kernel's at both ends. Each may be late.
const WAKE_UPS: u32 = 10;
/// The same between the beginning and the end of a start, a handshake or a repair.
const WAKE_UPS_OF_A_WAIT: u32 = 50;
/// The machine may be to blame if some thread waited for a processor for more than this share of
/// the time: a measuring thread needs little and gets it at once where a busy daemon waits.
const STARVED_PERCENT: u128 = 80;
/// Time between two looks at the pressure on the processors.
const PRESSURE_INTERVAL: Duration = Duration::from_millis(200);
/// Records of each kind that are kept; older ones are forgotten.
const MAX_RECORDS: usize = 1 << 16;
/// Marks the output of a test that the machine was too busy for.
pub(crate) const NOT_JUDGED: &str = "NOT JUDGED";

/// Late wake-ups, in order: when a thread was due, and when it woke.
static LATE_WAKE_UPS: Mutex<VecDeque<(Instant, Instant)>> = Mutex::new(VecDeque::new());
/// Time in which some thread of the machine had waited for a processor, by the moment of the look.
static PRESSURE_LOOKS: Mutex<VecDeque<(Instant, Duration)>> = Mutex::new(VecDeque::new());
/// When each measuring thread is due.
static DUE_WAKE_UPS: OnceLock<Vec<Mutex<Instant>>> = OnceLock::new();

/// Starts the measurement of this process, once.
pub(crate) fn start_measuring() {
    let mut is_new = false;
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    let is_allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    let cpus: Vec<_> = (0..CpuSet::count()).filter(is_allowed).collect();
    let due = DUE_WAKE_UPS.get_or_init(|| {
        is_new = true;
        cpus.iter().map(|_| Mutex::new(Instant::now() + MEASURE_INTERVAL)).collect()
    });
    if is_new {
        for (cpu, due) in cpus.into_iter().zip(due) {
            thread::spawn(move || measure_on(cpu, due));
        }
        thread::spawn(|| {
            while let Some(waited) = processor_pressure() {
                push_record(&PRESSURE_LOOKS, (Instant::now(), waited));
                thread::sleep(PRESSURE_INTERVAL);
            }
        });
    }
}

fn measure_on(cpu: usize, due: &Mutex<Instant>) {
    let mut only = CpuSet::new();
    // Without the pin the threads measure the processors they happen to run on.
    let _ = only.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    loop {
        thread::sleep(MEASURE_INTERVAL);
        let now = Instant::now();
        let mut due = due.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(*due) > ORDINARY_DELAY {
            push_record(&LATE_WAKE_UPS, (*due, now));
        }
        *due = Instant::now() + MEASURE_INTERVAL;
    }
}

fn push_record<T>(records: &Mutex<VecDeque<T>>, record: T) {
    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
    if records.len() == MAX_RECORDS {
        records.pop_front();
    }
    records.push_back(record);
}

/// Time since the start of the machine in which some thread waited for a processor; `None` where
/// the kernel does not count it.
fn processor_pressure() -> Option<Duration> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let total = text.lines().next()?.split_once("total=")?.1;
    Some(Duration::from_micros(total.trim().parse().ok()?))
}

/// Returns whether threads waited for processors most of the time since `since`.
fn was_starved(since: Instant) -> bool {
    let looks = PRESSURE_LOOKS.lock().unwrap_or_else(PoisonError::into_inner);
    let look = looks.iter().rev().find(|(at, _)| *at <= since).or_else(|| looks.front());
    let Some((at, before)) = look else { return false };
    let waited = processor_pressure().unwrap_or_default().saturating_sub(*before);
    waited.as_micros() * 100 > at.elapsed().as_micros() * STARVED_PERCENT
}

/// The worst scheduling delay from `since` until this moment; zero while threads wake in time.
pub fn worst_delay(since: Instant) -> Duration {
    let now = Instant::now();
    let late = LATE_WAKE_UPS.lock().unwrap_or_else(PoisonError::into_inner);
    let over = late.iter().rev().take_while(|(_, woke)| *woke >= since);
    let over = over.map(|(due, woke)| woke.saturating_duration_since(*due)).max();
    drop(late);
    let pending = DUE_WAKE_UPS.get().into_iter().flatten();
    let pending = pending.map(|due| {
        now.saturating_duration_since(*due.lock().unwrap_or_else(PoisonError::into_inner))
    });
    let pending = pending.filter(|delay| *delay > ORDINARY_DELAY).max();
    over.max(pending).unwrap_or_default()
}

/// Asserts that something took no longer than `bound`, which the worst scheduling delay since
/// `since` extends: by nothing on a machine without other work.
///
/// # Panics
/// As [`assert_timely`].
pub fn assert_within(what: &str, took: Duration, bound: Duration, since: Instant) {
    let delay = worst_delay(since);
    let extended = bound + delay * WAKE_UPS;
    assert_timely(took <= extended, since, || {
        format!("{what} took {took:?}, more than {bound:?} extended to {extended:?}")
    });
}

/// Asserts a property that holds where threads are scheduled in time, as they have to be since
/// `since`.
///
/// # Panics
/// When the property does not hold. If threads were late, the test is repeated for it.
pub fn assert_timely(holds: bool, since: Instant, what: impl FnOnce() -> String) {
    assert!(holds, "{}", blame(since, STALL_DELAY, what()));
}

/// The text of a wait in vain since `since`, for `limit`: many wake-ups that each may be late.
pub fn blame_wait(since: Instant, limit: Duration, what: String) -> String {
    blame(since, limit / WAKE_UPS_OF_A_WAIT, what)
}

/// The text of a failure, marked as not judged if a delay of `stall` may be its reason.
fn blame(since: Instant, stall: Duration, what: String) -> String {
    let delay = worst_delay(since);
    if delay >= stall {
        format!("{NOT_JUDGED}: {what}; but threads of this machine woke up to {delay:?} late")
    } else if was_starved(since) {
        format!("{NOT_JUDGED}: {what}; but threads waited for processors nearly all the time")
    } else {
        what
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn failure_of(act: impl FnOnce()) -> String {
        *catch_unwind(AssertUnwindSafe(act)).unwrap_err().downcast::<String>().unwrap()
    }

    /// One test, because the records are this process's.
    #[test]
    fn a_bound_is_extended_by_what_was_measured_and_by_nothing_else() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_within("it", second, second, start);
        let failed = failure_of(|| assert_within("it", second * 2, second, start));
        assert!(failed.starts_with("it took 2s") && !failed.contains(NOT_JUDGED), "{failed}");

        let woke = Instant::now();
        LATE_WAKE_UPS.lock().unwrap().push_back((woke - Duration::from_millis(50), woke));
        assert_eq!(worst_delay(start), Duration::from_millis(50));
        assert_within("it", second * 3 / 2, second, start);
        let failed = failure_of(|| assert_within("it", second * 2, second, start));
        assert!(failed.starts_with(NOT_JUDGED), "{failed}");
        let failed = failure_of(|| assert_timely(false, start, || "it moved".to_owned()));
        assert!(failed.starts_with(NOT_JUDGED) && failed.contains("it moved"), "{failed}");
        let later = Instant::now();
        let failed = failure_of(|| assert_timely(false, later, || "it moved".to_owned()));
        assert_eq!(failed, "it moved", "the machine was late before, not since");

        if processor_pressure().is_some() {
            PRESSURE_LOOKS.lock().unwrap().push_back((later, Duration::ZERO));
            let failed = failure_of(|| assert_timely(false, later, || "it moved".to_owned()));
            assert!(failed.starts_with(NOT_JUDGED), "{failed}");
        }

        start_measuring();
        thread::sleep(MEASURE_INTERVAL * 20);
        assert!(worst_delay(later) < second * 60);
        assert!(DUE_WAKE_UPS.get().unwrap().iter().all(|due| *due.lock().unwrap() > later));
    }
}
