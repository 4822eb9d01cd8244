//! Convolutions of f64.

use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::bail;
use crate::error::Result;
use crate::kernels::conv::ConvSpec;
use crate::kernels::conv::dense::DenseConv;
use crate::kernels::gemm::Activation;
use crate::kernels::isa::Isa;

pub(super) fn bind(spec: ConvSpec) -> Result<Box<dyn Step>> {
    if spec.residual || spec.activation != Activation::None {
        bail!(Internal, "an f64 convolution with an epilogue");
    }
    // Its planning checks the sizes.
    DenseConv::new(Isa::SCALAR, spec)?;
    let planes = spec.n * spec.c_out;
    let (tasks, per) = split(planes, (64 * 1024 / (spec.flops() / planes.max(1)).max(1)).max(1));
    Ok(FnStep::boxed("conv_plain", tasks, 0, move |args, task, _| {
        for plane in task * per..planes.min((task + 1) * per) {
            // SAFETY: the spec was made from these operands' shapes (Step::run).
            unsafe {
                spec.plain_plane::<f64>(plane, args.input(0), args.input(1), args.input(2), args.output(0));
            }
        }
        Ok(())
    }))
}
