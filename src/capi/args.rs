//! Macros that take arguments in, in the bodies of exported functions (cbindgen expands none, so signatures are plain).

/// `get!(session)`: the state behind a handle argument. In the body of an exported function, whose documented contract
/// is the promise that `get` asks for.
macro_rules! get {
    ($handle:ident) => {
        // SAFETY: the exported function's contract: NULL or a live handle, not changed meanwhile.
        unsafe { $crate::capi::handle::get($handle, stringify!($handle)) }?
    };
}
/// `get_mut!(value)`: the same, to be changed.
macro_rules! get_mut {
    ($handle:ident) => {
        // SAFETY: the exported function's contract: NULL or a live handle that nobody else uses meanwhile.
        unsafe { $crate::capi::handle::get_mut($handle, stringify!($handle)) }?
    };
}
/// `out!(count)`, `out!(index, usize::MAX)`: an output argument, emptied. Before anything that can fail.
macro_rules! out {
    ($out:ident) => {
        out!($out, Default::default())
    };
    ($out:ident, $empty:expr) => {
        // SAFETY: the exported function's contract: NULL or valid for writing.
        unsafe { $crate::capi::handle::Out::new($out, $empty, stringify!($out)) }?
    };
}
/// `out_ptr!(session)`: an output argument that is a pointer, set to NULL.
macro_rules! out_ptr {
    ($out:ident) => {
        // SAFETY: the exported function's contract: NULL or valid for writing.
        unsafe { $crate::capi::handle::Out::new($out, std::ptr::null_mut(), stringify!($out)) }?
    };
    // Emptied now, complained about later: by whoever has to take something over first.
    ($out:ident, later) => {
        // SAFETY: as above.
        unsafe { $crate::capi::handle::Out::new($out, std::ptr::null_mut(), stringify!($out)) }
    };
    ($out:ident, const) => {
        // SAFETY: as above.
        unsafe { $crate::capi::handle::Out::new($out, std::ptr::null(), stringify!($out)) }?
    };
}
/// `text!(path)`: a string argument.
macro_rules! text {
    ($text:ident) => {
        // SAFETY: the exported function's contract: NULL or a NUL-terminated string.
        unsafe { $crate::capi::handle::text($text, stringify!($text)) }?
    };
}
/// `array!(shape, rank)`: an array argument.
macro_rules! array {
    ($data:ident, $len:expr) => {
        // SAFETY: the exported function's contract: NULL or valid for so many entries.
        unsafe { $crate::capi::handle::array($data, $len, stringify!($data)) }?
    };
}
/// `structure!(options)`: a structure argument that begins with its size.
macro_rules! structure {
    ($given:ident) => {
        // SAFETY: the exported function's contract: NULL or valid for as many bytes as struct_size says.
        unsafe { $crate::capi::handle::structure($given, stringify!($given)) }?
    };
}
pub(super) use {array, get, get_mut, out, out_ptr, structure, text};
