//! The devices that a session's options name: opened, or passed over with a word about it.

use super::Environment;
use crate::backend::Backend;
use crate::error::{Context, ErrorKind, Result};
use std::sync::Arc;

/// What the options' list of devices came to.
pub(super) struct Devices {
    /// Those that are there, in the order of the list.
    pub backends: Vec<Arc<dyn Backend>>,
    /// Whether one of them is required: then nothing may fall back to the CPU.
    pub required: bool,
    /// What the caller should hear of: devices that the CPU takes the place of.
    pub warnings: Vec<String>,
}

/// Opens devices by name. One that is not there, or does not work, is an error where its name ends in `!`; else it is
/// passed over and reported. A name that can mean no device is an error in any case.
pub(super) fn open(env: &Environment, names: &[String]) -> Result<Devices> {
    let mut all = Devices { backends: Vec::new(), required: false, warnings: Vec::new() };
    for name in names {
        let (spec, required) = match name.strip_suffix('!') {
            Some(spec) => (spec, true),
            None => (name.as_str(), false),
        };
        match env.device(spec) {
            Ok(b) if all.backends.iter().any(|a| a.name() == b.name()) => all.required |= required,
            Ok(b) => {
                all.backends.push(b);
                all.required |= required;
            }
            Err(e) if required => return Err(e).context(|| format!("device '{spec}' is required")),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Device) => {
                all.warnings.push(format!("device '{spec}' cannot be used, the CPU takes its place: {e}"));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}
