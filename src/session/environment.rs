//! What sessions share: the operators known, the devices found.

use crate::backend::Backend;
use crate::ir::{OpDef, Registry};
use crate::ops;
use std::fmt;
use std::sync::Arc;

/// Operators and devices. Sessions keep what they need of it, so it may go before them.
#[derive(Clone)]
pub struct Environment {
    pub(super) registry: Arc<Registry>,
    pub(super) backends: Vec<Arc<dyn Backend>>,
}

impl Environment {
    /// All of ortx's operators, the CPU, and no other device.
    pub fn new() -> Self {
        Environment { registry: Arc::new(ops::registry()), backends: Vec::new() }
    }
    /// Adds an operator; a definition of the same domain and name is replaced.
    pub fn add_operator(&mut self, def: OpDef) {
        Arc::make_mut(&mut self.registry).add(def);
    }
    /// Adds a backend that sessions may name among their devices.
    pub fn add_backend(&mut self, backend: Arc<dyn Backend>) {
        self.backends.push(backend);
    }
    /// The operators known.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl Default for Environment {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.backends.iter().map(|b| b.name())).finish()
    }
}
