//! A checksum against damage (not against forgers), about as fast as memory is read. Files hold it: it must never change.

/// Sums bytes that come in pieces.
#[derive(Clone)]
pub struct Checksum {
    lanes: [u64; 4],
    /// Bytes that do not fill a block yet.
    rest: [u8; 32],
    held: usize,
    len: u64,
}

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Default for Checksum {
    fn default() -> Self {
        Checksum { lanes: [1, 2, 3, 4].map(|i: u64| i.wrapping_mul(ODD)), rest: [0; 32], held: 0, len: 0 }
    }
}

impl Checksum {
    /// Of bytes at once.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut c = Checksum::default();
        c.update(bytes);
        c.finish()
    }
    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.len = self.len.wrapping_add(bytes.len() as u64);
        if self.held > 0 {
            let n = bytes.len().min(32 - self.held);
            self.rest[self.held..self.held + n].copy_from_slice(&bytes[..n]);
            (self.held, bytes) = (self.held + n, &bytes[n..]);
            if self.held < 32 {
                return;
            }
            mix(&mut self.lanes, &self.rest);
            self.held = 0;
        }
        let (blocks, rest) = bytes.as_chunks::<32>();
        blocks.iter().for_each(|b| mix(&mut self.lanes, b));
        self.rest[..rest.len()].copy_from_slice(rest);
        self.held = rest.len();
    }
    /// The sum.
    pub fn finish(mut self) -> u64 {
        self.rest[self.held..].fill(0);
        mix(&mut self.lanes, &self.rest);
        let step = |h: u64, x: u64| (h ^ x).wrapping_mul(ODD).rotate_left(31);
        let h = self.lanes.iter().fold(self.len, |h, &x| step(h, x));
        let h = (h ^ h >> 32).wrapping_mul(ODD);
        h ^ h >> 29
    }
}

fn mix(lanes: &mut [u64; 4], block: &[u8; 32]) {
    for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
        *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(ODD).rotate_left(27);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_matter_and_every_bit_does() {
        let mut bytes: Vec<u8> = (0..200u32).map(|i| (i * 37 % 251) as u8).collect();
        let whole = Checksum::of(&bytes);
        for cut in 0..bytes.len() {
            let mut c = Checksum::default();
            c.update(&bytes[..cut]);
            c.update(&bytes[cut..]);
            assert_eq!(c.finish(), whole);
            assert_ne!(Checksum::of(&bytes[..cut]), whole);
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Checksum::of(&bytes), whole, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_ne!(Checksum::of(&[0; 8]), Checksum::of(&[0; 9]));
        assert_eq!(Checksum::of(b"ortx"), Checksum::of(b"ortx"));
    }
}
