//! What a model needs that is not supported here, as a list.

use crate::err;
use crate::error::Error;
use crate::ir::{OpDef, Registry};
use std::collections::BTreeMap;
use std::fmt;

/// A node that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The node's name; names of calls of functions go before it, with slashes.
    pub node: String,
    /// Its operator, as the model says it.
    pub op: String,
    /// Why.
    pub reason: Reason,
}

/// Why a node cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nobody here knows the operator.
    Unknown {
        /// Domain, `ai.onnx` for the default one.
        domain: String,
        /// The version of the operator set that the model imports; `None` if it imports none.
        version: Option<u32>,
    },
    /// The operator is known, but not as it was at this version.
    TooOld {
        /// Domain, `ai.onnx` for the default one.
        domain: String,
        /// The version of the operator set that the model imports.
        version: u32,
        /// The oldest version that is understood.
        oldest: u32,
    },
    /// The operator is known, but not this use of it: the message says what.
    Refused(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unknown { version: Some(v), .. } => write!(f, "opset {v}"),
            Reason::Unknown { version: None, .. } => f.write_str("opset not imported"),
            Reason::TooOld { version, oldest, .. } => write!(f, "opset {version}, understood from {oldest} on"),
            Reason::Refused(message) => f.write_str(message),
        }
    }
}

/// The definition of an operator, or why there is none.
pub fn find<'r>(
    registry: &'r Registry,
    domain: &str,
    op: &str,
    version: Option<u32>,
) -> std::result::Result<&'r OpDef, Reason> {
    let named = || if domain.is_empty() { "ai.onnx".to_string() } else { domain.to_string() };
    let Some(def) = registry.find(domain, op) else { return Err(Reason::Unknown { domain: named(), version }) };
    match (version, def.versions.first()) {
        (Some(v), Some(&oldest)) if v < oldest => Err(Reason::TooOld { domain: named(), version: v, oldest }),
        _ => Ok(def),
    }
}

/// One error that names all gaps, each operator once.
pub fn error(gaps: &[Gap]) -> Error {
    let (mut operators, mut refused) = (BTreeMap::<_, Vec<&Gap>>::new(), Vec::new());
    for g in gaps {
        match &g.reason {
            Reason::Unknown { domain, .. } | Reason::TooOld { domain, .. } => {
                operators.entry((domain, &g.op)).or_default().push(g)
            }
            Reason::Refused(message) => refused.push(format!("node '{}' ({}): {message}", g.node, g.op)),
        }
    }
    let operators: Vec<String> = operators
        .into_iter()
        .map(|((domain, op), gaps)| {
            let more = if gaps.len() > 1 { format!(" and {} more", gaps.len() - 1) } else { String::new() };
            format!("{domain}::{op} ({}; node '{}'{more})", gaps[0].reason, gaps[0].node)
        })
        .collect();
    let mut parts = Vec::new();
    if !operators.is_empty() {
        parts.push(format!("operators not supported: {}", operators.join(", ")));
    }
    parts.extend(refused);
    err!(Unsupported, "{}", parts.join("; "))
}

#[cfg(test)]
#[path = "gap_tests.rs"]
mod tests;
