//! Packets that the kernel is evaluating.

use std::thread;
use std::time::Duration;

/// Longer than anything but the hypervisor holds up a packet, where the kernel cannot tell.
const LONG_FOR_A_PACKET: Duration = Duration::from_millis(20);

/// Waits until every packet that is being evaluated by nftables now has passed: some milliseconds.
pub(super) fn let_pass() {
    // Rules are evaluated in RCU read-side critical sections, whose end this waits for (membarrier(2)). A kernel with
    // `nohz_full` does not do so.
    // SAFETY: the call takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        thread::sleep(LONG_FOR_A_PACKET);
    }
}
