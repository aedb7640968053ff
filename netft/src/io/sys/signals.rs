//! Signal mask of a program that must not end by a signal before it can stop in order.

#![expect(unsafe_code, reason = "sigemptyset and the others have no safe wrapper")]

use std::{mem::MaybeUninit, ptr};

/// Signals that a daemon answers itself once it can.
const HELD_SIGNALS: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// Blocks SIGTERM, SIGINT and SIGHUP in this thread and those it starts: they stay pending.
pub fn hold_stop_signals() {
    change_mask(libc::SIG_BLOCK);
}

/// Sends SIGTERM to this thread. Held, it stays pending, also for the program that this thread
/// executes (execve(2)).
pub fn raise_stop_signal() {
    // SAFETY: the number is a valid signal.
    unsafe {
        libc::raise(libc::SIGTERM);
    }
}

/// Unblocks them in this thread: pending ones are delivered to it.
pub fn release_stop_signals() {
    change_mask(libc::SIG_UNBLOCK);
}

fn change_mask(how: libc::c_int) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is initialized by `sigemptyset` before it is read, the numbers are valid
    // signals, and only this thread's mask changes.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in HELD_SIGNALS {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut());
    }
}
