//! Element types, shapes, tensors and views.
