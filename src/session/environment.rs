//! What sessions share: the operators known, the devices found.

use crate::backend::{Backend, DeviceEntry, DeviceKind, Provider};
use crate::err;
use crate::error::Result;
use crate::ir::{OpDef, Registry};
use crate::ops;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Operators and devices. Sessions keep what they need of it, so it may go before them.
#[derive(Clone)]
pub struct Environment {
    pub(super) registry: Arc<Registry>,
    pub(super) backends: Vec<Arc<dyn Backend>>,
    providers: Vec<Arc<dyn Provider>>,
    /// Devices opened so far, by name: all sessions share one.
    opened: Arc<Mutex<HashMap<String, Arc<dyn Backend>>>>,
}

impl Environment {
    /// All of ortx's operators, the CPU, and whatever devices the machine has (looked for at first need).
    pub fn new() -> Self {
        Environment {
            registry: Arc::new(ops::registry()),
            backends: Vec::new(),
            providers: ops::providers(),
            opened: Arc::default(),
        }
    }
    /// Adds an operator; a definition of the same domain and name is replaced.
    pub fn add_operator(&mut self, def: OpDef) {
        Arc::make_mut(&mut self.registry).add(def);
    }
    /// Adds a backend that sessions may name among their devices.
    pub fn add_backend(&mut self, backend: Arc<dyn Backend>) {
        self.backends.push(backend);
    }
    /// The devices beside the CPU: those added, then those found on the machine.
    pub fn devices(&self) -> Result<Vec<DeviceEntry>> {
        let added = |b: &Arc<dyn Backend>| DeviceEntry {
            name: b.name().into(),
            description: "added by the host".into(),
            kind: DeviceKind::Accelerator,
            memory: 0,
        };
        let mut all: Vec<DeviceEntry> = self.backends.iter().map(added).collect();
        for p in &self.providers {
            all.extend(p.list()?);
        }
        Ok(all)
    }
    /// The device that `spec` means, opened at first need.
    pub fn device(&self, spec: &str) -> Result<Arc<dyn Backend>> {
        if let Some(b) = self.backends.iter().find(|b| b.name() == spec) {
            return Ok(b.clone());
        }
        let kind = spec.split(':').next().unwrap_or(spec);
        let none = || err!(NotFound, "there is no device '{spec}'");
        let provider = self.providers.iter().find(|p| p.kind() == kind).ok_or_else(none)?;
        let name = provider.resolve(spec)?;
        // Held while opening, so that two sessions at once do not open it twice.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(b) = opened.get(&name) {
            return Ok(b.clone());
        }
        let backend = provider.open(&name)?;
        opened.insert(name, backend.clone());
        Ok(backend)
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
