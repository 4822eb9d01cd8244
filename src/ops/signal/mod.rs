//! Signals: DFT, STFT, windows, mel weights.

mod cases;
mod dft;
mod window;

use super::Family;
use crate::ir::OpDef;

pub(super) const FAMILY: Family = Family { name: "signals", ops: OPS, cpu, cases: cases::cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef {
        domain: "",
        name: "BlackmanWindow",
        versions: &[17],
        parse: |cx| window::parse(cx, window::Shape::Blackman),
    },
    OpDef { domain: "", name: "DFT", versions: &[17, 20], parse: dft::parse_dft },
    OpDef { domain: "", name: "HammingWindow", versions: &[17], parse: |cx| window::parse(cx, window::Shape::Hamming) },
    OpDef { domain: "", name: "HannWindow", versions: &[17], parse: |cx| window::parse(cx, window::Shape::Hann) },
    OpDef { domain: "", name: "MelWeightMatrix", versions: &[17], parse: window::parse_mel },
    OpDef { domain: "", name: "STFT", versions: &[17], parse: dft::parse_stft },
];

fn cpu(b: &mut crate::backend::cpu::CpuBindings) {
    dft::cpu(b);
    window::cpu(b);
}
