//! How the C library's heap is kept. For a program, not a library: it concerns the whole process.

#![expect(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper")]

/// Makes all threads that start from here on share one heap. glibc gives every thread its own,
/// each with its own holes; a handshake passes through several. Packets are moved without
/// allocating, so nobody waits for the lock. Without effect on other C libraries.
pub fn use_single_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes two numbers and changes nothing but the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives whole pages that nothing is on back to the kernel: what handshakes needed.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and touches only memory nobody owns.
    unsafe {
        libc::malloc_trim(0);
    }
}
