//! External data: slices of shared files, and every way out of the folder barred.

use super::*;
use crate::error::ErrorKind;
use crate::proto::onnx::StringStringEntryProto;
use std::fs;

fn tensor(entries: &[(&str, &str)]) -> TensorProto {
    let entry = |&(k, v): &(&str, &str)| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
    TensorProto { external_data: entries.iter().map(entry).collect(), ..Default::default() }
}

/// A folder with a model, data beside and below it, and a secret outside.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let outer = std::env::temp_dir().join(format!("ortx-external-{}-{name}", std::process::id()));
        fs::create_dir_all(outer.join("model/sub")).unwrap();
        fs::write(outer.join("secret"), b"secret").unwrap();
        fs::write(outer.join("model/m.onnx"), b"").unwrap();
        fs::write(outer.join("model/w.bin"), b"0123456789").unwrap();
        fs::write(outer.join("model/sub/v.bin"), b"abc").unwrap();
        Folder(outer)
    }
    fn model(&self) -> PathBuf {
        self.0.join("model/m.onnx")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn slices_of_one_shared_file() {
    let folder = Folder::new("slices");
    for mode in [Mode::Map, Mode::Read] {
        let external = External::beside(&folder.model(), mode).unwrap();
        let load = |entries: &[(&str, &str)]| external.load(&tensor(entries)).unwrap();
        let all = load(&[("location", "w.bin")]);
        assert_eq!(all, "0123456789");
        let part = load(&[("location", "./w.bin"), ("offset", "3"), ("length", "4"), ("checksum", "zz")]);
        assert_eq!(part, "3456");
        assert_eq!(part.as_ptr(), all[3..].as_ptr(), "the file is held once");
        assert_eq!(load(&[("location", "w.bin"), ("offset", "8")]), "89");
        assert_eq!(load(&[("location", "w.bin"), ("offset", "10"), ("length", "0")]), "");
        assert_eq!(load(&[("location", "sub/v.bin")]), "abc");
        assert_eq!(external.maps(&part), mode == Mode::Map);
        assert!(!external.maps(b"0123456789"));
    }
    let external = External::in_folder(&folder.0.join("model"), Mode::Map).unwrap();
    assert_eq!(external.load(&tensor(&[("location", "sub/v.bin"), ("offset", "1")])).unwrap(), "bc");
}

#[test]
fn nothing_outside_is_opened() {
    let folder = Folder::new("outside");
    let external = External::beside(&folder.model(), Mode::Map).unwrap();
    let refused = |entries: &[(&str, &str)], word: &str| {
        let e = external.load(&tensor(entries)).unwrap_err();
        assert!(e.to_string().contains(word), "{entries:?}: {e}");
        e.kind()
    };
    let absolute = folder.0.join("secret");
    refused(&[("location", absolute.to_str().unwrap())], "absolute");
    // An absolute path is refused even where it leads inside.
    refused(&[("location", folder.0.join("model/w.bin").to_str().unwrap())], "absolute");
    refused(&[("location", "../secret")], "'..'");
    refused(&[("location", "sub/../../secret")], "'..'");
    refused(&[("location", "sub/../w.bin")], "'..'");
    refused(&[("location", "")], "empty");
    refused(&[("location", "w.bin\0")], "zero byte");
    refused(&[("location", "sub")], "folder");
    refused(&[("location", ".")], "folder");
    refused(&[], "without a location");
    assert_eq!(refused(&[("location", "none.bin")], "none.bin"), ErrorKind::NotFound);
    assert_eq!(refused(&[("location", "*/_ORT_MEM_ADDR_/*"), ("offset", "4096")], "_MEM_"), ErrorKind::NotFound);
}

#[test]
fn ranges_outside_the_file_are_refused() {
    let folder = Folder::new("ranges");
    let external = External::beside(&folder.model(), Mode::Map).unwrap();
    for (offset, length) in [
        ("11", "0"),
        ("5", "6"),
        ("0", "11"),
        ("18446744073709551615", "1"),
        ("1", "18446744073709551615"),
        ("-1", "1"),
        ("0", "-1"),
        ("0", "1e1"),
        ("", "1"),
        ("18446744073709551616", "1"),
    ] {
        let entries = [("location", "w.bin"), ("offset", offset), ("length", length)];
        let e = external.load(&tensor(&entries)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidModel, "{e}");
    }
    let e = external.load(&tensor(&[("location", "w.bin"), ("offset", "11")])).unwrap_err();
    assert!(e.to_string().contains("10 bytes"), "{e}");
}

#[cfg(unix)]
#[test]
fn links_stay_inside_or_in_the_store_of_the_model() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("links");
    let model = folder.0.join("model");
    symlink(folder.0.join("secret"), model.join("link.bin")).unwrap();
    symlink(&folder.0, model.join("up")).unwrap();
    symlink("w.bin", model.join("inside.bin")).unwrap();
    let external = External::beside(&folder.model(), Mode::Map).unwrap();
    for location in ["link.bin", "up/secret"] {
        let e = external.load(&tensor(&[("location", location)])).unwrap_err();
        assert!(e.to_string().contains("leads out"), "{e}");
    }
    assert_eq!(external.load(&tensor(&[("location", "inside.bin")])).unwrap(), "0123456789");

    // A download cache: the model and its data are links into one store.
    let (store, snapshot) = (folder.0.join("blobs"), folder.0.join("snapshot"));
    fs::create_dir_all(&store).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    fs::write(store.join("1f2e"), b"").unwrap();
    fs::write(store.join("3d4c"), b"weights").unwrap();
    symlink("../blobs/1f2e", snapshot.join("m.onnx")).unwrap();
    symlink("../blobs/3d4c", snapshot.join("m.onnx_data")).unwrap();
    symlink("../secret", snapshot.join("out")).unwrap();
    let external = External::beside(&snapshot.join("m.onnx"), Mode::Map).unwrap();
    assert_eq!(external.load(&tensor(&[("location", "m.onnx_data")])).unwrap(), "weights");
    assert!(external.load(&tensor(&[("location", "out")])).is_err());
}

#[test]
fn models_from_memory_need_a_folder_or_the_bytes() {
    let mut external = External::none();
    let e = external.load(&tensor(&[("location", "w.bin")])).unwrap_err();
    assert!(e.to_string().contains("name the folder"), "{e}");
    external.provide("w.bin", Bytes::from_static(b"given"));
    assert_eq!(external.load(&tensor(&[("location", "w.bin"), ("offset", "2")])).unwrap(), "ven");
    assert!(External::in_folder(Path::new("/no/such/folder"), Mode::Map).is_err());
}
