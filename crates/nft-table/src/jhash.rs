//! The kernel's hash of a few words (`include/linux/jhash.h`, Bob Jenkins' lookup3), which nft calls `jhash`.

/// The number below `modulus` that `jhash KEY mod MODULUS seed SEED` gives for a key in registers: all fields padded to
/// four bytes.
///
/// It reads words in the order of the machine's bytes, as the kernel does: processors of one kind agree.
pub fn below(modulus: u32, key: &[u8], seed: u32) -> u32 {
    // `reciprocal_scale` in `include/linux/kernel.h`
    ((u64::from(hash(key, seed)) * u64::from(modulus)) >> 32) as u32
}

fn hash(key: &[u8], seed: u32) -> u32 {
    /// `JHASH_INITVAL`
    const START: u32 = 0xdead_beef;
    let start = START.wrapping_add(key.len() as u32).wrapping_add(seed);
    let mut state = [start; 3];
    let mut blocks = key.chunks(12).peekable();
    while let Some(block) = blocks.next() {
        for (word, bytes) in state.iter_mut().zip(block.chunks(4)) {
            let mut padded = [0; 4];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = word.wrapping_add(u32::from_ne_bytes(padded));
        }
        if blocks.peek().is_some() { mix(&mut state) } else { finish(&mut state) }
    }
    state[2]
}

/// `__jhash_mix`, on a, b and c.
fn mix(state: &mut [u32; 3]) {
    const STEPS: [(usize, usize, usize, u32); 6] =
        [(0, 2, 1, 4), (1, 0, 2, 6), (2, 1, 0, 8), (0, 2, 1, 16), (1, 0, 2, 19), (2, 1, 0, 4)];
    for (x, y, z, bits) in STEPS {
        state[x] = state[x].wrapping_sub(state[y]) ^ state[y].rotate_left(bits);
        state[y] = state[y].wrapping_add(state[z]);
    }
}

/// `__jhash_final`
fn finish(state: &mut [u32; 3]) {
    const STEPS: [(usize, usize, u32); 7] =
        [(2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24)];
    for (x, y, bits) in STEPS {
        state[x] = (state[x] ^ state[y]).wrapping_sub(state[y].rotate_left(bits));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of Linux, for a client, a flow, and both of IPv6. Packet tests hold rules against this function.
    #[test]
    #[cfg(target_endian = "little")]
    fn numbers_never_change() {
        let v6: Vec<u8> = (1..=20).collect();
        let keys: [&[u8]; 4] = [&[192, 0, 2, 1], &[192, 0, 2, 1, 0x9c, 0x40, 0, 0], &v6[..16], &v6];
        let numbers = keys.map(|key| below(251, key, 0x6b75_6265));
        assert_eq!(numbers, [60, 147, 124, 142]);
        assert!(keys.iter().all(|key| below(1, key, 7) == 0));
    }
}
