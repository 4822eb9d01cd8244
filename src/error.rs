//! The error of every layer: a kind (the C status code), a message, and the chain of places it came through.

use std::fmt;

/// `Result` with ortx's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a class; the numbers are the C API's status codes and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(i32)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A caller's argument is wrong: a null pointer, a wrong dtype, rank, name or count.
    #[error("invalid argument")]
    InvalidArgument = 1,
    /// The model file is damaged or breaks the ONNX specification.
    #[error("invalid model")]
    InvalidModel = 2,
    /// The model is fine, but something in it is not supported here.
    #[error("unsupported")]
    Unsupported = 3,
    /// A file, name, or device does not exist.
    #[error("not found")]
    NotFound = 4,
    /// The operating system refused a read, a write, or a mapping.
    #[error("i/o error")]
    Io = 5,
    /// Memory ran out, or a memory limit was reached.
    #[error("out of memory")]
    OutOfMemory = 6,
    /// The values met while running make the operation impossible (an index out of range, a division by zero).
    #[error("run failed")]
    Run = 7,
    /// The run was cancelled, or its deadline passed.
    #[error("cancelled")]
    Cancelled = 8,
    /// A device or its driver failed.
    #[error("device error")]
    Device = 9,
    /// A fault of ortx itself: please report it.
    #[error("internal error")]
    Internal = 10,
}

/// An error with the chain of contexts that it passed, innermost first.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    context: Vec<String>,
}

impl Error {
    /// A new error without context.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), context: Vec::new() }))
    }
    /// Adds the place this error is passing through.
    pub fn context(mut self, place: impl Into<String>) -> Self {
        self.0.context.push(place.into());
        self
    }
    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    /// The message without its contexts.
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// The places the error passed, innermost first.
    pub fn contexts(&self) -> &[String] {
        &self.0.context
    }
}

impl fmt::Display for Error {
    /// Outermost place first, then the message: `model x.onnx: node 'conv1' (Conv): message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.0.context.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.kind)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
        Error::new(kind, e.to_string())
    }
}

/// Adds context to the error of a `Result`.
pub trait Context<T> {
    /// Adds the place `f` names if this is an error.
    fn context(self, f: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, f: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.into().context(f()))
    }
}

/// `err!(Kind, "format", ...)`: makes an [`Error`].
#[macro_export]
#[doc(hidden)]
macro_rules! err {
    ($kind:ident, $($arg:tt)+) => { $crate::error::Error::new($crate::error::ErrorKind::$kind, format!($($arg)+)) };
}

/// `bail!(Kind, "format", ...)`: returns an [`Error`].
#[macro_export]
#[doc(hidden)]
macro_rules! bail {
    ($kind:ident, $($arg:tt)+) => { return Err($crate::err!($kind, $($arg)+)) };
}

/// `ensure!(condition, Kind, "format", ...)`: returns an [`Error`] unless the condition holds.
#[macro_export]
#[doc(hidden)]
macro_rules! ensure {
    ($cond:expr, $kind:ident, $($arg:tt)+) => { if !$cond { $crate::bail!($kind, $($arg)+) } };
}
