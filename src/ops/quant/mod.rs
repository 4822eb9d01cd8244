//! Quantised operators: between numbers and integers of few bits, and products of those integers.

mod cases;
mod contrib;
mod conv;
mod dynamic;
mod linear;
mod matmul;
mod nbits;
mod pool;

use super::Family;
use crate::backend::cpu::CpuBindings;
use crate::ir::OpDef;
pub use conv::IntConvolution;
pub use dynamic::DynamicQuantize;
pub use linear::{Dequantize, Grain, Quantize};
pub use matmul::{Inputs, IntMatMul};
pub use nbits::{GatherBlockQuantized, MatMulNBits};
pub use pool::IntPool;

pub(super) const FAMILY: Family = Family { name: "quantised", ops: OPS, cpu, cases: cases::all, ..Family::EMPTY };

/// The domain of the operators that runtimes added.
const CONTRIB: &str = "com.microsoft";

/// At which versions more types came, or attributes.
const LINEAR: &[u32] = &[10, 13, 19, 21, 23, 24, 25, 28];

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "ConvInteger", versions: &[10], parse: conv::parse },
    OpDef { domain: "", name: "DequantizeLinear", versions: LINEAR, parse: linear::parse_dequantize },
    OpDef { domain: "", name: "DynamicQuantizeLinear", versions: &[11], parse: dynamic::parse },
    OpDef { domain: "", name: "MatMulInteger", versions: &[10], parse: matmul::parse },
    OpDef { domain: "", name: "QLinearConv", versions: &[10], parse: conv::parse },
    OpDef { domain: "", name: "QLinearMatMul", versions: &[10, 21], parse: matmul::parse },
    OpDef { domain: "", name: "QuantizeLinear", versions: LINEAR, parse: linear::parse_quantize },
    OpDef { domain: CONTRIB, name: "DequantizeLinear", versions: &[1], parse: linear::parse_dequantize },
    OpDef { domain: CONTRIB, name: "DynamicQuantizeMatMul", versions: &[1], parse: matmul::parse },
    OpDef { domain: CONTRIB, name: "GatherBlockQuantized", versions: &[1], parse: nbits::parse_gather },
    OpDef { domain: CONTRIB, name: "MatMulIntegerToFloat", versions: &[1], parse: matmul::parse },
    OpDef { domain: CONTRIB, name: "MatMulNBits", versions: &[1], parse: nbits::parse_matmul },
    OpDef { domain: CONTRIB, name: "QGemm", versions: &[1], parse: matmul::parse },
    OpDef { domain: CONTRIB, name: "QLinearConv", versions: &[1], parse: conv::parse },
    OpDef { domain: CONTRIB, name: "QLinearAdd", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearAveragePool", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearConcat", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearGlobalAveragePool", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearLeakyRelu", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearMul", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearReduceMean", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearSigmoid", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearSoftmax", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QLinearWhere", versions: &[1], parse: contrib::parse },
    OpDef { domain: CONTRIB, name: "QuantizeLinear", versions: &[1], parse: linear::parse_quantize },
];

fn cpu(b: &mut CpuBindings) {
    b.step::<Quantize>(linear::bind_quantize);
    b.step::<Dequantize>(linear::bind_dequantize);
    b.step::<DynamicQuantize>(dynamic::bind);
    b.step::<IntMatMul>(matmul::bind);
    b.step::<IntConvolution>(conv::bind);
    b.step::<IntPool>(pool::bind);
    b.step::<MatMulNBits>(nbits::bind_matmul);
    b.step::<GatherBlockQuantized>(nbits::bind_gather);
}
