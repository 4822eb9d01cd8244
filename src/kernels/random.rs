//! Random numbers: the Mersenne Twister (Matsumoto and Nishimura 1998), seeded and read as NumPy's `RandomState` does it,
//! so that a given seed gives NumPy's numbers.

const N: usize = 624;
const M: usize = 397;

/// A generator of the MT19937 family.
pub struct Mt19937 {
    key: [u32; N],
    at: usize,
    /// The second of a pair of normal numbers.
    spare: Option<f64>,
}

impl Mt19937 {
    /// The sequence of a seed.
    pub fn new(seed: u32) -> Mt19937 {
        let mut key = [0u32; N];
        key[0] = seed;
        for i in 1..N {
            let last = key[i - 1];
            key[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Mt19937 { key, at: N, spare: None }
    }
    fn refill(&mut self) {
        for i in 0..N {
            let y = (self.key[i] & 0x8000_0000) | (self.key[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.key[i] = self.key[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.at = 0;
    }
    /// 32 random bits.
    pub fn bits(&mut self) -> u32 {
        if self.at == N {
            self.refill();
        }
        let mut y = self.key[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }
    /// Evenly spread in [0, 1), of 53 bits.
    pub fn uniform(&mut self) -> f64 {
        let (a, b) = (self.bits() >> 5, self.bits() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0
    }
    /// Of the standard normal distribution (Marsaglia's polar method).
    pub fn normal(&mut self) -> f64 {
        if let Some(x) = self.spare.take() {
            return x;
        }
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let r = x * x + y * y;
            if r < 1.0 && r != 0.0 {
                let f = (-2.0 * r.ln() / r).sqrt();
                self.spare = Some(f * x);
                return f * y;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpys_numbers() {
        // numpy.random.RandomState(0).uniform(size=3), RandomState(42).randn(3), both printed with 17 digits.
        let mut g = Mt19937::new(0);
        assert_eq!([(); 3].map(|()| g.uniform()), [0.5488135039273248, 0.7151893663724195, 0.6027633760716439]);
        let mut g = Mt19937::new(42);
        for want in [0.4967141530112327, -0.13826430117118466, 0.6476885381006925] {
            // The logarithm may differ in its last place from the C library's.
            assert!((g.normal() - want).abs() < 1e-15, "{want}");
        }
    }

    #[test]
    fn moments_over_many_blocks() {
        let mut g = Mt19937::new(5);
        let n = 100_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = g.normal();
            sum += x;
            squares += x * x;
        }
        // Four standard errors: 1 / sqrt(n), and sqrt(2 / n).
        assert!((sum / n as f64).abs() < 0.0127 && (squares / n as f64 - 1.0).abs() < 0.018);
    }
}
