//! Scheduler attributes of a thread (`sched_setattr(2)`).

#![expect(unsafe_code, reason = "sched_getattr and sched_setattr have no safe wrapper")]

use std::io;

/// Least slice that the kernel grants, ns.
const SHORT_SLICE_NS: u64 = 100_000;

/// Asks for the shortest slice of the processor for the calling thread. From Linux 6.12 on
/// (`PREEMPT_SHORT`) a thread that wakes up with a shorter slice than the running one takes its
/// place at once; with equal slices it waits until the other's has ended, some milliseconds for
/// each packet on a host whose processors are busy. Its share of the processor stays the same.
/// Policy and nice value stay; a thread under another policy than `SCHED_OTHER` and `SCHED_BATCH`
/// keeps everything. Earlier kernels ignore the slice.
///
/// # Errors
/// Of the kernel, such as `EPERM` under a seccomp filter.
fn shorten_slice() -> io::Result<()> {
    let mut attr = read_attr()?;
    if ![libc::SCHED_OTHER as u32, libc::SCHED_BATCH as u32].contains(&attr.sched_policy) {
        return Ok(());
    }
    attr.sched_runtime = SHORT_SLICE_NS;
    // Programs that the thread starts have the ordinary slice.
    attr.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    // SAFETY: the pointer is to a whole `struct sched_attr` of this frame, whose size it holds; the
    // kernel reads it. Thread 0 is the calling one.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The same, where a refusal costs nothing but round trips on a busy host.
pub fn try_shorten_slice() {
    if let Err(error) = shorten_slice() {
        tracing::debug!(%error, "the kernel grants no short slice");
    }
}

fn read_attr() -> io::Result<libc::sched_attr> {
    // SAFETY: every field of `struct sched_attr` is an integer, for which zero is a value.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes, the whole `struct sched_attr` of this frame.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    attr.size = size;
    Ok(attr)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, thread};

    use super::*;

    /// Slice of the calling thread, ms; `None` where the kernel does not show it.
    fn slice_ms() -> Option<f64> {
        let text = fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = text.lines().find(|line| line.starts_with("se.slice"))?;
        line.rsplit(' ').next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e6)
    }

    #[test]
    fn a_short_slice_is_the_threads_own() {
        let before = slice_ms();
        let (inside, of_child, attr) = thread::spawn(|| {
            shorten_slice().unwrap();
            let of_child = thread::spawn(slice_ms).join().unwrap();
            (slice_ms(), of_child, read_attr().unwrap())
        })
        .join()
        .unwrap();
        if let Some(before) = before {
            assert_eq!((inside, of_child), (Some(0.1), Some(before)));
        }
        assert_eq!((attr.sched_policy, attr.sched_nice), (libc::SCHED_OTHER as u32, 0));
        assert_eq!(slice_ms(), before, "the other threads keep theirs");
    }
}
