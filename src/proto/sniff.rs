//! Names what a file is when it is not a model, so that the error can say what to do.

/// What `bytes` seem to be instead of an ONNX model.
pub(super) fn what(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(512)];
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|h| h.starts_with(magic));
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let says = |word: &[u8]| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
    Some(if says(b"version https://git-lfs") {
        "this is a Git LFS pointer, not the model: run `git lfs pull`"
    } else if says(b"<!doctype html") || says(b"<html") {
        "this is a web page, not a model: the download gave a page of the site instead of the file"
    } else if says(b"<?xml") || says(b"<error") {
        "this is XML, not a model (perhaps a server's error message saved as a file)"
    } else if at(0, b"PK\x03\x04") {
        "this is a zip archive (PyTorch's .pt, Keras' .keras or a packed download): unpack or export it to ONNX"
    } else if at(0, b"\x1f\x8b")
        || at(0, b"\x28\xb5\x2f\xfd")
        || at(0, b"BZh")
        || at(0, b"\xfd7zXZ")
        || at(0, b"7z\xbc\xaf")
    {
        "this is a compressed file: unpack it first"
    } else if at(257, b"ustar") {
        "this is a tar archive: unpack it first"
    } else if at(4, b"TFL3") {
        "this is a TensorFlow Lite model: convert it to ONNX"
    } else if at(4, b"ORTM") {
        "this is a model in ONNX Runtime's own .ort format: use the .onnx file that it was made from"
    } else if at(0, b"GGUF") {
        "this is a GGUF model: export it to ONNX"
    } else if at(0, b"\x89HDF") {
        "this is an HDF5 file (Keras' .h5): export it to ONNX"
    } else if at(0, b"\x80\x02") || at(0, b"\x80\x03") || at(0, b"\x80\x04") || at(0, b"\x80\x05") {
        "this is a Python pickle (PyTorch's older .pt, or scikit-learn's): export it to ONNX"
    } else if at(8, b"{\"") {
        "this is a safetensors file: it holds weights only, export the model to ONNX"
    } else if at(0, b"\x93NUMPY") {
        "this is a NumPy array, not a model"
    } else if at(0, b"\x7fELF") || at(0, b"MZ") {
        "this is a program or library, not a model"
    } else if says(b"ir_version") || says(b"graph {") || says(b"<ir_version") || says(b"producer_name") {
        "this is a model as text: save it in the binary format (onnx.save)"
    } else if says(b"{") {
        "this is JSON, not a model"
    } else if head.len() >= 16 && head.iter().all(|&b| b >= 0x20 && b != 0x7f || b"\t\r\n".contains(&b)) {
        "this is text, not a model"
    } else if head.len() >= 8 && head.iter().all(|&b| b == 0) {
        "the file begins with zeros only: its download or copy was not finished"
    } else {
        return None;
    })
}

#[cfg(test)]
mod tests {
    use super::what;

    #[test]
    fn common_mistakes_are_named() {
        let is = |bytes: &[u8], word: &str| {
            let said = what(bytes).unwrap_or_default();
            assert!(said.contains(word), "{:?}: {said}", String::from_utf8_lossy(bytes));
        };
        is(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull");
        is(b"\n<!DOCTYPE html><html lang=\"en\">", "web page");
        is(b"<HTML><body>404</body>", "web page");
        is(b"PK\x03\x04\x14\x00\x00\x00", "zip");
        is(b"\x1f\x8b\x08\x00", "compressed");
        is(b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite");
        is(b"\x80\x02\x8a\x0al\xfc\x9c", "pickle");
        is(b"\x48\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\"", "safetensors");
        is(b"ir_version: 8\ngraph {", "as text");
        is(b"Not found, or you lack the permission to see it.", "text");
        is("\u{feff}<!doctype html>".as_bytes(), "web page");
        is(&[0; 64], "zeros");
        assert_eq!(what(b""), None);
        assert_eq!(what(b"\x08\x08\x12\x07pytorch"), None);
    }
}
