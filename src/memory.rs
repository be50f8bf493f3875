//! What glibc's malloc does with memory that is free. Other allocators are left as they are.

/// Has all threads share one heap; to be called while there is only one thread. What one thread reads,
/// another keeps or drops, so free memory would otherwise be scattered over the heaps of all of them.
pub fn keep_one_heap() {
    // SAFETY: the call takes no pointers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free memory to the kernel. For a moment a full load needs much more than is needed afterwards,
/// and glibc would keep it.
pub fn give_back() {
    // SAFETY: the call takes no pointers and is thread-safe.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
