//! Optimised models in files, through the C ABI.

use super::*;
use ortx::capi::optimize::ortx_model_optimize;
use std::ffi::CString;
use std::path::{Path, PathBuf};

fn path(p: &Path) -> CString {
    CString::new(p.to_str().unwrap()).unwrap()
}

/// A file's model, on one input.
fn answer(file: &Path) -> Vec<f32> {
    let mut s = null_mut();
    // SAFETY: texts and pointers that live here.
    ok(unsafe { ortx_session_create_from_file(null(), path(file).as_ptr(), null(), &mut s) });
    let x = floats(&[1, 1, 8, 8], &[0.5; 64]);
    let mut y = null_mut();
    // SAFETY: live handles; the data is the tensor's, as long as that lives.
    unsafe {
        ok(ortx_session_run(s, null(), null(), [x.cast_const()].as_ptr(), 1, null(), &mut y, 1));
        let (mut data, mut bytes) = (null(), 0);
        ok(ortx_tensor_data(y, &mut data));
        ok(ortx_tensor_byte_size(y, &mut bytes));
        let got = std::slice::from_raw_parts(data.cast::<f32>(), bytes / 4).to_vec();
        ortx_value_destroy(x);
        ortx_value_destroy(y);
        ortx_session_destroy(s);
        got
    }
}

#[test]
fn optimised_files_open_as_any_model_from_any_thread() {
    let folder = std::env::temp_dir().join(format!("ortx-capi-optimize-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let model = PathBuf::from("models/digits.onnx");
    let want = answer(&model);
    let (onnx, compiled) = (folder.join("digits.onnx"), folder.join("digits.ortx"));
    let write = |to: &Path| {
        // SAFETY: texts that live here.
        ok(unsafe { ortx_model_optimize(null(), path(&model).as_ptr(), null(), path(to).as_ptr()) });
    };
    // All at once: each file is whole whenever it is there.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                write(&compiled);
                assert_eq!(answer(&compiled), want);
                write(&onnx);
                assert_eq!(answer(&onnx), want);
            });
        }
    });
    std::fs::write(&compiled, b"something else").unwrap();
    // SAFETY: as above.
    let status = unsafe { ortx_model_optimize(null(), path(&model).as_ptr(), null(), path(&compiled).as_ptr()) };
    fails(status, ORTX_ERROR_INVALID_MODEL, &["digits.ortx", "no compiled model"]);
    let settings = [(c"rebuild", c"1")].map(|(k, v)| ortx_setting { key: k.as_ptr(), value: v.as_ptr() });
    // SAFETY: zeros are the defaults.
    let mut options: ortx_session_options = unsafe { std::mem::zeroed() };
    options.struct_size = size_of::<ortx_session_options>();
    (options.settings, options.setting_count) = (settings.as_ptr(), 1);
    // SAFETY: as above.
    ok(unsafe { ortx_model_optimize(null(), path(&model).as_ptr(), &options, path(&compiled).as_ptr()) });
    assert_eq!(answer(&compiled), want);
    // SAFETY: as above.
    let status = unsafe { ortx_model_optimize(null(), c"/no/such/model".as_ptr(), null(), path(&onnx).as_ptr()) };
    fails(status, ORTX_ERROR_NOT_FOUND, &["/no/such/model"]);
    options.struct_size = 4;
    // SAFETY: as above.
    let status = unsafe { ortx_model_optimize(null(), path(&model).as_ptr(), &options, path(&onnx).as_ptr()) };
    fails(status, ORTX_ERROR_INVALID_ARGUMENT, &["struct_size"]);
    std::fs::remove_dir_all(folder).unwrap();
}
