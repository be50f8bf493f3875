//! What glibc's malloc does with memory that is free. Other allocators are left as they are.

/// Has all threads share one heap; call it before there are others. What one thread reads another one keeps
/// or drops here, so that free memory would be scattered over the heaps of all.
pub fn keep_one_heap() {
    // SAFETY: the call takes no pointers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free memory to the kernel. A full load needs much more for a moment than afterwards, and glibc
/// would keep it.
pub fn give_back() {
    // SAFETY: the call takes no pointers and is thread-safe.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
