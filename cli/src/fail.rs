//! What went wrong, for people and for scripts: a message, a hint, and the process's exit code.

use ortx::ErrorKind;
use serde_json::{Value, json};

/// A failure of the command.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    kind: Option<ErrorKind>,
}

/// `Result` with [`Failure`].
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure that is not the library's.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, kind: None }
    }
    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
    /// 1 for the command's own failures, 10 and the number of the kind for the library's. (2 is wrong usage.)
    pub fn code(&self) -> u8 {
        self.kind.map_or(1, |k| 10 + k as i32 as u8)
    }
    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }
    /// What to do about it, if something is known.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
    /// For machines.
    pub fn json(&self) -> Value {
        let kind = self.kind.map_or("command".to_string(), |k| k.to_string());
        json!({ "error": { "kind": kind, "code": self.code(), "message": self.message, "hint": self.hint } })
    }
}

impl From<ortx::Error> for Failure {
    fn from(e: ortx::Error) -> Self {
        let hint = match e.kind() {
            ErrorKind::Unsupported => Some("`ortx inspect MODEL` lists all that is not supported"),
            ErrorKind::NotFound if e.message().contains("device") => Some("`ortx devices` lists what there is"),
            ErrorKind::InvalidArgument if e.message().starts_with("the model takes") => {
                Some("`ortx inspect MODEL` shows the inputs; convert an array with numpy's astype(), or reshape it")
            }
            ErrorKind::OutOfMemory => Some("smaller inputs (--shape) or fewer threads need less memory"),
            ErrorKind::Internal => Some("this is a fault of ortx: please report it, with the model if you may"),
            _ => None,
        };
        Failure { message: e.to_string(), hint: hint.map(str::to_string), kind: Some(e.kind()) }
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::new(message)
    }
}
