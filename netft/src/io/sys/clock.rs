//! Synchronisation state of the system clock (`adjtimex`).

#![expect(unsafe_code, reason = "adjtimex has no safe wrapper")]

/// Returns whether the clock is synchronised (NTP, PTP, hypervisor); `None` when the kernel does
/// not report it.
pub fn is_synchronised() -> Option<bool> {
    // SAFETY: every field of `struct timex` is an integer, for which zero is a value.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `struct timex` of this frame; `modes` is 0, so the kernel
    // only reads the clock.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_answers() {
        assert!(super::is_synchronised().is_some());
    }
}
