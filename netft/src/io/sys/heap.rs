//! Settings of the C library's allocator. For programs only: they affect the whole process.

#![expect(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper")]

/// Limits glibc to one arena for all threads started later. By default each thread has its own, and
/// each fragments by itself; a handshake passes through several. The packet path does not allocate,
/// so the lock is not contended. No effect on other C libraries.
pub fn use_single_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers and changes nothing but the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free pages to the kernel, such as those that handshakes needed.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
