//! Looks into a model without making it ready to run: works also where something in it is not supported.

use super::compiled::Compiled;
use super::{Environment, Io, Metadata, ModelSource};
use crate::error::{Context, Error, Result};
use crate::import::{
    Gap, OperatorUse, Weights, fact_from_type, import_with_gaps, initialised_inputs, opset_list, overridable_inputs,
    survey, weights,
};
use crate::ir::Fact;
use crate::proto::onnx::ValueInfoProto;
use crate::proto::source::Mode;

/// What a model is made of, and what of it is not supported.
#[derive(Debug)]
pub struct Inspection {
    /// Inputs in the model's order, without those that have a default.
    pub inputs: Vec<Io>,
    /// Outputs in the model's order.
    pub outputs: Vec<Io>,
    /// What the model says of itself.
    pub metadata: Metadata,
    /// Operators, also those inside subgraphs and functions.
    pub operators: Vec<OperatorUse>,
    /// Initialisers by element type.
    pub weights: Vec<Weights>,
    /// Inputs that have a default among the initialisers, which a run may override.
    pub overridable: Vec<Io>,
    /// All nodes that cannot be read.
    pub gaps: Vec<Gap>,
    /// Why the model is damaged, if it is.
    pub fault: Option<Error>,
}

/// Looks into a model. Fails only where there is no model to look into.
pub fn inspect(env: &Environment, source: &ModelSource, mode: Mode) -> Result<Inspection> {
    let (model, external) = source.open(mode)?;
    let described = |list: &[ValueInfoProto], what: &str| -> Result<Vec<Io>> {
        list.iter()
            .map(|v| {
                let fact = fact_from_type(v.r#type.as_ref()).context(|| format!("{what} '{}'", v.name()))?;
                Ok(Io { name: v.name().into(), fact })
            })
            .collect()
    };
    let graph = model.graph.as_ref();
    let (held, open) = (graph.map(initialised_inputs).unwrap_or_default(), overridable_inputs(&model));
    let mut inputs = described(graph.map_or(&[], |g| &g.input), "input").context(|| source.describe())?;
    let named = |list: &[String], io: &Io| list.iter().any(|n| **n == *io.name);
    let overridable = inputs.iter().filter(|io| named(&open, io)).cloned().collect();
    inputs.retain(|io| !named(&held, io));
    let mut outputs = described(graph.map_or(&[], |g| &g.output), "output").context(|| source.describe())?;
    let (gaps, fault) = match import_with_gaps(&model, &env.registry, &external) {
        Ok((imported, gaps)) => {
            // Inference may know more than the file says.
            for (io, &v) in outputs.iter_mut().zip(imported.graph.outputs()) {
                let fact = imported.graph.fact(v);
                if !matches!(fact, Fact::Unknown) {
                    io.fact = fact.without_contents();
                }
            }
            (gaps, None)
        }
        Err(e) => (Vec::new(), Some(e)),
    };
    // Loading does not take the time to look at all the weights.
    let damage = || Compiled::of(source, mode).and_then(|c| c.map_or(Ok(()), |c| c.verify())).err();
    let fault = fault.or_else(damage);
    Ok(Inspection {
        inputs,
        outputs,
        metadata: Metadata::of(&model, opset_list(&model)),
        operators: survey(&model, &env.registry),
        weights: weights(&model),
        overridable,
        gaps,
        fault,
    })
}
