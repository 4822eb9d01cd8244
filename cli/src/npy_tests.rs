//! What numpy wrote (tests/data/make.py) is read as it was meant, and what is written is read back the same.

use super::*;
use crate::npz;
use std::collections::BTreeMap;
use std::path::Path;

fn types() -> BTreeMap<String, Array> {
    npz::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/types.npz"))).unwrap()
}

#[test]
fn every_plain_type_is_read() {
    let all = types();
    for d in DType::ALL {
        let name = match d {
            DType::F32 => "float32",
            DType::F64 => "float64",
            d => d.name(),
        };
        if d.is_narrow_float() || d.is_packed() || matches!(d, DType::String | DType::BF16) {
            continue;
        }
        let t = all[name].clone().into_tensor(None).unwrap();
        assert_eq!((t.dtype(), t.shape()), (d, &[2, 3][..]), "{name}");
        let mut want = Vec::new();
        (0..6).for_each(|i| encode(d, if d == DType::Bool { f64::from(i.min(1)) } else { f64::from(i) }, &mut want));
        assert_eq!(t.bytes(), want, "{name}");
    }
}

#[test]
fn layouts_and_byte_orders_are_undone() {
    let mut all = types();
    let mut take = |n: &str| all.remove(n).unwrap().into_tensor(None).unwrap();
    let t = take("fortran");
    let want: Vec<f32> = (0..24).map(|i| i as f32).collect();
    assert_eq!((t.shape(), t.as_slice::<f32>().unwrap()), (&[2, 3, 4][..], &want[..]));
    assert_eq!(take("big").as_slice::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let t = take("big_complex");
    let want: Vec<u8> = (0..6).flat_map(|i| [i as f32, 2.0 * i as f32]).flat_map(f32::to_le_bytes).collect();
    assert_eq!((t.dtype(), t.bytes()), (DType::C64, &want[..]));
    let t = take("scalar");
    assert_eq!((t.shape(), t.as_slice::<f32>().unwrap()), (&[][..], &[3.5][..]));
    assert_eq!(take("empty").shape(), [0, 4]);
    assert_eq!(take("a/b.c").as_slice::<i64>().unwrap(), [1, 2]);
}

#[test]
fn strings_are_read() {
    let mut all = types();
    let mut take = |n: &str| all.remove(n).unwrap().into_tensor(None).unwrap();
    assert_eq!(take("text").as_strings().unwrap(), ["ab", "\u{fc}\u{4e16}", "", "d"]);
    assert_eq!(take("octets").as_strings().unwrap(), ["one", "three"]);
}

#[test]
fn types_that_numpy_has_not_follow_the_model() {
    let mut all = types();
    let mut take = |n: &str, d| all.remove(n).unwrap().into_tensor(Some(d)).unwrap();
    let t = take("bfloat16", DType::BF16);
    assert_eq!(
        t.as_slice::<half::bf16>().unwrap().iter().map(|x| x.to_f32()).collect::<Vec<_>>(),
        [1.0, 0.0, -1.0, 3.0]
    );
    for (name, d) in [("float8_e4m3fn", DType::F8E4M3FN), ("float8_e5m2", DType::F8E5M2)] {
        let v: Vec<f32> = take(name, d).bytes().iter().map(|&b| decode_narrow(d, b)).collect();
        assert_eq!(v, [1.0, 0.0, -1.0, 3.0], "{name}");
    }
    for (name, d, last) in
        [("int4", DType::I4, -1.0), ("uint4", DType::U4, 15.0), ("float4_e2m1fn", DType::F4E2M1, -1.0)]
    {
        let t = take(name, d);
        let mut v = [0.0; 4];
        unpack_bits(d, t.bytes(), 4, |i, b| v[i] = decode_narrow(d, b));
        assert_eq!((t.bytes().len(), v), (2, [1.0, 0.0, last, 3.0]), "{name}");
    }
    let e = types().remove("bfloat16").unwrap().into_tensor(Some(DType::F32)).unwrap_err();
    assert!(e.contains("raw") && e.contains("float"), "{e}");
    let e = types().remove("uint8").unwrap().into_tensor(Some(DType::I2)).unwrap_err();
    assert!(e.contains("element 2 does not fit int2"), "{e}");
}

#[test]
fn what_is_written_is_read_back() {
    for d in DType::ALL {
        let t = match d {
            DType::String => Tensor::from_strings(&[3], vec!["a".into(), String::new(), "\u{4e16}bc".into()]).unwrap(),
            d => {
                let n = d.byte_len(8).unwrap();
                let bytes: Vec<u8> = (0..n).map(|i| if d == DType::Bool { 1 } else { (i * 37 + 5) as u8 }).collect();
                Tensor::from_bytes(d, &[4, 2], bytes.into()).unwrap()
            }
        };
        let file = write(&t).unwrap();
        let header = u16::from_le_bytes([file[8], file[9]]) as usize + 10;
        assert!(header.is_multiple_of(64), "{d}");
        let back = read(&file).unwrap().into_tensor(Some(d)).unwrap();
        assert_eq!((back.dtype(), back.shape(), back.bytes()), (d, t.shape(), t.bytes()), "{d}");
        assert_eq!(back.as_strings().ok(), t.as_strings().ok());
    }
    let t = Tensor::scalar(2.5f64).unwrap();
    assert_eq!(read(&write(&t).unwrap()).unwrap().into_tensor(None).unwrap().shape().len(), 0);
}

#[test]
fn what_is_no_array_is_told_so() {
    let objects = npz::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/objects.npz")));
    assert!(objects.unwrap_err().message().contains("Python objects"));
    let good = write(&Tensor::from_slice(&[4], &[1f32, 2.0, 3.0, 4.0]).unwrap()).unwrap();
    assert!(read(b"PK\x03\x04").unwrap_err().contains("no .npy"));
    for n in 0..good.len() {
        assert!(read(&good[..n]).is_err(), "{n} bytes");
    }
    let with = |descr: &str, shape: &str| {
        let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut f = b"\x93NUMPY\x01\x00".to_vec();
        f.extend_from_slice(&(header.len() as u16).to_le_bytes());
        f.extend_from_slice(header.as_bytes());
        f.extend_from_slice(&[0; 64]);
        read(&f)
    };
    assert!(with("'<f4'", "(4,)").is_ok());
    assert!(with("'<f4'", "(4,").is_err());
    assert!(with("'<f4'", "(4000000000, 4000000000, 4000000000)").unwrap_err().contains("too large"));
    assert!(with("'<f4'", "(-1,)").unwrap_err().contains("size"));
    assert!(with("'<f16'", "(1,)").unwrap_err().contains("<f16"));
    assert!(with("'<M8[ns]'", "(1,)").is_err());
    assert!(with("[('a', '<f4')]", "(1,)").unwrap_err().contains("structured"));
    assert!(with("'<U99999999999999999999'", "(1,)").is_err());
    assert!(with("'<U4611686018427387904'", "(1,)").is_err());
}
