//! Indices as a model gives them: of either type, negative ones counted from the end, none of them trusted.

use crate::error::{Error, ErrorKind};

/// The type of an index array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum IndexType {
    I32,
    I64,
}

/// An index outside its axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadIndex {
    /// Which element of the index array.
    pub position: usize,
    /// What it says.
    pub index: i64,
    /// The length of the axis.
    pub limit: usize,
}

impl From<BadIndex> for Error {
    fn from(b: BadIndex) -> Error {
        let BadIndex { position, index, limit } = b;
        Error::new(
            ErrorKind::Run,
            format!("index {index} (element {position} of the indices) is outside an axis of length {limit}"),
        )
    }
}

/// Index `position` of an array, as a place on an axis of length `limit`.
/// # Safety
/// `at` is an array of `kind` with an element at `position`.
#[inline(always)]
pub(super) unsafe fn read(kind: IndexType, at: *const u8, position: usize, limit: usize) -> Result<usize, BadIndex> {
    // SAFETY: the caller's contract.
    let index = unsafe {
        match kind {
            IndexType::I32 => i64::from(*at.cast::<i32>().add(position)),
            IndexType::I64 => *at.cast::<i64>().add(position),
        }
    };
    // Axis lengths fit an i64, so that neither sum overflows where it counts.
    let place = if index < 0 { index.wrapping_add(limit as i64) } else { index };
    if place < 0 || place >= limit as i64 {
        return Err(BadIndex { position, index, limit });
    }
    Ok(place as usize)
}

/// Copies one element or slice of `bytes` bytes.
/// # Safety
/// Both are valid for `bytes` bytes and do not overlap.
#[inline(always)]
pub(super) unsafe fn copy_block(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        match bytes {
            1 => *to = *from,
            2 => to.cast::<u16>().write_unaligned(from.cast::<u16>().read_unaligned()),
            4 => to.cast::<u32>().write_unaligned(from.cast::<u32>().read_unaligned()),
            8 => to.cast::<u64>().write_unaligned(from.cast::<u64>().read_unaligned()),
            16 => to.cast::<u128>().write_unaligned(from.cast::<u128>().read_unaligned()),
            _ => std::ptr::copy_nonoverlapping(from, to, bytes),
        }
    }
}
