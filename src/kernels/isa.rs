//! What the processor can do. An [`Isa`] value is the proof that its instructions may be used.

use std::sync::OnceLock;

/// Instruction set levels, each including those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust for any processor.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C: 8 floats a register.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL: 16 floats a register.
    Avx512,
}

impl Level {
    /// The lower-case name, as `ORTX_ISA` and kernel names have it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }
    /// The level of a name.
    pub fn from_name(name: &str) -> Option<Level> {
        [Level::Scalar, Level::Avx2, Level::Avx512].into_iter().find(|l| l.name() == name)
    }
}

/// A level that this processor was checked to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Isa(Level);

impl Isa {
    /// The level that needs no check.
    pub const SCALAR: Isa = Isa(Level::Scalar);

    /// The processor's highest level, or what the environment variable `ORTX_ISA` caps it to. Looked up once.
    pub fn detect() -> Isa {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| {
            let cap = std::env::var("ORTX_ISA").ok().and_then(|s| Level::from_name(&s)).unwrap_or(Level::Avx512);
            Isa::highest().cap(cap)
        })
    }
    fn highest() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 {
                return Isa(Level::Avx512);
            }
            if avx2 {
                return Isa(Level::Avx2);
            }
        }
        Isa(Level::Scalar)
    }
    /// The lower of this level and `level`.
    pub fn cap(self, level: Level) -> Isa {
        Isa(self.0.min(level))
    }
    /// Every level this one includes, lowest first: what the tests walk.
    pub fn levels(self) -> impl Iterator<Item = Isa> {
        [Level::Scalar, Level::Avx2, Level::Avx512].into_iter().filter(move |l| *l <= self.0).map(Isa)
    }
    /// The level proven.
    pub fn level(self) -> Level {
        self.0
    }
    /// Floats in a vector register: the channel block of blocked layouts.
    pub fn f32_lanes(self) -> usize {
        match self.0 {
            Level::Scalar | Level::Avx2 => 8,
            Level::Avx512 => 16,
        }
    }
}
