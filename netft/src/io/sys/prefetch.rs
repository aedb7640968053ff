//! Prefetch hint to the CPU.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the prefetch instruction"))]

/// Bytes of a cache line.
const CACHE_LINE_SIZE: usize = 64;

/// Prefetches `bytes`, which are written next, while the CPU does other work.
#[inline]
pub fn prefetch_for_write(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(CACHE_LINE_SIZE) {
        use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and cannot fault, whatever its address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, CACHE_LINE_SIZE);
}
